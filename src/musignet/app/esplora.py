"""A regtest chain as an Esplora server shows it: the part of its JSON that wallets read. No sockets here.

    explorer = Explorer(chain)
    explorer.answer("GET", "/blocks/tip/height", b"") -> Answer(200, b"101")

Beside Esplora's own paths, two to play with: POST /regtest/fund {"address", "amount_sat"} pays from the chain's own
money, POST /regtest/mine {"blocks", "address"} mines. A transaction that is broadcast is in a block at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any, Final, NamedTuple

import msgspec

from ..bitcoin.address import script_of
from ..bitcoin.taproot import address
from ..bitcoin.transaction import Outpoint, Reader, TxOut
from ..chain import Chain
from ..errors import LocalError
from .blocks import GENESIS_HEADER, Block, Mined
from .regtest import RegtestChain, TransactionRefused

__all__ = ["Answer", "Explorer"]

_PAGE: Final = 25
"""Esplora: confirmed transactions in one answer; the next page is asked for by the last id of this one."""
_BLOCKS_PAGE: Final = 10
_FEE_ESTIMATES: Final = {"1": 5.0, "6": 2.5, "144": 1.0}
"""Nobody competes on this chain: made up, so that wallets have something to ask for."""
_OP_TRUE: Final = b"\x51"
_HASH: Final = "[0-9a-f]{64}"


class Answer(NamedTuple):
    """An HTTP status, and the body."""

    status: int
    body: bytes
    is_json: bool = False


class _Fund(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    amount_sat: int


class _Mine(msgspec.Struct, forbid_unknown_fields=True):
    blocks: int = 1
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A mined transaction, where it is, and what it spends: None for a coinbase."""

    mined: Mined
    height: int
    spent: tuple[TxOut, ...] | None


