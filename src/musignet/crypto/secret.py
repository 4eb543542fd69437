"""Where secret bytes live: memory that is not swapped, dumped or inherited, and is wiped (THREATS.md "Secret hygiene").

A `SecretBuffer` is a private anonymous mapping of its own. What the platform cannot do is listed in
`DEGRADED`, so that a program can say so once at its start; nothing here fails for it.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from functools import cache
from typing import Final, NoReturn

from . import backend

__all__ = ["DEGRADED", "SecretBuffer"]

DEGRADED: Final[set[str]] = set()
"""Protections this platform refused so far, in words: `mlock`, `MADV_DONTDUMP`, `MADV_WIPEONFORK`."""

_MADV_WIPEONFORK: Final = 18  # Linux 4.14; the mmap module does not name it
_MADVICE: Final = (("MADV_DONTDUMP", getattr(mmap, "MADV_DONTDUMP", None)), ("MADV_WIPEONFORK", _MADV_WIPEONFORK))


def _map(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows has neither the flags nor madvise
        DEGRADED.update(name for name, _ in _MADVICE)
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for name, advice in _MADVICE:
        try:
            memory.madvise(advice if advice is not None else -1)
        except (OSError, ValueError):
            DEGRADED.add(name)
    return memory


@cache
def _libc() -> ctypes.CDLL:
    """Opened once: it costs more than making a nonce."""
    return ctypes.CDLL(None)


def _lock(address: int, size: int) -> None:
    try:
        locked = _libc().mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)) == 0
    except (OSError, AttributeError, TypeError):
        locked = False
    if not locked:
        DEGRADED.add("mlock")


def _wipe(memory: mmap.mmap) -> None:
    memory[:] = bytes(len(memory))


class SecretBuffer:
    """`size` zero bytes of protected memory. It cannot be copied, pickled, printed or compared.

    In a forked child the bytes are zero. They are wiped by `wipe`, when the object dies, and at exit.
    """

    __slots__ = ("__weakref__", "_finalizer", "size", "view")

    def __init__(self, size: int) -> None:
        memory = _map(max(size, mmap.PAGESIZE))
        self.size = size
        self.view = backend.view(memory)
        _lock(backend.address(self.view), len(memory))
        self._finalizer = weakref.finalize(self, _wipe, memory)

    def load(self, secret: bytes | bytearray | memoryview, offset: int = 0) -> None:
        """Copy `secret` to `offset`. The caller's own copy is the caller's to wipe.

        Raises: ValueError when it does not fit, or the buffer was wiped: nothing would wipe it a second time.
        """
        if not self._finalizer.alive:
            raise ValueError("this SecretBuffer was wiped; make another one")
        if offset < 0 or offset + len(secret) > self.size:
            raise ValueError(f"secret: {len(secret)} bytes at {offset} do not fit in {self.size}")
        backend.secret_load(self.view + offset, secret)

    def wipe(self) -> None:
        """Zero the bytes now. Doing it twice is harmless."""
        self._finalizer()

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a secret cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return "<SecretBuffer>"
