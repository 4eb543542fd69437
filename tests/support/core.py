"""A stand-in for Bitcoin Core's RPC, written from its documentation, over a chain that Core's kernel keeps.

No Core takes part: it shows that our calls are well-formed and that each documented answer is understood, not that a
given version of Core behaves so. Addresses of plain keys are derived by bdkpython, those of musig() by ourselves.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import bdkpython as bdk

from musignet.bitcoin.address import script_of
from musignet.bitcoin.descriptor import Descriptor, checksum
from musignet.bitcoin.taproot import address
from musignet.bitcoin.transaction import Outpoint, TxOut
from musignet.chain import Chain

from .kernel import RegtestChain, TransactionRefused

__all__ = ["FakeCore", "serving"]

COOKIE = "__cookie__:0123456789abcdef"
AHEAD = 25
"""Addresses beyond the last one used that it looks at. Core's own thousand would take seconds here."""


class RpcFailure(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Watched:
    desc: str
    next_index: int = 0
    scripts: list[bytes] = field(default_factory=list)

    def script(self, index: int) -> bytes:
        while len(self.scripts) <= index:
            self.scripts.append(derive(self.desc, len(self.scripts)))
        return self.scripts[index]


def derive(desc: str, index: int) -> bytes:
    body, _, given = desc.partition("#")
    if given != checksum(body):
        raise RpcFailure(-5, "Missing or wrong checksum")
    if "musig(" in desc:
        return Descriptor.parse_untrusted(desc).derive(0, index).script
    made = bdk.Descriptor(desc, bdk.NetworkKind.TEST).derive_address(index, bdk.Network.REGTEST)
    return bytes(made.script_pubkey().to_bytes())


@dataclass
class FakeCore:
    """Attributes are what a test turns: the network it says it is of, whether it is still reading the chain, ..."""

    chain: RegtestChain
    network: str = "regtest"
    headers: int | None = None
    reading: bool = False
    warming_up: bool = False
    scanning: object = False
    knows_musig: bool = True
    feerate: float | None = 0.00002001
    wallets: dict[str, dict[str, Watched]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    imported: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    """What is answered to a method instead of the truth; an RpcFailure is raised."""
    import_waits_for: threading.Event | None = None
    status: int = 200

    def call(self, wallet: str | None, method: str, params: list[Any]) -> Any:
        if self.warming_up:
            raise RpcFailure(-28, "Loading block index...")
        if method in self.answers:
            if isinstance(self.answers[method], RpcFailure):
                raise self.answers[method]
            return self.answers[method]
        if wallet is not None and wallet not in self.loaded:
            raise RpcFailure(-18, "Requested wallet does not exist or is not loaded")
        if wallet is None:
            return getattr(self, f"node_{method}")(*params)
        self.notice(self.wallets[wallet])
        return getattr(self, f"wallet_{method}")(self.wallets[wallet], *params)

    def notice(self, watched: dict[str, Watched]) -> None:
        """Move each descriptor's next index beyond every address that was ever paid."""
        paid = {out.script for block in self.chain.blocks for one in block.transactions for out in one.tx.outputs}
        for one in watched.values():
            index = 0
            while index < one.next_index + AHEAD:
                if one.script(index) in paid and index >= one.next_index:
                    one.next_index = index + 1
                index += 1

    # --- of the node

    def node_getblockchaininfo(self) -> Any:
        height = self.chain.height
        headers = height if self.headers is None else self.headers
        return {
            "chain": self.network, "blocks": height, "headers": headers,
            "verificationprogress": 1.0, "initialblockdownload": self.reading,
        }  # fmt: skip

    def node_loadwallet(self, name: str) -> Any:
        if name not in self.wallets:
            raise RpcFailure(-18, "Wallet file verification failed. Path does not exist.")
        if name in self.loaded:
            raise RpcFailure(-35, f'Wallet "{name}" is already loaded.')
        self.loaded.add(name)
        return {"name": name}

    def node_createwallet(self, name: str, disable_private_keys: bool, blank: bool) -> Any:
        assert disable_private_keys
        assert blank
        self.wallets[name] = {}
        self.loaded.add(name)
        return {"name": name}

    def node_deriveaddresses(self, desc: str, bounds: list[int]) -> Any:
        return [address(derive(desc, index), Chain.REGTEST) for index in range(bounds[0], bounds[1] + 1)]

    def node_estimatesmartfee(self, target: int) -> Any:
        if self.feerate is None:
            return {"errors": ["Insufficient data or no feerate found"], "blocks": target}
        return {"feerate": self.feerate, "blocks": target}

    def node_sendrawtransaction(self, raw: str) -> Any:
        if any(raw == one.raw.hex() for block in self.chain.blocks for one in block.transactions):
            raise RpcFailure(-27, "Transaction outputs already in utxo set")
        try:
            return self.chain.confirm(bytes.fromhex(raw))[::-1].hex()
        except TransactionRefused as error:
            raise RpcFailure(-26, error.reason) from None

    # --- of a wallet

    def wallet_getwalletinfo(self, _: dict[str, Watched]) -> Any:
        return {"walletversion": 169900, "private_keys_enabled": False, "scanning": self.scanning}

    def wallet_listdescriptors(self, watched: dict[str, Watched]) -> Any:
        return {
            "wallet_name": "x",
            "descriptors": [
                {"desc": one.desc, "timestamp": 1, "active": False, "range": [0, 999], "next": one.next_index,
                 "next_index": one.next_index}
                for one in watched.values()
            ],
        }  # fmt: skip

    def wallet_importdescriptors(self, watched: dict[str, Watched], requests: list[dict[str, Any]]) -> Any:
        if self.import_waits_for is not None:
            self.scanning = {"duration": 3, "progress": 0.25}
            self.import_waits_for.wait(20)
        self.imported += requests
        if not self.knows_musig and any("musig" in one["desc"] for one in requests):
            return [{"success": False, "error": {"code": -5, "message": "'musig' is not a valid key"}}] * 2
        for one in requests:
            watched[one["desc"]] = Watched(one["desc"])
        self.notice(watched)
        return [{"success": True}] * len(requests)

    def coins(self, watched: dict[str, Watched]) -> Iterator[tuple[Outpoint, TxOut, int]]:
        for one in watched.values():
            for index in range(one.next_index):
                for outpoint, out in self.chain.unspent(one.script(index)).items():
                    yield outpoint, out, self.chain.confirmations(outpoint.txid)

    def wallet_listunspent(self, watched: dict[str, Watched], minconf: int) -> Any:
        assert minconf == 0
        return [
            {"txid": outpoint.txid[::-1].hex(), "vout": outpoint.vout, "amount": out.amount_sat / 10**8,
             "scriptPubKey": out.script.hex(), "confirmations": confirmations, "spendable": True, "safe": True}
            for outpoint, out, confirmations in self.coins(watched)
        ]  # fmt: skip

    def wallet_getbalances(self, watched: dict[str, Watched]) -> Any:
        total = sum(out.amount_sat for _, out, _ in self.coins(watched))
        return {"mine": {"trusted": total / 10**8, "untrusted_pending": 0.0, "immature": 0.0}}

    def pay(self, text: str, amount_sat: int) -> Outpoint:
        return next(iter(self.chain.fund(script_of(text, Chain.REGTEST), [amount_sat])))


@contextmanager
def serving(core: FakeCore, folder: Path) -> Iterator[str]:
    """Yield `HOST:PORT`; the cookie is `folder / ".cookie"`."""
    (folder / ".cookie").write_text(COOKIE)
    wanted = "Basic " + base64.b64encode(COOKIE.encode()).decode()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != wanted:
                return self.reply(401, b"")
            if core.status != 200:
                return self.reply(core.status, b"")
            asked = json.loads(body)
            wallet = unquote(self.path.removeprefix("/wallet/")) if self.path.startswith("/wallet/") else None
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
            waits = asked["method"] == "importdescriptors" and core.import_waits_for
            try:
                if waits:
                    answer["result"] = core.call(wallet, asked["method"], asked["params"])
                else:
                    with lock:
                        answer["result"] = core.call(wallet, asked["method"], asked["params"])
            except RpcFailure as error:
                answer["error"] = {"code": error.code, "message": str(error)}
            return self.reply(200, json.dumps(answer).encode())

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
