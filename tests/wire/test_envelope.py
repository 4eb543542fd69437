"""The signed envelope and the `Gate`: every refusal, its class, and what its sentence names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey, TaggedHash
from musignet.errors import (
    Action,
    AuthenticationError,
    InvalidMessage,
    LocalError,
    NetworkError,
    PeerError,
    SerializationError,
)
from musignet.wire.envelope import ENVELOPE_VERSION, NO_EPOCH, Gate, Message, SignedMessage, VerifiedMessage
from musignet.wire.messages import Chain, Error, MessageType, Ping
from support.keys import ALICE, BOB, CAROL, secret
from support.msgpack import Value, shortest

SIGNATURE_BYTES = 64
GROUP = secret("a group id")
SESSION = secret("a session id")
EPOCH = bytes(range(8))
GATE = Gate(ALICE.public, BOB.pubkey, Chain.REGTEST, label="alice", groups={GROUP})
FROM_ALICE = f"from alice ({ALICE.pubkey_hex[2:10]})"
digest = TaggedHash("musignet/envelope")


def signed(
    kind: int = MessageType.CHAT, payload: bytes = b"hello", *, by: Identity = ALICE, **options: object
) -> bytes:
    """Return an envelope that the gate lets in, unless an option says otherwise."""
    options = {"chain": Chain.REGTEST, **options}
    return Message(kind, "alice", payload).sign(by, **options).to_bytes()  # type: ignore[arg-type]


@dataclass(frozen=True)
class Crafted:
    """An envelope whose every field may be anything; signed by `by` over what it says."""

    version: Value = ENVELOPE_VERSION
    chain: Value = int(Chain.REGTEST)
    type: Value = int(MessageType.CHAT)
    sender_key: Value = ALICE.pubkey
    recipient: Value = b""
    session: Value = b""
    epoch: Value = NO_EPOCH
    seq: Value = 0
    sent_at_ms: Value = 0
    label: Value = "alice"
    payload: Value = b"hello"

    def to_bytes(self, by: Identity = ALICE) -> bytes:
        body = shortest(list(vars(self).values()))
        return by.sign(digest(body)) + body


# --- signing ----------------------------------------------------------------------------------------------------------


def test_signing_returns_another_message_and_leaves_this_one_unsigned() -> None:
    message = Message(MessageType.CHAT, "alice", b"hello", session=SESSION)
    envelope = message.sign(ALICE, to=BOB.pubkey, seq=3, sent_at_ms=4, epoch=EPOCH, chain=Chain.SIGNET)
    assert type(message) is Message
    assert type(envelope) is SignedMessage
    assert (message.type, message.sender, message.payload, message.session) == (17, "alice", b"hello", SESSION)
    assert (envelope.type, envelope.sender, envelope.payload, envelope.session) == (17, "alice", b"hello", SESSION)
    body = envelope.body
    assert (body.version, body.chain, body.sender_key, body.recipient) == (0, 2, ALICE.pubkey, BOB.pubkey)
    assert (body.epoch, body.seq, body.sent_at_ms) == (EPOCH, 3, 4)
    with pytest.raises(AuthenticationError, match=r"^this message is not signed; sign"):
        message.verify()
    with pytest.raises(SerializationError, match=r"^this message is not signed; sign"):
        message.to_bytes()


def test_an_envelope_is_a_signature_and_the_body_a_second_encoder_makes() -> None:
    assert Crafted().to_bytes() == signed()
    full = Crafted(0, 3, 17, ALICE.pubkey, GROUP, SESSION, EPOCH, 5, 6, "al\u00edce", b"hello")
    message = Message(MessageType.CHAT, "al\u00edce", b"hello", session=SESSION)
    envelope = message.sign(ALICE, to=GROUP.hex(), seq=5, sent_at_ms=6, epoch=EPOCH, chain=Chain.REGTEST)
    assert envelope.to_bytes() == full.to_bytes()


def test_the_id_is_the_truncated_digest_of_the_body() -> None:
    envelope = Message.from_bytes(signed())
    assert envelope.id == digest(signed()[SIGNATURE_BYTES:])[: limits.MESSAGE_ID_BYTES]
    assert envelope.sender_key == ALICE.pubkey
    assert Message.from_bytes(signed(seq=1)).id != envelope.id


def test_a_signed_message_survives_its_bytes() -> None:
    envelope = Message(MessageType.CHAT, "alice", b"hello").sign(ALICE)
    parsed = Message.from_bytes(envelope.to_bytes())
    assert parsed == envelope
    assert hash(parsed) == hash(envelope)
    assert parsed.verify() == envelope.verify()
    assert type(parsed.verify()) is VerifiedMessage
    assert parsed != Message.from_bytes(signed(seq=1))
    assert parsed != parsed.to_bytes()


def test_largest_header_stays_within_its_bound() -> None:
    message = Message(0xFFFF, "\U0001f511" * 64, b"", session=SESSION)
    envelope = message.sign(ALICE, to=BOB.pubkey, seq=limits.SEQUENCE_MAX, sent_at_ms=limits.SENT_AT_MAX_MS)
    assert len(envelope.to_bytes()) <= limits.HEADER_MAX_BYTES


def test_the_largest_message_passes() -> None:
    payload = bytes(limits.PAYLOAD_MAX_BYTES)
    assert GATE.open_untrusted(signed(MessageType.TRANSACTION_PROPOSAL, payload)).payload == payload


NOT_A_RECIPIENT: list[tuple[bytes | str, str]] = [
    (b"x", "^not a recipient: expected a 33-byte key or a 32-byte group id, got 1 bytes"),
    (bytes(34), "^not a recipient: expected a 33-byte key or a 32-byte group id, got 34 bytes"),
    ("00" * 31, "^not a recipient: expected a 33-byte key or a 32-byte group id, got 31 bytes"),
    ("bob", "^not a recipient: expected a key or group id as bytes or hex, got bob"),
    ("\x1b[2J", r"^not a recipient: .*got \\x1b\[2J"),
]


@pytest.mark.parametrize(("to", "reason"), NOT_A_RECIPIENT)
def test_what_is_no_recipient_is_refused(to: bytes | str, reason: str) -> None:
    with pytest.raises(SerializationError, match=reason):
        signed(to=to)


@pytest.mark.parametrize("to", [None, b"", "", BOB.pubkey, BOB.pubkey_hex, bytearray(GROUP), GROUP.hex()])
def test_what_is_a_recipient_is_taken(to: bytes | str | None) -> None:
    assert GATE.open_untrusted(signed(to=to)).payload == b"hello"


UNSIGNABLE: dict[str, dict[str, object]] = {
    "a negative sequence": {"seq": -1},
    "a sequence of 2^63": {"seq": 2**63},
    "a time of 2^53": {"sent_at_ms": 2**53},
    "an epoch of 7 bytes": {"epoch": bytes(7)},
    "a chain above 255": {"chain": 256},
    "a float": {"seq": 1.5},
}


@pytest.mark.parametrize("options", UNSIGNABLE.values(), ids=UNSIGNABLE.keys())
def test_what_is_out_of_bounds_cannot_be_signed(options: dict[str, object]) -> None:
    with pytest.raises(SerializationError, match=r"^not a Body: "):
        signed(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageType.CHAT, "x" * 65),
        Message(MessageType.CHAT, "\ud800"),
        Message(MessageType.CHAT, "x", session=bytes(33)),
        Message(0x10000, "x"),
        Message(-1, "x"),
    ],
    ids=repr,
)
def test_a_message_out_of_bounds_cannot_be_signed(message: Message) -> None:
    with pytest.raises(SerializationError, match=r"^not a Body: "):
        message.sign(ALICE)


def test_a_wiped_identity_signs_nothing() -> None:
    identity = Identity.from_secret(secret("wiped"))
    identity.wipe()
    with pytest.raises(LocalError, match="holds no secret"):
        Message(MessageType.CHAT, "x").sign(identity)


@pytest.mark.parametrize(
    ("kind", "cap", "name"),
    [
        (MessageType.CHAT, limits.CHAT_MAX_BYTES, "CHAT"),
        (MessageType.DISCOVERY, limits.BEACON_MAX_BYTES, "DISCOVERY"),
        (MessageType.APPROVAL, limits.CONTROL_PAYLOAD_MAX_BYTES, "APPROVAL"),
        (MessageType.PUBLIC_NONCE, limits.PAYLOAD_MAX_BYTES, "PUBLIC_NONCE"),
        (999, limits.PAYLOAD_MAX_BYTES, "type 999"),
    ],
)
def test_a_payload_is_held_to_its_cap_where_it_is_made(kind: int, cap: int, name: str) -> None:
    assert len(Message(kind, "a", bytes(cap)).payload) == cap
    with pytest.raises(
        SerializationError, match=f"^{name} payload too large: expected at most {cap} bytes, got {cap + 1}"
    ):
        Message(kind, "a", bytes(cap + 1))


def test_a_payload_may_be_any_bytes_and_a_later_change_of_a_buffer_does_not_reach_it() -> None:
    buffer = bytearray(b"hello")
    for payload in (buffer, memoryview(buffer)):
        message = Message(MessageType.CHAT, "a", payload)
        buffer[:] = b"HELLO"
        assert message.payload == b"hello"
        buffer[:] = b"hello"


def test_content_is_the_record_of_the_type_or_the_bytes() -> None:
    for message in (Message(MessageType.PING, "a", Ping(7)), Message(MessageType.PING, "a", Ping(7)).sign(ALICE)):
        assert message.content == Ping(7)
    assert Message(MessageType.ERROR, "a", Error(1, "no", b"")).content == Error(1, "no", b"")
    assert Message(MessageType.CHAT, "a", b"hello").content == b"hello"
    with pytest.raises(SerializationError, match=r"^not a Ping: "):
        _ = Message(MessageType.PING, "a", b"\xff").content
    with pytest.raises(SerializationError, match=r"^wrong payload: expected Ping, got Error"):
        Message(MessageType.PING, "a", Error(1, "no", b""))


def test_a_message_prints_its_type_label_and_size_safely() -> None:
    message = Message(MessageType.CHAT, "al\x1bice", b"hello")
    assert repr(message) == r"<Message CHAT from 'al\\x1bice', 5 bytes>"
    assert repr(message.sign(ALICE)) == r"<SignedMessage CHAT from 'al\\x1bice', 5 bytes>"
    assert repr(message.sign(ALICE).verify()).startswith("<VerifiedMessage CHAT")
    assert repr(Message(999, "a")) == "<Message type 999 from 'a', 0 bytes>"


def test_a_known_type_is_its_enum_member_everywhere() -> None:
    for message in (Message(17, "a"), Message(17, "a").sign(ALICE), GATE.open_untrusted(signed(17))):
        assert message.type is MessageType.CHAT
    assert type(Message(999, "a").type) is type(Message(999, "a").sign(ALICE).type) is int


# --- verifying --------------------------------------------------------------------------------------------------------


def test_verify_holds_the_signature_to_the_sender_key_in_the_body() -> None:
    assert Message.from_bytes(Crafted().to_bytes(ALICE)).verify().sender_key == ALICE.pubkey
    with pytest.raises(
        AuthenticationError, match=f"^signature does not verify {FROM_ALICE.replace('(', '.').replace(')', '.')}"
    ):
        Message.from_bytes(Crafted().to_bytes(CAROL)).verify()
    with pytest.raises(AuthenticationError, match=r"^not a public key"):
        Message.from_bytes(Crafted(sender_key=b"\x02" + b"\xff" * 32).to_bytes()).verify()


def test_a_verified_message_cannot_be_made_from_outside() -> None:
    envelope = Message.from_bytes(signed())
    for proof in (None, object(), True):
        with pytest.raises(TypeError, match=r"comes from SignedMessage\.verify or Gate\.open_untrusted"):
            VerifiedMessage(envelope.body, envelope.raw, envelope.digest, proof)
    with pytest.raises(TypeError):
        VerifiedMessage(envelope.body, envelope.raw, envelope.digest)  # type: ignore[call-arg]
    assert not isinstance(envelope, VerifiedMessage)


def test_every_flipped_bit_of_an_envelope_is_refused() -> None:
    envelope = signed(payload=b"hi")
    for bit in range(8 * len(envelope)):
        flipped = bytearray(envelope)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PeerError):
            GATE.open_untrusted(bytes(flipped))
        with pytest.raises((SerializationError, AuthenticationError)):
            Message.from_bytes(bytes(flipped)).verify()


# --- the gate ---------------------------------------------------------------------------------------------------------

OVER_CHAT = limits.CHAT_MAX_BYTES + 1
KEYS_DIFFER = f"expected {ALICE.pubkey_hex}, got {CAROL.pubkey_hex}"
SIZES = f"expected 65 to {limits.MESSAGE_MAX_BYTES} bytes, got "

REFUSED: dict[str, tuple[bytes, type[NetworkError], str]] = {
    "wrong version": (
        Crafted(version=1).to_bytes(),
        InvalidMessage,
        f"wrong envelope version {FROM_ALICE}: expected 0, got 1",
    ),
    "wrong network": (
        signed(chain=Chain.MAINNET),
        InvalidMessage,
        f"wrong Bitcoin network {FROM_ALICE}: expected regtest, got mainnet",
    ),
    "unknown network": (
        Crafted(chain=77).to_bytes(),
        InvalidMessage,
        f"wrong Bitcoin network {FROM_ALICE}: expected regtest, got number 77",
    ),
    "another sender": (
        signed(by=CAROL),
        AuthenticationError,
        f"sender is not the channel's key {FROM_ALICE}: {KEYS_DIFFER}",
    ),
    "a sender that is no key": (
        Crafted(sender_key=bytes(33)).to_bytes(),
        AuthenticationError,
        f"sender is not the channel's key {FROM_ALICE}: expected {ALICE.pubkey_hex}, got {'00' * 33}",
    ),
    "our own message": (
        signed(by=BOB),
        AuthenticationError,
        f"our own message came back {FROM_ALICE}; a reflection; the link is closed",
    ),
    "another recipient": (
        signed(to=CAROL.pubkey),
        InvalidMessage,
        f"wrong recipient {FROM_ALICE}: expected {BOB.pubkey_hex}, got {CAROL.pubkey_hex}",
    ),
    "back to its sender": (
        signed(to=ALICE.pubkey),
        InvalidMessage,
        f"wrong recipient {FROM_ALICE}: expected {BOB.pubkey_hex}, got {ALICE.pubkey_hex}",
    ),
    "another group": (
        signed(to=SESSION),
        InvalidMessage,
        f"wrong recipient {FROM_ALICE}: expected {BOB.pubkey_hex}, got {SESSION.hex()}",
    ),
    "a recipient of one byte": (
        Crafted(recipient=b"\2").to_bytes(),
        InvalidMessage,
        f"wrong recipient {FROM_ALICE}: expected {BOB.pubkey_hex}, got 02",
    ),
    "a payload over its cap": (
        Crafted(payload=bytes(OVER_CHAT)).to_bytes(),
        InvalidMessage,
        f"CHAT payload too large {FROM_ALICE}: expected at most {OVER_CHAT - 1} bytes, got {OVER_CHAT} bytes",
    ),
    "an unknown even type": (
        signed(998),
        InvalidMessage,
        f"unknown message type {FROM_ALICE}: expected a known type, or an odd one to ignore, got 998",
    ),
    "type zero": (
        signed(0),
        InvalidMessage,
        f"unknown message type {FROM_ALICE}: expected a known type, or an odd one to ignore, got 0",
    ),
    "a bad signature": (
        bytes(SIGNATURE_BYTES) + signed()[SIGNATURE_BYTES:],
        AuthenticationError,
        f"signature does not verify {FROM_ALICE}; the link is closed; nothing of it was used",
    ),
    "another body's signature": (
        signed(seq=1)[:SIGNATURE_BYTES] + signed(seq=2)[SIGNATURE_BYTES:],
        AuthenticationError,
        f"signature does not verify {FROM_ALICE}; the link is closed; nothing of it was used",
    ),
    "somebody else's signature": (
        Crafted().to_bytes(CAROL),
        AuthenticationError,
        f"signature does not verify {FROM_ALICE}; the link is closed; nothing of it was used",
    ),
    "a signature over the plain body": (
        ALICE.sign(TaggedHash("another/tag")(signed()[SIGNATURE_BYTES:])) + signed()[SIGNATURE_BYTES:],
        AuthenticationError,
        f"signature does not verify {FROM_ALICE}; the link is closed; nothing of it was used",
    ),
    "nothing": (b"", SerializationError, f"undecodable message: not a message: {SIZES}0 bytes {FROM_ALICE}"),
    "a signature alone": (
        signed()[:SIGNATURE_BYTES],
        SerializationError,
        f"undecodable message: not a message: {SIZES}64 bytes {FROM_ALICE}",
    ),
    "too large": (
        bytes(limits.MESSAGE_MAX_BYTES + 1),
        SerializationError,
        f"undecodable message: not a message: {SIZES}{limits.MESSAGE_MAX_BYTES + 1} bytes {FROM_ALICE}",
    ),
    "truncated": (signed()[:-1], SerializationError, "undecodable message: not a Body: "),
    "a byte too many": (signed() + b"\0", SerializationError, "undecodable message: not a Body: "),
    "not msgpack": (bytes(64) + b"\xc1", SerializationError, "undecodable message: not a Body: "),
    "another encoding": (
        signed()[:64] + b"\xdc\x00\x0b" + signed()[65:],
        SerializationError,
        f"undecodable message: not a Body: expected its shortest encoding, got a longer one {FROM_ALICE}",
    ),
}


@pytest.mark.parametrize(("data", "kind", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_the_gate_refuses(data: bytes, kind: type[NetworkError], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        GATE.open_untrusted(data)
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, PeerError)
    assert error.action is Action.CLOSE
    assert str(error) == sentence or (sentence.endswith(": ") and str(error).startswith(sentence))
    assert FROM_ALICE in str(error)


ACCEPTED = {
    "to whoever is linked": signed(),
    "to our key": signed(to=BOB.pubkey),
    "to a group of ours": signed(to=GROUP),
    "an unknown odd type": signed(0xFFFF),
    "a payload at its cap": signed(payload=bytes(limits.CHAT_MAX_BYTES)),
    "an empty payload": signed(payload=b""),
    "a typed payload that is not canonical: whoever reads it says so": signed(MessageType.PING, b"\xff"),
    "with every field": Crafted(0, 3, 17, ALICE.pubkey, GROUP, SESSION, EPOCH, 5, 6, "x" * 64, b"y").to_bytes(),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_the_gate_accepts(data: bytes) -> None:
    message = GATE.open_untrusted(data)
    assert type(message) is VerifiedMessage
    assert message.to_bytes() == data
    assert message.sender_key == ALICE.pubkey


def test_a_group_joined_later_counts_at_once() -> None:
    groups: set[bytes] = set()
    gate = Gate(ALICE.public, BOB.pubkey, Chain.REGTEST, groups=groups)
    with pytest.raises(InvalidMessage, match=r"^wrong recipient"):
        gate.open_untrusted(signed(to=GROUP))
    groups.add(GROUP)
    assert gate.open_untrusted(signed(to=GROUP)).payload == b"hello"


def test_a_peer_without_a_label_is_named_by_its_key_and_a_label_is_shown_safely() -> None:
    for label, named in (("", f"from key {ALICE.pubkey_hex[2:10]}"), ("al\x1bice", r"from al\x1bice (")):
        gate = Gate(ALICE.public, BOB.pubkey, Chain.REGTEST, label=label)
        with pytest.raises(SerializationError) as caught:
            gate.open_untrusted(b"")
        assert named in str(caught.value)


@pytest.mark.parametrize("wrong", [{"sender_key": CAROL.pubkey}, {"chain": 0}, {"recipient": CAROL.pubkey}])
def test_a_wrong_version_is_named_before_anything_else_is_wrong(wrong: dict[str, Value]) -> None:
    """Another version may mean the other fields differently."""
    with pytest.raises(InvalidMessage, match=r"^wrong envelope version"):
        GATE.open_untrusted(replace(Crafted(version=1), **wrong).to_bytes())


VALID = [signed(), signed(to=GROUP, seq=9), ACCEPTED["with every field"]]


@given(st.sampled_from(VALID), st.data())
def test_any_mutation_of_an_envelope_is_refused_by_its_kind_of_error(valid: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(valid)))
    mutated = valid[:at] + data.draw(st.binary(max_size=5)) + valid[at + data.draw(st.integers(0, 4)) :]
    if mutated == valid:
        return
    with pytest.raises((SerializationError, InvalidMessage, AuthenticationError)):
        GATE.open_untrusted(mutated)


@given(st.binary(max_size=300))
def test_any_bytes_at_the_gate_are_a_serialization_error(data: bytes) -> None:
    with pytest.raises((SerializationError, InvalidMessage, AuthenticationError)):
        GATE.open_untrusted(data)


@given(
    st.sampled_from([kind for kind in MessageType if kind.value in (4, 6, 8, 10, 17, 20)]),
    st.text(max_size=64),
    st.binary(max_size=200),
    st.sampled_from([b"", SESSION]),
    st.sampled_from([None, BOB.pubkey, GROUP]),
    st.integers(0, limits.SEQUENCE_MAX),
    st.integers(0, limits.SENT_AT_MAX_MS),
)
def test_whatever_can_be_signed_passes_the_gate_unchanged(
    kind: MessageType, label: str, payload: bytes, session: bytes, to: bytes | None, seq: int, sent_at_ms: int
) -> None:
    message = Message(kind, label, payload, session=session)
    envelope = message.sign(ALICE, to=to, seq=seq, sent_at_ms=sent_at_ms, chain=Chain.REGTEST)
    opened = GATE.open_untrusted(envelope.to_bytes())
    assert opened == envelope == Message.from_bytes(envelope.to_bytes())
    assert (opened.type, opened.sender, opened.payload, opened.session) == (kind, label, payload, session)
    assert (opened.body.seq, opened.body.sent_at_ms, opened.body.recipient) == (seq, sent_at_ms, to or b"")


def test_a_gate_for_another_peer_lets_nothing_of_alice_in() -> None:
    for data in ACCEPTED.values():
        with pytest.raises(AuthenticationError, match=r"^sender is not the channel's key"):
            Gate(PublicKey(CAROL.pubkey), BOB.pubkey, Chain.REGTEST).open_untrusted(data)
