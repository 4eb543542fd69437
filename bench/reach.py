"""Ways to a peer that is not simply there, measured beside direct TCP: `python -m bench reach`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from . import reach_nat, reach_relay
from .sides import BenchError

__all__ = ["add_to", "main"]


def add_to(cases: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the case `reach` to the benchmark's command."""
    reach = cases.add_parser("reach", help="relays, punched and TURN paths beside direct TCP")
    reach.add_argument("--only", choices=["relays", "routers"], help="one half")
    reach.add_argument("--rounds", type=int, default=5)
    reach.add_argument("--messages", type=int, default=5_000, help="of each round")
    reach.add_argument("--json", type=Path, metavar="FILE")


def main(options: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON where that is wanted."""
    with tempfile.TemporaryDirectory(prefix="musignet-bench-") as folder:
        try:
            samples = {}
            for half, measure in (("relays", reach_relay.measure), ("routers", reach_nat.measure)):
                if options.only in (None, half):
                    samples |= measure(
                        Path(folder), options.rounds, options.messages, lambda text: print(text, file=sys.stderr)
                    )
        except BenchError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
    for path, measures in samples.items():
        for name, values in measures.items():
            print(f"{path:24} {name:16} median {statistics.median(values):10,.2f}   least {min(values):10,.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"samples": samples}, indent=1) + "\n")
    return 0
