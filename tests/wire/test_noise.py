"""BOLT 8: all 16 cases of appendix A, and every single-bit flip of the three acts, on machine and channel."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.crypto.aead import Aead, AeadError, hkdf2
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, NetworkError, ReceiveError
from musignet.limits import CIPHERS_AWAKE_MAX, NOISE_MESSAGE_MAX_BYTES, ROTATE_AFTER_MESSAGES
from musignet.wire.channel import Established, SecureChannel
from musignet.wire.noise import (
    ACT_ONE_BYTES,
    ACT_THREE_BYTES,
    ACT_TWO_BYTES,
    PROLOGUE,
    Cipher,
    HandshakeError,
    Initiator,
    Keys,
    Responder,
)
from support.channels import connected, dead, drain, fresh, wire
from support.keys import ALICE, BOB, CAROL, secret
from support.vectors import bolt8

LIGHTNING = b"lightning"
HANDSHAKES = range(15)
MESSAGE_CASE = 15


class Case:
    """One case of the appendix: its key material by name, then what goes in and what must come out, in order."""

    def __init__(self, index: int) -> None:
        vector = bolt8()[index]
        self.name: str = vector["name"]
        self.named = {name: _bytes(value) for name, value in vector["fields"] if name not in ("input", "output")}
        steps = [(name, value) for name, value in vector["fields"] if name in ("input", "output")]
        self.dials = "initiator" in self.name
        *self.talk, (_, self.end) = steps
        self.identity = Identity.from_secret(self.named["ls.priv"])

    @property
    def rounds(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each input with the output that answers it; None where the case ends instead."""
        steps = self.talk[1:] if self.dials else self.talk
        for at, (name, value) in enumerate(steps):
            if name == "input":
                answered = at + 1 < len(steps) and steps[at + 1][0] == "output"
                yield _bytes(value), _bytes(steps[at + 1][1]) if answered else None

    @property
    def error(self) -> str:
        """BOLT 8's name of the error, or nothing."""
        return self.end.removeprefix("ERROR (").removesuffix(")") if self.end.startswith("ERROR") else ""

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """The sending and the receiving key."""
        names, values = self.end.split("=")
        by_name = dict(zip(names.split(","), map(_bytes, values.split(",")), strict=True))
        return by_name["sk"], by_name["rk"]

    def names(self, error: HandshakeError) -> bool:
        """Whether the error has the appendix's name. It gives the version byte for acts two and three, not for one."""
        return error.reason.split()[: len(self.error.split())] == self.error.split()


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def _seals_with(keys: Keys, key: bytes) -> bool:
    """Whether the first packet is sealed with `key`. The chaining key plays no part before the first rotation."""
    return keys.sending.seal(b"hello") == Cipher(bytes(32), key).seal(b"hello")


def _opens_with(keys: Keys, key: bytes) -> bool:
    packet = b"".join(Cipher(bytes(32), key).seal(b"hello"))
    return keys.receiving.open_untrusted(packet, 0) == (b"hello", len(packet))


def test_the_appendix_has_exactly_these_cases() -> None:
    assert len(bolt8()) == 16
    assert [Case(index).error.split(" ")[0] for index in HANDSHAKES] == [
        *("", "ACT2_READ_FAILED", "ACT2_BAD_VERSION", "ACT2_BAD_PUBKEY", "ACT2_BAD_TAG"),
        *("", "ACT1_READ_FAILED", "ACT1_BAD_VERSION", "ACT1_BAD_PUBKEY", "ACT1_BAD_TAG"),
        *("ACT3_BAD_VERSION", "ACT3_READ_FAILED", "ACT3_BAD_CIPHERTEXT", "ACT3_BAD_PUBKEY", "ACT3_BAD_TAG"),
    ]
    assert bolt8()[MESSAGE_CASE]["name"] == "transport-message test"


def _machine_rounds(case: Case) -> tuple[list[bytes], Keys]:
    """Drive `Initiator` or `Responder` through a case; return what it sent and its keys."""
    first, *rest = (data for data, _ in case.rounds)
    if case.dials:
        initiator = Initiator(case.identity, PublicKey(case.named["rs.pub"]), case.named["e.priv"], LIGHTNING)
        assert initiator.act_one() == _bytes(case.talk[0][1])
        sent, keys = initiator.act_three(first)
        return [sent], keys
    responder = Responder(case.identity, case.named["e.priv"], LIGHTNING)
    sent = responder.act_two(first)
    assert sent == next(case.rounds)[1], "act two is right even where act three is not"
    return [sent], responder.finish(rest[0])


