"""Fuzz every place where bytes that others chose come in, guided by the lines that they reach.

    make fuzz SECONDS=600                     # that long for all of them together
    make fuzz ARGS='--door "a PSBT"'          # one of them
    make fuzz ARGS='--door "a PSBT" FILE'     # what the bytes in FILE do there

Each door runs in a process of its own, from what is valid there and what earlier runs found (`build/fuzz`). What raises
anything but a `NetworkError`, takes longer than 5 s, or needs more than 1 GiB is kept there too, and named at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

FOUND = ROOT / "build" / "fuzz"
SLOW_S, MEMORY_MIB = 5, 1024


def corpus(name: str) -> Path:
    """Return where the inputs of a door are kept."""
    folder = FOUND / name.replace(" ", "-").replace("'", "").lower()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fuzz(name: str, seconds: int) -> None:
    """Knock at one door; does not return. Prints what the engine prints."""
    import atheris

    with atheris.instrument_imports(include=["musignet"]):
        from support.doors import DOORS
        from test_doors import knock

    door, folder = DOORS[name], corpus(name)
    for data in door.valid:
        (folder / sha256(data).hexdigest()).write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MIB}", "-verbosity=1"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={folder}/crash-", str(folder)], lambda data: knock(door, data)
    )
    atheris.Fuzz()


def failed(names: list[str], seconds: int) -> Iterator[str]:
    """Fuzz these doors, one after the other; yield those where something was found."""
    for name in names:
        command = [sys.executable, __file__, "--one", "--door", name, "--seconds", str(seconds)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        last = [line for line in run.stderr.splitlines() if "cov:" in line]
        print(f"{name:32} {' '.join(last[-1].split()[:8]) if last else 'no line was reached'}", flush=True)
        if run.returncode:
            print(run.stderr[-2000:])
            yield name


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what takes bytes that others chose.")
    parser.add_argument("--seconds", type=int, default=600, help="for all doors together")
    parser.add_argument("--door", help="one of them alone")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("file", nargs="?", type=Path, help="bytes to knock with once")
    given = parser.parse_args()
    if given.one:
        fuzz(given.door, given.seconds)
    from support.doors import DOORS
    from test_doors import knock

    if given.door is not None and given.door not in DOORS:
        parser.error(f"no door of that name; there are: {', '.join(DOORS)}")
    if given.file is not None:
        print("let in" if knock(DOORS[given.door], given.file.read_bytes()) else "refused")
        return 0
    if find_spec("atheris") is None:
        parser.error(
            "no atheris here: it has wheels for Linux on x86_64 alone, Python below 3.14; make test knocks, too"
        )
    names = [given.door] if given.door else list(DOORS)
    broken = list(failed(names, max(1, given.seconds // len(names))))
    print(f"{len(names)} doors, {'nothing found' if not broken else 'found at: ' + ', '.join(broken)}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
