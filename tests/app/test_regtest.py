"""The chain for the demo and the tests: what it pays is there, what is wrong is refused with the kernel's own words."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import wallycore

from musignet.app.blocks import Mined, mine, subsidy_sat
from musignet.bitcoin.transaction import Outpoint, Transaction, TxIn, TxOut
from musignet.errors import IoError, LocalError
from support.kernel import RegtestChain, TransactionRefused

MONEY = b"\x52"
"""OP_2: spendable by anybody, and not the chain's own."""
OTHER = b"\x53"


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[RegtestChain]:
    with RegtestChain(tmp_path / "chain") as opened:
        yield opened


def raw(inputs: list[Outpoint], *outputs: TxOut) -> bytes:
    return Transaction(2, 0, tuple(TxIn(one) for one in inputs), outputs).to_bytes()


def test_the_first_funding_mines_what_it_needs(chain: RegtestChain) -> None:
    assert chain.height == 0
    coins = chain.fund(MONEY, [7, 5, 5])
    assert chain.height == 101  # 100 until the first coinbase is ripe, and one for the payment
    assert [(outpoint.vout, out) for outpoint, out in coins.items()] == [
        (0, TxOut(7, MONEY)),
        (1, TxOut(5, MONEY)),
        (2, TxOut(5, MONEY)),
    ]
    assert chain.unspent(MONEY) == coins
    chain.fund(MONEY, [1])
    assert chain.height == 102
    assert sum(out.amount_sat for out in chain.unspent(MONEY).values()) == 18


def test_more_than_one_block_pays(chain: RegtestChain) -> None:
    coins = chain.fund(MONEY, [120 * 10**8, 1])
    assert [out.amount_sat for out in coins.values()] == [120 * 10**8, 1]
    txid = chain.confirm(raw(list(coins), TxOut(120 * 10**8 + 1, OTHER)))
    assert chain.unspent(MONEY) == {}
    assert list(chain.unspent(OTHER)) == [Outpoint(txid, 0)]


def test_confirmations_count_blocks(chain: RegtestChain) -> None:
    (coin,) = chain.fund(MONEY, [9])
    txid = chain.confirm(raw([coin], TxOut(9, OTHER)))
    assert [chain.confirmations(one) for one in (txid, coin.txid, bytes(32), b"")] == [1, 2, 0, 0]
    chain.mine(OTHER, 5)
    assert [chain.confirmations(one) for one in (txid, coin.txid)] == [6, 7]


def test_what_a_block_pays_ripens_for_100_blocks(chain: RegtestChain) -> None:
    (paid,) = chain.mine(MONEY)
    spend = raw([paid], TxOut(50 * 10**8, OTHER))
    chain.mine(OTHER, 98)
    assert chain.unspent(MONEY) == {}
    with pytest.raises(TransactionRefused, match="bad-txns-premature-spend-of-coinbase"):
        chain.confirm(spend)
    chain.mine(OTHER)
    assert chain.unspent(MONEY) == {paid: TxOut(50 * 10**8, MONEY)}
    assert chain.confirmations(chain.confirm(spend)) == 1


WITNESS = b"\x01\x01\x00"

REFUSED: list[tuple[str, str, Callable[[list[Outpoint]], bytes]]] = [
    ("a coin that is not there", "inputs-missingorspent", lambda c: raw([Outpoint(b"\x07" * 32, 0)], TxOut(1, OTHER))),
    ("an index that is not there", "inputs-missingorspent", lambda c: raw([c[0]._replace(vout=99)], TxOut(1, OTHER))),
    ("a coin twice", "inputs-duplicate", lambda c: raw([c[0], c[0]], TxOut(1, OTHER))),
    ("more than it has", "in-belowout", lambda c: raw([c[0]], TxOut(10_001, OTHER))),
    ("no outputs", "vout-empty", lambda c: raw([c[0]])),
    ("a negative amount", "vout-negative", lambda c: raw([c[0]], TxOut(-1, OTHER))),
    ("a second coinbase", "bad-cb-multiple", lambda c: raw([Outpoint(bytes(32), 0xFFFFFFFF)], TxOut(1, OTHER))),
    ("too large", "bad-blk-length", lambda c: raw([c[0]], *[TxOut(0, bytes(9_000))] * 120)),
    ("a script that fails", "false/empty top stack element.*input 0 of", lambda c: raw([c[1]], TxOut(1, OTHER))),
    ("not yet", "bad-txns-nonfinal", lambda c: Transaction(2, 999, (TxIn(c[0], 0),), (TxOut(1, OTHER),)).to_bytes()),
    ("an empty witness", "not the form of a block", lambda c: spending(c).to_bytes([b"\x00"])),
    ("a witness for none", "unexpected-witness|Witness provided", lambda c: spending(c).to_bytes([WITNESS])),
    ("no transaction", "the bytes end early", lambda c: b"\x02\x00\x00"),
    ("nothing", "the bytes end early", lambda c: b""),
    ("bytes behind it", "bytes after the end", lambda c: raw([c[0]], TxOut(1, OTHER)) + b"\x00"),
]


