"""All pairings of one node: the invites that are open, and the keys that are let in for them. Pure.

An invite lives in memory, for minutes, and dies with the node or when its maker stops waiting: an invite that is not
open is refused like one that never was. It is used up once a pairing under it is done; until then a guest who failed
may come again. Several guests may hold one invite; the first who is confirmed has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from msgspec import Struct

from .. import limits
from ..chain import Chain
from ..errors import LocalError
from ..text import name_fault, safe, short_key
from ..wire.codec import Record
from ..wire.invite import Invite
from ..wire.messages import MessageType, PairEnd, PairHello
from .pairing import Paired, PairFault, Pairing, PairingEffect, PairingEnded, Role, Say, Step, hello_proof

__all__ = ["Drop", "Effect", "Pairings"]


class Drop(Struct, frozen=True):
    """Forget this key unless a person confirmed it before: hang up on it, and take it out of the book."""

    key: bytes


Effect: TypeAlias = PairingEffect | Drop


class Pairings:
    """Open invites, and at most one pairing for each key.

    Args:
        own:      our identity key.
        label:    how we call ourselves.
        draw:     n random bytes.
        owner_of: the confirmed key that has a label in our book, or None.
    """

    def __init__(
        self,
        own: bytes,
        label: str,
        chain: Chain,
        *,
        draw: Callable[[int], bytes],
        owner_of: Callable[[str], bytes | None],
    ) -> None:
        self._own, self._label, self._chain = own, label, chain
        self._draw: Final = draw
        self._owner_of: Final = owner_of
        self._invites: dict[bytes, Invite] = {}
        self._pairings: dict[bytes, Pairing] = {}
        self._strangers: dict[bytes, float] = {}

    # --- our own side -------------------------------------------------------------------------------------------------

    def invite(self, addresses: tuple[str, ...], now: float, ttl_s: float = limits.INVITE_TTL_S) -> Invite:
        """Open an invite.

        Raises: LocalError when too many are open or the time is none; SerializationError as `Invite`.
        """
        self._expire_invites(now)
        if len(self._invites) >= limits.INVITES_OPEN_MAX:
            raise LocalError("too many open invites", expected=f"at most {limits.INVITES_OPEN_MAX}", hint="cancel one")
        if not 0 < ttl_s <= limits.INVITE_TTL_MAX_S:
            most = f"up to {limits.INVITE_TTL_MAX_S:g} s"
            raise LocalError("no time for an invite", expected=most, got=f"{ttl_s:g} s")
        made = Invite.make(
            self._own, self._label, addresses, chain=self._chain, expires_at=now + ttl_s,
            secret=self._draw(limits.INVITE_SECRET_BYTES),
        )  # fmt: skip
        self._invites[made.secret] = made
        return made

    def withdraw(self, secret: bytes) -> list[Effect]:
        """Close an invite, and every pairing under it that is not done."""
        self._invites.pop(secret, None)
        under = [key for key, one in self._pairings.items() if one.secret == secret and one.role is Role.HOST]
        return [effect for key in under for effect in self._end(key)]

    def open_invites(self, now: float) -> tuple[Invite, ...]:
        """Return the invites that somebody can still come with."""
        self._expire_invites(now)
        return tuple(self._invites.values())

    def join(self, invite: Invite, now: float, addresses: tuple[str, ...] = ()) -> Pairing:
        """Begin to pair with who made an invite: dial its key next, then say `linked`.

        Where it was done with this invite already, that pairing is returned: it is paired.

        Raises: InviteError for another network, or too late; LocalError for our own, or when it is under way.
        """
        invite.require(self._chain, now)
        if invite.key == self._own:
            raise LocalError("this is our own invite", hint="type it at the other machine")
        known = self._pairings.get(invite.key)
        if known is not None and not known.over:
            raise LocalError(f"a pairing with {safe(invite.label)} is under way", hint="finish or cancel it first")
        if known is not None and known.step is Step.PAIRED and known.secret == invite.secret:
            return known
        return self._begin(Role.GUEST, invite.key, invite, now, addresses)

    def agree(self, key: bytes, words: str, label: str = "") -> list[Effect]:
        """Our person confirms the words, and gives the other side a name of their own where `label` says so.

        Raises: LocalError without such a pairing, for other words, for a name that cannot be shown, or one that is
                taken by another key: then ask for another.
        """
        pairing = self.get(key)
        chosen = label or pairing.name
        fault = name_fault(chosen)
        if fault is not None:
            raise LocalError(f"not a name for a peer: {safe(chosen)!r}", expected=fault)
        if self.taken(key, chosen):
            raise LocalError(f"the name {safe(chosen)!r} is taken by another key", hint="give this one another name")
        return self._after(key, pairing.agree(words, chosen))

    def taken(self, key: bytes, label: str) -> bool:
        """Return whether a label is our own, or belongs to another key in the book."""
        return label == self._label or self._owner_of(label) not in (None, key)

    def refuse(self, key: bytes) -> list[Effect]:
        """Our person says that the words differ. Raises LocalError without such a pairing."""
        return self._after(key, self.get(key).refuse())

    def cancel(self, key: bytes) -> list[Effect]:
        """Our person gives up. Raises LocalError without such a pairing."""
        return self._after(key, self.get(key).cancel())

    def get(self, key: bytes) -> Pairing:
        """Return the pairing with a key. Raises LocalError."""
        pairing = self._pairings.get(key)
        if pairing is None:
            raise LocalError(f"no pairing with key {short_key(key)}", hint="see `musignet invite` and `musignet join`")
        return pairing

    def __iter__(self) -> Iterator[Pairing]:
        return iter(self._pairings.values())

    # --- the other side -----------------------------------------------------------------------------------------------

    def admit(self, key: bytes, now: float) -> bool:
        """Return whether an unknown key may come in: while an invite is open, and a few at a time."""
        self._expire_invites(now)
        if not self._invites or len(self._strangers) >= limits.PROVISIONAL_PEERS_MAX:
            return False
        self._strangers[key] = now + limits.PAIR_HELLO_TIMEOUT_S
        return True

    def linked(self, key: bytes, transcript: bytes) -> list[Effect]:
        """There is a link to this key."""
        pairing = self._pairings.get(key)
        return [] if pairing is None else self._after(key, pairing.linked(transcript))

    def lost(self, key: bytes) -> list[Effect]:
        """The link to this key is gone. A stranger without a pairing is forgotten."""
        pairing = self._pairings.get(key)
        if pairing is not None:
            return self._after(key, pairing.lost())
        return [Drop(key)] if self._strangers.pop(key, None) is not None else []

    def heard(self, key: bytes, record: Record, transcript: bytes, now: float) -> list[Effect]:
        """This key said something about a pairing. A greeting may begin one."""
        pairing = self._pairings.get(key)
        if isinstance(record, PairHello) and not self._ours(pairing, record, transcript):
            if pairing is not None and pairing.role is Role.GUEST and not pairing.over and self._own < key:
                return []  # each joined the other's invite at once: the smaller key stays the guest
            invite = self._invited(record, transcript, now)
            if invite is not None and self._has_room(invite, key):
                pairing = self._begin(Role.HOST, key, invite, now)
                pairing.linked(transcript)
            elif pairing is not None and pairing.over:
                return self._turn_away(key)
        if pairing is None:
            return [] if isinstance(record, PairEnd) else self._turn_away(key)
        return self._after(key, pairing.heard(record))

    def woken(self, now: float) -> list[Effect]:
        """Time has passed."""
        self._expire_invites(now)
        out: list[Effect] = []
        for key in [key for key, until in self._strangers.items() if now >= until]:
            out += self._turn_away(key)
        for key, pairing in list(self._pairings.items()):
            out += self._after(key, pairing.woken(now))
            if now >= pairing.expires_at:
                self._pairings.pop(key, None)
        return out

    def next_deadline(self) -> float | None:
        """Return when `woken` is due."""
        ends = (one.expires_at for one in self._pairings.values())
        invites = (one.expires_at_ms / 1000 for one in self._invites.values())
        return min((*ends, *invites, *self._strangers.values()), default=None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _ours(self, pairing: Pairing | None, hello: PairHello, transcript: bytes) -> bool:
        """Return whether a greeting belongs to the pairing that is under way with its sender."""
        if pairing is None or pairing.step is Step.ENDED:
            return False
        return hello.proof == hello_proof(pairing.role.other, pairing.secret, transcript)

    def _invited(self, hello: PairHello, transcript: bytes, now: float) -> Invite | None:
        self._expire_invites(now)
        for invite in self._invites.values():
            if hello.proof == hello_proof(Role.GUEST, invite.secret, transcript):
                return invite
        return None

    def _has_room(self, invite: Invite, key: bytes) -> bool:
        """Return whether few others have come with this invite, whatever became of them."""
        others = sum(one.secret == invite.secret and one.peer != key for one in self._pairings.values())
        return others < limits.INVITE_GUESTS_MAX

    def _begin(self, role: Role, key: bytes, invite: Invite, now: float, addresses: tuple[str, ...] = ()) -> Pairing:
        self._strangers.pop(key, None)
        pairing = self._pairings[key] = Pairing(
            role, own=self._own, peer=key, secret=invite.secret, label=self._label,
            addresses=addresses or (invite.addresses if role is Role.HOST else ()),
            expires_at=now + limits.PAIR_COMPARE_TIMEOUT_S,
        )  # fmt: skip
        return pairing

    def _turn_away(self, key: bytes) -> list[Effect]:
        self._strangers.pop(key, None)
        end = PairEnd(PairFault.UNKNOWN_INVITE, "this invite is not open")
        return [Say(key, MessageType.PAIR_END, end), Drop(key)]

    def _end(self, key: bytes) -> list[Effect]:
        pairing = self._pairings[key]
        return self._after(key, pairing.cancel())

    def _after(self, key: bytes, effects: list[PairingEffect]) -> list[Effect]:
        """Close the invite that was used, and forget a key that came to nothing."""
        out: list[Effect] = list(effects)
        for effect in effects:
            if isinstance(effect, Paired) and self._pairings[key].role is Role.HOST:
                secret = self._pairings[key].secret
                self._invites.pop(secret, None)
                others = [one.peer for one in self._pairings.values() if one.secret == secret and one.peer != key]
                out += [more for other in others for more in self._end(other)]
            elif isinstance(effect, PairingEnded):
                out.append(Drop(key))
        return out

    def _expire_invites(self, now: float) -> None:
        gone = [secret for secret, one in self._invites.items() if now * 1000 >= one.expires_at_ms]
        for secret in gone:
            del self._invites[secret]
