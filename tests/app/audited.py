"""`here.py` with a record of everything that Python does on the network, from the first import on.

The hook is told by the interpreter itself. It cannot be taken off, and it sees what any library does through `socket`:
with asyncio's own loop that is everything, where uvloop and libraries in other languages go past it. Those are seen
from outside, by `test_only_tor.py` in a network namespace.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

_PLACES = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"))
_LOOKUPS = frozenset(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"))


def hear(event: str, args: tuple[Any, ...]) -> None:
    """Say who is contacted, where is listened, and which names are asked for: a line at once, from whatever thread."""
    if event in _PLACES and isinstance(args[1], tuple):  # else it is a path: the API's Unix socket
        os.write(1, f"AUDIT {event} {args[1][0]}:{args[1][1]}\n".encode())
    elif event in _LOOKUPS:
        os.write(1, f"AUDIT {event} {args[0]}\n".encode())


if __name__ == "__main__":
    sys.addaudithook(hear)
    runpy.run_path(str(Path(__file__).with_name("here.py")), run_name="__main__")
