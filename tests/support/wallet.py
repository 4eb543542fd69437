"""A wallet of three cosigners, PSBTs that spend from it, and a whole MuSig2 signature made in one place.

The signing here is btclib-secp256k1's own wrapper, not ours: it is the second implementation for our slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256

from btclib_secp256k1 import musig

from musignet.bitcoin.bip32 import Xpub, derive
from musignet.bitcoin.descriptor import Descriptor, Participant
from musignet.bitcoin.group import CHANGE, RECEIVE, Bounds, Group, Known
from musignet.bitcoin.musig_fields import describe
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.slots import SigningSlot
from musignet.bitcoin.transaction import Outpoint, Transaction, TxIn, TxOut
from musignet.chain import Chain
from musignet.crypto.keys import Identity

from .keys import GROUP_ORDER, secret

__all__ = ["EXTERNAL", "KNOWN", "SHAPES", "cosign", "group", "outpoint", "psbt", "replace_tx", "secrets_of", "spend"]

SHAPES = ("aggregate", "participants")
"""`musig(A,B,C)/<0;1>/*` and `musig(A/<0;1>/*,B/<0;1>/*,C/<0;1>/*)`."""

MEMBERS = ("alice", "bob", "carol")
EXTERNAL = bytes.fromhex("0014") + bytes(range(20))
"""The script of somebody else's P2WPKH output."""


def xpub(name: str, chain: Chain = Chain.REGTEST) -> Xpub:
    point = Identity.from_secret(secret(name)).pubkey
    return Xpub(chain.xpub_version, point, sha256(f"chain code {name}".encode()).digest())


def descriptor_text(shape: str, chain: Chain = Chain.REGTEST, names: Sequence[str] = MEMBERS) -> str:
    tail = "/<0;1>/*"
    inner, outer = ("", tail) if shape == "aggregate" else (tail, "")
    return f"tr(musig({','.join(f'{xpub(name, chain)}{inner}' for name in names)}){outer})"


@cache
def group(shape: str = "aggregate", chain: Chain = Chain.REGTEST, bounds: Bounds | None = None) -> Group:
    return Group(Descriptor.parse_untrusted(descriptor_text(shape, chain)), chain, bounds)


def outpoint(number: int) -> Outpoint:
    return Outpoint(sha256(f"coin {number}".encode()).digest(), number % 3)


def spend(
    wallet: Group,
    *,
    coins: Sequence[tuple[int, int]] = ((RECEIVE, 0), (RECEIVE, 5)),
    change_index: int = 3,
    version: int = 2,
    locktime: int = 0,
    sequence: int = 0xFFFF_FFFD,
    first_outpoint: int = 0,
) -> tuple[Transaction, tuple[TxOut, ...]]:
    """Return a transaction from coins of 1,000,000 sat: 600,000 sat to somebody, change to us, a fee of 2,000 sat."""
    spent = tuple(TxOut(1_000_000, wallet.derive(*at).script) for at in coins)
    change = TxOut(1_000_000 * len(coins) - 602_000, wallet.derive(CHANGE, change_index).script)
    inputs = tuple(TxIn(outpoint(first_outpoint + number), sequence) for number in range(len(coins)))
    return Transaction(version, locktime, inputs, (TxOut(600_000, EXTERNAL), change)), spent


def psbt(
    wallet: Group | None = None,
    tx: Transaction | None = None,
    spent: Sequence[TxOut] = (),
    *,
    version: int = 0,
    described: bool = True,
) -> Psbt:
    """Return a PSBT, by default of `spend`, with the hints that other wallets need where `described`."""
    wallet = wallet or group()
    default_tx, default_spent = spend(wallet)
    made = Psbt.create(tx or default_tx, spent or default_spent, version=version)
    if not described:
        return made
    ours = {wallet.derive(branch, index).script: (branch, index) for branch in (0, 1) for index in range(30)}
    inputs = {n: wallet.derive(*ours[out.script]) for n, out in enumerate(made.spent) if out and out.script in ours}
    outputs = {n: wallet.derive(*ours[out.script]) for n, out in enumerate(made.tx.outputs) if out.script in ours}
    return describe(made, wallet, inputs, {n: one for n, one in outputs.items() if one.branch == CHANGE})


def replace_tx(tx: Transaction, **changes: object) -> Transaction:
    values = {name: getattr(tx, name) for name in ("version", "locktime", "inputs", "outputs")}
    return Transaction(**(values | changes))


@cache
def known(shape: str = "aggregate") -> Known:
    tx, spent = spend(group(shape))
    utxos = {txin.outpoint: out for txin, out in zip(tx.inputs, spent, strict=True)}
    return Known(utxos=utxos, last_index=(5, 2), tip_height=800_000, now_s=1_700_000_000)


KNOWN = known()


def secrets_of(wallet: Group, slot: SigningSlot) -> dict[bytes, bytes]:
    """Return participant key to secret key: each member's own secret and the tweaks of its own path."""
    return {one.pubkey: _child_secret(wallet, one) for one in slot.participants}


def _child_secret(wallet: Group, one: Participant) -> bytes:
    key = wallet.descriptor.members[one.member].key
    number = int.from_bytes(secret(MEMBERS[one.member]), "big")
    if isinstance(key, Xpub):
        for step in derive(key.point, key.chaincode, one.path):
            number = (number + int.from_bytes(step.tweak, "big")) % GROUP_ORDER
    return number.to_bytes(32, "big")


def cosign(slot: SigningSlot, secrets: Mapping[bytes, bytes]) -> tuple[bytes, dict[bytes, bytes], dict[bytes, bytes]]:
    """Return the aggregate signature, the public nonces and the partial signatures by participant."""
    keys = musig.KeyAggCache(list(slot.keys))
    assert keys.pubkey_get() == slot.aggregate
    for value, xonly in slot.tweaks:
        key = keys.pubkey_xonly_tweak_add(value) if xonly else keys.pubkey_ec_tweak_add(value)
    assert key == slot.signing_key
    made = {pubkey: musig.nonce_gen(pubkey, secrets[pubkey], slot.message, keys) for pubkey in slot.keys}
    nonces = {pubkey: bytes(nonce.pubnonce) for pubkey, nonce in made.items()}
    session = musig.Session(musig.nonce_agg(list(nonces.values())), slot.message, keys)
    partials = {pubkey: made[pubkey].partial_sign(secrets[pubkey], keys, session) for pubkey in slot.keys}
    return session.partial_sig_agg(list(partials.values())), nonces, partials