class Explorer:
    """Answers for a chain, one request at a time, from any thread."""

    def __init__(self, chain: RegtestChain) -> None:
        self._chain = chain
        self._lock = Lock()
        self._headers = [GENESIS_HEADER]
        self._heights = {_hash(GENESIS_HEADER): 0}
        self._entries: dict[str, _Entry] = {}
        self._by_script: defaultdict[str, list[str]] = defaultdict(list)
        self._outs: dict[Outpoint, TxOut] = {}

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Return what Esplora answers to a request; 404 for what is not there, 400 and why for a refusal."""
        for wanted, pattern, act in _ROUTES:
            match = pattern.fullmatch(path.split("?")[0])
            if match and wanted == method:
                return self._act(act, match.groups(), body)
        return Answer(404, b"no such path")

    def close(self) -> None:
        """Close the chain, once no request is being answered. Every request that still comes is refused."""
        with self._lock:
            self._chain.close()

    def _act(self, act: Callable[..., Any], found: Sequence[str], body: bytes) -> Answer:
        with self._lock:
            self._catch_up()
            try:
                made = act(self, *found, *([body] if act in _WITH_BODY else []))
            except (KeyError, IndexError):
                return Answer(404, b"not found")
            except TransactionRefused as error:
                return Answer(400, f"sendrawtransaction RPC error: {error.reason}".encode())
            except (LocalError, ValueError) as error:
                return Answer(400, str(error).encode())
        if isinstance(made, str | bytes):
            return Answer(200, made.encode() if isinstance(made, str) else made)
        return Answer(200, msgspec.json.encode(made), is_json=True)

    def _catch_up(self) -> None:
        for block in self._chain.blocks[len(self._headers) - 1 :]:
            height = len(self._headers)
            self._headers.append(block.header)
            self._heights[_hash(block.header)] = height
            self._record(block, height)

    def _record(self, block: Block, height: int) -> None:
        for number, mined in enumerate(block.transactions):
            spent = tuple(self._outs[one.outpoint] for one in mined.tx.inputs) if number else None
            txid = mined.txid[::-1].hex()
            self._entries[txid] = _Entry(mined, height, spent)
            self._outs |= {Outpoint(mined.txid, vout): out for vout, out in enumerate(mined.tx.outputs)}
            for script in {out.script for out in (*mined.tx.outputs, *(spent or ()))}:
                self._by_script[sha256(script).hexdigest()].append(txid)

    # --- what is asked for: strings and bytes are answered as they are, everything else as JSON ----------------------

    def _tip_height(self) -> str:
        return str(len(self._headers) - 1)

    def _tip_hash(self) -> str:
        return _hash(self._headers[-1])

    def _block_hash(self, height: str) -> str:
        return _hash(self._headers[int(height)])

    def _blocks(self, height: str | None) -> list[dict[str, object]]:
        top = int(height) if height else len(self._headers) - 1
        return [self._block_at(at) for at in range(top, max(-1, top - _BLOCKS_PAGE), -1)]

    def _block(self, block_hash: str) -> dict[str, object]:
        return self._block_at(self._heights[block_hash])

    def _block_at(self, height: int) -> dict[str, object]:
        header = self._headers[height]
        transactions = self._chain.blocks[height - 1].transactions if height else ()
        time = _number(header, 68)
        return {
            "id": _hash(header),
            "height": height,
            "version": _number(header, 0),
            "timestamp": time,
            "mediantime": time,
            "bits": _number(header, 72),
            "nonce": _number(header, 76),
            "difficulty": 0,
            "merkle_root": header[36:68][::-1].hex(),
            "previousblockhash": header[4:36][::-1].hex() if height else None,
            "tx_count": max(1, len(transactions)),
            "size": len(header) + 1 + sum(len(one.raw) for one in transactions),
            "weight": 4 * (len(header) + 1) + sum(_weight_wu(one) for one in transactions),
        }

    def _header(self, block_hash: str) -> str:
        return self._headers[self._heights[block_hash]].hex()

    def _block_status(self, block_hash: str) -> dict[str, object]:
        height = self._heights[block_hash]
        following = self._headers[height + 1 : height + 2]
        return {"in_best_chain": True, "height": height, "next_best": _hash(following[0]) if following else None}

    def _transaction(self, txid: str) -> dict[str, object]:
        entry = self._entries[txid]
        tx, spent = entry.mined.tx, entry.spent
        paid_sat = sum(out.amount_sat for out in tx.outputs)
        return {
            "txid": txid,
            "version": tx.version,
            "locktime": tx.locktime,
            "vin": self._inputs(entry),
            "vout": [_output(out) for out in tx.outputs],
            "size": len(entry.mined.raw),
            "weight": _weight_wu(entry.mined),
            "fee": 0 if spent is None else sum(out.amount_sat for out in spent) - paid_sat,
            "status": self._status(txid),
        }

    def _inputs(self, entry: _Entry) -> list[dict[str, object]]:
        return [
            {
                "txid": one.outpoint.txid[::-1].hex(),
                "vout": one.outpoint.vout,
                "prevout": None if entry.spent is None else _output(entry.spent[number]),
                "scriptsig": one.script_sig.hex(),
                "scriptsig_asm": "",
                "witness": [item.hex() for item in witness],
                "is_coinbase": entry.spent is None,
                "sequence": one.sequence,
            }
            for number, (one, witness) in enumerate(zip(entry.mined.tx.inputs, _witnesses(entry.mined), strict=True))
        ]

    def _status(self, txid: str) -> dict[str, object]:
        height = self._entries[txid].height
        header = self._headers[height]
        return {
            "confirmed": True,
            "block_height": height,
            "block_hash": _hash(header),
            "block_time": _number(header, 68),
        }

    def _raw(self, txid: str) -> bytes:
        return self._entries[txid].mined.raw

    def _hex(self, txid: str) -> str:
        return self._raw(txid).hex()

    def _of_script(self, script_hash: str, _: str | None, after: str | None) -> list[dict[str, object]]:
        """Newest first, a page of them, after the one that was the last of the page before."""
        listed = self._by_script.get(script_hash, [])[::-1]
        start = listed.index(after) + 1 if after else 0
        return [self._transaction(txid) for txid in listed[start : start + _PAGE]]

    def _of_address(self, text: str, chain: str | None, after: str | None) -> list[dict[str, object]]:
        return self._of_script(sha256(script_of(text, Chain.REGTEST)).hexdigest(), chain, after)

    def _fees(self) -> dict[str, float]:
        return _FEE_ESTIMATES

    # --- what changes the chain --------------------------------------------------------------------------------------

    def _send(self, body: bytes) -> str:
        return self._chain.confirm(bytes.fromhex(body.decode("ascii")))[::-1].hex()

    def _fund(self, body: bytes) -> dict[str, object]:
        wanted = msgspec.json.decode(body, type=_Fund)
        script = script_of(wanted.address, Chain.REGTEST)
        outpoint = next(iter(self._chain.fund(script, [wanted.amount_sat])))
        return {"txid": outpoint.txid[::-1].hex(), "vout": outpoint.vout, "height": self._chain.height}

    def _mine(self, body: bytes) -> dict[str, object]:
        wanted = msgspec.json.decode(body or b"{}", type=_Mine)
        script = _OP_TRUE if wanted.address is None else script_of(wanted.address, Chain.REGTEST)
        self._chain.mine(script, wanted.blocks)
        return {"height": self._chain.height}


_ROUTES: Final[tuple[tuple[str, re.Pattern[str], Callable[..., Any]], ...]] = tuple(
    (method, re.compile(path.replace("HASH", f"({_HASH})"), re.ASCII), act)
    for method, path, act in (
        ("GET", "/blocks/tip/height", Explorer._tip_height),
        ("GET", "/blocks/tip/hash", Explorer._tip_hash),
        ("GET", r"/block-height/([0-9]{1,9})", Explorer._block_hash),
        ("GET", r"/blocks(?:/([0-9]{1,9}))?", Explorer._blocks),
        ("GET", "/block/HASH", Explorer._block),
        ("GET", "/block/HASH/header", Explorer._header),
        ("GET", "/block/HASH/status", Explorer._block_status),
        ("GET", "/tx/HASH", Explorer._transaction),
        ("GET", "/tx/HASH/status", Explorer._status),
        ("GET", "/tx/HASH/raw", Explorer._raw),
        ("GET", "/tx/HASH/hex", Explorer._hex),
        ("GET", "/scripthash/HASH/txs(/chain(?:/HASH)?)?", Explorer._of_script),
        ("GET", "/address/([0-9A-Za-z]{1,90})/txs(/chain(?:/HASH)?)?", Explorer._of_address),
        ("GET", "/fee-estimates", Explorer._fees),
        ("POST", "/tx", Explorer._send),
        ("POST", "/regtest/fund", Explorer._fund),
        ("POST", "/regtest/mine", Explorer._mine),
    )
)
_WITH_BODY: Final = (Explorer._send, Explorer._fund, Explorer._mine)


def _hash(header: bytes) -> str:
    """Return a block's hash as it is shown."""
    return sha256(sha256(header).digest()).digest()[::-1].hex()


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "little")


def _weight_wu(mined: Mined) -> int:
    return 3 * len(mined.tx.to_bytes()) + len(mined.raw)


def _witnesses(mined: Mined) -> list[list[bytes]]:
    """Return the witness stack of each input: what lies between outputs and lock time where BIP-144 is used."""
    base = mined.tx.to_bytes()
    if len(mined.raw) == len(base):
        return [[] for _ in mined.tx.inputs]
    reader = Reader(mined.raw, len(base) - 4 + 2)
    return [[reader.sized() for _ in range(reader.compact())] for _ in mined.tx.inputs]


def _output(out: TxOut) -> dict[str, object]:
    shown = address(out.script, Chain.REGTEST)
    named = {"scriptpubkey_address": shown} if shown else {}
    kind = "v1_p2tr" if out.is_taproot else "unknown"
    return {
        "scriptpubkey": out.script.hex(),
        "scriptpubkey_asm": "",
        "scriptpubkey_type": kind,
        **named,
        "value": out.amount_sat,
    }