@pytest.mark.parametrize("index", HANDSHAKES)
def test_bolt8_handshakes_on_the_machine(index: int) -> None:
    case = Case(index)
    assert case.identity.pubkey == case.named["ls.pub"]
    if case.error:
        with pytest.raises(HandshakeError) as caught:
            _machine_rounds(case)
        assert case.names(caught.value), (caught.value.reason, case.error)
        return
    sent, keys = _machine_rounds(case)
    assert sent == [answer for _, answer in case.rounds if answer is not None]
    sending, receiving = case.keys
    assert _seals_with(keys, sending)
    assert _opens_with(keys, receiving)


def _channel(case: Case) -> SecureChannel:
    if not case.dials:
        return SecureChannel.responder(case.identity, case.named["e.priv"], prologue=LIGHTNING)
    channel = SecureChannel.initiator(
        case.identity, PublicKey(case.named["rs.pub"]), case.named["e.priv"], prologue=LIGHTNING
    )
    assert wire(channel) == _bytes(case.talk[0][1])
    return channel


@pytest.mark.parametrize("index", HANDSHAKES)
def test_bolt8_handshakes_on_the_channel(index: int) -> None:
    case = Case(index)
    channel = _channel(case)
    *fine, (last, answer) = case.rounds
    for data, expected in fine:
        channel.receive_data(data)
        assert drain(channel) == []
        assert wire(channel) == expected
    channel.receive_data(last)
    if case.error.endswith("READ_FAILED"):  # a stream that ends early: no event, no reply, and then it is gone
        assert drain(channel) == []
        assert wire(channel) == b""
        assert not channel.established
        channel.connection_lost()
        assert isinstance(dead(channel), ReceiveError)
    elif case.error:
        error = dead(channel)
        assert isinstance(error, HandshakeError)
        assert case.names(error), (error.reason, case.error)
        assert not channel.established
    else:
        (event,) = drain(channel)
        assert isinstance(event, Established)
        assert wire(channel) == (answer or b"")
        assert channel.established


def test_bolt8_messages_rotate_as_published() -> None:
    named = {name: _bytes(value) for name, value in bolt8()[MESSAGE_CASE]["fields"]}
    outputs = {int(name.split()[1]): value for name, value in named.items() if name.startswith("output")}
    assert sorted(outputs) == [0, 1, 500, 501, 1000, 1001]
    sender, receiver = Cipher(named["ck"], named["sk"]), Cipher(named["ck"], named["sk"])
    for number in range(1002):
        packet = b"".join(sender.seal(b"hello"))
        assert outputs.get(number, packet) == packet
        assert receiver.open_untrusted(packet, 0) == (b"hello", len(packet))


# --- what the vectors do not say --------------------------------------------------------------------------------------


def test_both_sides_end_with_each_others_key_and_one_transcript() -> None:
    dialler, responder = fresh()
    responder.receive_data(wire(dialler))
    assert drain(responder) == []
    dialler.receive_data(wire(responder))
    (at_dialler,) = drain(dialler)
    responder.receive_data(wire(dialler))
    (at_responder,) = drain(responder)
    assert at_dialler.peer == BOB.public
    assert at_responder.peer == ALICE.public
    assert at_dialler.transcript == at_responder.transcript
    assert len(at_dialler.transcript) == 32


def test_another_connection_has_another_transcript_and_other_keys() -> None:
    first = Initiator(ALICE, BOB.public, secret("e1"))
    second = Initiator(ALICE, BOB.public, secret("e2"))
    transcripts, packets = set(), set()
    for initiator in (first, second):
        responder = Responder(BOB, secret("r"))
        _, keys = initiator.act_three(responder.act_two(initiator.act_one()))
        transcripts.add(keys.transcript)
        packets.add(keys.sending.seal(b"x"))
    assert len(transcripts) == len(packets) == 2


MISMATCHES = {
    "another key was dialled": (CAROL.public, PROLOGUE),
    "another prologue": (BOB.public, LIGHTNING),
    "an empty prologue": (BOB.public, b""),
}


