"""An invite: what one person hands to another so that their nodes can meet. Text of one word, also as a QR code.

    musig1...   Bech32m of: 2-byte length | msgpack array (see `Invite`) | 4 bytes of a tagged hash of both

The text is for one use and a few minutes. Whoever reads it can ask to be paired, and no more: only the six words that
both screens show say who is there.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

from msgspec import Meta

from .. import limits
from ..chain import Chain
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError, InvalidMessage, SerializationError
from ..text import name_fault
from . import bech32
from .codec import Codec, Record
from .messages import Address, Label, Millis

__all__ = ["HRP", "Invite", "InviteError", "InviteFault"]

HRP: Final = "musig"
_VERSION: Final = 0
_LENGTH_BYTES: Final = 2
_check = TaggedHash("musignet/invite")


class InviteFault(Enum):
    """What is wrong with an invite."""

    OTHER_TEXT = "not an invite"
    CUT = "the invite is cut off"
    ALTERED = "the invite is damaged: a character is wrong"
    NEWER = "the invite is of a newer version"
    OTHER_NETWORK = "the invite is for another Bitcoin network"
    EXPIRED = "the invite has expired"


_HINTS: Final = {
    InviteFault.OTHER_TEXT: "an invite is one word that begins with musig1: `musignet invite` prints it",
    InviteFault.CUT: "copy the whole word",
    InviteFault.ALTERED: "copy it again, or scan the QR code",
    InviteFault.NEWER: "install the newest MuSigNet",
    InviteFault.OTHER_NETWORK: "both nodes belong on one network: see `chain` in config.toml",
    InviteFault.EXPIRED: "ask for a new one, and look at the clocks of both machines",
}


class InviteError(InvalidMessage):
    """An invite that cannot be used. `fault` says why."""

    def __init__(self, fault: InviteFault, *, expected: object = None, got: object = None) -> None:
        super().__init__(fault.value, expected=expected, got=got, hint=_HINTS[fault])
        self.fault = fault


class Invite(Record, frozen=True):
    """How to reach the inviter, and the proof that one was invited. The order of the fields is the format."""

    version: Annotated[int, Meta(ge=0, le=255)]
    chain: Annotated[int, Meta(ge=0, le=255)]
    key: Annotated[bytes, Meta(min_length=33, max_length=33)]
    """The inviter's identity key: what is dialled, and nothing else answers to it."""
    label: Label
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.INVITE_ADDRESSES_MAX)]
    """`host:port`, the likeliest first."""
    expires_at_ms: Millis
    secret: Annotated[bytes, Meta(min_length=limits.INVITE_SECRET_BYTES, max_length=limits.INVITE_SECRET_BYTES)]

    @classmethod
    def make(
        cls, key: bytes, label: str, addresses: tuple[str, ...], *, chain: Chain, expires_at: float, secret: bytes
    ) -> Invite:
        """Return an invite. `expires_at` is seconds since 1970, `secret` 16 random bytes.

        Raises: SerializationError when a part is out of bounds.
        """
        invite = cls(_VERSION, chain, key, label, addresses, int(expires_at * 1000), secret)
        invite.text()
        return invite

    def text(self) -> str:
        """Return the invite as one word. Raises SerializationError when it would be too long."""
        body = _codec.check(self)
        sized = len(body).to_bytes(_LENGTH_BYTES, "big") + body
        text = bech32.encode(HRP, sized + _check(sized)[: limits.INVITE_CHECK_BYTES])
        if len(text) > limits.INVITE_MAX_CHARS:
            raise SerializationError(
                "the invite is too long", expected=f"at most {limits.INVITE_MAX_CHARS} characters", got=len(text),
                hint="fewer or shorter addresses",
            )  # fmt: skip
        return text

    @classmethod
    def parse_untrusted(cls, text: str) -> Invite:
        """Return the invite in `text`; spaces and line breaks in it do not matter.

        Raises: InviteError.
        """
        text = "".join(text.split())
        if len(text) > limits.INVITE_MAX_CHARS or not text.isascii() or not text.lower().startswith(HRP + "1"):
            raise InviteError(InviteFault.OTHER_TEXT)
        try:
            data = bech32.decode_untrusted(HRP, text)
        except SerializationError:
            raise InviteError(_damage(text)) from None
        return _open(data)

    def require(self, chain: Chain, now: float) -> None:
        """Raise InviteError unless it is for this network and `now` (seconds since 1970) is before its end."""
        if self.chain != chain:
            raise InviteError(InviteFault.OTHER_NETWORK, expected=chain.name.lower(), got=_chain_name(self.chain))
        if now * 1000 >= self.expires_at_ms:
            raise InviteError(InviteFault.EXPIRED)


_codec = Codec(Invite)


def _open(data: bytes) -> Invite:
    sized, check = data[: -limits.INVITE_CHECK_BYTES], data[-limits.INVITE_CHECK_BYTES :]
    body = sized[_LENGTH_BYTES:]
    if _check(sized)[: limits.INVITE_CHECK_BYTES] != check or int.from_bytes(sized[:_LENGTH_BYTES], "big") != len(body):
        raise InviteError(InviteFault.ALTERED)
    if len(body) > 1 and body[1] != _VERSION:  # behind the array's header: the first field of every version
        raise InviteError(InviteFault.NEWER)
    try:
        invite = _codec.decode_untrusted(body)
        PublicKey(invite.key)
    except (SerializationError, AuthenticationError):
        raise InviteError(InviteFault.ALTERED) from None
    if name_fault(invite.label):
        raise InviteError(InviteFault.ALTERED)
    return invite


def _damage(text: str) -> InviteFault:
    """Tell a cut from an altered invite by the length it names. A guess: nothing else of it is used."""
    try:
        seen = bech32.unchecked_untrusted(HRP, text)
    except SerializationError:
        return InviteFault.CUT if len(text) < len(HRP) + 1 + bech32.CHECKSUM_CHARS else InviteFault.ALTERED
    whole = _LENGTH_BYTES + int.from_bytes(seen[:_LENGTH_BYTES], "big") + limits.INVITE_CHECK_BYTES
    chars = len(HRP) + 1 + -(-whole * 8 // 5) + bech32.CHECKSUM_CHARS
    return InviteFault.CUT if len(text) < chars else InviteFault.ALTERED


def _chain_name(number: int) -> str:
    return Chain(number).name.lower() if number in Chain._value2member_map_ else f"number {number}"
