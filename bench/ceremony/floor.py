"""What a ceremony costs libsecp256k1 alone: raw calls, everything parsed once, no Python object around anything.

The same work as the ceremony it stands beside, by one process for everybody: each signer makes and checks its own
part, and believes nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from time import process_time
from typing import Any, NamedTuple

from musignet.crypto import backend
from musignet.crypto import musig_backend as raw
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey

from .wallet import identity, signing_key

__all__ = ["Cost", "mesh", "star", "verify_us"]

_MESSAGES_EACH = 2
_TWEAK = sha256(b"tweak").digest()  # a small number would be multiplied faster than a hash
_EXTRA = bytes(32)


class Cost(NamedTuple):
    """Seconds for everybody together."""

    prepare: float
    """Key aggregation and tweaks: before anything is signed."""
    rounds: float
    """From the nonces to a signature that everybody has verified."""

    @property
    def whole(self) -> float:
        return self.prepare + self.rounds


class _Signer:
    """One signer's key pair, and what it holds of one ceremony."""

    def __init__(self, number: int) -> None:
        self.key = signing_key(number)
        self.identity: Identity = identity(number)
        self.sender = PublicKey(self.identity.pubkey)
        self.keyaggs: Sequence[Any] = ()
        self.xonlys: Sequence[Any] = ()
        self.nonces: list[tuple[Any, Any, bytes]] = []
        self.sessions: list[Any] = []
        self.points: list[list[Any]] = []
        self.partials: list[bytes] = []


def _tweaked(points: Sequence[Any], inputs: int) -> tuple[list[Any], list[Any]]:
    """Return the aggregate of each input, and the key its signature verifies under: BIP-328 and BIP-341."""
    branch = raw.keyagg_tweak(raw.keyagg(points), _TWEAK, xonly=False)
    keyaggs = []
    for at in range(inputs):
        child = raw.keyagg_tweak(branch, sha256(at.to_bytes(2, "big")).digest(), xonly=False)
        keyaggs.append(raw.keyagg_tweak(child, _TWEAK, xonly=True))
    return keyaggs, [backend.xonly_of(raw.keyagg_point(one)) for one in keyaggs]


def _make_nonces(signer: _Signer, messages: Sequence[bytes], memory: Any) -> None:
    for at, message in enumerate(messages):
        random = backend.secret_copy(sha256(message).digest())
        secret = raw.secret_nonce_at(memory, at * raw.SECRET_NONCE_BYTES)
        nonce = raw.nonce_gen(
            secret, random, signer.key.secret.view, signer.key.public.point, message, signer.keyaggs[at], _EXTRA
        )
        signer.nonces.append((secret, nonce, raw.nonce_serialize(nonce)))


def _sign(signer: _Signer) -> None:
    """Sign every input, and check each of our own partial signatures, as BIP-327 recommends."""
    point, pair = signer.key.public.point, signer.key.pair
    for at, session in enumerate(signer.sessions):
        secret, nonce, _ = signer.nonces[at]
        partial = raw.partial_sign(secret, pair, signer.keyaggs[at], session)
        if not raw.partial_verify(partial, nonce, point, signer.keyaggs[at], session):
            raise ValueError("our own partial signature does not verify")
        signer.partials.append(raw.partial_serialize(partial))


def _exchange(signers: Sequence[_Signer], receivers: Sequence[Sequence[_Signer]]) -> None:
    """Each signer signs one message; each of its receivers verifies it."""
    for number, (signer, others) in enumerate(zip(signers, receivers, strict=True)):
        digest = number.to_bytes(32, "big")
        signature = signer.identity.sign(digest)
        for _ in others:
            if not signer.sender.verify(digest, signature):
                raise ValueError("a signature does not verify")


def _begin(count: int, inputs: int) -> tuple[list[_Signer], list[bytes], list[Any]]:
    signers = [_Signer(number) for number in range(count)]
    messages = [bytes(30) + (at + 1).to_bytes(2, "big") for at in range(inputs)]
    memories = [backend.ffi.new(f"unsigned char[{raw.SECRET_NONCE_BYTES * inputs}]") for _ in signers]
    return signers, messages, memories


