"""An Electrum server over a regtest chain, written from the protocol's documentation: what bdkpython asks for."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from musignet.app.blocks import GENESIS_HEADER

from .kernel import RegtestChain, TransactionRefused

__all__ = ["FakeElectrum", "serving"]


def dsha(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()


class FakeElectrum:
    """Answers one method after the other. `answers`: what is answered instead of the truth."""

    def __init__(self, chain: RegtestChain) -> None:
        self.chain = chain
        self.lock = threading.Lock()
        self.answers: dict[str, Any] = {}

    def headers(self) -> list[bytes]:
        return [GENESIS_HEADER, *(block.header for block in self.chain.blocks)]

    def transactions(self) -> Iterator[tuple[int, bytes, bytes, set[bytes]]]:
        """Yield height, id, bytes and the scripts that each is about."""
        scripts: dict[tuple[bytes, int], bytes] = {}
        for height, block in enumerate(self.chain.blocks, 1):
            for one in block.transactions:
                spent = {scripts[txin.outpoint] for txin in one.tx.inputs if txin.outpoint in scripts}
                scripts |= {(one.txid, vout): out.script for vout, out in enumerate(one.tx.outputs)}
                yield height, one.txid, one.raw, spent | {out.script for out in one.tx.outputs}

    def call(self, method: str, params: list[Any]) -> Any:
        if method in self.answers:
            return self.answers[method]
        return getattr(self, method.replace(".", "_"))(*params)

    def server_version(self, *_: Any) -> Any:
        return ["fake 1", "1.4"]

    def server_ping(self) -> Any:
        return None

    def server_features(self) -> Any:
        return {
            "genesis_hash": dsha(GENESIS_HEADER)[::-1].hex(), "server_version": "fake 1", "protocol_min": "1.4",
            "protocol_max": "1.4", "hash_function": "sha256", "pruning": None, "hosts": {},
        }  # fmt: skip

    def blockchain_headers_subscribe(self) -> Any:
        headers = self.headers()
        return {"height": len(headers) - 1, "hex": headers[-1].hex()}

    def blockchain_block_header(self, height: int) -> Any:
        return self.headers()[height].hex()

    def blockchain_block_headers(self, start: int, count: int) -> Any:
        found = self.headers()[start : start + count]
        return {"count": len(found), "hex": b"".join(found).hex(), "max": 2016}

    def blockchain_scripthash_get_history(self, wanted: str) -> Any:
        return [
            {"tx_hash": txid[::-1].hex(), "height": height}
            for height, txid, _, scripts in self.transactions()
            if any(sha256(script).digest()[::-1].hex() == wanted for script in scripts)
        ]

    def blockchain_transaction_get(self, wanted: str, *_: Any) -> Any:
        for _, txid, raw, _ in self.transactions():
            if txid[::-1].hex() == wanted:
                return raw.hex()
        raise LookupError("No such mempool or blockchain transaction")

    def blockchain_transaction_get_merkle(self, wanted: str, height: int) -> Any:
        level = [one.txid for one in self.chain.blocks[height - 1].transactions]
        at = position = level.index(bytes.fromhex(wanted)[::-1])
        branch = []
        while len(level) > 1:
            level += level[-1:] * (len(level) % 2)
            branch.append(level[at ^ 1][::-1].hex())
            level = [dsha(level[pair] + level[pair + 1]) for pair in range(0, len(level), 2)]
            at //= 2
        return {"block_height": height, "pos": position, "merkle": branch}

    def blockchain_estimatefee(self, _: int) -> Any:
        return 0.00002001

    def blockchain_transaction_broadcast(self, raw: str) -> Any:
        return self.chain.confirm(bytes.fromhex(raw))[::-1].hex()


@contextmanager
def serving(electrum: FakeElectrum) -> Iterator[str]:
    """Yield its URL."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                asked = json.loads(line)
                answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
                try:
                    with electrum.lock:
                        answer["result"] = electrum.call(asked["method"], asked["params"])
                except (TransactionRefused, LookupError) as error:
                    answer["error"] = {"code": 1, "message": str(error)}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
