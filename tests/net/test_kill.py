"""Whole nodes are killed with SIGKILL at any moment of a ceremony: nothing that was said is lost, no nonce signs twice.

The seed draws what is waited for, how long after it, and who is killed; what the machines do until then is theirs.
`make kill KILLS=500` kills more often.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from musignet.bitcoin.group import RECEIVE
from musignet.bitcoin.transaction import TxIn
from musignet.net.cosigner import _NODE_KINDS
from musignet.net.custody import KEYHOLDER_KINDS
from musignet.net.folder import DataFolder
from musignet.net.store import Journal, Kind
from musignet.signing import journal
from musignet.signing.records import PartialSignature, PublicNonce, decode_untrusted, payload_hash
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.ceremony import signing_group
from support.wallet import MEMBERS, outpoint, psbt, replace_tx, spend

KILLS: Final = int(os.environ.get("MUSIGNET_KILLS", "50"))
SEED: Final = int(os.environ.get("MUSIGNET_KILL_SEED", "1"))
TESTS: Final = Path(__file__).parent.parent
GROUP: Final = signing_group()
DEADLINE_S: Final = 60.0
KILLS_OF_A_SESSION: Final = 8
"""Then it is left to end: each kill costs an attempt at most, and it has 16."""
OPEN_SESSIONS: Final = 2
MOMENTS: Final = ("ready", "connected", "proposed", *("approved", "nonces", "partials") * 3)
MOMENT_S: Final = 1.0
"""How long one of them is waited for."""
DELAYS_S: Final = (0.0, 0.0, 0.005, 0.02, 0.15)


def free_ports() -> list[int]:
    """Return ports outside the range that outgoing connections take theirs from, so that a restart finds its own."""
    found: list[int] = []
    draw = random.SystemRandom()  # not the seed's: two runs at once must not meet
    while len(found) < len(MEMBERS):
        port = draw.randrange(12_000, 30_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def proposed_psbt(number: int) -> bytes:
    """Return a PSBT that spends a coin of its own."""
    tx, spent = spend(GROUP.wallet, coins=((RECEIVE, 0),))
    tx = replace_tx(tx, inputs=(TxIn(outpoint(number), tx.inputs[0].sequence),))
    return psbt(GROUP.wallet, tx, spent).serialize()


@dataclass
class Disk:
    """What the two journals of a dead node have."""

    node: list[bytes]
    keyholder: list[journal.Entry]

    @classmethod
    def of(cls, path: Path, copy: Path) -> Disk:
        """Read a copy: the node itself shall find its files as the kill left them."""
        if not path.exists():
            return cls([], [])  # it was killed before it had one
        shutil.copytree(path, copy)
        folder = DataFolder.lock(copy)
        try:
            node = read_journal(folder, f"node-{GROUP.id.hex()[:16]}", _NODE_KINDS)
            keyholder = read_journal(folder, f"keyholder-{GROUP.id.hex()[:16]}", KEYHOLDER_KINDS)
        finally:
            folder.close()
            shutil.rmtree(copy)
        return cls(node, [journal.read(one) for one in keyholder])

    def begins_with(self, before: Disk) -> bool:
        return (self.node[: len(before.node)], self.keyholder[: len(before.keyholder)]) == (
            before.node,
            before.keyholder,
        )

    def of_kind(self, kind: type[journal.Entry]) -> list[Any]:
        return [one for one in self.keyholder if isinstance(one, kind)]

    def sessions(self, record_kind: int) -> set[str]:
        """Return the sessions whose proposal (0), end (1) or completion (2) is in the node's journal."""
        return {session_of(one) for one in self.node if one[0] == record_kind}

    def require(self, said: dict[str, Any]) -> None:
        """Whatever was said is there."""
        session = bytes.fromhex(said.get("session", ""))
        if said["event"] == "proposed":
            assert said["session"] in self.sessions(0)
        elif said["event"] == "outcome":
            assert said["session"] in self.sessions(2)
        elif said["event"] == "approved":
            given = {(one.session, one.digest) for one in self.of_kind(journal.ApprovalGiven)}
            assert (session, bytes.fromhex(said["digest"])) in given
        elif said["event"] == "nonces":
            out = {(one.session, one.attempt, one.payload_hash) for one in self.of_kind(journal.NoncesOut)}
            assert (session, said["attempt"], payload_hash(bytes.fromhex(said["payload"]))) in out
        elif said["event"] == "partials":
            expected = journal.PartialsOut(session, said["attempt"], bytes.fromhex(said["payload"]))
            assert expected in self.of_kind(journal.PartialsOut)

    def require_order(self) -> None:
        """Each attempt is burned once and signed once, in this order, after the approval and for what was burned."""
        approved: set[bytes] = set()
        burned: dict[tuple[bytes, int], bytes] = {}
        signed: set[tuple[bytes, int]] = set()
        for one in self.keyholder:
            if isinstance(one, journal.ApprovalGiven):
                assert one.session not in approved, "one session is approved twice"
                approved.add(one.session)
            elif isinstance(one, journal.SlotsBurned):
                assert (one.session, one.attempt) not in burned, "the nonces of an attempt are burned twice"
                burned[one.session, one.attempt] = one.transcript
            elif isinstance(one, journal.PartialsOut):
                assert (one.session, one.attempt) not in signed, "an attempt is signed twice"
                signed.add((one.session, one.attempt))
                assert one.session in approved
                assert burned[one.session, one.attempt] == partial(one.payload).transcript
            else:
                assert isinstance(one, journal.NoncesOut), "an approval is revoked"


