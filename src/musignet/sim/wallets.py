"""The wallets that simulated cosigners hold: the same in every world, so that each is derived once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from ..bitcoin.bip32 import Xpub
from ..bitcoin.build import build
from ..bitcoin.descriptor import Descriptor
from ..bitcoin.group import RECEIVE, Group
from ..bitcoin.transaction import Outpoint, TxOut
from ..chain import Chain
from ..crypto.keys import Identity, SigningKey
from ..signing.group import Member, SigningGroup

__all__ = ["Wallet", "payment", "wallet"]

_COIN_SAT = 1_000_000
_PAID_SAT = 600_000
_STRANGER = bytes.fromhex("0014") + bytes(range(20))
"""The script of somebody else's output."""


@dataclass(frozen=True)
class Wallet:
    """A signing group with every secret of it, in one order."""

    group: SigningGroup
    identities: tuple[Identity, ...]
    keys: tuple[SigningKey, ...]


@cache
def wallet(cosigners: int) -> Wallet:
    """Return the wallet of so many cosigners: `tr(musig(tpub...,tpub...)/<0;1>/*)` on regtest."""
    identities = tuple(Identity.from_secret(_secret(f"identity {number}")) for number in range(cosigners))
    keys = tuple(SigningKey.from_secret(_secret(f"key {number}")) for number in range(cosigners))
    xpubs = [
        str(Xpub(Chain.REGTEST.xpub_version, key.pubkey, _secret(f"chain code {number}")))
        for number, key in enumerate(keys)
    ]
    own = Group(Descriptor.parse_untrusted(f"tr(musig({','.join(xpubs)})/<0;1>/*)"), Chain.REGTEST)
    members = [Member(identity.pubkey, xpub) for identity, xpub in zip(identities, xpubs, strict=True)]
    return Wallet(SigningGroup(own, members), identities, keys)


@cache
def payment(cosigners: int, inputs: int, number: int, *, fee_rate_sat_vb: int = 2) -> bytes:
    """Return a PSBT of that many inputs; those of two numbers share no coin, those of one number spend the same."""
    own = wallet(cosigners).group.wallet
    coins = {
        Outpoint(_secret(f"coin {number} {at}"), at): TxOut(_COIN_SAT, own.derive(RECEIVE, at).script)
        for at in range(inputs)
    }
    return build(own, coins, [TxOut(_PAID_SAT, _STRANGER)], fee_rate_sat_vb=fee_rate_sat_vb).serialize()


def _secret(name: str) -> bytes:
    return sha256(f"musignet simulator: {name}".encode()).digest()
