"""A Bitcoin of our own: a regtest chain that Bitcoin Core's consensus code keeps, in this process, without a network.

    with RegtestChain(folder) as chain:
        coins = chain.fund(script, [50_000, 70_000])
        txid = chain.confirm(final.raw)
        chain.confirmations(txid)

Needs the extra named `demo`: importing this module without it raises ModuleNotFoundError. Only for the demo and the
tests: the chain is as good as Bitcoin Core's, but anybody can mine on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import pbk

from .. import limits
from ..bitcoin.rules import RuleBroken
from ..bitcoin.transaction import Outpoint, Transaction, TxIn, TxOut
from ..errors import IoError, LocalError
from .blocks import COINBASE_MATURITY_BLOCKS, Block, Mined, mine

__all__ = ["RegtestChain", "TransactionRefused"]

_ANYBODY: Final = b"\x51"
"""OP_TRUE: whoever wants may spend it. The chain's own money lies there, so it needs no keys."""
_REASON: Final = re.compile(r"Block validation error: (.*)|AcceptBlock FAILED \((.*)\)")
"""Only in its log does the kernel say why. The version is pinned, and a test reads one reason of each kind."""
_BLOCKS_MAX: Final = 1_000
"""In one call of `mine`: half a second."""
_SCRIPT_MAX_BYTES: Final = 10_000
"""Consensus: a longer script can never be spent."""


class TransactionRefused(LocalError):
    """The kernel did not take a block with this transaction. `reason` is its own word; the chain is as it was."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__("Bitcoin's consensus rules refuse the transaction", got=reason)


class _Coin(NamedTuple):
    out: TxOut
    spendable_at: int
    """The height of the first block that may spend it."""


class _Kernel:
    """The only binding to `pbk`. It is handed whole blocks and nothing else.

    Never its script verification: an input index out of range, or a wrong number of spent outputs, aborts the process.
    """

    def __init__(self, folder: Path) -> None:
        reasons: list[str] = []
        self._reasons = reasons
        self._log = pbk.LoggingConnection(lambda line: reasons.extend(_reasons(line)))  # no cycle: `close` ends all
        options = pbk.ContextOptions()
        options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
        self._context = pbk.Context(options)
        store = pbk.ChainstateManagerOptions(self._context, str(folder), str(folder / "blocks"))
        store.set_worker_threads_num(0)  # the first input that fails is the one that is named
        store.update_block_tree_db_in_memory(True)
        store.update_chainstate_db_in_memory(True)
        self._manager = pbk.ChainstateManager(store)
        self._manager.import_blocks([])  # connects the genesis block: there is no tip before
        self._chain = self._manager.get_active_chain()

    @property
    def height(self) -> int:
        return self._chain.height

    @property
    def tip(self) -> bytes:
        """The hash of the last block, in hashing order."""
        return bytes(self._chain.block_tree_entries[self._chain.height].block_hash)

    def connect(self, block: Block) -> None:
        """Make `block` the tip. Raises TransactionRefused when the kernel does not."""
        self._reasons.clear()
        if not self._process(block):
            raise TransactionRefused("not the form of a block")
        if self.tip != block.hash:
            raise TransactionRefused(self._reasons[0] if self._reasons else "no reason given")

    def _process(self, block: Block) -> bool:
        """Return whether these bytes are a block at all. No exception of `pbk.Block` leaves this frame, not even as a
        context: whoever printed the half-made block in its traceback would crash the process.
        """
        try:
            parsed = pbk.Block(block.to_bytes())
        except RuntimeError:
            return False
        with suppress(pbk.ProcessBlockException):  # a code; its log says more
            self._manager.process_block(parsed)
        return True


def _reasons(line: str) -> list[str]:
    """Return the reason for a refusal that a line of the kernel's log gives, if it does."""
    return [(match[1] or match[2]).strip() for match in _REASON.finditer(line)]


