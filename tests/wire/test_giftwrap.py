"""Gift wraps: what a relay sees, what an honest one would have checked, and what is nobody's fault."""

from __future__ import annotations

import base64
from hashlib import sha256

import msgspec
import nostr_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.crypto.relaykey import RelayKey
from musignet.errors import NetworkError, ReceiveError, SerializationError
from musignet.wire.giftwrap import (
    AUTH,
    LIVE,
    MAIL,
    PAYLOAD_MAX_BYTES,
    Event,
    auth_event,
    check_untrusted,
    open_untrusted,
    wrap,
)
from musignet.wire.relaytalk import publish
from support.keys import ALICE, BOB, secret

INBOX = RelayKey.inbox(BOB, 20_000)
INBOXES = {INBOX.xonly.hex(): INBOX}
NOW_S = 1_790_000_000


def wrapped(payload: bytes = b"payload", *, kind: int = LIVE, name: str = "one", inbox: bytes = INBOX.xonly) -> Event:
    times = {"now_s": NOW_S, "expires_s": NOW_S + 60}
    return wrap(kind, payload, inbox, **times, secret=secret(name), nonce=secret(name + " nonce"))


def opened(event: Event) -> bytes:
    return open_untrusted(event, check_untrusted(event, INBOXES))


@settings(max_examples=30)
@given(st.binary(max_size=2_000), st.sampled_from([LIVE, MAIL]))
def test_what_is_wrapped_is_opened_again(payload: bytes, kind: int) -> None:
    assert opened(wrapped(payload, kind=kind)) == payload


SIZES = (0, 1, 238, 239, 1918, 1919, 7678, 7679, PAYLOAD_MAX_BYTES)


def test_a_relay_sees_one_of_four_sizes_each_within_its_step() -> None:
    seen = sorted({len(publish(wrapped(bytes(size)))) for size in SIZES})
    assert len(seen) == 4
    assert all(size <= step for size, step in zip(seen, limits.RELAY_STEPS_BYTES, strict=True))
    assert seen[-1] <= limits.RELAY_FRAME_MAX_BYTES


def test_a_relay_sees_no_key_twice_but_the_inbox() -> None:
    texts = [publish(wrapped(name=str(n))) for n in range(20)]
    for known in (ALICE.pubkey.hex()[2:], BOB.pubkey.hex()[2:]):
        assert not any(known in text for text in texts)
    events = [msgspec.json.decode(text)[1] for text in texts]
    assert len({event["pubkey"] for event in events}) == 20
    assert len({event["content"] for event in events}) == 20
    assert all(event["tags"] == [["p", INBOX.xonly.hex()], ["expiration", str(NOW_S + 60)]] for event in events)


@pytest.mark.parametrize("kind", [LIVE, MAIL])
def test_another_implementation_accepts_our_events(kind: int) -> None:
    text = msgspec.json.encode(wrapped(kind=kind)).decode()
    assert nostr_sdk.Event.from_json(text).verify()
    auth = auth_event(INBOX, "wss://relay.example/path", "a challenge", NOW_S)
    assert nostr_sdk.Event.from_json(msgspec.json.encode(auth).decode()).verify()
    assert (auth.kind, auth.pubkey) == (AUTH, INBOX.xonly.hex())


@pytest.mark.parametrize("kind", [LIVE, MAIL])
@pytest.mark.parametrize("payload", [b"", b"payload", bytes(range(256)) * 20])
def test_each_implementation_opens_what_the_other_wrapped(payload: bytes, kind: int) -> None:
    """`nostr_sdk` is given the secrets as bytes: here they are of a test."""
    pair, stranger = (nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(secret(name))) for name in ("inbox", "stranger"))
    inbox = RelayKey.one_time(secret("inbox"))
    ours = wrapped(payload, kind=kind, inbox=inbox.xonly)
    text = nostr_sdk.nip44_decrypt(pair.secret_key(), nostr_sdk.PublicKey.parse(ours.pubkey), ours.content)
    assert base64.b64decode(text)[2 : 2 + len(payload)] == payload

    content = nostr_sdk.nip44_encrypt(stranger.secret_key(), pair.public_key(), text, nostr_sdk.Nip44Version.V2)
    tags = [nostr_sdk.Tag.parse(list(tag)) for tag in ours.tags]
    made = nostr_sdk.EventBuilder(nostr_sdk.Kind(kind), content).tags(tags).finalize(stranger)
    theirs = msgspec.json.decode(made.as_json(), type=Event)
    assert open_untrusted(theirs, check_untrusted(theirs, {inbox.xonly.hex(): inbox})) == payload


def test_too_much_for_one_event_is_refused() -> None:
    with pytest.raises(SerializationError, match="too much for one event"):
        wrapped(bytes(PAYLOAD_MAX_BYTES + 1))


