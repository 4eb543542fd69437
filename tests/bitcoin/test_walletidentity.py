"""The identity of a device comes from its seed, and is no key of its wallet."""

from __future__ import annotations

import hmac

import pytest

from musignet.bitcoin.bip32 import HARDENED
from musignet.bitcoin.walletkey import WalletKey
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.errors import LocalError
from musignet.signing.founding_records import possession_digest, possession_statement, prove_possession
from support.keys import GROUP_ORDER

WORDS = "abandon " * 11 + "about"


def hardened(master: bytes, path: tuple[int, ...]) -> bytes:
    """Return the secret at a hardened path: BIP-32 CKDpriv, written down once more."""
    key, chaincode = int.from_bytes(master[:32], "big"), master[32:]
    for number in path:
        data = b"\0" + key.to_bytes(32, "big") + (number + HARDENED).to_bytes(4, "big")
        digest = hmac.digest(chaincode, data, "sha512")
        key, chaincode = (int.from_bytes(digest[:32], "big") + key) % GROUP_ORDER, digest[32:]
    return key.to_bytes(32, "big")


@pytest.mark.parametrize(("chain", "coin"), [(Chain.MAINNET, 0), (Chain.SIGNET, 1), (Chain.REGTEST, 1)])
def test_the_identity_is_at_its_own_hardened_path(chain: Chain, coin: int) -> None:
    wallet = WalletKey.from_words(WORDS)
    secret = hardened(bytes(wallet.secret_for_storage()), (0x6D757367, coin, 0))
    assert wallet.identity(chain).pubkey == Identity.from_secret(secret).pubkey
    wallet.require_other_than(wallet.identity(chain).pubkey)
    assert wallet.identity(chain).pubkey not in {wallet.account(number, chain).xpub.point for number in range(5)}


def test_the_same_words_give_the_same_identity_and_others_another() -> None:
    one, same, other = (WalletKey.from_words(WORDS, phrase) for phrase in ("", "", "x"))
    assert one.identity(Chain.REGTEST).pubkey == same.identity(Chain.REGTEST).pubkey
    assert one.identity(Chain.REGTEST).pubkey != other.identity(Chain.REGTEST).pubkey
    one.wipe()
    with pytest.raises(LocalError):
        one.identity(Chain.REGTEST)


def test_an_account_proves_that_it_is_held_for_one_founding() -> None:
    account = WalletKey.from_words(WORDS).account(0, Chain.REGTEST)
    stated = possession_statement(bytes(32), bytes(33), str(account))
    proof = prove_possession(account.key, stated)
    assert PublicKey(account.xpub.point).verify(possession_digest(stated), proof)
    assert not PublicKey(account.xpub.point).verify(stated, proof), "the keyholder hashes under a tag of its own"
    account.key.wipe()
    with pytest.raises(LocalError):
        prove_possession(account.key, stated)
