"""Cosigners who lie, for the demo and nothing else: what their session would honestly say, changed on its way out."""

from __future__ import annotations

from typing import Final

from ..signing.coordinator import Sessions, SessionsInput
from ..signing.effects import SendToGroup, SessionEffect
from ..signing.records import (
    AggregateNonces,
    AttemptBegin,
    AttemptFailed,
    PartialSignature,
    PublicNonce,
    decode_untrusted,
    encode,
)
from ..wire.messages import MessageType

__all__ = ["LIARS"]


class _BadPartial(Sessions):
    """Sends a partial signature that does not verify. The collector of a star sends none: it gives up its turn.

    It has a good one, too, and everybody else's: the completion that it could make of them it keeps to itself.
    """

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        effects = [_spoilt(effect) for effect in super().handle(event, now)]
        done = MessageType.TRANSACTION_COMPLETE
        return [one for one in effects if not (isinstance(one, SendToGroup) and one.kind == done)]


class _Equivocator(Sessions):
    """Sends two different nonces for one attempt, or as the collector of a star two aggregates of them."""

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        out: list[SessionEffect] = []
        for effect in super().handle(event, now):
            out += [effect, *_other_nonces(effect)]
        return out


class _Silent(Sessions):
    """Approves, and then says nothing more."""

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        said = (MessageType.TRANSACTION_PROPOSAL, MessageType.APPROVAL)
        effects = super().handle(event, now)
        return [effect for effect in effects if not isinstance(effect, SendToGroup) or effect.kind in said]


LIARS: Final[dict[str, type[Sessions]]] = {"bad-partial": _BadPartial, "equivocate": _Equivocator, "silent": _Silent}


def _spoilt(effect: SessionEffect) -> SessionEffect:
    if not isinstance(effect, SendToGroup):
        return effect
    if effect.kind == MessageType.PARTIAL_SIGNATURE:
        read = decode_untrusted(effect.kind, effect.payload)
        assert isinstance(read, PartialSignature)
        partials = read.partials[:-1] + bytes((read.partials[-1] ^ 1,))
        changed = PartialSignature(read.attempt, read.epoch, read.transcript, partials)
        return SendToGroup(effect.kind, effect.session, encode(changed), effect.to)
    if effect.kind == MessageType.ATTEMPT_BEGIN:
        begin = decode_untrusted(effect.kind, effect.payload)
        assert isinstance(begin, AttemptBegin)
        failed = encode(AttemptFailed(begin.attempt, (), ()))
        return SendToGroup(MessageType.ATTEMPT_FAILED, effect.session, failed, effect.to)
    return effect


def _other_nonces(effect: SessionEffect) -> list[SessionEffect]:
    """Return the same message again with its first two points exchanged: just as valid, and another one."""
    if not isinstance(effect, SendToGroup):
        return []
    read = None
    if effect.kind in (MessageType.PUBLIC_NONCE, MessageType.AGGREGATE_NONCE):
        read = decode_untrusted(effect.kind, effect.payload)
    if isinstance(read, PublicNonce):
        changed = encode(PublicNonce(read.attempt, read.epoch, _exchanged(read.nonces)))
    elif isinstance(read, AggregateNonces):
        changed = encode(AggregateNonces(read.attempt, read.epoch, read.root, _exchanged(read.aggregates)))
    else:
        return []
    return [SendToGroup(effect.kind, effect.session, changed, effect.to)]


def _exchanged(points: bytes) -> bytes:
    return points[33:66] + points[:33] + points[66:]
