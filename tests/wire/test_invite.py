"""Invites: there and back, and every way in which one can be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.chain import Chain
from musignet.errors import SerializationError
from musignet.wire import bech32
from musignet.wire.invite import HRP, Invite, InviteError, InviteFault, _check, _codec
from support.keys import ALICE

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NOW = 1_800_000_000.0


def invite(**changes: object) -> Invite:
    options: dict[str, object] = {"chain": Chain.REGTEST, "expires_at": NOW + 600, "secret": bytes(range(16))}
    return Invite.make(ALICE.pubkey, "alice", ("127.0.0.1:9735", "[::1]:9735"), **(options | changes))  # type: ignore[arg-type]


def packed(body: bytes, *, length: int | None = None, check: bytes | None = None) -> str:
    """Return an invite of any content, its checksums right unless they are given."""
    sized = (len(body) if length is None else length).to_bytes(2, "big") + body
    return bech32.encode(HRP, sized + (_check(sized)[:4] if check is None else check))


def fault(text: str) -> InviteFault:
    with pytest.raises(InviteError) as caught:
        Invite.parse_untrusted(text)
    assert caught.value.fault.value in str(caught.value)
    return caught.value.fault


def test_there_and_back() -> None:
    made = invite()
    text = made.text()
    assert Invite.parse_untrusted(text) == made
    assert Invite.parse_untrusted(text.upper()) == made, "a QR code is smaller in upper case"
    assert Invite.parse_untrusted(f" {text[:50]}\n  {text[50:]}\r\n") == made
    assert len(text) < 220
    made.require(Chain.REGTEST, NOW + 599)


def test_every_single_change_is_refused() -> None:
    text = invite().text()
    for at in range(len(text)):
        for char in "1bQ-\u0131 " + ALPHABET[:: 7 if at > len(HRP) else 1]:
            if char != text[at]:
                assert fault(text[:at] + char + text[at + 1 :])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    text = invite().text()
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, min(len(text), at + 6)))
    changed = text[:at] + data.draw(st.text(ALPHABET, max_size=6)) + text[end:]
    if changed != text:
        fault(changed)


def test_a_changed_character_is_found_where_the_checksum_alone_would_not() -> None:
    made = invite()
    body = _codec.encode(made)
    assert Invite.parse_untrusted(packed(body)) == made
    assert fault(packed(body, check=b"\0\0\0\0")) is InviteFault.ALTERED
    assert fault(packed(body, length=len(body) + 1)) is InviteFault.ALTERED


def test_every_cut_is_called_cut() -> None:
    text = invite().text()
    assert {fault(text[:end]) for end in range(len(HRP) + 1, len(text))} == {InviteFault.CUT}
    assert {fault(text[:end]) for end in range(len(HRP) + 1)} == {InviteFault.OTHER_TEXT}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", InviteFault.OTHER_TEXT),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", InviteFault.OTHER_TEXT),
        ("musig1" + "q" * 1100, InviteFault.OTHER_TEXT),
        ("m\u00fcsig1qqqqqqqqq", InviteFault.OTHER_TEXT),
        (bech32.encode("musik", bytes(90)), InviteFault.OTHER_TEXT),
        (packed(b""), InviteFault.ALTERED),
        (packed(b"\x97\x01"), InviteFault.NEWER),
        (packed(b"\x97\x00"), InviteFault.ALTERED),
        (bech32.encode(HRP, b""), InviteFault.ALTERED),
        (invite().text() + "q", InviteFault.ALTERED),
        (packed(_codec.encode(Invite(0, 3, b"\x02" + bytes(32), "a", (), 1, bytes(16)))), InviteFault.ALTERED),
        (packed(_codec.encode(Invite(0, 3, ALICE.pubkey, "a\x1b[2J", (), 1, bytes(16)))), InviteFault.ALTERED),
        (packed(_codec.encode(Invite(0, 3, ALICE.pubkey, "\u202eevil", (), 1, bytes(16)))), InviteFault.ALTERED),
    ],
)
def test_what_is_no_invite(text: str, expected: InviteFault) -> None:
    assert fault(text) is expected


@pytest.mark.parametrize(
    ("chain", "now", "expected"),
    [
        (Chain.MAINNET, NOW, InviteFault.OTHER_NETWORK),
        (Chain.REGTEST, NOW + 600, InviteFault.EXPIRED),
        (Chain.REGTEST, NOW + 1e9, InviteFault.EXPIRED),
    ],
)
def test_not_for_here_or_not_any_more(chain: Chain, now: float, expected: InviteFault) -> None:
    with pytest.raises(InviteError) as caught:
        invite().require(chain, now)
    assert caught.value.fault is expected


def test_a_network_that_nobody_knows_is_shown_by_its_number() -> None:
    with pytest.raises(InviteError, match="number 77"):
        Invite.parse_untrusted(packed(_codec.encode(Invite(0, 77, ALICE.pubkey, "a", (), 1, bytes(16))))).require(
            Chain.REGTEST, 0
        )


def test_what_no_invite_can_carry() -> None:
    with pytest.raises(SerializationError):
        invite(secret=b"short")
    with pytest.raises(SerializationError, match="too long"):
        Invite.make(
            ALICE.pubkey, "\U0001f600" * 64, tuple(f"{n}" * limits.ADDRESS_MAX_CHARS for n in range(4)), chain=Chain.REGTEST,
            expires_at=NOW, secret=bytes(16),
        )  # fmt: skip


@given(st.text(max_size=80))
def test_any_text_is_an_invite_or_refused(text: str) -> None:
    for candidate in (text, "musig1" + text):
        try:
            Invite.parse_untrusted(candidate)
        except InviteError:
            pass
