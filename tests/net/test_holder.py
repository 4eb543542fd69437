"""A keyholder in a process of its own: what it is given, what it gives, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from services import cosigner

from musignet.bitcoin.bip32 import Xpub
from musignet.chain import Chain
from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, InvalidMessage, IoError, LocalError, NetworkError
from musignet.limits import Limits
from musignet.net.holder import HolderProcess
from musignet.net.transport import MemoryNetwork
from musignet.node.effects import News, SessionNews
from musignet.signing import pipe
from musignet.signing.effects import End, Outcome
from musignet.signing.founding_records import possession_digest
from musignet.signing.verbs import Asked, Status
from support.ceremony import identity
from support.vaults import AUTO, consent, group_file, make_vault, pin_proof, set_policy, wallet
from support.wallet import psbt

if sys.platform != "win32":
    import pty
    import resource

pytestmark = [pytest.mark.driver, pytest.mark.skipif(sys.platform == "win32", reason="the keyholder needs POSIX")]

TIMEOUT_S = 60
PATIENT = Limits(phase_timeout_s=1.5, silent_attempts_max=16, reapprove_s=0.3, backoff_min_s=0.05, backoff_max_s=0.2)
TWO = group_file(("alice", "bob"))
OTHER = group_file(("carol", "bob"))


class Member:
    """One cosigner: its service, its keyholder's process, and what it was told."""

    def __init__(self, name: str, network: MemoryNetwork, folder: Path) -> None:
        self.name = name
        self.vault = folder / name / "keyholder"
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.questions: asyncio.Queue[Asked] = asyncio.Queue()
        self.holder = HolderProcess(self.vault, insecure_no_passphrase=True)
        self.service = cosigner(name, network, folder, self._told, limits=PATIENT)

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            self.outcomes.put_nowait(news.news)
        elif isinstance(news, SessionNews) and isinstance(news.news, Asked):
            self.questions.put_nowait(news.news)

    async def start(self, policy: str = AUTO) -> None:
        if not self.vault.exists():
            make_vault(self.vault, self.name)
            set_policy(self.vault, TWO.group.id, policy)
        await self.holder.start(identity(self.name).pubkey, Chain.REGTEST)
        await self.holder.pin_group(TWO, pin_proof(self.vault, TWO.group.id))
        await self.service.start()

    async def stop(self) -> None:
        await self.service.stop()
        await self.holder.stop()

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.outcomes.get()


@asynccontextmanager
async def members(folder: Path, policy: str = AUTO) -> AsyncIterator[tuple[Member, Member, MemoryNetwork]]:
    network = MemoryNetwork()
    alice, bob = (Member(name, network, folder) for name in ("alice", "bob"))
    try:
        for one in (alice, bob):
            await one.start(policy)
        await join(alice, bob)
        await join(bob, alice)
        await alice.service.connect_to_peer("bob")
        yield alice, bob, network
    finally:
        for one in (alice, bob):
            await one.stop()


async def join(one: Member, other: Member) -> None:
    one.service.add_peer(other.service.info)
    one.service.cosign_with(TWO.group, one.holder.of(TWO.group))


async def completes_after_a_restart(
    alice: Member, bob: Member, network: MemoryNetwork, session: bytes, folder: Path
) -> None:
    """Stop Alice, start her again from her disks, and see the session complete at both."""
    await alice.stop()
    again = Member("alice", network, folder)
    try:
        await again.start()
        await join(again, bob)
        await again.service.connect_to_peer("bob")
        for one in (again, bob):
            outcome = await one.outcome()
            assert (outcome.session, outcome.end) == (session, End.COMPLETED)
    finally:
        await again.stop()


def coins() -> bytes:
    return psbt(TWO.group.wallet).serialize()


def holding(folder: Path, body: Callable[[HolderProcess], object], name: str = "alice", **options: object) -> None:
    """Run a keyholder and something with it."""

    async def main() -> None:
        holder = HolderProcess(folder, **({"insecure_no_passphrase": True} | options))
        try:
            await holder.start(identity(name).pubkey, Chain.REGTEST)
            result = body(holder)
            if asyncio.iscoroutine(result):
                await result
        finally:
            await holder.stop()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


