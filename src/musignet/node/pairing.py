"""One pairing: two nodes that met by an invite, and two people who compare six words. Pure.

    guest                                                   host
    dials the key in the invite, PAIR_HELLO(proof) ------->  knows the secret? else PAIR_END
                                       <-------------------  PAIR_HELLO(proof)
    both show six words, made from the handshake
    a person says yes: PAIR_CONFIRM(statement) ---><-------  a person says yes: PAIR_CONFIRM(statement)
    paired                                                   paired

A `statement` stands for one handshake between these two keys. The two are paired once both people said yes to the same
one: a confirmation that was on its way when the link broke still counts on the next link, and a person who had not
answered yet compares the words of the new one.

Who stands between two nodes has another handshake with each, hence other words on each screen.
"""

from __future__ import annotations

import hashlib
from enum import Enum, IntEnum
from typing import Final, TypeAlias

from msgspec import Struct

from .. import limits
from ..bitcoin import wally
from ..crypto.schnorr import TaggedHash
from ..errors import AuthenticationError, InvalidMessage, LocalError, NetworkError
from ..text import name_fault, safe, who
from ..wire.codec import Record
from ..wire.messages import MessageType, PairConfirm, PairEnd, PairHello

__all__ = [
    "Compare",
    "PairFault",
    "Paired",
    "Pairing",
    "PairingEffect",
    "PairingEnded",
    "Role",
    "Say",
    "Step",
    "check_phrase",
    "hello_proof",
    "statement",
]

_phrase = TaggedHash("musignet/check-phrase")
_proof = TaggedHash("musignet/pair-hello")
_statement = TaggedHash("musignet/pair-confirm")
_WORD_BITS: Final = 11


class Role(IntEnum):
    """Who invited whom. In the proof, so that neither can answer with what the other said."""

    HOST = 0
    GUEST = 1

    @property
    def other(self) -> Role:
        return Role(1 - self)


class Step(Enum):
    """Where a pairing stands."""

    GREETING = "connecting"
    COMPARING = "compare the words"
    AGREED_HERE = "waiting for the other side's yes"
    AGREED_THERE = "the other side said yes"
    PAIRED = "paired"
    ENDED = "ended"


class PairFault(IntEnum):
    """Why there is no pairing, as it is told to the other side."""

    UNKNOWN_INVITE = 1
    WORDS_DIFFER = 2
    CANCELLED = 3
    TOO_LATE = 4
    BAD_LABEL = 5
    OUT_OF_PLACE = 6


_SENTENCES: Final = {
    PairFault.UNKNOWN_INVITE: "this invite is not open: it was used, has expired, or its maker withdrew it",
    PairFault.WORDS_DIFFER: "the words were not confirmed",
    PairFault.CANCELLED: "the pairing was cancelled",
    PairFault.TOO_LATE: "the pairing took too long",
    PairFault.BAD_LABEL: "the name cannot be shown",
    PairFault.OUT_OF_PLACE: "a message out of place",
}


class Say(Struct, frozen=True):
    """Send this to the other side."""

    key: bytes
    kind: MessageType
    record: Record


class Compare(Struct, frozen=True):
    """Show `words` to a person, who compares them with the other screen. Again after each new link."""

    key: bytes
    words: str


class Paired(Struct, frozen=True):
    """Both people said yes. Pin the key under `label`; the other side calls itself `name`."""

    key: bytes
    label: str
    name: str
    addresses: tuple[str, ...]


class PairingEnded(Struct, frozen=True):
    """Nothing was pinned, and this is why."""

    key: bytes
    error: NetworkError


PairingEffect: TypeAlias = Say | Compare | Paired | PairingEnded


def statement(transcript: bytes, host: bytes, guest: bytes) -> bytes:
    """Return what a confirmation signs: this handshake, between these two keys."""
    return _statement(transcript, host, guest)


def hello_proof(role: Role, secret: bytes, transcript: bytes) -> bytes:
    """Return the proof of knowing an invite's secret, good for one role on one link."""
    return _proof(bytes((role,)), secret, transcript)