def spending(coins: list[Outpoint]) -> Transaction:
    return Transaction(2, 0, (TxIn(coins[0]),), (TxOut(1, OTHER),))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegtestChain]:
    with RegtestChain(tmp_path_factory.mktemp("chain")) as opened:
        yield opened


@pytest.mark.parametrize(("reason", "make"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refusal_has_the_kernels_reason_and_changes_nothing(
    shared: RegtestChain, reason: str, make: Callable[[list[Outpoint]], bytes]
) -> None:
    coins = [*shared.fund(MONEY, [10_000]), *shared.fund(b"\x00", [10_000])]
    before = shared.height, shared.unspent(MONEY), shared.unspent(OTHER)
    for _ in range(2):  # the same answer each time: the kernel's memory of bad blocks does not shadow it
        with pytest.raises(TransactionRefused, match=reason):
            shared.confirm(make(coins))
    assert (shared.height, shared.unspent(MONEY), shared.unspent(OTHER)) == before
    shared.confirm(raw(coins[:1], TxOut(10_000, MONEY)))
    assert shared.height == before[0] + 1


def test_half_a_block_of_the_kernels_never_leaves(shared: RegtestChain) -> None:
    """To print one is to crash: a traceback that shows values would."""
    (coin,) = shared.fund(MONEY, [1])
    with pytest.raises(TransactionRefused, match="not the form of a block") as caught:
        shared.confirm(spending([coin]).to_bytes([b"\x00"]))
    assert caught.value.__context__ is None


def test_the_first_input_that_fails_is_named(shared: RegtestChain) -> None:
    coins = list(shared.fund(b"\x00", [1] * 200))
    for first in (150, 3, 0):
        good = list(shared.fund(MONEY, [1] * first)) if first else []
        with pytest.raises(TransactionRefused, match=f"input {first} of"):
            shared.confirm(raw([*good, *coins[first:]], TxOut(1, OTHER)))


@pytest.mark.parametrize(
    "call",
    [
        lambda chain: chain.mine(MONEY, 0),
        lambda chain: chain.mine(MONEY, 1_001),
        lambda chain: chain.mine(bytes(10_001)),
        lambda chain: chain.fund(bytes(10_001), [1]),
        lambda chain: chain.fund(MONEY, []),
        lambda chain: chain.fund(MONEY, [5, 0]),
        lambda chain: chain.fund(MONEY, [21_000_000 * 10**8 + 1]),
    ],
)
def test_what_cannot_be_asked_for(chain: RegtestChain, call: Callable[[RegtestChain], object]) -> None:
    with pytest.raises(LocalError):
        call(chain)
    assert chain.height == 0


def test_a_chain_gives_no_more_than_there_is(chain: RegtestChain) -> None:
    with pytest.raises(LocalError, match="not that many coins"):
        chain.fund(MONEY, [20_000_000 * 10**8])
    assert chain.height == 1_000


def test_a_closed_chain(tmp_path: Path) -> None:
    chain = RegtestChain(tmp_path / "chain")
    chain.close()
    chain.close()
    for call in (lambda: chain.height, lambda: chain.mine(MONEY), lambda: chain.fund(MONEY, [1])):
        with pytest.raises(LocalError, match="closed"):
            call()


def test_closing_gives_the_kernel_back_at_once(tmp_path: Path) -> None:
    """Not only when the garbage collector comes by."""
    with RegtestChain(tmp_path / "chain") as chain:
        chain.fund(MONEY, [1])
        kernel = weakref.ref(chain._kernel)
        assert kernel() is not None
        gc.disable()
        try:
            chain.close()
            assert kernel() is None
        finally:
            gc.enable()


def test_the_folder_is_new_or_empty(tmp_path: Path) -> None:
    with RegtestChain(tmp_path / "a" / "b") as chain:
        chain.mine(MONEY)
    with pytest.raises(IoError, match="empty folder"):
        RegtestChain(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(IoError, match="cannot use"):
        RegtestChain(tmp_path / "file")


def test_a_folder_that_the_kernel_cannot_use(tmp_path: Path) -> None:
    """Its name is no UTF-8."""
    with pytest.raises(IoError, match="cannot"):
        RegtestChain(tmp_path / "\udcff")


def test_two_chains_at_once(tmp_path: Path) -> None:
    with RegtestChain(tmp_path / "one") as one, RegtestChain(tmp_path / "two") as two:
        coins = one.fund(MONEY, [5])
        assert (one.height, two.height) == (101, 0)
        two.mine(MONEY)
        with pytest.raises(TransactionRefused, match="missingorspent"):
            two.confirm(raw(list(coins), TxOut(5, OTHER)))
        one.confirm(raw(list(coins), TxOut(5, OTHER)))
        assert (one.height, two.height) == (102, 1)


def test_it_says_nothing_and_ends_well(tmp_path: Path) -> None:
    """Left open at the interpreter's exit it does no harm, and the kernel's log stays off our streams."""
    program = (
        "import sys, pathlib; from musignet.app.regtest import RegtestChain\n"
        "chain = RegtestChain(pathlib.Path(sys.argv[1])); chain.fund(b'\\x51', [5]); kept = [chain]; kept.append(kept)"
    )
    argv = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "chain")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 127, 128, 255, 256, 32_767, 32_768])
