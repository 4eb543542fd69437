"""The regtest chain as an Esplora server shows it: asked without a socket, then over one."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import wallycore

from musignet.bitcoin.taproot import address
from musignet.bitcoin.transaction import Transaction, TxIn, TxOut
from musignet.chain import Chain
from musignet.errors import ConnectionError, IoError, LocalError
from support.kernel import RegtestChain  # skips where there is no kernel
from support.wallet import EXTERNAL

from musignet.app.esplora import Explorer  # isort: skip
from musignet.app.regtest_client import ask  # isort: skip
from musignet.app.regtest_server import serve  # isort: skip

TRUE = b"\x51"
GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
ADDRESS = str(address(EXTERNAL, Chain.REGTEST))


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    chain = RegtestChain(tmp_path_factory.mktemp("chain"))
    made = Explorer(chain)
    yield made
    made.close()
    assert made.answer("POST", "/regtest/mine", b"").status == 400  # closed


def get(explorer: Explorer, path: str) -> Any:
    answer = explorer.answer("GET", path, b"")
    assert answer.status == 200, answer.body
    return json.loads(answer.body) if answer.is_json else answer.body.decode()


def post(explorer: Explorer, path: str, body: object) -> Any:
    answer = explorer.answer("POST", path, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_it_begins_with_the_block_that_everybody_has(explorer: Explorer) -> None:
    assert get(explorer, "/block-height/0") == GENESIS
    assert get(explorer, f"/block/{GENESIS}")["height"] == 0
    assert (
        sha256(sha256(bytes.fromhex(get(explorer, f"/block/{GENESIS}/header"))).digest()).digest()[::-1].hex()
        == GENESIS
    )


def test_blocks_follow_each_other(explorer: Explorer) -> None:
    height = post(explorer, "/regtest/mine", {"blocks": 12})["height"]
    assert get(explorer, "/blocks/tip/height") == str(height)
    tip = get(explorer, "/blocks/tip/hash")
    page = get(explorer, "/blocks")
    assert (page[0]["id"], len(page), page[0]["height"]) == (tip, 10, height)
    assert [one["previousblockhash"] for one in page[:-1]] == [one["id"] for one in page[1:]]
    assert [one["id"] for one in get(explorer, "/blocks/1")] == [get(explorer, "/block-height/1"), GENESIS]
    assert get(explorer, f"/block/{tip}/status") == {"in_best_chain": True, "height": height, "next_best": None}
    assert get(explorer, f"/block/{page[1]['id']}/status")["next_best"] == tip
    assert get(explorer, "/block-height/1") == get(explorer, "/blocks/1?x=y")[0]["id"]


def test_a_payment_is_found_by_script_and_by_address(explorer: Explorer) -> None:
    paid = post(explorer, "/regtest/fund", {"address": ADDRESS, "amount_sat": 12_345})
    listed = get(explorer, f"/scripthash/{sha256(EXTERNAL).hexdigest()}/txs")
    assert listed == get(explorer, f"/address/{ADDRESS}/txs")
    found = next(one for one in listed if one["txid"] == paid["txid"])
    out = found["vout"][paid["vout"]]
    assert (out["value"], out["scriptpubkey"], out["scriptpubkey_address"]) == (12_345, EXTERNAL.hex(), ADDRESS)
    assert found["status"] == get(explorer, f"/tx/{paid['txid']}/status")
    assert (found["status"]["block_height"], found["fee"], found["vin"][0]["is_coinbase"]) == (paid["height"], 0, False)
    assert get(explorer, f"/tx/{paid['txid']}") == found
    raw = bytes.fromhex(get(explorer, f"/tx/{paid['txid']}/hex"))
    assert explorer.answer("GET", f"/tx/{paid['txid']}/raw", b"").body == raw
    assert (found["size"], found["weight"]) == (len(raw), wallycore.tx_get_weight(wallycore.tx_from_bytes(raw, 1)))
    assert sum(one["prevout"]["value"] for one in found["vin"]) == sum(one["value"] for one in found["vout"])


def test_what_a_block_pays_has_no_fee_and_a_witness(explorer: Explorer) -> None:
    post(explorer, "/regtest/mine", {})
    newest = get(explorer, f"/scripthash/{sha256(TRUE).hexdigest()}/txs")[0]
    assert (newest["vin"][0]["is_coinbase"], newest["vin"][0]["prevout"], newest["fee"]) == (True, None, 0)
    assert newest["vin"][0]["witness"] == ["00" * 32]
    assert newest["vin"][0]["scriptsig"]


def test_pages(explorer: Explorer) -> None:
    script_hash = sha256(TRUE).hexdigest()
    first = get(explorer, f"/scripthash/{script_hash}/txs")
    second = get(explorer, f"/scripthash/{script_hash}/txs/chain/{first[-1]['txid']}")
    assert len(first) == 25
    assert not {one["txid"] for one in first} & {one["txid"] for one in second}
    heights = [one["status"]["block_height"] for one in first + second]
    assert heights == sorted(heights, reverse=True)
    assert get(explorer, f"/scripthash/{'00' * 32}/txs") == []


def test_a_transaction_that_is_sent_is_in_a_block_at_once(explorer: Explorer) -> None:
    post(explorer, "/regtest/mine", {"blocks": 101})
    coin, out = next(iter(explorer._chain.unspent(TRUE).items()))
    raw = Transaction(2, 0, (TxIn(coin),), (TxOut(out.amount_sat - 700, EXTERNAL),)).to_bytes()
    height = int(get(explorer, "/blocks/tip/height"))
    answer = explorer.answer("POST", "/tx", raw.hex().encode())
    assert (answer.status, len(answer.body)) == (200, 64)
    found = get(explorer, f"/tx/{answer.body.decode()}")
    assert (found["fee"], found["status"]["block_height"]) == (700, height + 1)
    again = explorer.answer("POST", "/tx", raw.hex().encode())
    assert (again.status, again.body[:31]) == (400, b"sendrawtransaction RPC error: b")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", b"", 404),
        ("GET", "/nothing", b"", 404),
        ("GET", "/tx", b"", 404),
        ("POST", "/blocks/tip/height", b"", 404),
        ("GET", f"/tx/{'00' * 32}", b"", 404),
        ("GET", f"/block/{'00' * 32}", b"", 404),
        ("GET", "/block-height/999999999", b"", 404),
        ("GET", f"/scripthash/{sha256(TRUE).hexdigest()}/txs/chain/{'00' * 32}", b"", 400),
        ("GET", "/address/nobody/txs", b"", 400),
        ("POST", "/tx", b"", 400),
        ("POST", "/tx", b"zz", 400),
        ("POST", "/tx", b"\xff", 400),
        ("POST", "/tx", b"00", 400),
        ("POST", "/regtest/fund", b"", 400),
        ("POST", "/regtest/fund", b"{}", 400),
        ("POST", "/regtest/fund", b'{"address": "nobody", "amount_sat": 1}', 400),
        ("POST", "/regtest/fund", b'{"address": "%s", "amount_sat": 0}' % ADDRESS.encode(), 400),
        ("POST", "/regtest/fund", b'{"address": "%s", "amount_sat": 1, "x": 1}' % ADDRESS.encode(), 400),
        ("POST", "/regtest/mine", b'{"blocks": 1001}', 400),
        ("POST", "/regtest/mine", b'{"blocks": 0}', 400),
        ("POST", "/regtest/mine", b'{"address": "nobody"}', 400),
        ("POST", "/regtest/mine", b'{"blocks": "1"}', 400),
    ],
)
def test_what_is_refused(explorer: Explorer, method: str, path: str, body: bytes, status: int) -> None:
    height = get(explorer, "/blocks/tip/height")
    assert explorer.answer(method, path, body).status == status
    assert get(explorer, "/blocks/tip/height") == height


# --- over a socket --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("served") / "chain") as served:
        yield served


def request(url: str, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.putrequest(method, path)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.driver
def test_many_ask_at_once(url: str) -> None:
    answers: list[int] = []

    def one() -> None:
        for _ in range(5):
            answers.append(ask(url, "/regtest/fund", {"address": ADDRESS, "amount_sat": 1_000})["height"])

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 40
    assert request(url, "GET", "/blocks/tip/height") == (200, str(max(answers)).encode())


@pytest.mark.driver
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 411),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "x"}, 411),
        ({"Content-Length": str(1 << 20 | 1)}, 413),
        ({"Content-Length": "9" * 5_000}, 413),
    ],
)
def test_bodies_of_no_or_too_much_length(url: str, headers: dict[str, str], status: int) -> None:
    assert request(url, "POST", "/tx", headers)[0] == status


@pytest.mark.driver
def test_a_reason_reaches_whoever_asked(url: str) -> None:
    with pytest.raises(LocalError, match="not a Bitcoin address"):
        ask(url, "/regtest/fund", {"address": "nobody", "amount_sat": 1})
    with pytest.raises(ConnectionError, match=r"no regtest chain answers at .*musignet regtest"):
        ask("http://127.0.0.1:1", "/regtest/mine", {})
    for none in (
        url.replace("http", "nothing"),
        "nonsense",
        "http://127.0.0.1:port",
        "http://[",
        "http://127.0.0.1:99999",
    ):
        with pytest.raises(ConnectionError, match="no regtest chain"):
            ask(none, "/regtest/mine", {})
    with serving_once(b"nonsense\r\n\r\n") as nobody, pytest.raises(ConnectionError, match="no regtest chain"):
        ask(nobody, "/regtest/mine", {})


@contextmanager
def serving_once(answer: bytes) -> Iterator[str]:
    """What answers so, and is no server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer, args=(listening, answer), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def _answer(listening: socket.socket, answer: bytes) -> None:
    with listening.accept()[0] as one:
        one.recv(65_536)
        one.sendall(answer)


@pytest.mark.driver
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "192.0.2.1", "localhost", "example.com", ""])
def test_only_this_machine(tmp_path: Path, host: str) -> None:
    with pytest.raises(LocalError, match="stays on this machine"), serve(tmp_path / "chain", host):
        pass


@pytest.mark.driver
def test_a_port_that_is_taken(tmp_path: Path, url: str) -> None:
    port = urlsplit(url).port
    assert port is not None
    with pytest.raises(IoError, match="choose another port"), serve(tmp_path / "chain", port=port):
        pass


@pytest.mark.driver
def test_a_caller_that_hangs_up_is_not_worth_a_word(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    address = urlsplit(url)
    for _ in range(3):
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.sendall(b"POST /tx HTTP/1.1\r\nContent-Length: 10\r\n\r\n12")
    assert request(url, "GET", "/blocks/tip/height")[0] == 200
    assert capfd.readouterr().err == ""