@pytest.mark.parametrize(("dialled", "prologue"), MISMATCHES.values(), ids=MISMATCHES.keys())
def test_a_mismatch_is_refused_in_act_one_with_nothing_sent_back(dialled: PublicKey, prologue: bytes) -> None:
    dialler = SecureChannel.initiator(ALICE, dialled, secret("e"), prologue=prologue)
    responder = SecureChannel.responder(BOB, secret("r"))
    responder.receive_data(wire(dialler))
    error = dead(responder)
    assert isinstance(error, HandshakeError)
    assert error.reason == "ACT1_BAD_TAG"


def test_somebody_else_cannot_answer_for_the_dialled_key() -> None:
    """Carol answers with her own act two, or with Bob's of another connection."""
    for act_two in (
        Responder(CAROL, secret("r")).act_two(Initiator(ALICE, CAROL.public, secret("e")).act_one()),
        Responder(BOB, secret("r")).act_two(Initiator(ALICE, BOB.public, secret("another")).act_one()),
    ):
        dialler, _ = fresh()
        wire(dialler)
        dialler.receive_data(act_two)
        assert isinstance(dead(dialler), HandshakeError)


def test_every_handshake_failure_looks_alike_outside() -> None:
    sentences = {str(HandshakeError(reason)).replace(reason, "") for reason in ("ACT1_BAD_TAG", "ACT3_BAD_PUBKEY")}
    assert len(sentences) == 1


# --- every single bit -------------------------------------------------------------------------------------------------


def _flips(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def _acts() -> tuple[bytes, bytes, bytes]:
    dialler, responder = fresh()
    one = wire(dialler)
    responder.receive_data(one)
    assert drain(responder) == []
    two = wire(responder)
    dialler.receive_data(two)
    assert len(drain(dialler)) == 1
    three = wire(dialler)
    responder.receive_data(three)
    assert len(drain(responder)) == 1, "unflipped, the three acts hold"
    assert (len(one), len(two), len(three)) == (ACT_ONE_BYTES, ACT_TWO_BYTES, ACT_THREE_BYTES)
    return one, two, three


def test_every_flipped_bit_of_act_one_is_refused() -> None:
    one, _, _ = _acts()
    for flipped in _flips(one):
        _, responder = fresh()
        responder.receive_data(flipped)
        assert isinstance(dead(responder), HandshakeError)


def test_every_flipped_bit_of_act_two_is_refused() -> None:
    _, two, _ = _acts()
    for flipped in _flips(two):
        dialler, _ = fresh()
        wire(dialler)
        dialler.receive_data(flipped)
        assert isinstance(dead(dialler), HandshakeError)
        assert not dialler.established


def test_every_flipped_bit_of_act_three_is_refused() -> None:
    one, two, three = _acts()
    for flipped in _flips(three):
        _, responder = fresh()
        responder.receive_data(one)
        assert drain(responder) == []
        assert wire(responder) == two
        responder.receive_data(flipped)
        assert isinstance(dead(responder), HandshakeError)
        assert not responder.established


def test_nothing_leaves_either_when_the_bad_act_came_together_with_a_good_one() -> None:
    one, _, three = _acts()
    for flipped in _flips(three[:3]):
        _, responder = fresh()
        responder.receive_data(one + flipped + three[3:])
        assert isinstance(dead(responder), HandshakeError)


def test_an_act_one_that_was_never_fetched_does_not_leave_after_the_failure() -> None:
    dialler, _ = fresh()
    dialler.receive_data(bytes(ACT_TWO_BYTES))
    assert isinstance(dead(dialler), HandshakeError)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: a\r\n" * 4, b"\x16\x03\x01" + bytes(90), b"SSH-2.0-x\r\n" * 9]
)
def test_another_protocol_is_refused(garbage: bytes) -> None:
    for channel in fresh():
        channel.receive_data(garbage)
        assert isinstance(dead(channel), HandshakeError)


def test_another_version_of_ours_is_another_protocol() -> None:
    """T9: the name and version of the protocol are in the transcript, so there is nothing to talk down to."""
    _, responder = fresh()
    responder.receive_data(Initiator(ALICE, BOB.public, secret("e"), b"musignet/2").act_one())
    assert isinstance(dead(responder), HandshakeError)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=2))
def test_any_bytes_in_a_handshake_are_waited_on_or_a_handshake_error(garbage: bytes, good_acts: int) -> None:
    one, _, three = _acts()
    _, responder = fresh()
    responder.receive_data(b"".join((one, three)[:good_acts]) + garbage)
    try:
        events = drain(responder)
    except HandshakeError:
        assert good_acts < 2
    except ReceiveError:
        assert good_acts == 2
    else:
        assert len(events) == (1 if good_acts == 2 else 0)