def changed(**fields: object) -> Event:
    return msgspec.structs.replace(wrapped(), **fields)


def signed_by_us(**fields: object) -> Event:
    """An event of any content with a right id and signature."""
    event = changed(**fields)
    key = RelayKey.one_time(secret("stranger"))
    body = (0, key.xonly.hex(), event.created_at, event.kind, event.tags, event.content)
    digest = sha256(msgspec.json.encode(body)).digest()
    return msgspec.structs.replace(event, pubkey=key.xonly.hex(), id=digest.hex(), sig=key.sign(digest).hex())


P, EXPIRATION = ("p", INBOX.xonly.hex()), ("expiration", "1790000060")

THE_RELAYS_FAULT = {
    "another content": lambda: changed(content=wrapped(name="two").content),
    "another time": lambda: changed(created_at=NOW_S + 1),
    "another author": lambda: changed(pubkey=RelayKey.one_time(secret("x")).xonly.hex()),
    "another id": lambda: changed(id="0" * 64),
    "a signature of another": lambda: changed(sig=wrapped(name="two").sig),
    "an author that is no key": lambda: changed(pubkey="f" * 64),
    "a kind that was not asked for": lambda: signed_by_us(kind=1),
    "somebody else's": lambda: wrapped(inbox=RelayKey.inbox(ALICE, 1).xonly),
    "nobody's": lambda: signed_by_us(tags=(EXPIRATION,)),
    "tags without values": lambda: signed_by_us(tags=((), ("p",))),
}


@pytest.mark.parametrize("field", ["id", "pubkey", "sig"])
def test_a_line_break_behind_hex_is_no_event(field: str) -> None:
    event = msgspec.to_builtins(wrapped())
    assert msgspec.convert(event, Event) == wrapped()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(event | {field: event[field] + "\n"}, Event)


@pytest.mark.parametrize("event", THE_RELAYS_FAULT.values(), ids=THE_RELAYS_FAULT.keys())
def test_what_an_honest_relay_never_hands_out_is_its_fault(event: object) -> None:
    with pytest.raises(ReceiveError):
        check_untrusted(event(), INBOXES)  # type: ignore[operator]


A_STRANGERS = {
    "more tags": lambda: signed_by_us(tags=(P, EXPIRATION, ("x", "y"))),
    "an expiration that is none": lambda: signed_by_us(tags=(P, ("expiration", "soon"))),
    "no expiration": lambda: signed_by_us(tags=(P, ("alt", "1"))),
    "a content with escapes": lambda: signed_by_us(content='a "quoted" \\ text\n'),
    "a content beyond ASCII": lambda: signed_by_us(content="\u2028 und \x00"),
    "no NIP-44": lambda: signed_by_us(content="hello"),
    "to another key": lambda: signed_by_us(content=wrapped(inbox=RelayKey.inbox(ALICE, 1).xonly).content),
}


@pytest.mark.parametrize("event", A_STRANGERS.values(), ids=A_STRANGERS.keys())
def test_what_a_stranger_wrote_is_nobodys_fault(event: object) -> None:
    with pytest.raises(SerializationError):
        opened(event())  # type: ignore[operator]


def test_a_stranger_who_encrypts_to_us_still_has_to_pad_like_us() -> None:
    for text in ("", "x", "A" * 320 + "=", "AAAA" * 79):
        key = RelayKey.one_time(secret("stranger"))
        pair = nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(secret("stranger")))
        to = nostr_sdk.PublicKey.parse(INBOX.xonly.hex())
        content = nostr_sdk.nip44_encrypt(pair.secret_key(), to, text or " ", nostr_sdk.Nip44Version.V2)
        with pytest.raises(SerializationError):
            open_untrusted(changed(pubkey=key.xonly.hex(), content=content), INBOX)


@pytest.mark.parametrize("challenge", ['a"b', "a\\b", "a\nb", "\ud800", "x" * 257, "ü"])
def test_a_challenge_that_would_need_escapes_is_refused(challenge: str) -> None:
    with pytest.raises(ReceiveError, match="not a challenge"):
        auth_event(INBOX, "ws://127.0.0.1:1", challenge, NOW_S)


@given(st.binary(min_size=1, max_size=3))
def test_one_flipped_bit_anywhere_is_never_taken(flip: bytes) -> None:
    text = bytearray(msgspec.json.encode(wrapped()))
    for n, byte in enumerate(flip):
        text[(byte * 7 + n) % len(text)] ^= 1 << byte % 8
    try:
        event = msgspec.json.decode(bytes(text), type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if event != wrapped():  # the flips may undo each other
        with pytest.raises(NetworkError):
            opened(event)
