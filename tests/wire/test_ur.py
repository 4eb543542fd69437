"""UR: any text is a part or raises SerializationError; a sequence survives what cameras do to it."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import SerializationError
from musignet.wire import ur
from musignet.wire.ur import UrDecoder, decode_single_untrusted, encode, parts

WOLF_NUMBERS = [
    42, 81, 85, 8, 82, 84, 76, 73, 70, 88, 2, 74, 40, 48, 77, 54, 88, 7, 5, 88, 37, 25, 82, 13, 69, 59, 30, 39, 11, 82,
    19, 99, 45, 87, 30, 15, 32, 22, 89, 44, 92, 77, 29, 78, 4, 92, 44, 68, 92, 69, 1, 42, 89, 50, 37, 84, 63, 34, 32, 3,
    17, 62, 40, 98, 82, 89, 24, 43, 85, 39, 15, 3, 99, 29, 20, 42, 27, 10, 85, 66, 50, 35, 69, 70, 70, 74, 30, 13, 72,
    54, 11, 5, 70, 55, 91, 52, 10, 43, 43, 52,
]  # fmt: skip
"""BCR-2020-005's reference code, test of its generator: modulo 100, seeded with "Wolf"."""
WOLF_50 = (
    "ur:bytes/hdeymejtswhhylkepmykhhtsytsnoyoyaxaedsuttydmmhhpktpmsrjtgwdpfnsboxgwlbaawzuefywkdplrsrjynbvygabwjldapfcsdw"
    "kbrkch"
)


def wolf(size: int, seed: bytes = b"Wolf") -> bytes:
    random = ur._Random(seed)
    return bytes(random.below(256) for _ in range(size))


def take(data: bytes, count: int, size: int = 30) -> list[str]:
    return list(islice(parts(data, size), count))


def collected(texts: list[str]) -> bytes | None:
    decoder = UrDecoder()
    for text in texts:
        whole = decoder.add_untrusted(text)
        if whole is not None:
            return whole
    return None


def test_the_generator_is_the_published_one() -> None:
    random = ur._Random(b"Wolf")
    assert [random.next() % 100 for _ in range(100)] == WOLF_NUMBERS


def test_one_part_is_the_published_text() -> None:
    assert encode(wolf(50)) == WOLF_50
    for text in (WOLF_50, WOLF_50.upper(), f"  {WOLF_50}\r\n"):
        assert decode_single_untrusted(text) == wolf(50)
        assert collected([text]) == wolf(50)


def test_many_parts_are_the_published_ones() -> None:
    made = take(wolf(256), 20)
    assert [made[number - 1] for number in (1, 10, 20)] == [
        "ur:bytes/1-9/lpadascfadaxcywenbpljkhdcahkadaemejtswhhylkepmykhhtsytsnoyoyaxaedsuttydmmhhpktpmsrjtdkgslpgh",
        "ur:bytes/10-9/lpbkascfadaxcywenbpljkhdcahkadaemejtswhhylkepmykhhtsytsnoyoyaxaedsuttydmmhhpktpmsrjtwdkiplzs",
        "ur:bytes/20-9/lpbbascfadaxcywenbpljkhdcayapmrleeleaxpasfrtrdkncffwjyjzgyetdmlewtkpktgllepfrltataztksmhkbot",
    ]