# --- the machine's own contract ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 49, 51, 66])
def test_an_act_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="ACT1_READ_FAILED"):
        Responder(BOB, secret("r")).act_two(bytes(size))
    initiator = Initiator(ALICE, BOB.public, secret("e"))
    initiator.act_one()
    with pytest.raises(HandshakeError, match="ACT2_READ_FAILED"):
        initiator.act_three(bytes(size))


def test_an_ephemeral_that_is_no_key_is_a_callers_fault() -> None:
    with pytest.raises(AuthenticationError):
        Initiator(ALICE, BOB.public, bytes(32))
    with pytest.raises(AuthenticationError):
        Responder(BOB, bytes(32)).act_two(Initiator(ALICE, BOB.public, secret("e")).act_one())


def test_the_ephemeral_is_wiped_after_its_handshake() -> None:
    initiator, responder = Initiator(ALICE, BOB.public, secret("e")), Responder(BOB, secret("r"))
    act_two = responder.act_two(initiator.act_one())
    act_three, _ = initiator.act_three(act_two)
    responder.finish(act_three)
    for again in (initiator.act_one, lambda: responder.finish(act_three), lambda: initiator.act_three(act_two)):
        with pytest.raises(NetworkError):
            again()


def test_a_packet_holds_at_most_65535_bytes() -> None:
    cipher = Cipher(bytes(32), bytes(32))
    assert len(b"".join(cipher.seal(bytes(NOISE_MESSAGE_MAX_BYTES)))) == 18 + NOISE_MESSAGE_MAX_BYTES + 16
    with pytest.raises(OverflowError):
        cipher.seal(bytes(NOISE_MESSAGE_MAX_BYTES + 1))


def test_a_receiver_that_missed_a_packet_or_a_rotation_reads_nothing() -> None:
    key, packets = sha256(b"key").digest(), ROTATE_AFTER_MESSAGES // 2
    sender = Cipher(key, key)
    heads = [sender.seal(b"x")[0] for _ in range(packets + 1)]
    for number in (1, packets):
        with pytest.raises(AeadError):
            Cipher(key, key).open_untrusted(heads[number], 0)


def test_a_packet_is_opened_once_it_is_whole_and_wherever_it_stands() -> None:
    key = sha256(b"key").digest()
    sender, receiver = Cipher(key, key), Cipher(key, key)
    packets = [b"".join(sender.seal(bytes(number))) for number in range(3)]
    stream, at = b"".join(packets), 0
    for number, packet in enumerate(packets):
        for end in range(at, at + len(packet)):
            assert receiver.open_untrusted(stream[:end], at) is None
        assert receiver.open_untrusted(stream, at) == (bytes(number), at + len(packet))
        at += len(packet)


def test_a_key_seals_a_thousand_times_and_no_more() -> None:
    """BOLT 8 "Lightning Message Key Rotation", T15; without its vectors, too."""
    key = sha256(b"key").digest()
    sender = Cipher(key, key)
    heads = [sender.seal(b"x")[0] for _ in range(ROTATE_AFTER_MESSAGES // 2 + 1)]
    assert Aead(key).decrypt(_counted(ROTATE_AFTER_MESSAGES - 2), heads[-2], None) == b"\0\1"
    with pytest.raises(AeadError):
        Aead(key).decrypt(_counted(ROTATE_AFTER_MESSAGES), heads[-1], None)
    assert Aead(hkdf2(key, key)[1]).decrypt(_counted(0), heads[-1], None) == b"\0\1"


def _counted(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")


def test_only_the_ciphers_used_last_hold_memory_and_each_goes_on_where_it_was() -> None:
    key = sha256(b"key").digest()
    pairs = [(Cipher(key, key), Cipher(key, key)) for _ in range(CIPHERS_AWAKE_MAX)]
    for _ in range(3):
        for sender, receiver in pairs:
            packet = b"".join(sender.seal(b"hello"))
            assert receiver.open_untrusted(packet[:-1], 0) is None
            assert receiver.open_untrusted(packet, 0) == (b"hello", len(packet))
    assert sum(cipher._made is not None for pair in pairs for cipher in pair) == CIPHERS_AWAKE_MAX


def test_the_two_directions_have_different_keys() -> None:
    dialler, responder = connected()
    for channel in (dialler, responder):
        channel.send(b"x" * 10)
    assert wire(dialler) != wire(responder)