# --- ceremonies -------------------------------------------------------------------------------------------------------


def test_two_nodes_with_a_keyholder_each_turn_a_psbt_into_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with members(tmp_path) as (alice, bob, _):
            session = await alice.service.propose(TWO.group.id, coins())
            outcomes = [await one.outcome() for one in (alice, bob)]
            assert [(one.session, one.end) for one in outcomes] == [(session, End.COMPLETED)] * 2
            assert len({one.transaction.raw for one in outcomes if one.transaction}) == 1

    asyncio.run(main())


def test_a_person_is_asked_and_only_their_proof_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with members(tmp_path, 'mode = "ask"') as (alice, bob, _):
            session = await alice.service.propose(TWO.group.id, coins(), expires_in_s=60)
            for one in (alice, bob):
                asked = await asyncio.wait_for(one.questions.get(), TIMEOUT_S)
                assert (asked.session, asked.review.sent_sat) == (session, 600_000)
                await one.service.consent(session, consent(one.vault, session, asked.digest))
            assert [(await one.outcome()).end for one in (alice, bob)] == [End.COMPLETED] * 2

    asyncio.run(main())


def test_a_proof_that_the_node_makes_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with members(tmp_path, 'mode = "ask"') as (alice, _, _):
            session = await alice.service.propose(TWO.group.id, coins(), expires_in_s=60)
            asked = await asyncio.wait_for(alice.questions.get(), TIMEOUT_S)
            forged = identity("alice").sign(asked.digest)
            await alice.service.consent(session, forged)
            outcome = await alice.outcome()
            assert outcome.end is End.REFUSED
            assert "proof of consent does not hold" in str(outcome.error)

    asyncio.run(main())


def test_a_limit_of_the_policy_refuses_what_a_person_wants(tmp_path: Path) -> None:
    async def main() -> None:
        async with members(tmp_path, 'mode = "auto"\nbeyond = "refuse"\nmax_amount_per_day_sat = 601_999') as both:
            await both[0].service.propose(TWO.group.id, coins())
            outcome = await both[0].outcome()
            assert outcome.end is End.REFUSED
            assert "the policy says no: the amount of 24 hours would be 602000 sat" in str(outcome.error)

    asyncio.run(main())


def test_a_keyholder_that_is_killed_costs_an_attempt_and_nothing_is_signed_twice(tmp_path: Path) -> None:
    """Kill it when it is asked to sign; start it again with the node: the session goes on with fresh nonces."""

    async def main() -> None:
        async with members(tmp_path) as (alice, bob, network):
            killed = asyncio.Event()
            send = alice.holder.send

            def kill_before_signing(request: object, group: bytes = bytes(32)) -> None:
                send(request, group)  # type: ignore[arg-type]
                if type(request).__name__ == "MakePartials":
                    os.kill(alice.holder.pid, signal.SIGKILL)
                    killed.set()

            alice.holder.send = kill_before_signing  # type: ignore[method-assign]
            session = await alice.service.propose(TWO.group.id, coins())
            await asyncio.wait_for(killed.wait(), TIMEOUT_S)
            assert isinstance(await asyncio.wait_for(alice.holder.gone(), TIMEOUT_S), IoError)
            await completes_after_a_restart(alice, bob, network, session, tmp_path)

    asyncio.run(main())


def test_a_keyholder_ends_with_its_node_and_forgets(tmp_path: Path) -> None:
    """The node dies without a word: the pipe ends, and so does the keyholder, in peace."""

    async def main() -> None:
        holder = HolderProcess(make_vault(tmp_path / "v", "alice"), insecure_no_passphrase=True)
        await holder.start(identity("alice").pubkey, Chain.REGTEST)
        process = holder._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.transport.abort()  # type: ignore[attr-defined]
        assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == 0
        await holder.stop()

    asyncio.run(main())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_signals_end_it_and_the_node_is_told(tmp_path: Path, number: signal.Signals, code: int) -> None:
    async def end(holder: HolderProcess) -> None:
        os.kill(holder.pid, signal.SIGINT)  # Ctrl-C is the node's to act on
        assert "/87h/1h/3h]tpub" in await holder.account(3)
        os.kill(holder.pid, number)
        assert "keyholder is gone" in str(await holder.gone())
        with pytest.raises(IoError, match="keyholder is gone"):
            await holder.account(0)
        assert holder._process is not None
        assert await holder._process.wait() == code

    holding(make_vault(tmp_path / "v", "alice"), end)


