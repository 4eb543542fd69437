"""The cost of the cryptography alone: no sockets, no loop. Microseconds per operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from musignet.crypto import backend
from musignet.crypto.aead import Aead
from musignet.wire.noise import Initiator, Responder

from .common import DIGEST, identity

_NONCE = bytes(12)
_MESSAGES = 256
_CALLS = 64
_NEAR, _FAR = identity("near"), identity("far")


class Near:
    """Has no far side."""

    def __init__(self, folder: Path) -> None:
        # Many different messages: one and the same is verified faster, because the processor learns its branches.
        digests = [DIGEST(bytes((number,))) for number in range(_MESSAGES)]
        signed = itertools.cycle([(digest, _NEAR.sign(digest)) for digest in digests])
        unsigned, public = itertools.cycle(digests), _NEAR.public
        aead, small, large = Aead(bytes(32)), bytes(300), bytes(16 * 1024)
        self._cases: dict[str, Callable[[], object]] = {
            "sign": lambda: _NEAR.sign(next(unsigned)),
            "verify": lambda: public.verify(*next(signed)),
            "seal_open_300": lambda: aead.decrypt(_NONCE, aead.encrypt(_NONCE, small, None), None),
            "seal_open_16k": lambda: aead.decrypt(_NONCE, aead.encrypt(_NONCE, large, None), None),
            "handshake_curve": _curve_of_a_handshake,
            "handshake": _handshake,
        }

    async def costs(self, seconds: float) -> dict[str, float]:
        return {name: _time(case, seconds / len(self._cases)) for name, case in self._cases.items()}


def _time(case: Callable[[], object], seconds: float) -> float:
    """Return the least time of one call over several runs of many."""
    best, stop = float("inf"), perf_counter() + seconds
    while perf_counter() < stop:
        begun = perf_counter()
        for _ in range(_CALLS):
            case()
        best = min(best, (perf_counter() - begun) * 1e6 / _CALLS)
    return best


def _curve_of_a_handshake() -> None:
    """What Noise XK costs on the curve for both sides: two new keys, six shared secrets, three points parsed."""
    ephemerals = [backend.secret_copy(bytes((number,)) * 32) for number in (1, 2)]
    points = [backend.point_serialize(backend.point_of_secret(secret)) for secret in ephemerals]
    for point in (*points, _NEAR.pubkey):
        parsed = backend.point_parse(point)
        for secret in ephemerals:
            backend.ecdh(secret, parsed)


def _handshake() -> None:
    """All three acts, both sides, as the channel runs them."""
    initiator = Initiator(_NEAR, _FAR.public, bytes((1,)) * 32)
    responder = Responder(_FAR, bytes((2,)) * 32)
    last, _ = initiator.act_three(responder.act_two(initiator.act_one()))
    responder.finish(last)
