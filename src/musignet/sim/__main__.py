"""Run seeds of the simulator: `python -m musignet.sim --seeds 2000`, or one of them in full: `--seed 17 --show`.

There are four kinds of world: `links`, nodes that talk; `letters`, nodes that leave each other letters at relays which
harm them; `ceremony`, nodes that sign, with disks and liars; and `absences`, nodes that sign, at times away, with
such relays.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from . import absences, ceremony, letters, world
from .invariants import Broken
from .tape import Tape


class _Kind(NamedTuple):
    """A kind of world, and what must really happen in a run of many seeds for it to prove anything."""

    run: Callable[[int, bool], Tape]
    must_happen: Sequence[str]


WORLDS: Final[Mapping[str, _Kind]] = {
    "links": _Kind(
        lambda seed, show: world.run(seed, show=show),
        ("crash", "break", "partition", "hole", "duplicate", "MessageArrived", "PeerDown", "ConnectFailed"),
    ),
    "letters": _Kind(lambda seed, show: letters.run(seed, show=show), letters.MUST_HAPPEN),
    "absences": _Kind(lambda seed, show: absences.run(seed, show=show), absences.MUST_HAPPEN),
    "ceremony": _Kind(lambda seed, show: ceremony.run(seed, show=show), ceremony.MUST_HAPPEN),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m musignet.sim", description=__doc__)
    parser.add_argument("--world", choices=[*WORLDS], help="this kind of world; without it all")
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds of each to run (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--show", action="store_true", help="print every step")
    args = parser.parse_args(arguments)
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.seeds)
    kinds = [args.world] if args.world else [*WORLDS]
    return max(_run(kind, seeds, show=args.show, one=args.seed is not None) for kind in kinds)


def _run(kind: str, seeds: Sequence[int], *, show: bool, one: bool) -> int:
    counts: Counter[str] = Counter()
    pause_s = 1 if sys.stderr.isatty() else 15
    begun = last = time.monotonic()
    for done, seed in enumerate(seeds, 1):
        try:
            counts += WORLDS[kind].run(seed, show).counts
        except Broken as error:
            replay = f"python -m musignet.sim --world {kind} --seed {seed} --show"
            print(f"BROKEN {error}\nreplay: {replay}", file=sys.stderr)
            return 1
        if time.monotonic() - last > pause_s:
            last = time.monotonic()
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{kind}: {done}/{len(seeds)} seeds", file=sys.stderr, end=end, flush=True)
    print(f"{kind}: {len(seeds)} seeds in {time.monotonic() - begun:.1f} s, every invariant held")
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    missing = [name for name in WORLDS[kind].must_happen if not counts[name]]
    if missing and not one:
        print(f"EMPTY: this never happened, so it proves nothing: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
