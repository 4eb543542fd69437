"""Wallet keys: BIP-32 and BIP-39 by their published vectors, and what never leaves."""

from __future__ import annotations

import copy
import pickle

import pytest

from musignet.bitcoin import wallykeys
from musignet.bitcoin.bip32 import HARDENED, Xpub, derive
from musignet.bitcoin.walletkey import MASTER_BYTES, WalletKey, new_words
from musignet.chain import Chain
from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, InvalidMessage, LocalError
from musignet.limits import ACCOUNT_MAX

WORDS = "abandon " * 11 + "about"
# BIP-86 "Test vectors": the master key of these words, and the account m/86'/0'/0'.
XPRV = "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC8w35uxmGoggxtQTPvfUu"
BIP86 = (
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
)
# BIP-39: the seed of these words with the passphrase TREZOR.
TREZOR_SEED = (
    "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e5349553"
    "1f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04"
)  # BIP-32 "Test vector 1".
SEED = bytes(range(16))
SEED_XPRV = (
    "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
)
SEED_CHILD = (  # m/0'
    "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw"
)


def stored(key: WalletKey) -> bytes:
    return bytes(key.secret_for_storage())


# --- made from what people have -----------------------------------------------------------------------------------


def test_words_give_the_master_key_of_the_specification() -> None:
    assert stored(WalletKey.from_words(WORDS)) == stored(WalletKey.from_xprv(XPRV))
    assert bytes(wallykeys.seed_of_words(WORDS, "TREZOR")).hex() == TREZOR_SEED
    assert stored(WalletKey.from_words(WORDS, "TREZOR")) == stored(WalletKey.from_seed(bytes.fromhex(TREZOR_SEED)))


def test_a_seed_gives_the_master_key_of_the_specification() -> None:
    assert stored(WalletKey.from_seed(SEED)) == stored(WalletKey.from_xprv(SEED_XPRV))
    assert stored(WalletKey.from_secret(stored(WalletKey.from_seed(SEED)))) == stored(WalletKey.from_seed(SEED))


def test_the_way_words_are_written_does_not_matter() -> None:
    spelled = WORDS.upper().replace(" ", "\n  ") + " "
    assert WalletKey.from_words(spelled).public == WalletKey.from_words(WORDS).public
    one, other = (WalletKey.from_words(WORDS, text).public for text in ("caf\u00e9", "cafe\u0301"))
    assert one == other != WalletKey.from_words(WORDS).public


@pytest.mark.parametrize(("size", "words"), [(16, 12), (20, 15), (24, 18), (28, 21), (32, 24)])
def test_new_words_are_words(size: int, words: int) -> None:
    text = new_words(bytes(range(size)))
    assert len(text.split()) == words
    WalletKey.from_words(text)
    assert new_words(bytes(16)) == WORDS


@pytest.mark.parametrize("size", [0, 12, 15, 17, 33, 40, 64])
def test_other_entropy_is_refused(size: int) -> None:
    with pytest.raises(LocalError, match="entropy"):
        new_words(bytes(size))


@pytest.mark.parametrize(
    "words", ["", "abandon", "abandon " * 12, WORDS.replace("about", "abouts"), WORDS + " about", "\0", "\ud800"]
)
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(LocalError, match="not the words of a seed"):
        WalletKey.from_words(words)


@pytest.mark.parametrize("size", [0, 15, 17, 33, 65])
def test_other_seeds_are_refused(size: int) -> None:
    with pytest.raises(LocalError, match="not a seed"):
        WalletKey.from_seed(bytes(size))


@pytest.mark.parametrize("text", ["", "xprv", XPRV[:-1], XPRV[:-1] + "V", BIP86, "\u00e9"])
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(LocalError, match="not an extended private key"):
        WalletKey.from_xprv(text)


@pytest.mark.parametrize("passphrase", ["a\0b", "\ud800"])
def test_a_passphrase_that_would_be_cut_is_refused(passphrase: str) -> None:
    with pytest.raises(LocalError, match="passphrase of a seed"):
        WalletKey.from_words(WORDS, passphrase)


def test_a_public_master_key_is_no_private_one() -> None:
    top = wallykeys.wallycore.bip32_key_from_base58(XPRV)
    text = wallykeys.wallycore.bip32_key_to_base58(top, wallykeys.wallycore.BIP32_FLAG_KEY_PUBLIC)
    with pytest.raises(LocalError, match="not an extended private key"):
        WalletKey.from_xprv(text)


