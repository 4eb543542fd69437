"""People found a group, lose a device and restore it: real processes, pseudo-terminals, and the seed's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli, cli_json
from app.people import approve, at, file_of, group, group_json, init, pair, run, until
from musignet.app.client import ApiError, Client
from musignet.app.client import path as path_of
from musignet.bitcoin.descriptor import Descriptor
from musignet.net.folder import DataFolder
from musignet.signing.groupfile import GroupFile
from support.wallet import psbt, spend

pytestmark = pytest.mark.driver


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, RunningNode]]:
    """Alice and Bob, paired."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(run(init(tmp_path / name, name))) for name in ("alice", "bob")}
        for node in found.values():
            node.ready()
        pair(found["alice"], found["bob"])
        yield found


def found(nodes: dict[str, RunningNode], *args: str) -> str:
    """Let Alice propose a group to Bob, and both compare and confirm it. Return what is on Alice's screen."""
    alice, bob = nodes["alice"], nodes["bob"]
    with at(alice, "group", "create", "savings", "bob", *args) as first:
        founding = first.expect(r"musignet group join ([0-9a-f]{8})").group(1)
        with at(bob, "group", "join", founding) as second:
            second.expect("alice proposes the group savings, of 2 who all sign")
            second.type("y")
            shown = [one.expect(r"fingerprint +(\S+ \S+)\n +first address +(bcrt1p\w+)") for one in (first, second)]
            assert shown[0].groups() == shown[1].groups()
            for one in (first, second):
                one.expect("Do all screens show")
                one.type("y")
            for one in (first, second):
                one.expect("savings is founded")
                assert one.exit_code() == 0
        return first.seen


def test_two_people_found_a_group_and_use_it(nodes: dict[str, RunningNode]) -> None:
    screen = found(nodes)
    alice, bob = nodes.values()
    mine, theirs = file_of(alice), file_of(bob)
    assert mine.encode() == theirs.encode()
    assert mine.fingerprint in screen

    wallet = mine.group.wallet
    assert [group_json(alice, "address", "savings", "--next")["address"] for _ in range(3)] == [
        wallet.address(0, index) for index in range(3)
    ]
    assert group(alice, "address", "savings", "--index", "7").stdout == wallet.address(0, 7) + "\n"
    assert group(alice, "address", "savings", "--index", "7", "--next").returncode == 2
    assert group(alice, "address", "savings", "--index", "2000000").returncode == 1

    text = group(alice, "export", "savings", "--descriptor").stdout.strip()
    assert text == str(Descriptor.parse_untrusted(text)) == str(wallet.descriptor)
    assert "/<0;1>/*)#" in text
    watch = group(alice, "export", "savings", "--watch-only").stdout.strip()
    assert watch.startswith("tr(tpub")
    assert cli(alice.data, "group").returncode == 2

    listed = group_json(bob, "list")
    assert [one["name"] for one in listed["groups"]] == ["savings"]
    assert listed["foundings"] == []
    assert "fingerprint" in group(bob, "show", "savings").stdout
    assert "savings" in group(bob, "list").stdout

    assert alice.stop() == 0
    with run(alice.data) as again:
        assert "groups: savings" in again.ready()
        assert group_json(again, "address", "savings", "--next")["index"] == 3, "no address is given out twice"


def test_the_other_shape_has_no_watch_only_descriptor(nodes: dict[str, RunningNode]) -> None:
    found(nodes, "--shape", "each")
    alice = nodes["alice"]
    assert file_of(alice).group.wallet.descriptor.path == ()
    done = group(alice, "export", "savings", "--watch-only")
    assert done.returncode == 1
    assert "Bitcoin Core 31" in done.stderr


@pytest.mark.parametrize("when", ["join", "confirm"])
def test_one_says_no_and_nothing_is_kept(nodes: dict[str, RunningNode], when: str) -> None:
    alice, bob = nodes["alice"], nodes["bob"]
    with at(alice, "group", "create", "savings", "bob") as first:
        founding = first.expect(r"musignet group join ([0-9a-f]{8})").group(1)
        assert f"group join {founding}" in group(bob, "list").stdout
        with at(bob, "group", "join", founding) as second:
            second.expect("Take part")
            second.type("n" if when == "join" else "y")
            if when == "confirm":
                second.expect("Do all screens")
                second.type("n")
            second.expect("not founded")
            assert second.exit_code() == 1
            if when == "confirm":
                first.expect("Do all screens")
                first.type("y")
        first.expect("bob .*does not take part")
        assert first.exit_code() == 1
    assert group_json(alice, "list") == group_json(bob, "list") == {"groups": [], "foundings": []}


def test_ctrl_c_is_no_answer_and_joining_goes_on(nodes: dict[str, RunningNode]) -> None:
    alice, bob = nodes["alice"], nodes["bob"]
    with at(alice, "group", "create", "savings", "bob") as first:
        founding = first.expect(r"musignet group join ([0-9a-f]{8})").group(1)
        for args, question in (((), "Take part"), (("--yes",), "Do all screens")):
            with at(bob, "group", "join", founding, *args) as second:
                second.expect(question)
                second.interrupt()
                assert second.exit_code() == 130
        with at(bob, "group", "join", founding) as second:
            for one in (first, second):
                one.expect("Do all screens")
                one.type("y")
            for one in (first, second):
                assert one.exit_code() == 0