@pytest.mark.parametrize("size", [1, 23, 24, 199, 200, 256, 1024, 5000, 70_000])
def test_what_goes_in_comes_out(size: int) -> None:
    data = wolf(size)
    count = -(-(size + 5) // 200)
    assert collected(take(data, count, 200)) == data


@given(st.binary(min_size=40, max_size=2000), st.integers(0, 2**32), st.floats(0.1, 0.8))
def test_missing_repeated_and_shuffled_parts(data: bytes, seed: int, lost: float) -> None:
    random = Random(seed)
    count = -(-(len(data) + 3) // 30)
    seen = [one for one in take(data, 20 * count + 40) if random.random() > lost]
    seen += random.sample(seen, len(seen) // 2)
    random.shuffle(seen)
    assert collected(seen) == data


def test_the_plain_parts_alone_may_be_missed_altogether() -> None:
    data = wolf(1000)
    count = len({text.split("/")[1].split("-")[1] for text in take(data, 3)})
    assert count == 1
    assert collected(take(data, 300)[40:]) == data


def test_parts_of_another_sequence_between_them_do_no_harm() -> None:
    mine, foreign = take(wolf(500), 18), take(wolf(500, b"other"), 9)
    mixed = [one for pair in zip(foreign, mine[:9], strict=True) for one in pair]
    decoder = UrDecoder()
    found = [whole for text in mixed if (whole := decoder.add_untrusted(text)) is not None]
    assert found == []
    found = [whole for text in mine[9:] if (whole := decoder.add_untrusted(text)) is not None]
    assert found[0] == wolf(500)
    assert decoder.progress == (17, 17)


def test_many_foreign_sequences_cost_bounded_memory_and_the_newest_stay() -> None:
    decoder = UrDecoder()
    for number in range(50):
        decoder.add_untrusted(take(wolf(200, str(number).encode()), 1)[0])
    assert len(decoder._sequences) == limits.UR_SEQUENCES_MAX


def test_about_as_many_parts_as_there_are_pieces_do() -> None:
    data = wolf(200 * 100)
    seen = take(data, 260, 200)[140:]
    assert collected(seen) == data


def forged(*numbers: int, data: bytes = bytes(10), name: str = "") -> str:
    body = b"\x85" + b"".join(ur._cbor_int(0, one) for one in numbers) + ur._cbor_bytes(data)
    return f"ur:bytes/{name or f'{numbers[0]}-{numbers[1]}'}/{ur._words(body)}"


def test_a_forged_part_that_fits_is_read() -> None:
    assert UrDecoder().add_untrusted(forged(1, 2, 20, 0)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ur:",
        "ur:crypto-psbt/" + "ae" * 10,
        "ur:bytes/",
        "ur:bytes/1-2/3/" + "ae" * 10,
        WOLF_50[:-2],
        WOLF_50[:-1] + "a",
        WOLF_50 + "ae",
        WOLF_50.replace("hdey", "hddy"),
        "ur:bytes/" + ur._words(b"\x41"),
        "ur:bytes/" + ur._words(b"\x58\x01a"),
        "ur:bytes/" + ur._words(b"\x81\x41a"),
        "ur:bytes/é" + "ae" * 10,
        "ur:bytes/" + "ae" * 5000,
        forged(1, 2, 20, 0, name="2-2"),
        forged(0, 2, 20, 0),
        forged(1, 1, 10, 0),
        forged(1, 2, 21, 0),
        forged(1, 2, 10, 0),
        forged(1, limits.UR_PARTS_MAX + 1, (limits.UR_PARTS_MAX + 1) * 10, 0),
        forged(1, 4000, 4000 * 500, 0, data=bytes(500)),
        "ur:bytes/1-2/" + ur._words(b"\x84\x01\x02\x14\x00"),
        "ur:bytes/1-2/" + ur._words(b"\x85\x01\x02\x14"),
    ],
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(SerializationError):
        UrDecoder().add_untrusted(text)


@given(st.text(max_size=60) | st.text("abcdefghijklmnopqrstuvwxyz", max_size=60).map("ur:bytes/".__add__))
def test_any_text(text: str) -> None:
    try:
        UrDecoder().add_untrusted(text)
    except SerializationError:
        pass


def test_parts_that_lie_about_the_whole_are_found_and_forgotten() -> None:
    decoder = UrDecoder()
    decoder.add_untrusted(forged(1, 2, 20, 7))
    with pytest.raises(SerializationError, match="do not fit together"):
        decoder.add_untrusted(forged(2, 2, 20, 7))
    assert decoder.progress == (0, 0)
