"""Run seeds of the simulator: `python -m musignet.sim --seeds 2000`, or one of them in full: `--seed 17 --show`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from .invariants import Broken
from .world import run

_MUST_HAPPEN = ("crash", "break", "partition", "hole", "duplicate", "MessageArrived", "PeerDown", "ConnectFailed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m musignet.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds to run (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--show", action="store_true", help="print every step")
    args = parser.parse_args(arguments)
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.seeds)
    counts: Counter[str] = Counter()
    pause_s = 1 if sys.stderr.isatty() else 15
    begun = last = time.monotonic()
    for done, seed in enumerate(seeds, 1):
        try:
            counts += run(seed, show=args.show).counts
        except Broken as error:
            print(f"BROKEN {error}\nreplay: python -m musignet.sim --seed {seed} --show", file=sys.stderr)
            return 1
        if time.monotonic() - last > pause_s:
            last = time.monotonic()
            print(f"{done}/{len(seeds)} seeds", file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n", flush=True)
    print(f"{len(seeds)} seeds in {time.monotonic() - begun:.1f} s, every invariant held")
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    missing = [name for name in _MUST_HAPPEN if not counts[name]]
    if missing and args.seed is None:
        print(f"EMPTY: this never happened, so it proves nothing: {', '.join(missing)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
