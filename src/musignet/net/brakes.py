"""Whom the driver does not read from for now, and why."""

from __future__ import annotations

from .transport.base import Connection

__all__ = ["Brakes"]


class Brakes:
    """A link is read from while no reason speaks against it: back-pressure reaches the sender through its socket."""

    def __init__(self, disk_waiting_max_bytes: int) -> None:
        self._disk_waiting_max_bytes = disk_waiting_max_bytes
        self._slow: set[bytes] = set()
        self.disk_behind = False
        self.on = False
        """Whether there is anybody that is not read from."""

    def slow(self, key: bytes, on: bool) -> None:
        """The application has, or has no longer, too many messages of a peer to handle."""
        (self._slow.add if on else self._slow.discard)(key)
        self.on = self.disk_behind or bool(self._slow)

    def disk(self, waiting_bytes: int) -> bool:
        """Hear how much waits for the disk. Returns whether `disk_behind` changed: it ends at half of what began it."""
        most = self._disk_waiting_max_bytes
        behind = waiting_bytes > most // 2 if self.disk_behind else waiting_bytes > most
        changed, self.disk_behind = behind != self.disk_behind, behind
        self.on = behind or bool(self._slow)
        return changed

    def apply(self, connection: Connection) -> None:
        """Read from this link, or do not."""
        wait = self.disk_behind or connection.peer.compressed in self._slow
        (connection.pause_reading if wait else connection.resume_reading)()
