"""Two ends of a channel and the bytes between them."""

from __future__ import annotations

import pytest

from musignet.crypto.keys import Identity
from musignet.errors import NetworkError
from musignet.wire.channel import Established, Event, ReassemblyBudget, SecureChannel
from musignet.wire.noise import PROLOGUE, Initiator, Keys

from .keys import ALICE, BOB, secret

__all__ = ["carry", "connected", "dead", "drain", "frame", "fresh", "raw_peer", "sealed", "wire"]


_WRITES_MAX = 100
"""Each write may take 4 MiB: more than any test sends."""


def fresh(
    alice: Identity = ALICE, bob: Identity = BOB, *, budget: ReassemblyBudget | None = None, prologue: bytes = PROLOGUE
) -> tuple[SecureChannel, SecureChannel]:
    """Return a dialler and a responder between whom nothing has passed. `budget` is the responder's."""
    return (
        SecureChannel.initiator(alice, bob.public, secret("alice's ephemeral"), prologue=prologue),
        SecureChannel.responder(bob, secret("bob's ephemeral"), prologue=prologue, budget=budget),
    )


def connected(
    alice: Identity = ALICE, bob: Identity = BOB, *, budget: ReassemblyBudget | None = None
) -> tuple[SecureChannel, SecureChannel]:
    """Return both ends of an open channel, the dialler first. Their bytes are the same each time."""
    dialler, responder = fresh(alice, bob, budget=budget)
    carry(dialler, responder)
    assert [type(event) for event in carry(responder, dialler)] == [Established]
    assert [type(event) for event in carry(dialler, responder)] == [Established]
    return dialler, responder


def wire(channel: SecureChannel) -> bytes:
    """Return everything a channel has to send."""
    sent = bytearray()
    for _ in range(_WRITES_MAX):
        if not channel.pending:
            return bytes(sent)
        sent += b"".join(channel.data_to_send())
    raise AssertionError("the channel never runs out of bytes to send")


def drain(channel: SecureChannel) -> list[Event]:
    """Return what has arrived."""
    events: list[Event] = []
    while some := channel.next_events():
        events += some
    return events


def carry(source: SecureChannel, target: SecureChannel) -> list[Event]:
    """Move everything that `source` has to send; return what it was for `target`."""
    target.receive_data(wire(source))
    return drain(target)


def dead(channel: SecureChannel) -> NetworkError:
    """Check that a channel fails, stays failed and has nothing to send; return the error."""
    errors = []
    for _ in range(3):
        with pytest.raises(NetworkError) as caught:
            channel.next_events()
        errors.append(caught.value)
    assert errors == errors[:1] * 3
    assert not channel.pending
    assert channel.data_to_send() == []
    return errors[0]


def raw_peer(*, budget: ReassemblyBudget | None = None) -> tuple[SecureChannel, Keys]:
    """Return a responder's open channel and the keys of a dialler that may seal whatever it likes."""
    dialler = Initiator(ALICE, BOB.public, secret("alice's ephemeral"))
    channel = SecureChannel.responder(BOB, secret("bob's ephemeral"), budget=budget)
    channel.receive_data(dialler.act_one())
    assert not channel.next_events()
    act_three, keys = dialler.act_three(wire(channel))
    channel.receive_data(act_three)
    assert isinstance(channel.next_events()[0], Established)
    return channel, keys


def sealed(keys: Keys, *frames: bytes) -> bytes:
    """Return the packets of these frames."""
    return b"".join(b"".join(keys.sending.seal(plain)) for plain in frames)


def frame(kind: int, priority: int, data: bytes = b"", ids: bytes = b"") -> bytes:
    """Return a frame as the docstring of `musignet.wire.channel` draws it."""
    return bytes((kind << 4 | priority, len(ids) // 16)) + ids + data
