"""Sealed bundles: any bytes open as what their sender sealed, or raise SerializationError or AuthenticationError."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.aead import Aead, hkdf2
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, InvalidMessage, LocalError, SerializationError
from musignet.limits import KIB, MIB
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from musignet.wire.sealed import Bundle, open_untrusted, seal, sealed_bytes
from support.keys import ALICE, BOB, CAROL

ONCE = bytes(range(1, 33))
NOW = 1_700_000_000.0
OVERHEAD = 1 + 33 + (33 + 16) + 4 + 16
HELLO = Message(MessageType.CHAT, "alice", b"hello bob").sign(ALICE, to=BOB.pubkey).raw


def bundle(
    *envelopes: bytes, acks: tuple[bytes, ...] = (), end: float = NOW + 60, chain: int = Chain.REGTEST
) -> Bundle:
    return Bundle(chain, int(end * 1000), acks, envelopes or (HELLO,))


def sealed(content: Bundle | None = None, sender: Identity = ALICE, to: Identity = BOB) -> bytes:
    return seal(sender, PublicKey(to.pubkey), content or bundle(), ONCE)


def test_what_was_sealed_comes_out_with_its_sender() -> None:
    content = bundle(HELLO, HELLO, acks=(bytes(16), ONCE[:16]))
    assert open_untrusted(BOB, sealed(content)) == (ALICE.pubkey, content)


@dataclass
class PlainNoise:
    """Noise's symmetric state, written from its specification: the second opinion."""

    chain: bytes
    hash: bytes

    def mixed(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def opened(self, shared: bytes, data: bytes) -> bytes:
        self.chain, key = hkdf2(self.chain, shared)
        plain = Aead(key).decrypt(bytes(12), data, self.hash)
        self.mixed(data)
        return plain


def test_it_is_one_message_of_noise_x() -> None:
    data = sealed()
    name = sha256(b"Noise_X_secp256k1_ChaChaPoly_SHA256").digest()
    state = PlainNoise(name, name)
    for public in (b"musignet/sealed", BOB.pubkey, data[1:34]):
        state.mixed(public)
    sender = state.opened(BOB.ecdh(PublicKey(data[1:34])), data[34:83])
    assert sender == ALICE.pubkey
    plain = state.opened(BOB.ecdh(PublicKey(sender)), data[83:])
    assert plain[4:].startswith(b"\x94")
    assert HELLO in plain


def test_the_sender_cannot_be_seen_from_outside() -> None:
    data = sealed()
    assert ALICE.pubkey not in data
    assert b"alice" not in data
    assert len(data) == len(sealed(sender=CAROL))


@pytest.mark.parametrize("reader", [ALICE, CAROL])
def test_nobody_else_can_open_it_not_even_the_sender(reader: Identity) -> None:
    with pytest.raises(AuthenticationError, match="not sealed to this node"):
        open_untrusted(reader, sealed())


def test_who_received_it_cannot_hand_it_on_as_from_its_sender() -> None:
    """Bob may seal what alice wrote to carol: then it comes from bob, and carol's gate refuses alice's messages."""
    content = open_untrusted(BOB, sealed()).bundle
    assert open_untrusted(CAROL, sealed(content, sender=BOB, to=CAROL)).sender == BOB.pubkey


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (0, KIB), (KIB - OVERHEAD, KIB), (KIB - OVERHEAD + 1, 4 * KIB), (4 * KIB, 16 * KIB), (16 * KIB, 64 * KIB),
        (64 * KIB - OVERHEAD, 64 * KIB), (64 * KIB, 128 * KIB), (200 * KIB, 256 * KIB),
    ],
)  # fmt: skip
def test_sizes_are_steps(content: int, size: int) -> None:
    assert sealed_bytes(content) == size


@pytest.mark.parametrize("length", [1, 700, 900, 3000, 15_000, 60_000, 70_000])
def test_what_fits_into_a_step_has_its_size(length: int) -> None:
    content = bundle(bytes(length))
    data = sealed(content)
    assert len(data) in (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB)
    assert open_untrusted(BOB, data).bundle == content


@given(at=st.integers(0, KIB - 1), bit=st.integers(0, 7))
def test_each_changed_bit_is_found(at: int, bit: int) -> None:
    data = bytearray(sealed())
    data[at] ^= 1 << bit
    with pytest.raises((AuthenticationError, SerializationError)):
        open_untrusted(BOB, bytes(data))


