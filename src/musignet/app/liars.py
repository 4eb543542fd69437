"""Cosigners who lie, for the demo and nothing else: what their session would honestly say, changed on its way out."""

from __future__ import annotations

from typing import Final

from ..signing.coordinator import Sessions, SessionsInput
from ..signing.effects import SendToGroup, SessionEffect
from ..signing.records import PartialSignature, PublicNonce, decode_untrusted, encode
from ..wire.messages import MessageType

__all__ = ["LIARS"]


class _BadPartial(Sessions):
    """Sends a partial signature that does not verify."""

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        return [_spoilt(effect) for effect in super().handle(event, now)]


class _Equivocator(Sessions):
    """Sends two different nonces for one attempt."""

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        out: list[SessionEffect] = []
        for effect in super().handle(event, now):
            out += [effect, *_other_nonces(effect)]
        return out


class _Silent(Sessions):
    """Approves, and then says nothing more."""

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        rounds = (MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE, MessageType.TRANSACTION_COMPLETE)
        effects = super().handle(event, now)
        return [effect for effect in effects if not (isinstance(effect, SendToGroup) and effect.kind in rounds)]


LIARS: Final[dict[str, type[Sessions]]] = {"bad-partial": _BadPartial, "equivocate": _Equivocator, "silent": _Silent}


def _spoilt(effect: SessionEffect) -> SessionEffect:
    if not isinstance(effect, SendToGroup) or effect.kind != MessageType.PARTIAL_SIGNATURE:
        return effect
    read = decode_untrusted(effect.kind, effect.payload)
    assert isinstance(read, PartialSignature)
    partials = read.partials[:-1] + bytes((read.partials[-1] ^ 1,))
    changed = PartialSignature(read.attempt, read.epoch, read.transcript, partials)
    return SendToGroup(effect.kind, effect.session, encode(changed))


def _other_nonces(effect: SessionEffect) -> list[SessionEffect]:
    """Return the same message again with its two points exchanged: just as valid, and another one."""
    if not isinstance(effect, SendToGroup) or effect.kind != MessageType.PUBLIC_NONCE:
        return []
    read = decode_untrusted(effect.kind, effect.payload)
    assert isinstance(read, PublicNonce)
    first, second, rest = read.nonces[:33], read.nonces[33:66], read.nonces[66:]
    changed = PublicNonce(read.attempt, read.epoch, second + first + rest)
    return [SendToGroup(effect.kind, effect.session, encode(changed))]
