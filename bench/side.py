"""One child process: pins itself, then does what its standard input says, one JSON line at a time.

python -m bench.side MODULE CLASS CPUS FOLDER [PROFILE_DIR]
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import uvloop


async def _serve(side: Any) -> None:
    """Call the named method of `side` for each line, until standard input ends. What it raises ends the process."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        verb, arguments = json.loads(line)
        sys.stdout.write(json.dumps(await getattr(side, verb)(**arguments)) + "\n")
        sys.stdout.flush()


def main(name: str, role: str, cpus: str, folder: str, profile: str | None = None) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Imported only now: a library may count its CPUs when it is imported.
    module = importlib.import_module(name)
    side = getattr(module, role)(Path(folder))
    loop = uvloop.new_event_loop()
    recorder = cProfile.Profile() if profile else None
    if recorder is not None:
        recorder.enable()
    loop.run_until_complete(_serve(side))
    if recorder is not None:
        recorder.disable()
        recorder.dump_stats(Path(str(profile)) / f"{name.rpartition('.')[2]}-{role.lower()}.prof")
    sys.stdout.flush()
    os._exit(0)  # thousands of links need no goodbye


if __name__ == "__main__":
    main(*sys.argv[1:])
