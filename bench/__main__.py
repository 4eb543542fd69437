"""`python -m bench CASE`: measure, print a table of ratios, and write JSON.

python -m bench link --json link.json           measure the link, side by side with its floors and two peers
python -m bench cli                             whole processes of the command line
python -m bench ceremony --json ceremony.json   measure signing, beside libsecp256k1 alone
python -m bench outbox                          durable sends, and a start with 10,000 kept messages
python -m bench reach                           punched and TURN paths beside direct TCP
python -m bench discovery                       from a start to a link on one network, also under a flood of beacons
python -m bench flood --json flood.json         eleven floods of one node, a minute each
python -m bench report link.json ceremony.json flood.json  print bench/RESULTS.md
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from . import cli, discovery, outbox, reach
from .ceremony.plan import CASES
from .ceremony.run import run as measure_ceremony
from .flood.plan import FLOODS
from .flood.run import run as measure_floods
from .flood.table import table as flood_table
from .link.plan import CONTESTANTS, MEASURES
from .link.run import run as measure_link
from .report import markdown, table
from .sides import BenchError


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure MuSigNet beside its floors.")
    cases = parser.add_subparsers(dest="case", required=True)
    link = cases.add_parser("link", help="round trip, throughput, broadcast, dialling, memory, import")
    link.add_argument("--only", action="append", choices=[m.name for m in MEASURES], help="one measure; repeatable")
    link.add_argument("--against", action="append", choices=CONTESTANTS, help="one contestant; repeatable")
    link.add_argument("--profile", type=Path, metavar="DIR", help="cProfile every child into DIR; the figures suffer")
    cli.add_to(cases)
    outbox.add_to(cases)
    reach.add_to(cases)
    discovery.add_to(cases)
    ceremony = cases.add_parser("ceremony", help="whole signing sessions: mesh, star, loopback, bytes, memory")
    ceremony.add_argument("--only", action="append", choices=[c.name for c in CASES], help="one measure; repeatable")
    for case in (link, ceremony):
        case.add_argument("--rounds", type=int, help="alternating rounds (5; with --quick 2)")
        case.add_argument("--quick", action="store_true", help="small samples: shows that it runs, not how fast")
    flood = cases.add_parser("flood", help="floods of one node, each from processes of their own")
    flood.add_argument("--only", action="append", choices=[one.name for one in FLOODS], help="one flood; repeatable")
    flood.add_argument("--seconds", type=float, default=60.0, help="how long each lasts (60)")
    for case in (link, ceremony, flood):
        case.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    report = cases.add_parser("report", help="RESULTS.md from the JSON files of `link`, `ceremony` and `flood`")
    report.add_argument("files", type=Path, nargs="+", metavar="FILE")
    report.add_argument("--preface", type=Path, default=Path(__file__).with_name("PREFACE.md"), metavar="FILE",
                        help="what a person wrote about the figures (bench/PREFACE.md)")  # fmt: skip
    return parser


def _said(argv: list[str]) -> str:
    """Return the command without the paths of the one who ran it."""
    options = iter(argv)
    kept = []
    for option in options:
        if option in ("--json", "--profile"):
            next(options)
        elif not option.startswith(("--json=", "--profile=")):
            kept.append(option)
    return " ".join(["python -m bench", *kept])


def _measure(options: argparse.Namespace, command: str) -> dict[str, Any]:
    if options.case == "flood":
        return measure_floods(only=options.only, seconds=options.seconds, command=command)
    rounds = options.rounds or (2 if options.quick else 5)
    if options.case == "ceremony":
        return measure_ceremony(only=options.only, rounds=rounds, quick=options.quick, command=command)
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    return measure_link(
        only=options.only,
        against=options.against,
        rounds=rounds,
        quick=options.quick,
        profile=options.profile,
        command=command,
    )


def main(argv: list[str]) -> int:
    options = _arguments().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the children are closed on the way out
    if options.case == "cli":
        return cli.main(options)
    if options.case == "outbox":
        return outbox.main(options)
    if options.case == "reach":
        return reach.main(options)
    if options.case == "discovery":
        return discovery.main(options)
    if options.case == "report":
        preface = options.preface.read_text() if options.preface.exists() else ""
        print(markdown([json.loads(one.read_text()) for one in options.files], preface), end="")
        return 0
    try:
        results = _measure(options, _said(argv))
    except BenchError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the children are gone", file=sys.stderr)
        return 130
    print((flood_table if options.case == "flood" else table)(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