@given(st.binary(max_size=300) | st.binary(min_size=KIB, max_size=KIB))
def test_any_bytes(data: bytes) -> None:
    for one in (data, b"\x00" + data, (b"\x00" + ALICE.pubkey + data).ljust(KIB, b"\x01")):
        with pytest.raises((AuthenticationError, SerializationError)):
            open_untrusted(BOB, one)


@pytest.mark.parametrize("cut", [b"", sealed()[:-1], sealed() + b"\x00", sealed() * 2, bytes(MIB + 64 * KIB)])
def test_another_length_is_refused_at_once(cut: bytes) -> None:
    with pytest.raises(SerializationError, match="not a sealed bundle"):
        open_untrusted(BOB, cut)


def test_a_newer_version_is_called_so() -> None:
    with pytest.raises(SerializationError, match="of this version"):
        open_untrusted(BOB, b"\x01" + sealed()[1:])


def resealed(plain: bytes) -> bytes:
    """What a sender of its own make could seal: any bytes as the padded content."""
    import musignet.wire.sealed as module
    from musignet.crypto.keys import Ephemeral

    once, bob = Ephemeral(ONCE), PublicKey(BOB.pubkey)
    state = module._State(BOB.pubkey)
    state.mix_hash(once.pubkey)
    state.mix_key(once.ecdh(bob))
    sender = state.encrypt(ALICE.pubkey)
    state.mix_key(ALICE.ecdh(bob))
    return b"\x00" + once.pubkey + sender + state.encrypt(plain)


def padded(content: bytes, *, size: int = KIB, length: int | None = None, fill: bytes = b"\x00") -> bytes:
    room = size - OVERHEAD + 4
    length = len(content) if length is None else length
    return (length.to_bytes(4, "big") + content).ljust(room, fill)


GOOD = bytes.fromhex("9404") + b"\xce" + (1).to_bytes(4, "big") + b"\x90\x90"


def test_a_sender_of_its_own_make_can_seal_what_we_read() -> None:
    plain = padded(bytes.fromhex("9404019090"))
    assert open_untrusted(BOB, resealed(plain)).bundle == Bundle(4, 1, (), ())


@pytest.mark.parametrize(
    "plain",
    [
        padded(bytes.fromhex("9404019090"), fill=b"\x01"),
        padded(bytes.fromhex("9404019090"), length=2**32 - 1),
        padded(bytes.fromhex("9404019090"), length=2000),
        padded(bytes.fromhex("9404019090"), size=4 * KIB),
        padded(GOOD),
        padded(bytes.fromhex("9304 01 90".replace(" ", ""))),
        padded(bytes.fromhex("9404019190")),
        padded(bytes.fromhex("94040191c40101" + "90")),
        padded(bytes.fromhex("9404019091c400")),
        padded(b""),
    ],
    ids=["fill", "length", "beyond", "step", "longer", "fields", "short id list", "short id", "empty envelope", "none"],
)
def test_inside_there_is_one_encoding(plain: bytes) -> None:
    with pytest.raises(SerializationError):
        open_untrusted(BOB, resealed(plain))


def test_bounds_hold_for_our_own_caller_too() -> None:
    for content in (
        bundle(b""),
        bundle(HELLO, acks=(b"short",)),
        bundle(*[b"x"] * (limits.SEALED_ENVELOPES_MAX + 1)),
        bundle(bytes(MIB)),
    ):
        with pytest.raises(SerializationError):
            sealed(content)


@pytest.mark.parametrize(
    ("content", "text"),
    [(bundle(end=NOW), "expired"), (bundle(chain=Chain.MAINNET), "another Bitcoin network"), (bundle(chain=99), "99")],
)
def test_time_and_network_are_judged(content: Bundle, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        content.require(Chain.REGTEST, NOW)


def test_within_its_time_it_counts() -> None:
    bundle().require(Chain.REGTEST, NOW + 59.9)


def test_a_wiped_identity_seals_nothing() -> None:
    gone = Identity.from_secret(ONCE)
    gone.wipe()
    with pytest.raises(LocalError):
        sealed(sender=gone)