# --- what it is asked besides verbs -----------------------------------------------------------------------------------


def test_it_tells_accounts_and_pins_groups_by_a_persons_proof_alone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "v", "alice")

    async def use(holder: HolderProcess) -> None:
        assert holder.ready.account == str(wallet("alice").account(0, Chain.REGTEST))
        assert (holder.ready.insecure, holder.ready.groups) == (True, ())
        assert await holder.account(9) == str(wallet("alice").account(9, Chain.REGTEST))
        with pytest.raises(LocalError, match="account of a wallet"):
            await holder.account(-1)
        xpub = Xpub.parse_untrusted((await holder.account(2)).partition("]")[2])
        possession = await holder.prove(2, bytes(32))
        assert PublicKey(xpub.point).verify(possession_digest(bytes(32)), possession)
        proof = pin_proof(vault, TWO.group.id)
        for bad in (b"", bytes(64), pin_proof(vault, OTHER.group.id), identity("alice").sign(TWO.group.id)):
            with pytest.raises(AuthenticationError, match="no proof that a person wants this group"):
                await holder.pin_group(TWO, bad)
        with pytest.raises(LocalError, match="this wallet's place in the group"):
            await holder.pin_group(OTHER, pin_proof(vault, OTHER.group.id))
        with pytest.raises(NetworkError, match="not a group file"):
            await holder.pin_group(b"{}", proof)
        await holder.pin_group(TWO, proof)
        await holder.pin_group(TWO, proof)

    holding(vault, use)
    holding(vault, lambda holder: check_equal(holder.ready.groups, (TWO.group.id,)))
    assert {path.name for path in vault.iterdir()} >= {"wallet.key", "approver.json", "groups", "policy", "lock"}
    for path in vault.rglob("*"):
        assert not path.stat().st_mode & 0o077, path
    assert (vault / "policy" / f"{TWO.group.id.hex()}.toml").read_text().count('mode = "ask"') == 1


def check_equal(one: object, other: object) -> None:
    assert one == other


def test_a_wallet_that_is_the_node_is_refused(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "v", "alice")

    async def main() -> None:
        holder = HolderProcess(vault, insecure_no_passphrase=True)
        with pytest.raises(InvalidMessage, match="one secret for the wallet and the node"):
            await holder.start(wallet("alice").public, Chain.REGTEST)

    asyncio.run(main())


def test_it_takes_its_passphrase_from_a_descriptor_that_it_alone_reads(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "v", "alice", "pass")

    def with_passphrase(text: bytes) -> int:
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        return reading

    options = {"insecure_no_passphrase": False}
    fd = with_passphrase(b"pass\nrest")
    holding(vault, lambda holder: check_equal(holder.ready.insecure, False), passphrase_fd=fd, **options)
    os.close(fd)
    fd = with_passphrase(b"word\n")
    with pytest.raises(AuthenticationError, match="wrong passphrase"):
        holding(vault, print, passphrase_fd=fd, **options)
    os.close(fd)
    with pytest.raises(LocalError, match="its passphrase"):
        holding(vault, print)


# --- what it refuses to start with ------------------------------------------------------------------------------------


def pinned(folder: Path) -> Path:
    """Return a keyholder's folder with a group and a journal that has been signed with."""

    async def main() -> None:
        async with members(folder) as (alice, bob, _):
            await alice.service.propose(TWO.group.id, coins())
            assert [(await one.outcome()).end for one in (alice, bob)] == [End.COMPLETED] * 2

    asyncio.run(main())
    return folder / "alice" / "keyholder"


