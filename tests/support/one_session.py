"""One session of carol's, fed by hand."""

from __future__ import annotations

from collections.abc import Sequence

from musignet.signing.coordinator import Sessions
from musignet.signing.effects import Outcome, Publish, Save, Saved, SendToGroup
from musignet.signing.records import Approval, PublicNonce
from musignet.signing.verbs import Approved
from musignet.wire.messages import MessageType

from .ceremony import NOW, identity, proposal, say, signing_group

__all__ = ["EPOCH", "ID", "POINTS", "PROPOSAL", "One", "kinds", "nonce", "verbs"]

EPOCH = b"epoch 1."
POINTS = (identity("x").pubkey + identity("y").pubkey) * 2
PROPOSAL = proposal()
ID = PROPOSAL.session


class One:
    """Carol's session, fed by hand."""

    def __init__(self) -> None:
        self.sessions = Sessions(signing_group(), identity("carol").pubkey)
        self.do(PROPOSAL)
        self.digest = self.sessions[ID].digest

    def do(self, event: object, now: float = NOW) -> list[object]:
        queue, out = list(self.sessions.handle(event, now)), []
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, Save):
                queue += self.sessions.handle(Saved(ID, effect.number), now)
            else:
                out.append(effect)
        return out

    def hear(self, name: str, kind: MessageType, payload: object, seq: int = 0) -> list[object]:
        return self.do(say(name, kind, ID, payload, seq=seq))

    def approved(self) -> One:
        self.do(Approved(ID, self.digest))
        for name in ("alice", "bob"):
            self.hear(name, MessageType.APPROVAL, Approval(self.digest))
        return self

    @property
    def outcome(self) -> Outcome | None:
        return self.sessions[ID].outcome


def kinds(effects: Sequence[object]) -> list[MessageType]:
    return [one.kind for one in effects if isinstance(one, SendToGroup)]


def verbs(effects: Sequence[object]) -> list[type]:
    return [type(one) for one in effects if not isinstance(one, SendToGroup | Publish)]


def nonce(attempt: int = 1, epoch: bytes = EPOCH) -> PublicNonce:
    return PublicNonce(attempt, epoch, POINTS)
