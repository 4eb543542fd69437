"""Beacons, 50,000 a second: noise, others' beacons, a member's that are forged, strangers' that are open and valid."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from secrets import token_bytes
from typing import ClassVar, Final

from musignet.crypto.schnorr import PublicKey
from musignet.wire.beacon import Audience, Beacon, announce, seal

from ..ceremony.wallet import CHAIN
from .attacks import Attack, address, member

__all__ = ["Beacons"]

_POOL: Final = 400
_SOURCES: Final = 64
_EPOCH: Final = b"beacons-"
_PORT: Final = 9000
"""What they say they listen on."""


class Beacons(Attack):
    """`port` is the victim's discovery port."""

    per_s: ClassVar[int] = 50_000
    turn_s: ClassVar[float] = 0.01

    async def run(self, most: int | None = None) -> None:
        pool = list(_pool(self._victim))
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            sources = [stack.enter_context(_source(address(self._draw))) for _ in range(_SOURCES)]
            begun, sent = loop.time(), 0
            while most is None or self.count < most:
                due = min(int((loop.time() - begun) * self.per_s) - sent, 2 * int(self.per_s * self.turn_s))
                for _ in range(due):
                    with suppress(OSError):  # the kernel's queue is full: that is what a flood is
                        sources[sent % _SOURCES].sendto(pool[sent % len(pool)], self._at)
                    sent += 1
                self._attacked(due)
                await asyncio.sleep(self.turn_s)


def _source(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((host, 0))
    return made


def _pool(victim: PublicKey) -> Iterator[bytes]:
    now_ms = int(time.time() * 1000)
    pair = Audience.pair(member(0), victim)
    others = Audience(token_bytes(32), [member(0).pubkey])
    for number in range(_POOL // 4):
        stranger = member(-1 - number % 50)
        yield token_bytes(175)
        told = Beacon(member(0).pubkey, _EPOCH, number, now_ms, _PORT)
        yield seal(told, member(0), CHAIN, others, token_bytes(12))
        yield seal(told, stranger, CHAIN, pair, token_bytes(12))  # signed with a key that is not its own
        yield announce(Beacon(stranger.pubkey, _EPOCH, number, now_ms, _PORT, "x"), stranger, CHAIN)
