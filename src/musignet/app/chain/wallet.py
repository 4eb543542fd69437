"""One group's wallet on one backend: what it holds, where it is paid, and PSBTs that spend from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ... import limits
from ...bitcoin.address import script_of
from ...bitcoin.build import build
from ...bitcoin.group import CHANGE, RECEIVE, Group
from ...bitcoin.psbt import Psbt
from ...bitcoin.select import InsufficientFunds, payment, select, sweep
from ...bitcoin.transaction import Outpoint, TxOut
from ...errors import LocalError
from .base import Balance, ChainBackend, Coin, Snapshot

__all__ = ["GroupWallet", "parse_outpoint"]


class GroupWallet:
    """A group and the backend that watches its addresses. Blocking, like the backend: call it on a thread.

    It keeps nothing but the last snapshot, in memory; a sync that fails leaves that as it was.
    """

    def __init__(self, group: Group, backend: ChainBackend) -> None:
        self.group: Final = group
        self._backend = backend
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What the last sync said. Raises: LocalError before the first one."""
        if self._snapshot is None:
            raise LocalError("this wallet was not synced yet", hint="musignet group sync NAME")
        return self._snapshot

    def sync(self) -> Snapshot:
        """Ask the backend, and return what it says. Raises: as the backend."""
        self._snapshot = self._backend.sync(self.group)
        return self._snapshot

    def balance(self) -> Balance:
        return self.snapshot.balance

    def next_address(self) -> tuple[int, str]:
        """Return the first receiving address beyond every one that was ever paid, and its index.

        The same one until somebody pays to it: so the gap that a restored wallet searches is never left.
        """
        index = self.snapshot.last_index[RECEIVE] + 1 if self.group.descriptor.ranged else 0
        return index, self.group.address(RECEIVE, index)

    def send(
        self,
        address: str,
        amount_sat: int | None,
        *,
        fee_rate_sat_vb: int | None = None,
        target_blocks: int = limits.FEE_TARGET_BLOCKS,
        coins: Sequence[Outpoint] = (),
        reserved: Collection[Outpoint] = (),
        version: int = 0,
    ) -> Psbt:
        """Return a PSBT to propose: nothing is sent, and nobody is asked yet.

        Spends the coins named; else as few confirmed coins and change of our own as are enough. Strangers' payments
        that are in no block can still be taken back by them: they must be named.

        Args:   amount_sat      - None sends all there is, or all of the named coins (`--max`).
                reserved        - coins that are spent already, by transactions that are in no block yet.
                fee_rate_sat_vb - None asks the backend, for a confirmation within `target_blocks`.
        Raises: InsufficientFunds; LocalError for a wrong address, dust, an unknown coin; as the backend for the rate.
        """
        script = script_of(address, self.group.chain)
        paid = None if amount_sat is None else payment(amount_sat, script)
        usable = self._usable(coins, reserved)
        rate = self._backend.fee_rate(target_blocks) if fee_rate_sat_vb is None else fee_rate_sat_vb
        try:
            if paid is None:
                usable, paid = sweep(usable, script, rate)
            elif not coins:
                usable = select(usable, [paid], rate)
        except InsufficientFunds as error:
            hint = error.hint or self._elsewhere(reserved)
            raise InsufficientFunds(error.missing_sat, error.held_sat, hint) from None
        return build(self.group, usable, [paid], fee_rate_sat_vb=rate, known=self.snapshot.known(), version=version)

    def _elsewhere(self, reserved: Collection[Outpoint]) -> str:
        """Say what the wallet has besides, that is not spent by itself."""
        tied = sum(coin.out.amount_sat for coin in self.snapshot.coins if coin.outpoint in reserved)
        unsure = sum(coin.out.amount_sat for coin in self.snapshot.coins if not _is_sure(coin))
        parts = [f"{tied} sat more are in other sessions: musignet sessions"] if tied else []
        parts += [f"{unsure} sat more are in no block yet"] if unsure else []
        return "; ".join(parts)

    def _usable(self, named: Sequence[Outpoint], reserved: Collection[Outpoint]) -> dict[Outpoint, TxOut]:
        held = {coin.outpoint: coin for coin in self.snapshot.coins}
        for outpoint in named:
            if outpoint not in held:
                raise LocalError(f"coin {outpoint} is not in this wallet, or spent", hint="sync, and list the coins")
            if outpoint in reserved:
                raise LocalError(f"coin {outpoint} is spent by another session", hint="see: musignet sessions")
        wanted = [held[outpoint] for outpoint in named] or [
            coin for coin in held.values() if _is_sure(coin) and coin.outpoint not in reserved
        ]
        return {coin.outpoint: coin.out for coin in wanted}

    def broadcast(self, raw: bytes) -> bytes:
        """Pass on a finished transaction; return its id in hashing order. Raises: as the backend."""
        return self._backend.broadcast(raw)


def _is_sure(coin: Coin) -> bool:
    return coin.confirmations > 0 or coin.branch == CHANGE


def parse_outpoint(text: str) -> Outpoint:
    """Return the coin that `TXID:N` names. Raises: LocalError for anything else."""
    txid, colon, vout = text.partition(":")
    digits = set(txid.lower()) <= set("0123456789abcdef") and len(txid) == 64
    if not (colon and digits and vout.isascii() and vout.isdecimal() and len(vout) <= 10 and int(vout) < 1 << 32):
        raise LocalError("not a coin", expected="TXID:N, as explorers write it", got=text)
    return Outpoint(bytes.fromhex(txid)[::-1], int(vout))