def test_a_coinbase_begins_with_its_height(height: int) -> None:
    """BIP-34, and the shortest push there is."""
    script_sig = mine(bytes(32), height, MONEY, (), 0).transactions[0].tx.inputs[0].script_sig
    if height <= 16:
        assert script_sig[0] == 0x50 + height
    else:
        number = script_sig[1 : 1 + script_sig[0]]
        assert int.from_bytes(number, "little", signed=True) == height
        assert len(number) == 1 or number[-1] or number[-2] >> 7


def test_the_subsidy_halves_every_150_blocks() -> None:
    assert [subsidy_sat(height) for height in (1, 149, 150, 300)] == [50 * 10**8, 50 * 10**8, 25 * 10**8, 125 * 10**7]


def sha256d(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()


def test_a_header_commits_to_every_transaction() -> None:
    """Three leaves, so that the last one is paired with itself."""
    txs = [Transaction(2, 0, (TxIn(Outpoint(bytes((n,)) * 32, 0)),), (TxOut(n, OTHER),)) for n in (1, 2)]
    block = mine(b"\x07" * 32, 5, MONEY, [Mined(tx.to_bytes(), tx) for tx in txs], 0)
    one, two, three = (mined.txid for mined in block.transactions)
    assert block.header[4:36] == b"\x07" * 32
    assert block.header[36:68] == sha256d(sha256d(one + two) + sha256d(three + three))
    witness_root = sha256d(sha256d(bytes(32) + two) + sha256d(three + three))
    assert block.transactions[0].tx.outputs[1].script[6:] == sha256d(witness_root + bytes(32))


def test_blocks_are_the_same_each_time() -> None:
    one, two, other = (mine(bytes(32), 5, MONEY, (), nonce) for nonce in (3, 3, 4))
    assert (one, one.hash) == (two, two.hash)
    assert one.hash != other.hash
    coinbase = one.transactions[0]
    parsed = wallycore.tx_from_bytes(coinbase.raw, wallycore.WALLY_TX_FLAG_USE_WITNESS)
    assert bytes(wallycore.tx_get_txid(parsed)) == coinbase.txid