class RegtestChain:
    """A chain that begins with the genesis block, and everything that was mined on it.

    What it pays out comes from blocks of its own. It blocks while it works: 100 blocks take some 50 ms.

    Args:   folder - new or empty; for the block files. Everything else is in memory.
    Raises: IoError when the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            used = any(folder.iterdir())
        except OSError as error:
            raise IoError(f"cannot use {folder} for a chain: {error.strerror}") from None
        if used:
            raise IoError(f"cannot use {folder} for a chain", expected="an empty folder")
        try:
            self._kernel: _Kernel | None = _Kernel(folder)
        except (RuntimeError, UnicodeEncodeError) as error:
            raise IoError(f"cannot begin a chain in {folder}: {error}") from None
        self._coins: dict[Outpoint, _Coin] = {}
        self._heights: dict[bytes, int] = {}
        self._blocks: list[Block] = []
        self._blocks_built = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the kernel's memory and files back, at once. Twice does no harm.

        A chain must not be left to the garbage collector while another one works: ending a kernel's log from within
        a line of it waits for ever.
        """
        self._kernel = None

    def _open(self) -> _Kernel:
        if self._kernel is None:
            raise LocalError("the chain is closed")
        return self._kernel

    @property
    def height(self) -> int:
        """The height of the last block; 0 for the genesis block alone."""
        return self._open().height

    @property
    def blocks(self) -> Sequence[Block]:
        """Every block that was mined here, from height 1 on. The genesis block is `blocks.GENESIS_HEADER` alone."""
        return self._blocks

    def mine(self, script: bytes, count: int = 1) -> list[Outpoint]:
        """Mine empty blocks that pay to `script`, and return what they paid: spendable 100 blocks later.

        Raises: LocalError for a count that is not 1 to 1,000, or a script that nobody could spend.
        """
        _check_script(script)
        if not 1 <= count <= _BLOCKS_MAX:
            raise LocalError("cannot mine that many blocks at once", expected=f"1 to {_BLOCKS_MAX}", got=count)
        return [Outpoint(self._connect(script, ()).transactions[0].txid, 0) for _ in range(count)]

    def fund(self, script: bytes, amounts_sat: Sequence[int]) -> dict[Outpoint, TxOut]:
        """Pay these amounts to `script` in one transaction, and mine it.

        Blocks are mined before it until the chain has that much to give, so that all can be spent at once.

        Returns: one coin for each amount, in that order; the form of `Known.utxos`.
        Raises:  LocalError for no amounts, impossible ones, or more than 1,000 blocks can mine.
        """
        _check_script(script)
        if not amounts_sat or min(amounts_sat) < 1 or sum(amounts_sat) > limits.MONEY_MAX_SAT:
            raise LocalError("cannot pay these amounts", expected="1 sat or more each", got=list(amounts_sat)[:4])
        outputs = tuple(TxOut(amount, script) for amount in amounts_sat)
        purse = self._purse(sum(amounts_sat))
        change = TxOut(sum(out.amount_sat for out in purse.values()) - sum(amounts_sat), _ANYBODY)
        tx = Transaction(2, 0, tuple(TxIn(outpoint) for outpoint in purse), (*outputs, change))
        txid = self.confirm(tx.to_bytes())
        return {Outpoint(txid, vout): out for vout, out in enumerate(outputs)}

    def _purse(self, wanted_sat: int) -> dict[Outpoint, TxOut]:
        """Return all of the chain's own coins that the next block may spend, after mining until they are enough."""
        for _ in range(_BLOCKS_MAX):
            own = self.unspent(_ANYBODY)
            if sum(out.amount_sat for out in own.values()) >= wanted_sat:
                return own
            self._connect(_ANYBODY, ())
        raise LocalError("this chain has not that many coins", expected="at most some 10,000 bitcoin", got=wanted_sat)

    def unspent(self, script: bytes) -> dict[Outpoint, TxOut]:
        """Return the coins that are locked with `script` and that the next block may spend, oldest first."""
        nxt = self.height + 1
        return {
            outpoint: coin.out
            for outpoint, coin in self._coins.items()
            if coin.out.script == script and coin.spendable_at <= nxt
        }

    def confirm(self, raw: bytes) -> bytes:
        """Mine a block with a finished transaction, and return the transaction's id in hashing order.

        Only consensus judges it, not what nodes relay. Its fee is burnt.

        Raises: TransactionRefused when these bytes are no transaction, or the kernel does not take the block.
        """
        try:
            tx = Transaction.parse_untrusted(raw, witness=True)
        except RuleBroken as error:
            raise TransactionRefused(error.text) from None
        self._connect(_ANYBODY, (Mined(raw, tx),))
        return tx.txid()

    def confirmations(self, txid: bytes) -> int:
        """Return how many blocks confirm a transaction, its own included; 0 for one that was not mined here.

        Args: txid - 32 bytes in hashing order.
        """
        height = self._heights.get(txid)
        return 0 if height is None else self.height - height + 1

    def _connect(self, script: bytes, transactions: tuple[Mined, ...]) -> Block:
        kernel = self._open()
        height = kernel.height + 1
        self._blocks_built += 1  # a refused block is never built again: the kernel remembers its hash, not its fault
        block = mine(kernel.tip, height, script, transactions, self._blocks_built)
        kernel.connect(block)
        self._blocks.append(block)
        for one in block.transactions:
            self._record(one, height, is_coinbase=one is block.transactions[0])
        return block

    def _record(self, one: Mined, height: int, *, is_coinbase: bool) -> None:
        txid = one.txid
        self._heights[txid] = height
        for txin in one.tx.inputs:
            self._coins.pop(txin.outpoint, None)
        spendable_at = height + COINBASE_MATURITY_BLOCKS if is_coinbase else height
        for vout, out in enumerate(one.tx.outputs):
            self._coins[Outpoint(txid, vout)] = _Coin(out, spendable_at)


def _check_script(script: bytes) -> None:
    if len(script) > _SCRIPT_MAX_BYTES:
        raise LocalError(
            "nobody could spend from this script", expected=f"at most {_SCRIPT_MAX_BYTES} bytes", got=len(script)
        )
