"""Our own accept loop, and the lobby behind it, with a budget of slots, file descriptors and time.

asyncio's accept loop takes everything the kernel offers, makes a link of it at once, and out of descriptors calls its
error handler tens of thousands of times a second. Ours takes a few at a time; they say something before anything is
made for them, and are served when there is time. Without descriptors the least welcome gives its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable
from time import thread_time
from typing import Final, Protocol

from ...errors import AuthenticationError, NetworkError, Timeout, TransportError
from ...limits import Limits
from ...text import safe
from .base import Sink
from .lobby import CLEAN, FAILED, KNOWN, Lobby
from .slots import Slots, neighbourhood, prefix

if sys.platform != "win32":
    import resource

__all__ = ["Listener", "Stream", "take_little_ahead"]

_LOW_WATER: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNLIMITED: Final = 2**31
_EXHAUSTED_PAUSE_S: Final = 0.5
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_HINT: Final = "limits.py names the bound; raise it with limits=Limits(...)"

_Found = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Stream:
    """A connection that was accepted. A `Guest` of the lobby."""

    __slots__ = ("address", "neighbourhood", "prefix", "rank", "said", "since", "socket")

    def __init__(self, accepted: socket.socket, address: str, since: float) -> None:
        self.socket = accepted
        self.address = address
        self.since = since
        self.prefix = prefix(address)
        self.neighbourhood = neighbourhood(address)
        self.rank = CLEAN
        self.said = b""
        """Its first bytes."""


class Owner(Protocol):
    """Whose listener it is."""

    limits: Limits
    slots: Slots
    sink: Sink
    loop: asyncio.AbstractEventLoop


class Listener:
    """Of one bound socket, from its construction until `close`. Raises OSError when it cannot be bound.

    Args:
        serve:       called with a stream that has spoken, to begin a handshake: its socket is the callee's now.
        first_bytes: what it says before that.
        peeks:       whether those bytes stay in the socket; else they are in `said`.
    """

    def __init__(
        self, owner: Owner, found: _Found, serve: Callable[[Stream], None], *, first_bytes: int, peeks: bool
    ) -> None:
        self._owner = owner
        self._begin = serve
        self._first_bytes = first_bytes
        self._flags = socket.MSG_PEEK if peeks else 0
        self._loop = owner.loop
        self._limits = owner.limits
        self.lobby: Lobby[Stream] = Lobby(owner.limits)
        self._descriptors_max = _descriptors_max(owner.limits.descriptors_share)
        self._accepting = False
        self._serving: asyncio.Handle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._socket = _bind(found, owner.limits)
        self.port: int = self._socket.getsockname()[1]
        self._accept_more()

    def close(self) -> None:
        """Listen no more. Who waits is sent away."""
        self._accept_less()
        self._socket.close()
        for timer in (self._serving, self._resting, self._sweeping, self._again):
            if timer is not None:
                timer.cancel()
        while (stream := self.lobby.make_room()) is not None:
            self._let_go(stream)

    # --- the kernel ---------------------------------------------------------------------------------------------------

    def _accept_more(self) -> None:
        self._accepting = True
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept_less(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._socket.fileno())

    def _accept(self) -> None:
        """Take what the kernel offers, a few at a time. What is not taken waits in the kernel's backlog."""
        now = self._loop.time()
        for _ in range(self._limits.accepts_per_wake):
            try:
                accepted, address = self._socket.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED and not self._make_room():
                    self._exhausted(error)
                return
            if self._take(accepted, f"{address[0]}:{address[1]}", now):
                return  # a half-open link that had to go gives its descriptor back in the next turn

    def _take(self, accepted: socket.socket, address: str, now: float) -> bool:
        """Let it into the lobby, or turn it away. Returns whether descriptors are short."""
        slots, lobby = self._owner.slots, self.lobby
        stream = Stream(accepted, address, now)
        short = accepted.fileno() >= self._descriptors_max
        why = slots.why_not(address, now, lobby.of(stream.prefix))
        if short and not why and not self._make_room():
            why = "file descriptors are running out"
        if why:
            accepted.close()
            self._owner.sink.refused(address, TransportError(why, hint=_HINT))
            return short
        accepted.setblocking(False)
        if slots.doors.is_known(stream.prefix, now):
            stream.rank = KNOWN
        elif slots.doors.has_failed(stream.prefix, now):
            stream.rank = FAILED
        gone = lobby.enter(stream)
        if gone is not None:
            self._evict(gone, "a newer connection took its place in the lobby")
        self._listen_to(stream)
        return short

    def _make_room(self) -> bool:
        """Have the least welcome here, else a half-open link, give its descriptor back. Returns whether one did."""
        stream = self.lobby.make_room()
        if stream is None:
            return self._owner.slots.make_room("a newer connection took its file descriptor")
        self._evict(stream, "a newer connection took its file descriptor")
        return True

    def _exhausted(self, error: OSError) -> None:
        """Out of descriptors: links that are up go on; new ones wait."""
        self._accept_less()
        self._owner.sink.refused("", TransportError(f"cannot accept: {error.strerror}", hint="raise RLIMIT_NOFILE"))
        self._again = self._loop.call_later(_EXHAUSTED_PAUSE_S, self._accept_more)

    # --- the lobby ----------------------------------------------------------------------------------------------------

    def _listen_to(self, stream: Stream) -> None:
        """Most have spoken by the time they are accepted; for the others a reader waits."""
        if self._hear(stream):
            return
        self._loop.add_reader(stream.socket.fileno(), self._heard, stream)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._limits.act_one_timeout_s, self._sweep)

    def _heard(self, stream: Stream) -> None:
        descriptor = stream.socket.fileno()
        if self._hear(stream):
            self._loop.remove_reader(descriptor)

    def _hear(self, stream: Stream) -> bool:
        """Take what it has said. Returns whether nothing more is waited for."""
        most = self._first_bytes - len(stream.said)
        try:
            said = stream.socket.recv(most, self._flags)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            said = b""
        if not said:
            self.lobby.leave(stream)
            stream.socket.close()
            self._refuse(stream, AuthenticationError(f"{safe(stream.address)} closed during the handshake"))
            return True
        stream.said += said
        if len(said) < most:
            return False
        self.lobby.spoke(stream)
        self._serve_soon()
        return True

    def _serve_soon(self) -> None:
        if self._serving is None:
            self._serving = self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Begin handshakes while there is time; the known do not wait for it."""
        now, doors = self._loop.time(), self._owner.slots.doors
        self._serving = None
        while (stream := self.lobby.next(known_only=doors.rest_s(now) > 0)) is not None:
            began = thread_time()
            self._begin(stream)
            doors.worked(thread_time() - began, now)
        if self.lobby.anybody_spoke and self._resting is None:
            self._resting = self._loop.call_later(doors.rest_s(now), self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._serve_soon()

    def _sweep(self) -> None:
        """Send away who has been silent for too long."""
        now = self._loop.time()
        while (stream := self.lobby.overdue(now)) is not None:
            within_s = self._limits.act_one_timeout_s
            self._let_go(stream)
            self._refuse(stream, Timeout(f"no handshake with {safe(stream.address)} within {within_s:g} s"))
        deadline = self.lobby.next_deadline()
        self._sweeping = None if deadline is None else self._loop.call_at(deadline, self._sweep)

    def _evict(self, stream: Stream, why: str) -> None:
        """It did nothing wrong."""
        self._let_go(stream)
        self._owner.sink.refused(stream.address, TransportError(why))

    def _refuse(self, stream: Stream, error: NetworkError) -> None:
        self._owner.slots.failed(stream.address, self._loop.time())
        self._owner.sink.refused(stream.address, error)

    def _let_go(self, stream: Stream) -> None:
        self._loop.remove_reader(stream.socket.fileno())
        stream.socket.close()


def take_little_ahead(stream: socket.socket, size: int) -> None:
    """Have the kernel take no more than this ahead of the network, where it can be told: behind what it has taken an
    urgent message waits. What is accepted has it from its listener."""
    if _LOW_WATER is not None:
        stream.setsockopt(socket.IPPROTO_TCP, _LOW_WATER, size)


def _bind(found: _Found, limits: Limits) -> socket.socket:
    family, kind, proto, _, address = found
    listener = socket.socket(family, kind, proto)
    try:
        listener.setblocking(False)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        take_little_ahead(listener, limits.write_chunk_bytes)
        listener.bind(address)
        listener.listen(limits.listen_backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _descriptors_max(share: float) -> int:
    if sys.platform == "win32":  # no such limit to ask for
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else int(soft * share)
