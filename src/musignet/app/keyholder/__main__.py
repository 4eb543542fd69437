"""The entry: harden this process before anything else is imported, then run it."""

from __future__ import annotations

import sys

from .hardening import harden


def main() -> int:
    """Run the keyholder. Returns the exit code."""
    harden()
    from .process import run  # after it: whatever this imports cannot import a network

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
