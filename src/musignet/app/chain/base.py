"""What every chain backend does, what it answers, and every way in which it can fail.

    ChainBackend.sync(group) -> Snapshot        one consistent answer: coins, tip, indices in use
    ChainBackend.fee_rate(target) -> sat/vB
    ChainBackend.broadcast(raw) -> txid

A backend is asked, never believed in what is signed: scripts come from our descriptor, and a signature commits to the
amounts of all inputs (BIP-341), so that a wrong one makes an invalid signature and no loss. What a backend can do is
to hide coins or transactions, and to learn which addresses belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

from ... import limits
from ...bitcoin.group import Group, Known
from ...bitcoin.transaction import Outpoint, TxOut
from ...errors import ConnectionError, LocalError, Other, Timeout

__all__ = [
    "BackendFault",
    "Balance",
    "BroadcastRefused",
    "ChainBackend",
    "ChainNotReady",
    "ChainTimeout",
    "ChainUnreachable",
    "Coin",
    "NoFeeEstimate",
    "Snapshot",
    "Unsupported",
    "WrongChain",
    "ordered",
    "usable_rate",
]


class ChainUnreachable(ConnectionError):
    """Nobody answers at the backend's address, or the way to it failed."""


class ChainTimeout(Timeout):
    """The backend did not answer before our deadline. A broadcast may have happened all the same: ask again."""


class ChainNotReady(Other):
    """The backend works, and has not caught up yet. Later the same call succeeds."""


class WrongChain(LocalError):
    """The backend follows another network than the wallet's. Nothing it says was used."""


class BackendFault(Other):
    """The backend answered what no such backend answers."""


class BroadcastRefused(LocalError):
    """The backend does not take the transaction. `reason` is its own word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "the transaction was not accepted", got=reason,
            hint="a coin that was spent meanwhile, or a fee below what nodes relay: sync, and propose it again",
        )  # fmt: skip


class NoFeeEstimate(LocalError):
    """There is no estimate, or one that nobody should pay unasked."""


class Unsupported(LocalError):
    """This kind of backend cannot watch this wallet."""


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output of ours, where it is locked, and how sure it is."""

    outpoint: Outpoint
    out: TxOut
    branch: int
    index: int
    confirmations: int
    """0 while it is in no block."""


class Balance(NamedTuple):
    """What a wallet holds, in sat."""

    confirmed_sat: int
    unconfirmed_sat: int
    """Seen, and in no block yet."""
    immature_sat: int
    """Mined by ourselves, spendable 100 blocks later."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a wallet was at one moment, by one backend."""

    tip_height: int
    coins: tuple[Coin, ...]
    """Without immature ones. Oldest first."""
    last_index: tuple[int, int]
    """The highest index that was ever paid, of the receiving and of the change branch; -1 for none."""
    immature_sat: int = 0

    @property
    def balance(self) -> Balance:
        confirmed, unconfirmed = (
            sum(coin.out.amount_sat for coin in self.coins if bool(coin.confirmations) is wanted)
            for wanted in (True, False)
        )
        return Balance(confirmed, unconfirmed, self.immature_sat)

    def known(self, now_s: int | None = None) -> Known:
        """Return this as what a review compares a PSBT with."""
        utxos = {coin.outpoint: coin.out for coin in self.coins}
        return Known(utxos=MappingProxyType(utxos), last_index=self.last_index, tip_height=self.tip_height, now_s=now_s)


def ordered(coins: Iterable[Coin]) -> tuple[Coin, ...]:
    """Return coins oldest first, those of one height in the order of their outpoints."""
    return tuple(sorted(coins, key=lambda coin: (-coin.confirmations, coin.outpoint)))


def usable_rate(rate_sat_vb: float | None, name: str) -> int:
    """Return an estimate in whole sat/vB, rounded up.

    Raises: NoFeeEstimate where there is none, or it is beyond what a person must type (THREATS.md X3).
    """
    hint = "give one yourself: --fee-rate SAT_PER_VB"
    if rate_sat_vb is None:
        raise NoFeeEstimate(f"{name} has no fee estimate", hint=hint)
    if not 0 < rate_sat_vb <= limits.FEE_RATE_MAX_SAT_VB:
        raise NoFeeEstimate(
            f"{name} has no plausible fee estimate", expected=f"at most {limits.FEE_RATE_MAX_SAT_VB} sat/vB",
            got=rate_sat_vb, hint=hint,
        )  # fmt: skip
    return math.ceil(rate_sat_vb)


class ChainBackend(Protocol):
    """One way to the chain. Blocking; each call ends within a deadline of its own, and can be made from any thread.

    Raises: ChainUnreachable, ChainTimeout, ChainNotReady and BackendFault from each call, and what stands there.
    """

    @property
    def name(self) -> str:
        """Where it is, for people: no secret is in it."""
        ...

    def sync(self, group: Group) -> Snapshot:
        """Return the wallet's state. Raises: Unsupported and WrongChain too."""
        ...

    def fee_rate(self, target_blocks: int) -> int:
        """Return sat/vB, rounded up, for a confirmation within so many blocks. Raises: NoFeeEstimate too."""
        ...

    def broadcast(self, raw: bytes) -> bytes:
        """Pass on a finished transaction; return its id in hashing order. One that is there already is no error.

        Raises: BroadcastRefused too.
        """
        ...