def check_phrase(stated: bytes) -> str:
    """Return the six words for a statement: BIP-39 English, 66 bits.

    Slow on purpose. Whoever stands between has a handshake with each side and can vary both: among 2^33 of each, two
    share their words. Within the few seconds that a handshake may last, nobody makes so many phrases.
    """
    digest = hashlib.pbkdf2_hmac("sha512", _phrase(stated), b"musignet/check-phrase", limits.CHECK_PHRASE_ROUNDS)
    bits = int.from_bytes(digest, "big") >> 8 * len(digest) - _WORD_BITS * limits.CHECK_PHRASE_WORDS
    places = range(limits.CHECK_PHRASE_WORDS - 1, -1, -1)
    return " ".join(wally.english_word(bits >> _WORD_BITS * place & 2047) for place in places)


class Pairing:
    """One side of one pairing. Give it what happens with `linked`, `heard`, `agree`, `refuse`, `lost`, `woken`.

    Args:
        role:    HOST for who made the invite.
        own:     our identity key, `peer` the other's: 33 bytes each.
        secret:  the invite's.
        label:   how we call ourselves, and `addresses` where we can be dialled.
        expires_at: when it ends by itself, in seconds since 1970.
    """

    def __init__(
        self,
        role: Role,
        *,
        own: bytes,
        peer: bytes,
        secret: bytes,
        label: str,
        addresses: tuple[str, ...] = (),
        expires_at: float,
    ) -> None:
        self.role: Final = role
        self.peer: Final = peer
        self.secret: Final = secret
        self.expires_at = expires_at
        self.name = ""
        """What the other side calls itself."""
        self.words = ""
        """Those of the current link; empty while there is nothing to compare."""
        self.error: NetworkError | None = None
        self._hosts_and_guests: Final = (own, peer) if role is Role.HOST else (peer, own)
        self._label, self._addresses = label, addresses
        self._their_addresses: tuple[str, ...] = ()
        self._transcript = b""
        self._met = False
        self._as = ""
        self._agreed: set[bytes] = set()
        self._heard: set[bytes] = set()
        self._links = 0

    @property
    def step(self) -> Step:
        """Derived from what was said, so that it cannot disagree with it."""
        if self.error is not None:
            return Step.ENDED
        if self._agreed & self._heard:
            return Step.PAIRED
        if not self._met:
            return Step.GREETING
        if self._stated in self._agreed:
            return Step.AGREED_HERE
        return Step.AGREED_THERE if self._stated in self._heard else Step.COMPARING

    @property
    def over(self) -> bool:
        """Whether it is paired, or will never be."""
        return self.step in (Step.PAIRED, Step.ENDED)

    @property
    def _stated(self) -> bytes:
        return statement(self._transcript, *self._hosts_and_guests)

    # --- what happens -------------------------------------------------------------------------------------------------

    def linked(self, transcript: bytes) -> list[PairingEffect]:
        """There is a link, the first or a new one. A guest greets."""
        if self.error is not None:
            return []
        self._transcript, self._met, self.words = transcript, False, ""
        self._links += 1
        return self._greet() if self.role is Role.GUEST else []

    def lost(self) -> list[PairingEffect]:
        """The link is gone. The words are void; what was agreed under them is not."""
        self._met, self.words = False, ""
        return []

    def heard(self, record: Record) -> list[PairingEffect]:
        """The other side said this, on the current link."""
        if isinstance(record, PairEnd):
            return [] if self.over else self._end(_told(record, self.role))
        if self.error is not None:
            return []
        if isinstance(record, PairHello):
            return self._hello(record)
        if isinstance(record, PairConfirm):
            return self._confirmed(record)
        return self._fail(PairFault.OUT_OF_PLACE)

    def agree(self, words: str, label: str = "") -> list[PairingEffect]:
        """Our person compared these words and says yes, and wants to call the other side `label`.

        Raises: LocalError when these are not the words of the current link.
        """
        if not self.words or self.over:
            raise LocalError("there are no words to confirm", expected=Step.COMPARING.value, got=self.step.value)
        if words != self.words:
            raise LocalError(
                "these are not the words of this link",
                hint="the link was made anew, or somebody is between: look again",
            )
        self._as = label or self.name
        self._agreed.add(self._stated)
        return [self._say(MessageType.PAIR_CONFIRM, PairConfirm(self._stated)), *self._paired()]

    def refuse(self) -> list[PairingEffect]:
        """Our person says that the words differ."""
        return [] if self.over else self._fail(PairFault.WORDS_DIFFER)

    def cancel(self, fault: PairFault = PairFault.CANCELLED) -> list[PairingEffect]:
        """Our side gives up."""
        return [] if self.over else self._fail(fault)

    def woken(self, now: float) -> list[PairingEffect]:
        """Time has passed."""
        return self.cancel(PairFault.TOO_LATE) if now >= self.expires_at else []

    # --- inside -------------------------------------------------------------------------------------------------------

    def _greet(self) -> list[PairingEffect]:
        """Greet, and say again what we agreed to on links that are gone."""
        proof = hello_proof(self.role, self.secret, self._transcript)
        again = (self._say(MessageType.PAIR_CONFIRM, PairConfirm(one)) for one in sorted(self._agreed))
        return [self._say(MessageType.PAIR_HELLO, PairHello(proof, self._label, self._addresses)), *again]

    def _hello(self, hello: PairHello) -> list[PairingEffect]:
        if hello.proof != hello_proof(self.role.other, self.secret, self._transcript):
            return self._fail(PairFault.UNKNOWN_INVITE)
        if name_fault(hello.label) is not None:
            return self._fail(PairFault.BAD_LABEL)
        if self._links > limits.PAIR_LINKS_MAX:
            return self._fail(PairFault.TOO_LATE)
        answer = self._greet() if self.role is Role.HOST else []
        if self.step is Step.PAIRED or self._met:
            return answer
        self._met, self.name, self._their_addresses = True, hello.label, hello.addresses
        self.words = check_phrase(self._stated)
        return [*answer, Compare(self.peer, self.words)]

    def _confirmed(self, confirm: PairConfirm) -> list[PairingEffect]:
        """Their person said yes, to the words of this link or of an earlier one. Others mean nothing."""
        if confirm.statement != self._stated and confirm.statement not in self._agreed:
            return []
        if self.step is Step.PAIRED:
            return []
        self._heard.add(confirm.statement)
        return self._paired()

    def _paired(self) -> list[PairingEffect]:
        if self.step is not Step.PAIRED:
            return []
        return [Paired(self.peer, self._as, self.name, self._their_addresses)]

    def _fail(self, fault: PairFault) -> list[PairingEffect]:
        if self.step is Step.PAIRED:
            return []
        said = self._say(MessageType.PAIR_END, PairEnd(fault, _SENTENCES[fault]))
        return [said, *self._end(_fault_error(fault, who(self.name, self.peer)))]

    def _end(self, error: NetworkError) -> list[PairingEffect]:
        self.error, self.words = error, ""
        return [PairingEnded(self.peer, error)]

    def _say(self, kind: MessageType, record: Record) -> Say:
        return Say(self.peer, kind, record)


def _fault_error(fault: PairFault, name: str) -> NetworkError:
    """Return the error of a pairing that ended here."""
    if fault is PairFault.WORDS_DIFFER:
        return AuthenticationError(
            f"no pairing with {name}: the words were not confirmed",
            hint="if they differed, somebody was between: make a new invite, and send it another way",
        )
    return InvalidMessage(f"no pairing with {name}: {_SENTENCES[fault]}", hint="make a new invite")


def _told(end: PairEnd, role: Role) -> NetworkError:
    known = end.code in PairFault._value2member_map_
    said = _SENTENCES[PairFault(end.code)] if known else safe(end.text, 200)
    hint = "ask for a new invite" if role is Role.GUEST else ""  # the host's is still open
    return AuthenticationError(f"the other side ended the pairing: {said}", hint=hint)
