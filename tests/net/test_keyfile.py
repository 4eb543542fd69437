"""The 100 bytes of a key file: any input opens or raises one of two kinds of error (THREATS.md "Keys at rest")."""

from __future__ import annotations

import pytest

from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, LocalError, SerializationError
from musignet.net.keyfile import FILE_BYTES, KdfCost, Passphrase, check_untrusted, open_untrusted, phrase, seal

CHEAP = KdfCost(memory_kib=19 * 1024, passes=2, lanes=1)
SECRET = bytes(range(1, 33))
ALICE = Identity.from_secret(SECRET)
SALT = bytes(range(32))
SEALED = seal(ALICE, b"pass", CHEAP, SALT)
UNENCRYPTED = seal(ALICE, None, CHEAP, SALT)
REFUSALS = (AuthenticationError, SerializationError)


def flipped(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


# --- what is sealed opens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "secret_phrase"), [(SEALED, b"pass"), (UNENCRYPTED, None)])
def test_what_is_sealed_opens(data: bytes, secret_phrase: bytes | None) -> None:
    opened = open_untrusted(data, secret_phrase, "k")
    assert opened.pubkey == ALICE.pubkey
    assert opened.sign(bytes(32)) == ALICE.sign(bytes(32))


def test_the_layout_is_the_documented_one() -> None:
    assert len(SEALED) == FILE_BYTES == 100
    assert SEALED[:20] == b"MUSIGKEY" + bytes([1, 1, 1, 1]) + (19 * 1024).to_bytes(4) + (2).to_bytes(4)
    assert UNENCRYPTED[:20] == b"MUSIGKEY" + bytes([1, 1, 0, 0]) + bytes(8)
    assert SEALED[20:52] == UNENCRYPTED[20:52] == SALT
    assert SECRET not in SEALED


def test_the_format_does_not_change_by_accident() -> None:
    """The sealed half of a file written by version 0.1: whoever breaks this locks people out of their keys."""
    assert (
        SEALED[52:].hex()
        == "9f6b6568a7d7f311f10b5b999144fcb77a778ccf01bc4dfce183798dd2cfbff7f00670c83444849256a2dfaa51661583"
    )
    assert (
        UNENCRYPTED[52:].hex()
        == "9e05e4ba50573f7291b09c707e23071dda1d3ab45df572710bdc48222ff065cd35044f7304316b64db0fdd8fd518d5e8"
    )


@pytest.mark.parametrize(
    ("secret_phrase", "cost", "salt"),
    [
        (b"Pass", CHEAP, SALT),
        (b"pass", KdfCost(memory_kib=19 * 1024, passes=3, lanes=1), SALT),
        (b"pass", CHEAP, bytes(32)),
    ],
)
def test_passphrase_cost_and_salt_each_change_the_key(secret_phrase: bytes, cost: KdfCost, salt: bytes) -> None:
    assert seal(ALICE, secret_phrase, cost, salt)[52:84] != SEALED[52:84]


class Watched:
    """Stands in for an Identity and keeps hold of the secret it gave out."""

    def __init__(self) -> None:
        self.given = bytearray()

    def secret_for_storage(self) -> bytearray:
        self.given = ALICE.secret_for_storage()
        return self.given


def test_the_secret_is_overwritten_once_it_is_sealed() -> None:
    watched = Watched()
    assert seal(watched, b"pass", CHEAP, SALT) == SEALED  # type: ignore[arg-type]
    assert watched.given == bytearray(32)


# --- passphrases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passphrase", "expected"),
    [
        (None, None),
        ("pass", b"pass"),
        (bytearray(b"\xff\x00"), b"\xff\x00"),
        (memoryview(b"\xff"), b"\xff"),
        ("caf\u00e9", b"caf\xc3\xa9"),
        ("cafe\u0301", b"caf\xc3\xa9"),  # two key presses for the same letter
        (b"cafe\xcc\x81", b"cafe\xcc\x81"),
    ],
)
def test_a_passphrase_is_taken_as_nfc_or_as_its_bytes(passphrase: Passphrase | None, expected: bytes | None) -> None:
    assert phrase(passphrase) == expected


@pytest.mark.parametrize("passphrase", ["", b"", bytearray(), "\ud800"])
def test_what_is_no_passphrase_is_refused(passphrase: Passphrase) -> None:
    with pytest.raises(LocalError, match="the passphrase is"):
        phrase(passphrase)


@pytest.mark.parametrize("wrong", [b"Pass", b"pass ", b"pas", b"pass\x00", b"x" * 10_000])
def test_a_wrong_passphrase_opens_nothing(wrong: bytes) -> None:
    with pytest.raises(AuthenticationError, match=r"wrong passphrase or altered key file, it cannot be told which: k$"):
        open_untrusted(SEALED, wrong, "k")


