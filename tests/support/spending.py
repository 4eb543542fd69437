"""A group wallet pays, and its chain shows what is left: the same story for each backend."""

from __future__ import annotations

import pytest

from musignet.app.chain.base import BroadcastRefused
from musignet.app.chain.wallet import GroupWallet
from musignet.bitcoin.finalise import finalise
from musignet.bitcoin.group import CHANGE
from musignet.bitcoin.review import Review

from .cosigners import cosign

__all__ = ["SOMEBODY", "pays"]

SOMEBODY = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


def pays(wallet: GroupWallet) -> tuple[bytes, bytes, Review]:
    """Pay 30,000 sat to somebody: a spoiled transaction is refused, a good one goes out and leaves change.

    Returns: the transaction, its id and its review.
    """
    psbt = wallet.send(SOMEBODY, 30_000)
    signed, done, signatures = cosign(wallet.group, psbt.serialize(), wallet.snapshot.known())
    assert done.fee_rate_sat_vb == pytest.approx(3, abs=0.1)  # 2.001 sat/vB, rounded up
    raw = finalise(signed, done, signatures).raw
    with pytest.raises(BroadcastRefused, match="Schnorr"):
        wallet.broadcast(raw[:-10] + bytes([raw[-10] ^ 1]) + raw[-9:])
    txid = wallet.broadcast(raw)
    (left,) = wallet.sync().coins
    assert (left.outpoint.txid, left.branch, left.index) == (txid, CHANGE, 0)
    assert wallet.snapshot.last_index == (3, 0)
    return raw, txid, done