def test_whatever_is_damaged_is_not_signed_with(tmp_path: Path) -> None:
    vault = pinned(tmp_path)
    (journal,) = vault.glob("keyholder-*.db")
    policy = vault / f"policy/{TWO.group.id.hex()}.toml"
    for path, damaged, said in (
        (journal, journal.read_bytes()[:-8192] + bytes(8192), "journal"),
        (policy, AUTO.encode() + b"max_fee = 1", "max_fee"),
    ):
        whole = path.read_bytes()
        path.write_bytes(damaged)
        with pytest.raises(NetworkError, match=said):
            holding(vault, print)
        path.write_bytes(whole)
    holding(vault, lambda holder: check_equal(holder.ready.groups, (TWO.group.id,)))


@pytest.mark.parametrize("name", ["wallet.key", "approver.json"])
def test_a_file_that_others_may_read_or_a_link_is_refused(tmp_path: Path, name: str) -> None:
    vault = make_vault(tmp_path / "v", "alice")
    (vault / name).chmod(0o644)
    with pytest.raises(IoError, match="mode 600"):
        holding(vault, print)
    (vault / name).chmod(0o600)
    os.rename(vault / name, vault / "elsewhere")
    (vault / name).symlink_to(vault / "elsewhere")
    with pytest.raises(IoError, match="symbolic link"):
        holding(vault, print)


def test_an_open_folder_is_refused_and_so_is_a_second_keyholder(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "v", "alice")

    async def second(_: HolderProcess) -> None:
        other = HolderProcess(vault, insecure_no_passphrase=True)
        with pytest.raises(IoError, match="another node runs on"):
            await other.start(identity("alice").pubkey, Chain.REGTEST)

    holding(vault, second)
    vault.chmod(0o755)
    with pytest.raises(IoError, match="mode 700"):
        holding(vault, print)


# --- what its process is ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_process_has_no_sockets_and_cannot_be_dumped(tmp_path: Path) -> None:
    def look(holder: HolderProcess) -> None:
        proc = Path(f"/proc/{holder.pid}")
        if os.geteuid() == 0:
            kinds = [os.readlink(one) for one in (proc / "fd").iterdir()]
            assert not [kind for kind in kinds if kind.startswith("socket:")], kinds
            limits = (proc / "limits").read_text().splitlines()
            assert any(line.split()[:6] == ["Max", "core", "file", "size", "0", "0"] for line in limits)
        assert (proc / "mem").stat().st_uid == 0, "a process that cannot be dumped is root's in /proc"
        assert stat.S_IMODE((tmp_path / "v" / "lock").stat().st_mode) == 0o600

    holding(make_vault(tmp_path / "v", "alice"), look)


# --- deaths and full disks --------------------------------------------------------------------------------------------

NODE = """
import asyncio, sys
from pathlib import Path
from musignet.chain import Chain
from musignet.net.holder import HolderProcess

async def main():
    holder = HolderProcess(Path(sys.argv[1]), insecure_no_passphrase=True)
    await holder.start(bytes.fromhex(sys.argv[2]), Chain.REGTEST)
    print(holder.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_node_that_is_killed_takes_its_keyholder_along(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "v", "alice")
    arguments = (sys.executable, "-c", NODE, str(vault), identity("alice").pubkey_hex)

    async def main() -> None:
        node = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        assert node.stdout is not None
        pid = int(await node.stdout.readline())
        assert await alive(pid)
        node.kill()
        await node.wait()
        again = HolderProcess(vault, insecure_no_passphrase=True)
        while True:  # its lock is free as soon as it has seen the end of its pipe
            try:
                await again.start(identity("alice").pubkey, Chain.REGTEST)
                break
            except IoError as error:
                if "another node runs on" not in str(error):
                    raise
                again = HolderProcess(vault, insecure_no_passphrase=True)
        await again.stop()

    async def alive(pid: int) -> bool:
        os.kill(pid, 0)
        return True

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit")
def test_a_full_disk_signs_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """The keyholder's files cannot grow any more: it says so and ends; with room again the session goes on."""

    async def main() -> None:
        async with members(tmp_path) as (alice, bob, network):
            (log,) = alice.vault.glob("keyholder-*.db-wal")
            resource.prlimit(alice.holder.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
            session = await alice.service.propose(TWO.group.id, coins())
            assert "nothing acknowledged is lost" in str(await asyncio.wait_for(alice.holder.gone(), TIMEOUT_S))
            await completes_after_a_restart(alice, bob, network, session, tmp_path)

    asyncio.run(main())


def test_a_keyholder_that_talks_nonsense_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        holder = HolderProcess(make_vault(tmp_path / "v", "alice"), insecure_no_passphrase=True)
        holder._arguments = ["-c", "print('x' * 99, flush=True)\nimport time\ntime.sleep(600)"]
        with pytest.raises(NetworkError, match="too large"):
            await holder.start(identity("alice").pubkey, Chain.REGTEST)
        deaf = HolderProcess(tmp_path / "v", insecure_no_passphrase=True)
        deaf._arguments = ["-c", "pass"]
        with pytest.raises(IoError, match="keyholder is gone"):
            await deaf.start(identity("alice").pubkey, Chain.REGTEST)

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))


