"""The founding of one group at one member: from a name and some peers to a group that everybody has pinned. Pure.

    proposer                 each member
    FOUNDING_PROPOSAL ---->  a person is asked
                             a person joins: FOUNDING_KEY to everybody (key, origin, proof of possession)
                             all keys are here: everybody computes the group, FOUNDING_VIEW(id, hash of each key)
                             all views agree: a person compares fingerprint and first address with the others
                             a person confirms: FOUNDING_VIEW(..., confirmed)
                             all confirmed: founded

Nothing is believed that a member did not sign themselves: keys come from whoever holds them, never through the
proposer, and every `FOUNDING_KEY` carries the signed proposal that it answers. Until all have confirmed, nothing is
pinned. It lives in memory; who restarts hears from the others again when they are back on the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct

from ..bitcoin.bip32 import Xpub
from ..bitcoin.descriptor import Descriptor, KeyExpression
from ..bitcoin.group import Group
from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, InvalidMessage, LocalError, NetworkError, Timeout
from ..text import safe, who
from ..wire.codec import Record
from ..wire.messages import MessageType
from .founding_records import (
    EndCode,
    FoundingEnd,
    FoundingKey,
    FoundingView,
    Proposal,
    Shape,
    key_hash,
    possession_digest,
    possession_statement,
)
from .group import Member, SigningGroup
from .groupfile import GroupFile

__all__ = [
    "AskToConfirm",
    "AskToJoin",
    "Founded",
    "Founding",
    "FoundingEffect",
    "FoundingEnded",
    "Step",
    "Tell",
    "descriptor_of",
    "group_of",
]


class Step(Enum):
    """Where a founding stands at this member."""

    ASKED = "waiting for your yes to take part"
    COLLECTING = "waiting for the others' keys"
    COMPARING = "comparing with the others' devices"
    CONFIRMING = "waiting for you to confirm the group"
    CONFIRMED = "waiting for the others to confirm"
    FOUNDED = "founded"
    ENDED = "ended"


class Tell(Struct, frozen=True):
    """Send this to these members, with the founding's id as the session."""

    founding: bytes
    to: tuple[bytes, ...]
    kind: MessageType
    record: Record


class AskToJoin(Struct, frozen=True):
    """Ask a person whether to take part, which shows an extended key of ours to the members."""

    founding: bytes


class AskToConfirm(Struct, frozen=True):
    """Everybody's device computed the same group: ask a person to compare it with theirs."""

    founding: bytes
    group: GroupFile


class Founded(Struct, frozen=True):
    """Everybody confirmed: pin it."""

    founding: bytes
    group: GroupFile


class FoundingEnded(Struct, frozen=True):
    """It came to nothing, and this is why. Nothing was pinned."""

    founding: bytes
    error: NetworkError


FoundingEffect: TypeAlias = Tell | AskToJoin | AskToConfirm | Founded | FoundingEnded


def descriptor_of(keys: Iterable[str], shape: Shape) -> Descriptor:
    """Return the descriptor of keys with their origins, the same whatever their order. Raises InvalidMessage."""
    texts = sorted(keys, key=lambda text: text.rpartition("]")[2])
    if shape is Shape.AGGREGATE:
        return Descriptor.parse_untrusted(f"tr(musig({','.join(texts)})/<0;1>/*)")
    return Descriptor.parse_untrusted(f"tr(musig({','.join(f'{text}/<0;1>/*' for text in texts)}))")


def group_of(proposal: Proposal, keys: Mapping[bytes, str]) -> SigningGroup:
    """Return the group that members' keys (identity to key text) make.

    Raises: InvalidMessage for a key given twice, also as its negation, or one that is an identity; RuleBroken for
            one of another network.
    """
    parsed = {identity: _expression(text) for identity, text in keys.items()}
    points = {one.point[1:] for one in parsed.values()}
    if len(points) != len(parsed):
        raise InvalidMessage("two members have the same key", hint="is one seed on two devices?")
    wallet = Group(descriptor_of(keys.values(), proposal.shape), proposal.chain)
    return SigningGroup(wallet, [Member(identity, str(xpub)) for identity, xpub in parsed.items()])


def _expression(text: str) -> Xpub:
    """Return the extended key in a member's key text. Raises InvalidMessage unless it has an origin and no path."""
    parsed = KeyExpression.parse_untrusted(text)
    if not isinstance(parsed.key, Xpub) or parsed.origin is None or parsed.path or str(parsed) != text:
        raise InvalidMessage("not a member's key", expected="an extended key with its origin", got=safe(text, 40))
    return parsed.key


