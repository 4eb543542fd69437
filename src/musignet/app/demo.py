"""`musignet demo`: cosigners in processes of their own turn a PSBT into a transaction that Bitcoin Core confirms.

The parent keeps the regtest chain, tells the processes each other's keys and addresses, hands one of them a PSBT, and
shows what they report: lines of JSON over their standard streams. It never sees a key that is secret.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from ..bitcoin.build import build
from ..bitcoin.descriptor import Descriptor
from ..bitcoin.group import RECEIVE, Group
from ..bitcoin.transaction import Transaction, TxOut
from ..chain import Chain
from ..errors import NetworkError, Other, Timeout
from ..text import short_key
from .regtest import RegtestChain

__all__ = ["Demo"]

T = TypeVar("T")

_LABELS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mike", "olga", "peggy",
           "rupert", "sybil")  # fmt: skip
_DEADLINE_S = 90.0
_SILENCE_S = 1.0
_COIN_SAT = 1_000_000
_FEE_RATE_SAT_VB = 2
_PAID_TO = bytes.fromhex("0014") + bytes(20)
_LINE_MAX_BYTES = 4 * 1024 * 1024


@dataclass
class _Cosigner:
    """One node in a process of its own, and what it reported."""

    label: str
    process: asyncio.subprocess.Process
    facts: dict[str, Any] = field(default_factory=dict)
    standing: dict[str, Any] | None = None
    """How the ceremony stands for it, until it has an outcome."""

    @classmethod
    async def start(cls, label: str, folder: Path, liar: str) -> _Cosigner:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "musignet.app.demo_node", label, str(folder), liar),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_MAX_BYTES,
        )
        return cls(label, process)

    async def tell(self, order: str, **facts: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **facts}).encode("ascii") + b"\n")
        await self.process.stdin.drain()

    async def next(self) -> dict[str, Any]:
        """Return its next report. Raises Other when it failed or ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        report = json.loads(line) if line else {"event": "failed", "error": "its process ended"}
        if report["event"] == "failed":
            raise Other(f"{self.label} failed: {report['error']}")
        return dict(report)

    async def expect(self, event: str) -> dict[str, Any]:
        """Return its next report of this kind; others before it are passed over."""
        while (report := await self.next())["event"] != event:
            pass
        return report

    async def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Demo:
    """One run. The last of the cosigners is the liar, where there is one."""

    def __init__(self, signers: int, inputs: int, topology: str, liar: str, as_json: bool) -> None:
        self._signers = signers
        self._inputs = inputs
        self._topology = topology
        self._liar = liar
        self._json = as_json
        self._begun = time.perf_counter()
        self._phase = self._begun
        self._shown = self._begun
        self._timings_ms: dict[str, float] = {}
        self._nodes: list[_Cosigner] = []
        self._labels: dict[str, str] = {}

    async def run(self) -> int:
        """Run it. Returns the exit code; raises NetworkError when it does not do what it says."""
        try:
            async with asyncio.timeout(_DEADLINE_S), AsyncExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="musignet-demo-")))
                chain = stack.enter_context(RegtestChain(folder / "chain"))
                stack.push_async_callback(self._end)
                result = await self._spend(folder, chain)
        except TimeoutError as error:
            if isinstance(error, NetworkError):
                raise
            raise Timeout(f"the demo did not end within {_DEADLINE_S:g} s") from None
        if self._json:
            click.echo(json.dumps(result))
        return 0

    async def _end(self) -> None:
        await asyncio.gather(*(node.end() for node in self._nodes))

    async def _spend(self, folder: Path, chain: RegtestChain) -> dict[str, Any]:
        await self._start(folder)
        wallet = await self._join()
        script = wallet.derive(RECEIVE, 0).script
        coins = chain.fund(script, [_COIN_SAT] * self._inputs)
        self._show(f"a regtest chain of our own pays {self._inputs} x {_COIN_SAT:,} sat to the wallet's first address")
        self._lap("funding")
        payments = [TxOut(self._inputs * _COIN_SAT // 2, _PAID_TO)]
        psbt = build(wallet, coins, payments, fee_rate_sat_vb=_FEE_RATE_SAT_VB)
        proposer = self._nodes[0]
        self._show(
            f"{proposer.label} proposes a PSBT of {len(psbt.serialize()):,} bytes; each keyholder reviews it itself"
        )
        await proposer.tell("propose", psbt_hex=psbt.serialize().hex(), topology=self._topology)
        outcomes = await self._watch()
        self._lap("signing")
        result = self._result(wallet, [coins[txin.outpoint] for txin in psbt.tx.inputs])
        if self._liar:
            return result | {"blame": self._blame(outcomes)}
        return result | self._confirm(chain, outcomes)

    # --- phases -------------------------------------------------------------------------------------------------------

    async def _start(self, folder: Path) -> None:
        self._show(f"starting {self._signers} nodes, each in a process of its own, with a key of its own")
        labels = _LABELS[: self._signers]
        liars = [""] * (self._signers - 1) + [self._liar]
        starts = (_Cosigner.start(label, folder / label, liar) for label, liar in zip(labels, liars, strict=True))
        self._nodes = list(await asyncio.gather(*starts))
        await self._patiently(asyncio.gather(*map(self._ready, self._nodes)), self._starting)
        self._labels = {node.facts["pubkey_hex"]: node.label for node in self._nodes}
        self._lap("start")

    async def _ready(self, node: _Cosigner) -> None:
        node.facts = await node.expect("ready")

    def _starting(self) -> str:
        return f"still starting: {', '.join(node.label for node in self._nodes if not node.facts)}"

    async def _join(self) -> Group:
        keys = ",".join(node.facts["key"] for node in self._nodes)
        descriptor = Descriptor.parse_untrusted(f"tr(musig({keys})/<0;1>/*)")
        wallet = Group(descriptor, Chain.REGTEST)
        members = [{"label": node.label, **{name: node.facts[name] for name in ("pubkey_hex", "port", "key")}}
                   for node in self._nodes]  # fmt: skip
        for node in self._nodes:
            await node.tell("join", descriptor=str(descriptor), members=members)
        joining = asyncio.gather(*(node.expect("joined") for node in self._nodes))
        joined = await self._patiently(joining, lambda: "still computing the wallet")
        if {(one["group"], one["address"]) for one in joined} != {(joined[0]["group"], wallet.address(RECEIVE, 0))}:
            raise Other("the nodes do not agree on the wallet")
        self._show(f"all {self._signers} computed the same wallet; its first address is {joined[0]['address']}")
        await self._patiently(asyncio.gather(*map(self._connected, self._nodes)), lambda: "still connecting")
        self._lap("connecting")
        return wallet

    async def _connected(self, node: _Cosigner) -> None:
        for _ in range(self._signers - 1):
            peer = await node.expect("connected")
            if node is self._nodes[0]:
                self._show(f"{node.label} and {self._labels[peer['peer']]} are connected: keys proved, link encrypted")

    async def _watch(self) -> dict[str, dict[str, Any]]:
        """Show the ceremony until everybody honest has an outcome. Returns the outcomes by label."""
        honest = self._nodes[:-1] if self._liar else self._nodes
        outcomes = await self._patiently(asyncio.gather(*map(self._outcome, honest)), self._working)
        return dict(zip((node.label for node in honest), outcomes, strict=True))

    async def _outcome(self, node: _Cosigner) -> dict[str, Any]:
        while (report := await node.next())["event"] != "outcome":
            if report["event"] in ("progress", "standing"):
                node.standing = report
            if report["event"] == "progress" and report["waiting_for"]:
                self._show(f"{node.label}: {self._standing(report)}")
        node.standing = None
        self._show(f"{node.label}: {report['end']}" + (f": {report['error']}" if report["error"] else ""))
        return report

    def _working(self) -> str:
        """Return how the ceremony stands for the first who has no outcome yet."""
        for node in self._nodes:
            if node.standing is not None:
                return f"{node.label}: still {self._standing(node.standing)}"
        return "the proposal is on its way"

    def _standing(self, report: dict[str, Any]) -> str:
        waiting = ", ".join(
            self._labels[key] + (" (away)" if key in report["away"] else "") for key in report["waiting_for"]
        )
        attempt = f" (attempt {report['attempt']})" if report["attempt"] > 1 else ""
        return f"{report['state']}{attempt}" + (f", waits for {waiting}" if waiting else "")

    # --- results ------------------------------------------------------------------------------------------------------

    def _confirm(self, chain: RegtestChain, outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        transactions = {outcome["tx_hex"] for outcome in outcomes.values()}
        (tx_hex,) = transactions if len(transactions) == 1 else (None,)
        if tx_hex is None:
            raise Other("not everybody holds the same transaction", got={n: o["end"] for n, o in outcomes.items()})
        raw = bytes.fromhex(tx_hex)
        txid = chain.confirm(raw)
        self._lap("confirming")
        txid_hex, confirmations = txid[::-1].hex(), chain.confirmations(txid)
        self._show(f"Bitcoin Core's consensus code took it into a block: {confirmations} confirmation")
        if not self._json:
            click.echo(f"\ntransaction {txid_hex}")
            click.echo(_size_line(raw, self._signers))
            click.echo("milliseconds: " + ", ".join(f"{name} {ms:.0f}" for name, ms in self._timings_ms.items()))
        return {"txid": txid_hex, "tx_hex": tx_hex, "confirmations": confirmations}

    def _blame(self, outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
        liar = self._nodes[-1]
        found = [self._accused(outcome) for outcome in outcomes.values()]
        if any(one is None or one["pubkey"] != liar.facts["pubkey_hex"] for one in found):
            raise Other("the liar was not named by everybody", expected=liar.label, got=found)
        blame = found[0]
        assert blame is not None
        proof = "proved by what it signed" if blame["proved"] else "unproved: silence proves nothing"
        self._show(
            f"named by everybody honest: {blame['label']}, key {short_key(blame['pubkey'])}: {blame['kind']}, {proof}"
        )
        if not self._json:
            click.echo("\nNothing was signed into a transaction. The demo did what it says.")
        return blame

    def _accused(self, outcome: dict[str, Any]) -> dict[str, Any] | None:
        proved, suspects = outcome["proved"], outcome["suspects"]
        if proved is None and len(suspects) != 1:
            return None
        pubkey = proved["pubkey"] if proved else suspects[0]
        kind = proved["kind"] if proved else outcome["end"]
        return {"pubkey": pubkey, "label": self._labels[pubkey], "kind": kind, "proved": proved is not None}

    def _result(self, wallet: Group, spent: list[TxOut]) -> dict[str, Any]:
        return {
            "descriptor": str(wallet.descriptor),
            "address": wallet.address(RECEIVE, 0),
            "txid": None,
            "tx_hex": None,
            "spent": [{"amount_sat": out.amount_sat, "script_pubkey_hex": out.script.hex()} for out in spent],
            "confirmations": 0,
            "signers": [node.facts["pubkey_hex"] for node in self._nodes],
            "topology": self._topology,
            "timings_ms": self._timings_ms,
            "blame": None,
        }

    def _lap(self, phase: str) -> None:
        now = time.perf_counter()
        self._timings_ms[phase] = round(1000 * (now - self._phase), 3)
        self._phase = now

    async def _patiently(self, work: asyncio.Future[T], what: Callable[[], str]) -> T:
        """Wait for something. Whenever nothing was shown for a second, say for what, beside the answer."""
        try:
            while not work.done():
                silent_s = time.perf_counter() - self._shown
                if silent_s >= _SILENCE_S:
                    self._show(what(), err=True)
                    silent_s = 0.0
                await asyncio.wait([work], timeout=_SILENCE_S - silent_s)
            return work.result()
        finally:
            work.cancel()

    def _show(self, line: str, *, err: bool = False) -> None:
        self._shown = time.perf_counter()
        if not self._json:
            click.echo(f"{self._shown - self._begun:6.2f} s  {line}", err=err)


def _size_line(raw: bytes, signers: int) -> str:
    """Compare with a k-of-k script, which shows a signature (65 bytes with its length), and a key and opcode (34), of
    each signer in each input, and a control block (34); the key path shows one signature.
    """
    tx = Transaction.parse_untrusted(raw, witness=True)
    weight_wu = 3 * len(tx.to_bytes()) + len(raw)
    script_wu = weight_wu + len(tx.inputs) * (signers * (65 + 34) + 34 - 65)
    ours, theirs = (weight_wu + 3) // 4, (script_wu + 3) // 4
    return f"{ours:,} vbytes; a {signers}-of-{signers} script multisig would take about {theirs:,}"
