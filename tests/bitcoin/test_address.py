"""Any text is the address of one script on this network, or a sentence says why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.bitcoin.address import script_of
from musignet.bitcoin.taproot import address
from musignet.chain import Chain
from musignet.errors import LocalError

ADDRESSES = [  # BIP-173, BIP-350, BIP-86 and Bitcoin Core's test vectors
    (Chain.MAINNET, "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (Chain.MAINNET, "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
     "5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c"),
    (Chain.SIGNET, "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
     "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"),
    (Chain.TESTNET4, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (Chain.MAINNET, "1AGNa15ZQXAZUgFiqJ2i7Z2DPU2J6hW62i", "76a91465a16059864a2fdbc7c99a4723a8395bc6f188eb88ac"),
    (Chain.MAINNET, "3CMNFxN1oHBc4R1EpboAL5yzHGgE611Xou", "a91474f209f6ea907e2ea48f74fae05782ae8a66525787"),
    (Chain.REGTEST, "mo9ncXisMeAoXwqcV5EWuyncbmCcQN4rVs", "76a91453c0307d6851aa0ce7825ba883c6bd9ad242b48688ac"),
    (Chain.REGTEST, "2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br", "a9146349a418fc4578d10a372b54b45c280cc8c4382f87"),
]  # fmt: skip


@pytest.mark.parametrize(("chain", "text", "script"), ADDRESSES)
def test_published_addresses(chain: Chain, text: str, script: str) -> None:
    assert script_of(text, chain).hex() == script


@pytest.mark.parametrize(("chain", "text", "_"), ADDRESSES)
def test_another_network(chain: Chain, text: str, _: str) -> None:
    for other in Chain:
        if other.hrp == chain.hrp or (text[0] in "m2" and other is not Chain.MAINNET):
            continue
        with pytest.raises(LocalError, match=f"another network: expected {other.name.lower()}, got"):
            script_of(text, other)


@pytest.mark.parametrize(("chain", "text", "_"), ADDRESSES)
@given(data=st.data())
def test_one_wrong_character(chain: Chain, text: str, _: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda one: one != text[at]))
    with pytest.raises(LocalError):
        script_of(text[:at] + char + text[at + 1 :], chain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bcrt1",
        "b" * 91,
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08\u0660",
        "\x1b[2J",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
        "Bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        " bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\0bcrt1",
        "mo9ncXisMeAoXwqcV5EWuyncbmCcQN4rVs\0",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(LocalError, match="not a Bitcoin address") as caught:
        script_of(text, Chain.REGTEST)
    assert str(caught.value).isprintable()


def test_a_version_without_rules_is_not_paid() -> None:
    """BIP-350: valid addresses of version 2 and 16, whose coins anybody could take today."""
    for text in ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "BC1SW50QGDZ25J"):
        with pytest.raises(LocalError, match="without rules"):
            script_of(text, Chain.MAINNET)


@given(st.text(max_size=100), st.sampled_from(Chain))
def test_any_text(text: str, chain: Chain) -> None:
    """Invariant: a script whose address this is, or LocalError."""
    try:
        script = script_of(text, chain)
    except LocalError:
        return
    assert address(script, chain) in (text, text.lower())