def test_an_unencrypted_file_is_not_taken_for_an_encrypted_one() -> None:
    with pytest.raises(AuthenticationError, match="unencrypted key file: k: expected no passphrase, got one"):
        open_untrusted(UNENCRYPTED, b"pass", "k")


def test_an_encrypted_file_needs_its_passphrase() -> None:
    with pytest.raises(LocalError, match="encrypted key file: k: expected its passphrase, got none"):
        open_untrusted(SEALED, None, "k")


# --- altered and foreign bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(FILE_BYTES))
def test_every_altered_byte_is_refused(at: int) -> None:
    with pytest.raises(REFUSALS, match="k"):
        open_untrusted(flipped(SEALED, at, 0xFF if at < 20 else 0x01), b"pass", "k")


@pytest.mark.parametrize("at", range(FILE_BYTES))
def test_every_altered_bit_of_an_unencrypted_file_is_refused(at: int) -> None:
    for bit in range(8):
        with pytest.raises(REFUSALS):
            open_untrusted(flipped(UNENCRYPTED, at, 1 << bit), None, "k")


@pytest.mark.parametrize("length", range(FILE_BYTES))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(SerializationError, match="not a key file: k"):
        open_untrusted(SEALED[:length], b"pass", "k")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0, "expected a file that begins with MUSIGKEY, got another beginning"),
        (8, 2, "expected version 1, got version 2; it may need a newer MuSigNet"),
        (9, 2, "expected contents 1, an identity, got contents 2"),
        (10, 2, "expected protection 0 or 1, got protection 2"),
        (10, 0, "expected 0 KiB, 0 passes, 0 lanes, got 19456 KiB, 2 passes, 1 lanes"),
    ],
)
def test_a_file_of_another_kind_is_told_what_it_is(at: int, value: int, message: str) -> None:
    with pytest.raises(SerializationError, match=message):
        check_untrusted(SEALED[:at] + bytes([value]) + SEALED[at + 1 :], "k")


def test_a_later_version_may_have_another_length() -> None:
    with pytest.raises(SerializationError, match="got version 2"):
        check_untrusted(SEALED[:8] + b"\x02" + SEALED[9:] + b"more", "k")


@pytest.mark.parametrize(("data", "got"), [(SEALED[:99], "99"), (SEALED + b"\n", "more")])
def test_the_length_is_exact(data: bytes, got: str) -> None:
    check_untrusted(SEALED, "k")
    with pytest.raises(SerializationError, match=f"expected 100 bytes, got {got}"):
        check_untrusted(data, "k")


# --- the cost of a guess --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cost",
    [
        KdfCost(memory_kib=19 * 1024 - 1, passes=2, lanes=1),
        KdfCost(memory_kib=2 * 1024**2 + 1, passes=2, lanes=1),
        KdfCost(memory_kib=2**32 - 1, passes=2**32 - 1, lanes=255),
        KdfCost(memory_kib=19 * 1024, passes=1, lanes=1),
        KdfCost(memory_kib=19 * 1024, passes=11, lanes=1),
        KdfCost(memory_kib=19 * 1024, passes=2, lanes=0),
        KdfCost(memory_kib=19 * 1024, passes=2, lanes=17),
        KdfCost(memory_kib=0, passes=0, lanes=0),
    ],
    ids=str,
)
def test_a_cost_out_of_range_is_refused_before_it_is_paid(cost: KdfCost) -> None:
    numbers = bytes([cost.lanes]) + cost.memory_kib.to_bytes(4) + cost.passes.to_bytes(4)
    with pytest.raises(SerializationError, match="19 MiB to 2 GiB"):
        check_untrusted(SEALED[:11] + numbers + SEALED[20:], "k")
    with pytest.raises(SerializationError, match="19 MiB to 2 GiB"):
        open_untrusted(SEALED[:11] + numbers + SEALED[20:], b"pass", "k")
    with pytest.raises(LocalError, match="19 MiB to 2 GiB"):
        seal(ALICE, b"pass", cost, SALT)


def test_the_bounds_of_the_cost_are_inside() -> None:
    assert KdfCost(memory_kib=19 * 1024, passes=2, lanes=1).in_range()
    assert KdfCost(memory_kib=2 * 1024**2, passes=10, lanes=16).in_range()


def test_the_default_cost_is_that_of_the_threat_table() -> None:
    assert KdfCost() == KdfCost(memory_kib=256 * 1024, passes=3, lanes=4)