def test_nobody_confirms_without_the_wallets_passphrase(nodes: dict[str, RunningNode]) -> None:
    """The proof is the keyholder's business: a program with the API alone founds nothing."""
    alice, bob = nodes["alice"], nodes["bob"]
    ours, theirs = Client(alice.data / "api.sock"), Client(bob.data / "api.sock")
    made = ours.post("/v1/foundings", {"name": "savings", "members": ["bob"]})
    route = path_of("v1", "foundings", made["id"])
    until(lambda: theirs.get("/v1/foundings"))
    theirs.post(f"{route}/join")
    until(lambda: ours.get(route)["asks_to_confirm"])
    for proof in ("00" * 64, "", "zz"):
        with pytest.raises(ApiError) as caught:
            ours.post(f"{route}/confirm", {"proof": proof})
        assert caught.value.status in (403, 422)
    file = ours.get(route)["file"]
    with pytest.raises(ApiError) as caught:
        ours.post("/v1/groups/import", {"file": file, "proof": "00" * 64})
    assert caught.value.status == 403
    with pytest.raises(ApiError, match="being founded"):
        ours.post("/v1/foundings", {"name": "other", "members": ["bob"]})
    assert len(ours.get("/v1/foundings")) == 1
    theirs.post(f"{route}/refuse")
    until(lambda: ours.get(route)["over"])
    assert ours.get("/v1/groups") == []


def test_what_cannot_be_founded(nodes: dict[str, RunningNode], tmp_path: Path) -> None:
    alice = nodes["alice"]
    for args, code in (
        (("../x", "bob"), 2),
        (("a\x1b[2J", "bob"), 2),
        (("\u202egnivas", "bob"), 2),
        (("savings", "mallory"), 1),
        (("savings",), 2),
        (("savings", "bob", "--expires-in", "48h"), 1),
        (("savings", "bob", "--shape", "round"), 2),
    ):
        done = group(alice, "create", *args)
        assert done.returncode == code, done.stderr
        assert "\x1b" not in done.stderr
        assert "\u202e" not in done.stderr
    assert group(alice, "join", "1f3a").returncode == 1
    assert group(alice, "refuse", "1f3a").returncode == 1
    assert group(alice, "show", "savings").returncode == 1
    (bad := tmp_path / "bad.json").write_text("{}")
    assert group(alice, "import", "--yes", str(bad)).returncode == 1
    assert group(alice, "import", "--yes", str(tmp_path / "none.json")).returncode == 1


def test_a_lost_device_is_restored_from_its_words_and_the_group_file_and_signs_again(
    nodes: dict[str, RunningNode], tmp_path: Path
) -> None:
    found(nodes)
    alice, bob = nodes["alice"], nodes["bob"]
    file = file_of(bob)
    (saved := tmp_path / "savings.json").write_bytes(file.encode())
    key = cli_json(bob.data, "peers")[0]["key"]
    assert alice.stop() == 0

    with run(init(tmp_path / "new", "alice")) as new:
        new.ready()
        assert bytes.fromhex(key) in file.group, "the identity comes back from the words"
        assert group_json(new, "list")["groups"] == []
        with at(new, "group", "import", str(saved)) as importing:
            importing.expect("Is this your group")
            importing.type("y")
            importing.expect("is here again")
            assert importing.exit_code() == 0
        pair(bob, new)
        assert cli_json(bob.data, "peers")[0]["key"] == key
        sign(new, bob, file, tmp_path)

    stranger = init(tmp_path / "carol", "carol")
    with run(stranger) as other:
        other.ready()
        done = group(other, "import", "--yes", str(saved))
        assert done.returncode == 1
        assert "not a member" in done.stderr


def sign(proposer: RunningNode, other: RunningNode, file: GroupFile, tmp_path: Path) -> None:
    """Let both sign a spend of the group: the restored device proposes, both people approve."""
    (path := tmp_path / "spend.psbt").write_bytes(psbt(file.group.wallet, *spend(file.group.wallet)).serialize())
    session = cli_json(proposer.data, "propose", "savings", str(path))["id"]
    for node in (proposer, other):
        done = approve(node, session)
        assert done.returncode == 0, done.stderr
    watched = cli(proposer.data, "watch", session, "--timeout", "30")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert cli(proposer.data, "export", session, "--tx").stdout.strip()


def test_folders_are_made_by_the_command(tmp_path: Path) -> None:
    """The same words give the same node, and mainnet another one."""
    keys = []
    for number, args in enumerate(((), (), ("--network", "mainnet"))):
        folder = init(tmp_path / str(number), "alice", *args)
        DataFolder.lock(folder).close()
        with run(folder) as node:
            keys.append(node.expect(r"\(([0-9a-f]{8})\) on").group(1))
    assert keys[0] == keys[1] != keys[2]