def session_of(record: bytes) -> str:
    """Return the session of a record of the node's journal."""
    return (Message.from_bytes(record[1:]).session if record[0] == 0 else record[1:33]).hex()


def read_journal(folder: DataFolder, name: str, kinds: tuple[Kind, ...]) -> list[bytes]:
    if not folder.has(f"{name}.db"):
        return []  # it was killed before it had one
    with Journal.open(folder, name, kinds) as opened:
        return [one.record.body for one in opened.replay()]


def partial(payload: bytes) -> PartialSignature:
    read = decode_untrusted(MessageType.PARTIAL_SIGNATURE, payload)
    assert isinstance(read, PartialSignature)
    return read


class Mother:
    """The process that forks the nodes, and waits for those that ended."""

    def __init__(self) -> None:
        self._line, far = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, str(TESTS / "support" / "killed_node.py"), str(far.fileno())]
        with far:
            self._process = subprocess.Popen(command, pass_fds=(far.fileno(),), env=environment)

    def ask(self, order: object, streams: Sequence[int] = ()) -> int:
        socket.send_fds(self._line, [json.dumps(order).encode()], streams)
        return int(json.loads(self._line.recv(4096)))

    def close(self) -> None:
        self._line.close()
        self._process.wait()


@dataclass
class Node:
    """One member: the process it has now, what it ever said, and what was on its disk when it last died."""

    name: str
    path: Path
    ports: list[int]
    mother: Mother
    pid: int = 0
    said: list[dict[str, Any]] = field(default_factory=list)
    checked: int = 0
    """How much of that a disk has been asked for."""
    disk: Disk = field(default_factory=lambda: Disk([], []))
    born: int = 0
    """How much was said by those who were killed."""
    rest: bytes = b""
    completed: set[str] = field(default_factory=set)

    def start(self) -> None:
        (stdin, self.orders), (self.reports, stdout) = os.pipe(), os.pipe()
        self.pid = self.mother.ask([self.name, str(self.path), *map(str, self.ports)], (stdin, stdout))
        os.close(stdin)
        os.close(stdout)
        self.born, self.rest = len(self.said), b""

    @property
    def now(self) -> list[dict[str, Any]]:
        """What the living process has said."""
        return self.said[self.born :]

    @property
    def ready(self) -> bool:
        return bool(self.now)

    def fileno(self) -> int:
        return self.reports

    def read(self) -> bool:
        """Take what can be read without waiting, or waits at the end of a killed one. False: there is no more."""
        data = os.read(self.fileno(), 65_536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        said = [json.loads(line) for line in lines]
        self.said += said
        self.completed |= {one["session"] for one in said if one["event"] == "outcome"}
        return bool(data)

    def propose(self, number: int, topology: str) -> None:
        order = {"psbt": proposed_psbt(number).hex(), "topology": topology}
        os.write(self.orders, json.dumps(order).encode() + b"\n")

    def check(self) -> None:
        """It was killed. What it said until then must be on its disk, which only ever grows."""
        while self.read():
            pass
        assert self.bury() == -signal.SIGKILL, f"{self.name} ended by itself"
        before, self.disk = self.disk, Disk.of(self.path, self.path.with_suffix(".copy"))
        assert self.disk.begins_with(before), f"{self.name} has lost records"
        for said in self.said[self.checked :]:
            self.disk.require(said)
        self.checked = len(self.said)
        self.disk.require_order()

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> int:
        """Return the exit code of a process that was killed. A second time there is none left."""
        pid, self.pid = self.pid, 0
        if not pid:
            return 0
        os.close(self.orders)
        os.close(self.reports)
        return self.mother.ask(pid)


class Ceremonies:
    """Three nodes, the sessions that are open, and the kills they have seen."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.draw = draw
        ports = free_ports()
        self.mother = Mother()
        self.nodes = [Node(name, folder / name, ports, self.mother) for name in MEMBERS]
        self.kills = 0
        self.coins = 0
        self.seen: dict[str, int] = {}
        """Session to how many kills there had been when it was first heard of."""

    def __enter__(self) -> Ceremonies:
        for node in self.nodes:
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
            node.bury()
        self.mother.close()

    def lines(self, timeout_s: float) -> list[tuple[Node, dict[str, Any]]]:
        """Wait for lines, so long at most, and return them."""
        heard = []
        for node in select.select(self.nodes, [], [], max(0.0, timeout_s))[0]:
            before = len(node.said)
            assert node.read(), f"{node.name} ended by itself"
            heard += [(node, said) for said in node.said[before:]]
        for _, said in heard:
            self._hear(said)
        return heard

    def _hear(self, said: dict[str, Any]) -> None:
        assert said.get("end", "completed") == "completed", said
        assert said.get("proved") is None, f"somebody is blamed: {said}"
        if "session" in said:
            self.seen.setdefault(said["session"], self.kills)

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not happened():
            assert time.monotonic() < deadline, f"{what} after {self.kills} kills: {self.open()}"
            self.lines(deadline - time.monotonic())

    def moment(self, event: str) -> Node | None:
        """Wait for such a line, but not for long. Returns who said it."""
        until = time.monotonic() + MOMENT_S
        while (left_s := until - time.monotonic()) > 0:
            for node, said in self.lines(left_s):
                if said["event"] == event:
                    return node
        return None

    def pass_by(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.lines(left_s)

    def open(self) -> set[str]:
        """Return the sessions that somebody has not yet called completed."""
        return {one for one in self.seen if any(one not in node.completed for node in self.nodes)}

    def kill(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.kill()
        for node in nodes:
            node.check()
            for said in node.said[node.born :]:
                self._hear(said)
            for session in node.disk.sessions(0):  # its proposal is on disk, so it goes on, acknowledged or not
                self.seen.setdefault(session, self.kills)
        for node in nodes:
            node.start()
        self.kills += len(nodes)

    def propose(self) -> None:
        ready = [node for node in self.nodes if node.ready]
        if ready and len(self.open()) < OPEN_SESSIONS:
            self.coins += 1
            self.draw.choice(ready).propose(self.coins, self.draw.choice(("MESH", "STAR")))

    def round(self) -> None:
        """Kill one node, or more of them at once, a moment after something that was said."""
        self.propose()
        speaker = self.moment(self.draw.choice(MOMENTS))
        self.pass_by(self.draw.uniform(0, self.draw.choice(DELAYS_S)))
        drawn = self.draw.sample(self.nodes, self.draw.choice((1, 2, 2, 3)))
        self.kill([speaker] if speaker is not None and self.draw.random() < 0.5 else drawn)
        old = {one for one in self.open() if self.kills - self.seen[one] >= KILLS_OF_A_SESSION}
        self.wait(lambda: not old & self.open(), "a session does not end")


def nonces_shown(node: Node) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """Yield the public nonces that left a keyholder, and the attempt they were made for."""
    for said in node.said:
        if said["event"] == "nonces":
            read = decode_untrusted(MessageType.PUBLIC_NONCE, bytes.fromhex(said["payload"]))
            assert isinstance(read, PublicNonce)
            yield read.nonces, (said["session"], said["attempt"])


def require_fresh_nonces(node: Node) -> None:
    """No public nonce stands for two attempts, and no attempt for two payloads or two partial signatures."""
    made: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for nonces, attempt in nonces_shown(node):
        made[nonces].append(attempt)
    assert all(len(attempts) == 1 for attempts in made.values())
    assert len({attempts[0] for attempts in made.values()}) == len(made)
    partials: dict[tuple[str, int], set[str]] = defaultdict(set)
    for said in node.said:
        if said["event"] == "partials":
            partials[said["session"], said["attempt"]].add(said["payload"])
    assert all(len(payloads) == 1 for payloads in partials.values())
    hashes = [one.payload_hash for one in node.disk.of_kind(journal.NoncesOut)]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.driver
def test_nodes_killed_at_any_moment_lose_nothing_they_said_and_use_no_nonce_twice(tmp_path: Path) -> None:
    with Ceremonies(tmp_path, random.Random(SEED)) as all_:
        while all_.kills < KILLS:
            all_.round()
        all_.wait(lambda: not all_.open(), "a session does not end")
        all_.kill(all_.nodes)
        sessions = set.union(*(node.disk.sessions(0) for node in all_.nodes))
        assert sessions == set(all_.seen)
        for node in all_.nodes:
            assert node.disk.sessions(1) == set()
            assert node.disk.sessions(2) == sessions
        all_.wait(
            lambda: all({one["session"] for one in node.now if one["event"] == "outcome"} == sessions
                        for node in all_.nodes),
            "a completion is not told again",
        )  # fmt: skip
        for node in all_.nodes:
            node.kill()
            node.check()
            require_fresh_nonces(node)
    outcomes = {(one["session"], one["txid"]) for node in all_.nodes for one in node.said if one["event"] == "outcome"}
    assert len(outcomes) == len(sessions) == len({txid for _, txid in outcomes})
    attempts = sum(len(node.disk.of_kind(journal.NoncesOut)) for node in all_.nodes)
    print(f"{all_.kills} kills, {len(sessions)} sessions, {attempts} attempts at nonces, seed {SEED}")
