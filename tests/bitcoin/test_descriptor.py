"""Descriptors and extended keys: BIP-328, BIP-380, the key paths of BIP-390, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import wallycore
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin.bip32 import HARDENED, Xpub, aggregate, derive, synthetic
from musignet.bitcoin.descriptor import Descriptor, checksum
from musignet.bitcoin.group import Group
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.taproot import output_key, output_script
from musignet.chain import Chain
from musignet.errors import InvalidMessage
from support.bip import table
from support.wallet import MEMBERS, SHAPES, descriptor_text, group, xpub

POINTS = [
    "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
    "03dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
]

# --- BIP-328 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(3))
def test_bip328(row: int) -> None:
    case: dict[str, Any] = table("bip328.json")[row]
    key = aggregate(tuple(bytes.fromhex(one) for one in case["keys"]))
    assert key.hex() == case["aggregate_pubkey"]
    assert str(synthetic(key, Chain.MAINNET)) == case["xpub"]
    assert Xpub.parse_untrusted(case["xpub"]) == synthetic(key, Chain.MAINNET)


def test_bip328_has_exactly_these_rows() -> None:
    assert len(table("bip328.json")) == 3


@pytest.mark.parametrize("chain", Chain)
def test_the_descriptor_for_wallets_that_do_not_know_musig(chain: Chain) -> None:
    """libwally derives from its key what we derive from ours."""
    wallet = group("aggregate", chain)
    text = str(wallet.descriptor.watch_only(chain))
    body, _, given_checksum = text.partition("#")
    assert given_checksum == checksum(body)
    key = body.removeprefix("tr(").removesuffix("/<0;1>/*)")
    for at in ((0, 0), (1, 7)):
        child = wallycore.bip32_key_from_parent_path(wallycore.bip32_key_from_base58(key), list(at), 1)
        internal = bytes(wallycore.bip32_key_get_pub_key(child))
        assert output_script(output_key(internal[1:])[1]) == wallet.derive(*at).script


def test_keys_that_are_derived_first_have_no_such_descriptor() -> None:
    assert group("participants").descriptor.watch_only(Chain.REGTEST) is None


@given(st.lists(st.integers(0, HARDENED - 1), max_size=3))
def test_children_as_libwally_derives_them(path: list[int]) -> None:
    parent = wallycore.bip32_key_from_base58(str(xpub("alice")))
    child = wallycore.bip32_key_from_parent_path(parent, path, 1) if path else parent
    steps = derive(xpub("alice").point, xpub("alice").chaincode, tuple(path))
    assert (steps[-1].point if steps else xpub("alice").point) == bytes(wallycore.bip32_key_get_pub_key(child))


@pytest.mark.parametrize("number", [HARDENED, 2**32, -1])
def test_no_hardened_child(number: int) -> None:
    with pytest.raises(InvalidMessage, match="hardened"):
        derive(xpub("alice").point, xpub("alice").chaincode, (number,))


def test_a_child_that_does_not_exist() -> None:
    """BIP-32 knows keys without a child of some number, 1 in 2^127; a parent that is no point stands in for them."""
    with pytest.raises(InvalidMessage, match="does not exist"):
        derive(b"\x02" + b"\xff" * 32, bytes(32), (0,))


def test_no_aggregate_of_what_is_no_point() -> None:
    with pytest.raises(InvalidMessage):
        aggregate((b"\x02" + b"\xff" * 32,))
    with pytest.raises(InvalidMessage):
        aggregate(())


# --- extended keys ----------------------------------------------------------------------------------------------------


def encoded(**changes: bytes) -> str:
    parts = {"version": b"\x04\x35\x87\xcf", "depth": b"\x00", "parent": bytes(4), "number": bytes(4)}
    parts |= {"chaincode": bytes(32), "point": xpub("alice").point} | changes
    return str(wallycore.base58check_from_bytes(b"".join(parts.values())))


NO_KEY, PRIVATE, IMPOSSIBLE = "not an extended public key", "a private key", "an impossible extended public key"
XPUBS: list[tuple[str, str, str]] = [
    ("nothing", "", NO_KEY),
    ("a wrong checksum", encoded()[:-1] + ("1" if encoded()[-1] != "1" else "2"), NO_KEY),
    ("a private key", encoded(version=bytes.fromhex("04358394"), point=b"\x00" + bytes(31) + b"\x01"), PRIVATE),
    (
        "a private key of the main network",
        encoded(version=bytes.fromhex("0488ade4"), point=b"\x00" * 32 + b"\x01"),
        PRIVATE,
    ),
    ("another version", encoded(version=bytes.fromhex("04b24746")), NO_KEY),
    ("a byte more", encoded(point=xpub("alice").point + b"\x00"), IMPOSSIBLE),
    ("no point", encoded(point=b"\x02" + b"\xff" * 32), IMPOSSIBLE),
    ("a byte less", encoded(point=xpub("alice").point[:-1]), IMPOSSIBLE),
    ("a master with a parent", encoded(parent=b"\x00\x00\x00\x01"), IMPOSSIBLE),
    ("a master with a number", encoded(number=b"\x00\x00\x00\x01"), IMPOSSIBLE),
]


@pytest.mark.parametrize(("text", "why"), [row[1:] for row in XPUBS], ids=[row[0] for row in XPUBS])
def test_what_is_no_extended_key(text: str, why: str) -> None:
    assert Xpub.parse_untrusted(encoded(depth=b"\x01", parent=b"\x00\x00\x00\x01", number=b"\x00\x00\x00\x01"))
    with pytest.raises(InvalidMessage, match=why) as caught:
        Xpub.parse_untrusted(text)
    assert not text or text not in str(caught.value)


# --- BIP-380 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["raw(deadbeef)", f"tr({POINTS[0][2:]})", f"wpkh({POINTS[0]})"])
def test_checksum_as_libwally_makes_it(text: str) -> None:
    parsed = wallycore.descriptor_parse(text, None, 0, 0) if not text.startswith("raw") else None
    right = wallycore.descriptor_get_checksum(parsed, 0) if parsed else "89f8spxm"
    assert checksum(text) == right


def test_checksum_of_a_strange_character() -> None:
    with pytest.raises(InvalidMessage):
        checksum("tr(\N{SNOWMAN})")


@pytest.mark.parametrize("shape", SHAPES)
def test_text_and_back(shape: str) -> None:
    parsed = Descriptor.parse_untrusted(descriptor_text(shape))
    assert str(parsed) == f"{descriptor_text(shape)}#{checksum(descriptor_text(shape))}"
    assert Descriptor.parse_untrusted(str(parsed)) == parsed
    changed = str(parsed)[:-1] + ("q" if str(parsed)[-1] != "q" else "p")
    for wrong in (changed, str(parsed)[:-8], str(parsed) + "q"):
        with pytest.raises(InvalidMessage, match="checksum"):
            Descriptor.parse_untrusted(wrong)


def test_origins_and_fixed_steps() -> None:
    text = f"tr(musig([00112233/86h/0']{xpub('bob')}/7,{xpub('alice')})/<4;5>/*)"
    parsed = Descriptor.parse_untrusted(text)
    assert str(parsed).startswith(f"tr(musig([00112233/86h/0h]{xpub('bob')}/7,")
    assert parsed.members[0].root().path == (86 + HARDENED, HARDENED)
    assert parsed.derive(1, 9).path == (5, 9)
    assert "[" not in parsed.canonical()
    other = Descriptor.parse_untrusted(f"tr(musig({xpub('alice')},{xpub('bob')}/7)/<4;5>/*)")
    assert other.canonical() == parsed.canonical()
    assert other.derive(0, 3).script == parsed.derive(0, 3).script


# --- BIP-390 ----------------------------------------------------------------------------------------------------------

KEY_PATH_ROWS = (1, 5)
"""Rows 0 and 2 are rawtr(), which has no TapTweak, row 0 with a private key; rows 3 and 4 have a script tree. All four
are refused, with the reason."""


def test_bip390_has_exactly_these_rows() -> None:
    assert (len(table("bip390.json")["valid"]), len(table("bip390.json")["invalid"])) == (6, 14)


@pytest.mark.parametrize("row", range(6))
def test_bip390_valid(row: int) -> None:
    case = table("bip390.json")["valid"][row]
    if row in KEY_PATH_ROWS:
        parsed = Descriptor.parse_untrusted(case["descriptor"])
        assert [parsed.derive(0, index).script.hex() for index in range(len(case["scripts"]))] == case["scripts"]
        return
    with pytest.raises(InvalidMessage, match="script paths are not supported" if row == 3 else "MuSig2 wallet"):
        Descriptor.parse_untrusted(case["descriptor"])


def test_bip390_row_3_without_its_script_tree() -> None:
    """The derivation of its musig() is ours; libwally's script tree is not needed to compare row 2's output keys."""
    case = table("bip390.json")["valid"][2]
    inside = case["descriptor"].removeprefix("rawtr(").removesuffix(")")
    parsed = Descriptor.parse_untrusted(f"tr({inside})")
    assert [f"5120{parsed.derive(0, index).internal[1:].hex()}" for index in range(3)] == case["scripts"]


@pytest.mark.parametrize("row", range(14))
def test_bip390_invalid(row: int) -> None:
    with pytest.raises(InvalidMessage):
        Descriptor.parse_untrusted(table("bip390.json")["invalid"][row]["descriptor"])


A, B = xpub("alice"), xpub("bob")
REFUSED: list[tuple[str, str, str]] = [
    ("private key", f"tr(musig(KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU74sHUHy8S,{POINTS[0]}))", "private key"),
    ("x-only key", f"tr(musig({POINTS[0][2:]},{POINTS[1]}))", "extended public key"),
    ("no point", f"tr(musig({'02' + 'ff' * 32},{POINTS[1]}))", "not a point"),
    ("nested musig", f"tr(musig(musig({A},{B}),{A}))", "MuSig2 wallet"),
    ("empty key", f"tr(musig({A},))", "not a key"),
    ("script tree", f"tr(musig({A},{B})/<0;1>/*,pk({POINTS[0][2:]}))", "script paths are not supported"),
    ("empty script tree", f"tr(musig({A},{B})/<0;1>/*,)", "script paths are not supported"),
    ("brackets for a tree", f"tr(musig({A},{B})(x))", "MuSig2 wallet"),
    ("plain key with a path", f"tr(musig({POINTS[0]}/1,{A}))", "a path needs extended keys"),
    ("path of plain keys", f"tr(musig({POINTS[0]},{POINTS[1]})/1)", "a path needs extended keys"),
    ("ranges twice", f"tr(musig({A}/*,{B})/0/*)", "has a path itself"),
    ("multipath twice", f"tr(musig({A}/<0;1>,{B})/0/*)", "has a path itself"),
    ("multipaths of two widths", f"tr(musig({A}/<0;1>/*,{B}/<0;1;2>/*))", "different widths"),
    ("two multipaths in one path", f"tr(musig({A},{B})/<0;1>/<2;3>)", "not a path"),
    ("wildcard inside", f"tr(musig({A},{B})/*/0)", "not a path"),
    ("hardened", f"tr(musig({A},{B})/0h/*)", "hardened"),
    ("hardened by '", f"tr(musig({A}/0'/*,{B}/0/*))", "hardened"),
    ("hardened multipath", f"tr(musig({A},{B})/<0h;1>/*)", "not a step"),
    ("hardened wildcard", f"tr(musig({A},{B})/0/*h)", "hardened"),
    ("multipath of one", f"tr(musig({A},{B})/<0>/*)", "multipath"),
    ("multipath of equals", f"tr(musig({A},{B})/<1;1>/*)", "multipath"),
    ("empty step", f"tr(musig({A},{B})//*)", "not a step"),
    ("leading zero", f"tr(musig({A},{B})/00/*)", "not a step"),
    ("number beyond", f"tr(musig({A},{B})/2147483648/*)", "not a step"),
    ("no slash", f"tr(musig({A},{B})0/*)", "not a path"),
    ("newline", f"tr(musig({A},{B})/<0;1>/*)\n", "not a descriptor"),
    ("origin of 7 digits", f"tr(musig([0011223]{A},{B}))", "not a key"),
    ("too long", f"tr(musig({A},{'1' * limits.DESCRIPTOR_MAX_CHARS}))", "too long"),
    ("too many keys", f"tr(musig({','.join([POINTS[0]] * (limits.GROUP_KEYS_MAX + 1))}))", "too many keys"),
]


@pytest.mark.parametrize(("text", "why"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidMessage, match=why):
        Descriptor.parse_untrusted(text)


def test_the_bounds_themselves() -> None:
    keys = ",".join([POINTS[0]] * limits.GROUP_KEYS_MAX)
    assert len(Descriptor.parse_untrusted(f"tr(musig({keys}))").members) == limits.GROUP_KEYS_MAX
    filler = "1" * (limits.DESCRIPTOR_MAX_CHARS - len("tr(musig())"))
    with pytest.raises(InvalidMessage, match="not an extended public key"):
        Descriptor.parse_untrusted(f"tr(musig({filler}))")


@given(st.text(alphabet="tr(musig),/<0;1>*#h'[]xpub02fqK ", max_size=60))
def test_any_text_is_a_descriptor_or_refused(text: str) -> None:
    try:
        parsed = Descriptor.parse_untrusted(text)
    except InvalidMessage:
        return
    assert Descriptor.parse_untrusted(str(parsed)) == parsed


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_are_sorted_after_derivation(shape: str) -> None:
    for index in range(8):
        derived = group(shape).derive(0, index)
        keys = [one.pubkey for one in derived.participants]
        assert keys == sorted(keys)
        assert {one.member for one in derived.participants} == {0, 1, 2}
        assert derived.aggregate == aggregate(tuple(keys))
        assert derived == group(shape).descriptor.derive(0, index)
        for one in derived.participants:
            steps = derive(xpub(MEMBERS[one.member]).point, xpub(MEMBERS[one.member]).chaincode, one.path)
            assert (steps[-1].point if steps else xpub(MEMBERS[one.member]).point) == one.pubkey
    assert group(shape).derive(0, 1) is group(shape).derive(0, 1)


def test_the_order_of_members_differs_between_addresses() -> None:
    """One seed of this wallet has indexes with different orders: sorting before deriving would show here."""
    wallet = group("participants")
    assert len({tuple(one.member for one in wallet.derive(0, index).participants) for index in range(8)}) > 1


def test_the_order_in_the_descriptor_means_nothing() -> None:
    turned = Descriptor.parse_untrusted(descriptor_text("aggregate", names=MEMBERS[::-1]))
    assert turned.derive(0, 0).script == group().derive(0, 0).script
    assert turned.canonical() == group().descriptor.canonical()


@pytest.mark.parametrize(
    ("chain", "prefix"), [(Chain.MAINNET, "bc1p"), (Chain.SIGNET, "tb1p"), (Chain.REGTEST, "bcrt1p")]
)
def test_addresses_of_each_network(chain: Chain, prefix: str) -> None:
    assert group("aggregate", chain).address(0, 0).startswith(prefix)


def test_a_group_has_different_keys() -> None:
    for names in (("alice",), ("alice", "alice"), ("alice", "bob", "alice")):
        with pytest.raises(InvalidMessage, match="not a group"):
            Group(Descriptor.parse_untrusted(descriptor_text("aggregate", names=names)), Chain.REGTEST)


def test_a_key_of_another_network() -> None:
    for chain, other in ((Chain.MAINNET, Chain.REGTEST), (Chain.SIGNET, Chain.MAINNET)):
        with pytest.raises(RuleBroken) as caught:
            Group(Descriptor.parse_untrusted(descriptor_text("aggregate", chain)), other)
        assert caught.value.rule is Rule.X7


@pytest.mark.parametrize("at", [(2, 0), (-1, 0), (0, HARDENED), (0, -1)])
def test_addresses_that_do_not_exist(at: tuple[int, int]) -> None:
    with pytest.raises(InvalidMessage):
        group().derive(*at)


def test_a_wallet_of_one_address() -> None:
    wallet = Group(Descriptor.parse_untrusted(f"tr(musig({POINTS[0]},{POINTS[1]}))"), Chain.MAINNET)
    assert wallet.address(0, 0).startswith("bc1p")
    assert (wallet.descriptor.branches, wallet.descriptor.ranged) == (1, False)
    with pytest.raises(InvalidMessage):
        wallet.derive(0, 1)


LOCATED: list[tuple[tuple[int, ...], tuple[int, int] | None]] = [
    ((0, 5), (0, 5)),
    ((1, 5), (1, 5)),
    ((86 + HARDENED, HARDENED, HARDENED, 1, 7), (1, 7)),
    ((2, 5), None),
    ((0, HARDENED + 5), None),
    ((0, HARDENED), None),
    ((5,), None),
    ((), None),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("path", "at"), LOCATED)
def test_locate(shape: str, path: tuple[int, ...], at: tuple[int, int] | None) -> None:
    assert group(shape).descriptor.locate(path) == at


def test_locate_without_a_path_or_with_fixed_steps() -> None:
    assert Descriptor.parse_untrusted(f"tr(musig({POINTS[0]},{POINTS[1]}))").locate((1, 2)) == (0, 0)
    mixed = Descriptor.parse_untrusted(f"tr(musig({A}/4/<0;1>/*,{B}/<0;1>/*))")
    assert mixed.locate((4, 1, 6)) == (1, 6)
    assert Descriptor.parse_untrusted(f"tr(musig({A}/4/*,{B}/4/*))").locate((5, 6)) is None


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESS_CACHE_MAX", 3)
    wallet = Group(Descriptor.parse_untrusted(descriptor_text("aggregate")), Chain.REGTEST)
    scripts = [wallet.derive(0, index).script for index in range(8)]
    assert len(wallet._derived) <= 3
    assert [wallet.derive(0, index).script for index in range(8)] == scripts