def test_a_key_that_is_not_a_master_key_is_refused() -> None:
    top = wallykeys.wallycore.bip32_key_from_base58(XPRV)
    child = wallykeys.wallycore.bip32_key_from_parent_path(top, [1], wallykeys.wallycore.BIP32_FLAG_KEY_PRIVATE)
    text = wallykeys.wallycore.bip32_key_to_base58(child, wallykeys.wallycore.BIP32_FLAG_KEY_PRIVATE)
    with pytest.raises(LocalError, match="not a master key: expected depth 0, got depth 1"):
        WalletKey.from_xprv(text)


@pytest.mark.parametrize("secret", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_key_is_refused(secret: bytes) -> None:
    with pytest.raises(AuthenticationError):
        WalletKey.from_secret(secret)


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_derivation_is_that_of_the_specifications() -> None:
    path = (86 + HARDENED, HARDENED, HARDENED)
    words, seed = (stored(key) for key in (WalletKey.from_words(WORDS), WalletKey.from_seed(SEED)))
    assert wallykeys.derive(words, path, Chain.MAINNET).xpub == BIP86
    assert wallykeys.derive(seed, (HARDENED,), Chain.MAINNET).xpub == SEED_CHILD


@pytest.mark.parametrize(("chain", "coin", "prefix"), [
    (Chain.MAINNET, 0, "xpub"), (Chain.TESTNET4, 1, "tpub"), (Chain.SIGNET, 1, "tpub"), (Chain.REGTEST, 1, "tpub"),
])  # fmt: skip
def test_an_account_names_its_origin_and_its_network(chain: Chain, coin: int, prefix: str) -> None:
    account = WalletKey.from_words(WORDS).account(7, chain)
    assert str(account).startswith(f"[73c5da0a/87h/{coin}h/7h]{prefix}")
    assert Xpub.parse_untrusted(str(account.xpub)) == account.xpub
    assert account.xpub.version == chain.xpub_version
    assert account.key.pubkey == account.xpub.point


def test_our_own_derivation_below_an_account_agrees_with_libwally() -> None:
    wallet = WalletKey.from_words(WORDS)
    account = wallet.account(3, Chain.REGTEST)
    steps = derive(account.xpub.point, account.xpub.chaincode, (1, 5))
    theirs = wallykeys.derive(stored(wallet), (*account.origin.path, 1, 5), Chain.REGTEST)
    assert Xpub.parse_untrusted(theirs.xpub).point == steps[-1].point
    assert account.key.child(step.tweak for step in steps).pubkey == steps[-1].point


def test_accounts_differ_and_stay() -> None:
    wallet = WalletKey.from_words(WORDS)
    texts = {str(wallet.account(number, Chain.REGTEST)) for number in (0, 1, 2, ACCOUNT_MAX)}
    assert len(texts) == 4
    assert str(WalletKey.from_words(WORDS).account(1, Chain.REGTEST)) in texts


@pytest.mark.parametrize("number", [-1, ACCOUNT_MAX + 1])
def test_no_other_accounts(number: int) -> None:
    with pytest.raises(LocalError, match="account of a wallet"):
        WalletKey.from_words(WORDS).account(number, Chain.REGTEST)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_what_is_handed_over_is_wiped() -> None:
    for secret, make in (
        (bytearray(SEED), WalletKey.from_seed),
        (bytearray(stored(WalletKey.from_seed(SEED))), WalletKey),
    ):
        make(secret)
        assert not any(secret)
    bad = bytearray(b"\xff" * MASTER_BYTES)
    with pytest.raises(AuthenticationError):
        WalletKey(bad)
    assert not any(bad)


def test_a_wiped_key_does_nothing_more() -> None:
    wallet = WalletKey.from_seed(SEED)
    wallet.wipe()
    wallet.wipe()
    for use in (lambda: wallet.account(0, Chain.REGTEST), wallet.secret_for_storage):
        with pytest.raises(LocalError, match="it was wiped"):
            use()


def test_it_is_not_copied_or_shown() -> None:
    wallet = WalletKey.from_seed(SEED)
    for leak in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            leak(wallet)
    assert repr(wallet) == f"<WalletKey {wallet.public[1:5].hex()}>"


def test_the_wallet_is_never_the_node() -> None:
    wallet = WalletKey.from_seed(SEED)
    negated = bytes((wallet.public[0] ^ 1,)) + wallet.public[1:]
    for same in (wallet.public, negated):
        assert PublicKey(same).compressed == same
        with pytest.raises(InvalidMessage, match="one secret for the wallet and the node"):
            wallet.require_other_than(same)
    wallet.require_other_than(wallet.account(0, Chain.REGTEST).key.pubkey)