def test_nothing_is_asked_of_a_keyholder_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        holder = HolderProcess(tmp_path / "v")
        with pytest.raises(IoError, match="keyholder is gone"):
            await holder.account(0)
        for use in (lambda: holder.pid, lambda: holder.ready):
            with pytest.raises(LocalError, match="not started"):
                use()
        await holder.stop()

    asyncio.run(main())


# --- the terminal -----------------------------------------------------------------------------------------------------

AT_A_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)" + NODE.replace(
    ", insecure_no_passphrase=True", ""
)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("secret\n", r"^\d+"), ("word\n", "wrong passphrase.*; type it again"), ("\x03", "KeyboardInterrupt")],
)
def test_it_asks_at_the_terminal_and_shows_nothing_of_what_is_typed(tmp_path: Path, typed: str, shown: str) -> None:
    vault = make_vault(tmp_path / "v", "alice", "secret")
    near, far = pty.openpty()
    arguments = [sys.executable, "-c", AT_A_TERMINAL, str(vault), identity("alice").pubkey_hex]
    with subprocess.Popen(arguments, stdin=far, stdout=far, stderr=far, start_new_session=True) as node:
        os.close(far)
        seen = ""
        try:
            while f"Passphrase of the wallet in {tmp_path}: " not in seen:
                seen += read(near)
            asked = len(seen)
            os.write(near, typed.encode())
            while re.search(shown, seen[asked:], re.MULTILINE) is None:
                seen += read(near)
            assert "secret" not in seen[asked:]
            assert "word\r" not in seen[asked:]
        finally:
            node.kill()
            os.close(near)


def read(fd: int) -> str:
    ready, _, _ = select.select([fd], [], [], TIMEOUT_S)
    assert ready, "nothing more came"
    return os.read(fd, 4096).decode()


@pytest.mark.parametrize(("options", "code", "said"), [
    ((), 1, "no passphrase for the wallet"),
    (("--insecure-no-passphrase",), 0, "INSECURE"),
    (("--what",), 2, "unrecognized arguments"),
])  # fmt: skip
def test_without_a_terminal_or_a_node_it_ends(tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    vault = make_vault(tmp_path / "v", "alice")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "musignet.app.keyholder", "--data", str(vault), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == code
    assert said in (done.stdout + done.stderr).decode("utf-8", "replace")  # what reads its answers is told there


def test_a_frame_that_cannot_be_read_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        holder = HolderProcess(make_vault(tmp_path / "v", "alice"), insecure_no_passphrase=True)
        await holder.start(identity("alice").pubkey, Chain.REGTEST)
        with pytest.raises(LocalError, match="no such network"):
            await holder._want(pipe.Hello(identity("alice").pubkey, 77), pipe.Ready)
        holder.send(Status(bytes(32)), bytes(32))  # a group that is not pinned: refused, to nobody
        assert holder._process is not None
        assert holder._process.stdin is not None
        holder._process.stdin.write((40).to_bytes(4, "big") + b"\xff" * 40)
        assert "not a frame of this pipe" in str(await holder.gone())
        assert await holder._process.wait() == 1
        await holder.stop()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
