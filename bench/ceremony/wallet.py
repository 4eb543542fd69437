"""Groups of any size whose keys follow from names, and PSBTs that spend any number of their coins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from musignet.bitcoin.bip32 import Xpub
from musignet.bitcoin.build import build
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.fields import In, Out
from musignet.bitcoin.group import RECEIVE, Bounds, Group, Known
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.transaction import Outpoint, TxOut
from musignet.chain import Chain
from musignet.crypto.keys import Identity, SigningKey
from musignet.signing.group import Member, SigningGroup

__all__ = ["CHAIN", "Spend", "group_of", "identity", "signing_group", "signing_key", "spend"]

CHAIN = Chain.REGTEST
_BOUNDS = Bounds(address_gap=250)
"""Wide enough for an address for each input of the largest PSBT."""
_COIN_SAT = 1_000_000
_PAID_TO = bytes.fromhex("0014") + bytes(20)


def _secret(name: str) -> bytes:
    return sha256(name.encode()).digest()


@cache
def identity(number: int) -> Identity:
    return Identity.from_secret(_secret(f"identity {number}"))


@cache
def signing_key(number: int) -> SigningKey:
    return SigningKey.from_secret(_secret(f"wallet {number}"))


@cache
def _xpub(number: int) -> Xpub:
    return Xpub(CHAIN.xpub_version, signing_key(number).pubkey, _secret(f"chain code {number}"))


def signing_group(signers: int) -> SigningGroup:
    """Return `tr(musig(...)/<0;1>/*)` of this many; a new object each time, with nothing derived yet."""
    return group_of([(identity(number).pubkey, number) for number in range(signers)])


def group_of(members: Sequence[tuple[bytes, int]]) -> SigningGroup:
    """Return the same of these: an identity key, and the number of a wallet key, each."""
    keys = [str(_xpub(number)) for _, number in members]
    wallet = Group(Descriptor.parse_untrusted(f"tr(musig({','.join(keys)})/<0;1>/*)"), CHAIN, _BOUNDS)
    return SigningGroup(wallet, [Member(who, key) for (who, _), key in zip(members, keys, strict=True)])


class Spend(NamedTuple):
    """A PSBT, and what each wallet of the group knows about its coins."""

    psbt: bytes
    known: Known


def spend(group: SigningGroup, inputs: int, number: int = 0, *, described: bool = True) -> Spend:
    """Return a PSBT of so many coins, each at an address of its own. Another `number`, other coins.

    Not `described`: without the keys of every member at every input, 150 bytes each; our own wallets do not need them.
    """
    wallet = group.wallet
    coins = {
        Outpoint(_secret(f"coin {number} {at}"), 0): TxOut(_COIN_SAT, wallet.derive(RECEIVE, at).script)
        for at in range(inputs)
    }
    known = Known(utxos=coins, last_index=(inputs, 0))
    psbt = build(wallet, coins, [TxOut(inputs * _COIN_SAT // 2, _PAID_TO)], fee_rate_sat_vb=2, known=known)
    return Spend((psbt if described else _undescribed(psbt)).serialize(), known)


def _undescribed(psbt: Psbt) -> Psbt:
    return replace(
        psbt,
        inputs=tuple(one.without(In.TAP_BIP32_DERIVATION, In.MUSIG2_PARTICIPANTS) for one in psbt.inputs),
        outputs=tuple(one.without(Out.TAP_BIP32_DERIVATION, Out.MUSIG2_PARTICIPANTS) for one in psbt.outputs),
    )
