"""Every state of a ceremony and every way out of it, as data. A missing key is the refusal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from ..errors import LocalError

__all__ = ["IN_ATTEMPT", "TRANSITIONS", "Event", "Role", "State", "step"]


class Role(Enum):
    """Whose table it is."""

    SIGNER = "signer"
    """A session at a node: proposer or cosigner, they do the same."""
    APPROVAL = "approval"
    """A session at a keyholder."""
    ATTEMPT = "attempt"
    """One attempt at a keyholder: the life of its secret nonces."""


class State(Enum):
    """Where a session, an approval or an attempt is."""

    # signer
    REVIEWING = "reviewing"
    APPROVING = "approving"
    ROUND_1 = "round 1"
    ROUND_2 = "round 2"
    COMPLETED = "completed"
    FAILED = "failed"
    # approval
    STORING = "storing"
    APPROVED = "approved"
    WIPED = "wiped"
    # attempt
    STORING_NONCES = "storing nonces"
    NONCES_OUT = "nonces out"
    BURNING = "burning"
    STORING_PARTIALS = "storing partials"
    SIGNED = "signed"
    GONE = "gone"


class Event(Enum):
    """What happened."""

    WE_APPROVED = "we approved"
    ATTEMPT_BEGAN = "attempt began"
    NONCES_COMPLETE = "nonces complete"
    ATTEMPT_FAILED = "attempt failed"
    COMPLETED = "completed"
    FAILED = "failed"
    STORED = "stored"
    WIPED = "wiped"
    PARTIALS_ASKED = "partials asked"
    LOST = "lost"


_ENDS: Final = {Event.COMPLETED: State.COMPLETED, Event.FAILED: State.FAILED}
_FAILED: Final = {Event.ATTEMPT_FAILED: State.APPROVING}
"""Somebody is away, or another collector's turn comes: everybody has approved, and the next attempt is awaited."""
_LOST: Final = {Event.LOST: State.GONE}

TRANSITIONS: Final[Mapping[Role, Mapping[State, Mapping[Event, State]]]] = {
    Role.SIGNER: {
        State.REVIEWING: {Event.WE_APPROVED: State.APPROVING, **_ENDS},
        State.APPROVING: {Event.ATTEMPT_BEGAN: State.ROUND_1, **_ENDS},
        State.ROUND_1: {Event.ATTEMPT_BEGAN: State.ROUND_1, Event.NONCES_COMPLETE: State.ROUND_2, **_FAILED, **_ENDS},
        State.ROUND_2: {Event.ATTEMPT_BEGAN: State.ROUND_1, **_FAILED, **_ENDS},
        # Others may have finished it after we gave up: what is signed is signed.
        State.FAILED: {Event.COMPLETED: State.COMPLETED},
        State.COMPLETED: {},
    },
    Role.APPROVAL: {
        State.STORING: {Event.STORED: State.APPROVED, Event.WIPED: State.WIPED},
        State.APPROVED: {Event.WIPED: State.WIPED},
        State.WIPED: {},
    },
    Role.ATTEMPT: {
        State.STORING_NONCES: {Event.STORED: State.NONCES_OUT, **_LOST},
        State.NONCES_OUT: {Event.PARTIALS_ASKED: State.BURNING, **_LOST},
        State.BURNING: {Event.STORED: State.STORING_PARTIALS, **_LOST},
        State.STORING_PARTIALS: {Event.STORED: State.SIGNED, **_LOST},
        State.SIGNED: {},
        State.GONE: {},
    },
}


IN_ATTEMPT: Final = frozenset((State.ROUND_1, State.ROUND_2))
"""The states of a session in which an attempt is under way."""


def step(role: Role, state: State, event: Event) -> State:
    """Return the state that follows. Raises LocalError when this event has no place in this state."""
    following = TRANSITIONS[role][state].get(event)
    if following is None:
        raise LocalError(f"{event.value!r} has no place here", expected=f"{role.value} not {state.value}")
    return following