def mesh(count: int, inputs: int, *, each: bool) -> Cost:
    """Everybody collects. `each`: everybody verifies every partial signature, not only the sum."""
    signers, messages, memories = _begin(count, inputs)
    points = [signer.key.public.point for signer in signers]
    begun = process_time()
    for signer in signers:
        signer.keyaggs, signer.xonlys = _tweaked(points, inputs)
    prepared = process_time()
    for signer, memory in zip(signers, memories, strict=True):
        _make_nonces(signer, messages, memory)
    others = [[one for one in signers if one is not signer] for signer in signers]
    _exchange(signers, others)
    for signer in signers:
        _collect_nonces(signer, signers, messages)
        _sign(signer)
    _exchange(signers, others)
    for signer in signers:
        _collect_partials(signer, signers, messages, each)
    return Cost(prepared - begun, process_time() - prepared)


def _collect_nonces(signer: _Signer, signers: Sequence[_Signer], messages: Sequence[bytes]) -> None:
    for at, message in enumerate(messages):
        nonces = [one.nonces[at][1] if one is signer else raw.nonce_parse(one.nonces[at][2]) for one in signers]
        signer.points.append(nonces)
        signer.sessions.append(raw.session(raw.nonce_agg(nonces), message, signer.keyaggs[at]))


def _collect_partials(signer: _Signer, signers: Sequence[_Signer], messages: Sequence[bytes], each: bool) -> None:
    for at, message in enumerate(messages):
        partials = [raw.partial_parse(one.partials[at]) for one in signers]
        if each:
            for one, partial, nonce in zip(signers, partials, signer.points[at], strict=True):
                point = one.key.public.point
                if one is not signer and not raw.partial_verify(
                    partial, nonce, point, signer.keyaggs[at], signer.sessions[at]
                ):
                    raise ValueError("a partial signature does not verify")
        signature = raw.partial_agg(signer.sessions[at], partials)
        if not backend.schnorr_verify(signer.xonlys[at], message, signature):
            raise ValueError("the signature does not verify")


def star(count: int, inputs: int, *, each: bool) -> Cost:
    """The first signer collects for all; one key aggregation for everybody."""
    signers, messages, memories = _begin(count, inputs)
    collector = signers[0]
    begun = process_time()
    keyaggs, xonlys = _tweaked([signer.key.public.point for signer in signers], inputs)
    for signer in signers:
        signer.keyaggs, signer.xonlys = keyaggs, xonlys
    prepared = process_time()
    for signer, memory in zip(signers, memories, strict=True):
        _make_nonces(signer, messages, memory)
    audience = [signers[1:], *([collector] for _ in signers[1:])]
    _exchange(signers, audience)  # to the collector, and what it answers
    _collect_nonces(collector, signers, messages)
    aggregates = [raw.aggregate_serialize(raw.nonce_agg(nonces)) for nonces in collector.points]
    for signer in signers[1:]:
        signer.sessions = [
            raw.session(raw.aggregate_parse(one), message, keyagg)
            for one, message, keyagg in zip(aggregates, messages, keyaggs, strict=True)
        ]
    for signer in signers:
        _sign(signer)
    _exchange(signers, audience)
    _collect_partials(collector, signers, messages, each)
    signatures = [
        raw.partial_agg(session, [raw.partial_parse(one.partials[at]) for one in signers])
        for at, session in enumerate(collector.sessions)
    ]
    for _ in signers[1:]:
        for xonly, message, signature in zip(xonlys, messages, signatures, strict=True):
            if not backend.schnorr_verify(xonly, message, signature):
                raise ValueError("the signature does not verify")
    return Cost(prepared - begun, process_time() - prepared)


def verify_us() -> float:
    """Return what one BIP-340 verification costs here, in microseconds: the V of TARGETS. Least of several runs."""
    signer, calls = _Signer(0), 64
    signed = [(digest, signer.identity.sign(digest)) for digest in (bytes((at,)) * 32 for at in range(calls))]
    best = float("inf")
    for _ in range(10):
        begun = process_time()
        for digest, signature in signed:
            signer.sender.verify(digest, signature)
        best = min(best, (process_time() - begun) * 1e6 / calls)
    return best