class Founding:
    """See the module.

    Args:
        own:    our identity key.
        labels: how our person calls each member, ourselves too.
    """

    def __init__(self, own: bytes, proposal: Proposal, labels: Mapping[bytes, str]) -> None:
        self.proposal: Final = proposal
        self.id: Final = proposal.id
        self.labels: Final = dict(labels)
        self.error: NetworkError | None = None
        self.group: GroupFile | None = None
        self._own = own
        self._keys: dict[bytes, FoundingKey] = {}
        self._views: dict[bytes, FoundingView] = {}
        self._others: Final = tuple(one for one in proposal.members if one != own)

    @property
    def step(self) -> Step:
        """Derived from what was said, so that it cannot disagree with it."""
        if self.error is not None:
            return Step.ENDED
        if self._own not in self._keys:
            return Step.ASKED
        if self.group is None:
            return Step.COLLECTING
        if len(self._views) < len(self.proposal.members):
            return Step.COMPARING
        if not self._views[self._own].confirmed:
            return Step.CONFIRMING
        return Step.FOUNDED if all(view.confirmed for view in self._views.values()) else Step.CONFIRMED

    @property
    def has_our_key(self) -> bool:
        """Whether our key went out for it."""
        return self._own in self._keys

    @property
    def over(self) -> bool:
        """Whether it is founded, or never will be."""
        return self.step in (Step.FOUNDED, Step.ENDED)

    @property
    def waiting_for(self) -> tuple[bytes, ...]:
        """The other members who have not said what the current step needs."""
        step = self.step
        if step in (Step.ASKED, Step.COLLECTING):
            return tuple(one for one in self._others if one not in self._keys)
        if step is Step.COMPARING:
            return tuple(one for one in self._others if one not in self._views)
        said = (one for one in self._others if one in self._views and self._views[one].confirmed)
        confirmed = frozenset(said)
        return () if self.over else tuple(one for one in self._others if one not in confirmed)

    def statement(self, key: str) -> bytes:
        """Return what the proof of possession of our key must state."""
        return possession_statement(self.id, self._own, key)

    # --- our own side -------------------------------------------------------------------------------------------------

    def begin(self) -> list[FoundingEffect]:
        """It is here: tell everybody when it is ours, and ask our person."""
        ours = [self._tell(MessageType.FOUNDING_PROPOSAL, self.proposal.signed)] if self._is_proposer else []
        return [*ours, AskToJoin(self.id)]

    def join(self, key: str, possession: bytes) -> list[FoundingEffect]:
        """Our person takes part, with this key and the proof that we hold it.

        Raises: LocalError when it is too late for that, InvalidMessage or AuthenticationError for a key that is none.
        """
        if self.step is not Step.ASKED:
            raise LocalError("this group does not ask for a key now", got=self.step.value)
        record = FoundingKey(self.proposal.signed, key, possession)
        self._check_key(self._own, record)
        self._keys[self._own] = record
        return [self._tell(MessageType.FOUNDING_KEY, record), *self._go_on(Step.ASKED)]

    def confirm(self) -> list[FoundingEffect]:
        """Our person compared the group and says yes. Raises LocalError before there is one to confirm."""
        if self.step is not Step.CONFIRMING:
            raise LocalError("there is nothing to confirm", expected=Step.CONFIRMING.value, got=self.step.value)
        mine = self._views[self._own]
        self._views[self._own] = view = FoundingView(mine.group, mine.keys, True)
        return [self._tell(MessageType.FOUNDING_VIEW, view), *self._founded()]

    def leave(self, code: EndCode = EndCode.DECLINED) -> list[FoundingEffect]:
        """Our person says no. Nothing happens once it is founded."""
        if self.over:
            return []
        return self._fail(LocalError("you said no to this group"), code, "a person said no")

    # --- the others ---------------------------------------------------------------------------------------------------

    def heard(self, sender: bytes, record: Record) -> list[FoundingEffect]:
        """A member said this. The caller saw to it that it is about this founding."""
        if self.error is not None or sender not in self._others:
            return []
        if isinstance(record, FoundingKey):
            return self._heard_key(sender, record)
        if isinstance(record, FoundingView):
            return self._heard_view(sender, record)
        if isinstance(record, FoundingEnd) and self.step is not Step.FOUNDED:
            said = f": {safe(record.text, 200)}" if record.text else ""
            return self._end(InvalidMessage(f"{self._name(sender)} does not take part{said}"))
        return []

    def peer_up(self, key: bytes) -> list[FoundingEffect]:
        """A member is on the line again: say everything again, since they may have restarted."""
        if key not in self._others or self.error is not None:
            return []
        out: list[FoundingEffect] = []
        if self._own in self._keys:
            out.append(Tell(self.id, (key,), MessageType.FOUNDING_KEY, self._keys[self._own]))
        elif self._is_proposer:
            out.append(Tell(self.id, (key,), MessageType.FOUNDING_PROPOSAL, self.proposal.signed))
        if self._own in self._views:
            out.append(Tell(self.id, (key,), MessageType.FOUNDING_VIEW, self._views[self._own]))
        return out

    def woken(self, now: float) -> list[FoundingEffect]:
        """Time has passed."""
        if self.over or now < self.proposal.expires_at:
            return []
        names = ", ".join(self._name(one) for one in self.waiting_for)
        late = f"waited for {names}" if names else "waited for you"
        return self._end(Timeout(f"the group {safe(self.proposal.content.name)!r} was not founded in time: {late}"))

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _is_proposer(self) -> bool:
        return self.proposal.proposer == self._own

    def _name(self, key: bytes) -> str:
        return who(self.labels.get(key, ""), key)

    def _tell(self, kind: MessageType, record: Record) -> Tell:
        return Tell(self.id, self._others, kind, record)

    def _heard_key(self, sender: bytes, record: FoundingKey) -> list[FoundingEffect]:
        known = self._keys.get(sender)
        if known is not None:
            if known.key == record.key:
                return []
            return self._mismatch(f"{self._name(sender)} sent two different keys", sender)
        try:
            self._check_key(sender, record)
        except NetworkError as error:
            return self._mismatch(f"{self._name(sender)} sent a key that is none: {error}", sender)
        before = self.step
        self._keys[sender] = record
        return self._go_on(before)

    def _check_key(self, identity: bytes, record: FoundingKey) -> None:
        """Raise unless it is an extended key that its sender holds."""
        point = _expression(record.key).point
        digest = possession_digest(possession_statement(self.id, identity, record.key))
        if not PublicKey(point).verify(digest, record.possession):
            raise AuthenticationError("the proof of possession of this key does not hold")

    def _heard_view(self, sender: bytes, view: FoundingView) -> list[FoundingEffect]:
        known = self._views.get(sender)
        if known is not None and (known.group != view.group or (view.keys and known.keys != view.keys)):
            return self._mismatch(f"{self._name(sender)} computed two different groups", sender)
        if known is not None and known.confirmed >= view.confirmed:
            return []
        before = self.step
        self._views[sender] = view
        return self._go_on(before) if self.group is not None else []

    def _go_on(self, before: Step) -> list[FoundingEffect]:
        """All keys are here, or one more view is."""
        out: list[FoundingEffect] = []
        if self.group is None:
            if len(self._keys) < len(self.proposal.members):
                return []
            try:
                self._compute()
            except NetworkError as error:
                return self._mismatch(f"the keys make no group: {error}", None)
            out.append(self._tell(MessageType.FOUNDING_VIEW, self._views[self._own]))
        for sender in self._others:
            fault = self._difference(sender)
            if fault is not None:
                return [*out, *self._mismatch(fault, sender)]
        if self.step is Step.CONFIRMING is not before and self.group is not None:
            out.append(AskToConfirm(self.id, self.group))
        return [*out, *self._founded()]

    def _compute(self) -> None:
        keys = {identity: record.key for identity, record in self._keys.items()}
        group = group_of(self.proposal, keys)
        hashes = tuple(key_hash(keys[identity]) for identity in self.proposal.members)
        self.group = GroupFile(self.proposal.content.name, group, self.labels)
        self._views[self._own] = FoundingView(group.id, hashes, False)

    def _difference(self, sender: bytes) -> str | None:
        """Return who differs, and how sure we are, where a member's device computed another group than ours."""
        mine, theirs = self._views[self._own], self._views.get(sender)
        if theirs is None or (theirs.group == mine.group and theirs.keys in (mine.keys, ())):
            return None
        name = self._name(sender)
        if len(theirs.keys) == len(mine.keys):
            for identity, ours, other in zip(self.proposal.members, mine.keys, theirs.keys, strict=True):
                if ours != other and identity == sender:
                    return f"{name} uses another key than the one sent to this device"
                if ours != other and identity == self._own:
                    return f"{name} says that this device sent another key than it did"
                if ours != other:
                    return (
                        f"{name} has another key of {self._name(identity)} than this device:"
                        f" {self._name(identity)} sent two, or {name} says so"
                    )
        return f"{name} computed another group from the same keys"

    def _founded(self) -> list[FoundingEffect]:
        if self.step is not Step.FOUNDED or self.group is None:
            return []
        return [Founded(self.id, self.group)]

    def _mismatch(self, text: str, sender: bytes | None) -> list[FoundingEffect]:
        if self.step is Step.FOUNDED:
            return []  # it is pinned; what somebody says afterwards changes nothing
        hint = "do not found this group; speak with each other another way"
        return self._fail(AuthenticationError(text, hint=hint), EndCode.MISMATCH, text)

    def _fail(self, error: NetworkError, code: EndCode, text: str) -> list[FoundingEffect]:
        return [self._tell(MessageType.FOUNDING_END, FoundingEnd(code, safe(text, 200))), *self._end(error)]

    def _end(self, error: NetworkError) -> list[FoundingEffect]:
        self.error = error
        return [FoundingEnded(self.id, error)]
