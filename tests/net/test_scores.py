"""The scores on disk, and what a service tells of a peer's traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from endpoints import CARRIERS, Carrier, Rogue, aio
from services import LogLines, Party, chat, party

from musignet.limits import SCORES_FILE_MAX_BYTES, Limits
from musignet.net.folder import DataFolder
from musignet.net.scores import ScoreFile
from musignet.node.effects import Fault
from musignet.node.peers import PeerInfo
from musignet.node.rates import Standing
from musignet.node.reputation import Deed, Reputation
from musignet.wire.channel import CloseReceived
from support.keys import ALICE, BOB

KEY = ALICE.pubkey


@pytest.fixture(params=["tcp", "memory"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


def clock() -> float:
    return 1000.0


@aio
async def test_what_is_noted_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    first = Reputation(Limits())
    file = ScoreFile(folder, first, clock)
    first.note(KEY, Deed.MALFORMED, 1000.0, Standing.COSIGNER)
    await file.close()
    assert (folder.path / "scores.json").stat().st_mode & 0o777 == 0o600
    second = Reputation(Limits())
    await ScoreFile(folder, second, clock).close()
    assert second.score(KEY, 1000.0) == -25
    folder.close()


@aio
async def test_nothing_is_written_while_nothing_has_changed(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    file = ScoreFile(folder, Reputation(Limits()), clock)
    await file.close()
    await file.close()
    assert not folder.has("scores.json")
    folder.close()


@pytest.mark.parametrize("data", [b"", b"{", b"x" * (SCORES_FILE_MAX_BYTES + 1)], ids=["empty", "torn", "too long"])
@aio
async def test_a_damaged_file_is_one_line_and_no_obstacle(tmp_path: Path, data: bytes) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    folder.create("scores.json")
    (folder.path / "scores.json").write_bytes(data)
    with LogLines() as log:
        reputation = Reputation(Limits())
        await ScoreFile(folder, reputation, clock).close()
    assert len(log.lines) == 1
    assert log.lines[0].startswith("the scores of peers begin anew: ")
    assert len(reputation) == 0
    folder.close()


@aio
async def test_a_file_that_others_may_read_is_not_read(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    folder.create("scores.json")
    (folder.path / "scores.json").chmod(0o644)
    with LogLines() as log:
        await ScoreFile(folder, Reputation(Limits()), clock).close()
    assert "expected mode 600" in log.lines[0]
    folder.close()


@aio
async def test_a_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    reputation = Reputation(Limits())
    file = ScoreFile(folder, reputation, clock)
    (folder.path / "scores.json").mkdir()
    reputation.note(KEY, Deed.SERVED, 1000.0, Standing.COSIGNER)
    with LogLines() as log:
        await file.close()
    assert log.lines[0].startswith("the scores of peers are not kept: ")
    folder.close()


# --- a service --------------------------------------------------------------------------------------------------------


async def as_alice(carrier: Carrier, bob: Party) -> Rogue:
    """Dial Bob with Alice's key."""
    driver: Any = bob.service._driver
    return await Rogue.dial(carrier, next(iter(driver._transport.carriers.values())), ALICE, BOB.public)


async def refused(rogue: Rogue) -> str:
    """Return what is said to a dialler that is not let in."""
    await rogue.until(lambda: rogue.heard(CloseReceived))
    rogue.end.close()
    return str(rogue.heard(CloseReceived)[0].text)


@aio
async def test_one_invalid_signature_ends_the_link_and_two_close_the_door_also_after_a_restart(
    carrier: Carrier, tmp_path: Path
) -> None:
    raw = chat().sign(ALICE, to=BOB.pubkey).raw
    forged = bytes((raw[0] ^ 1,)) + raw[1:]
    for start in range(2):
        bob = Party(carrier, BOB, "bob", data_dir=tmp_path / "bob", port=0)
        await bob.start()
        bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
        if start == 0:
            for count in (1, 2):
                rogue = await as_alice(carrier, bob)
                rogue.say(forged)
                await bob.learns(Fault, count)
                assert (await refused(rogue)).startswith("signature does not verify")
        assert (await refused(await as_alice(carrier, bob))).endswith("s more: 2x invalid signatures")
        assert 0 < bob.service.traffic("alice").refused_s <= 60
        await bob.service.stop()


@aio
async def test_a_service_tells_what_passed_and_what_it_thinks_of_it(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob") as (alice, bob):
        for n in range(3):
            await alice.service.send_message_to("bob", chat(str(n)), wait_ack=True)
        there, here = bob.service.traffic("alice"), alice.service.traffic("bob")
        assert there.messages_in >= 3
        assert there.bytes_in >= 3 * 200
        assert here.bytes_out == there.bytes_in
        assert there.messages_per_s > 0
        assert (there.held_s, there.share, there.score, there.why, there.refused_s) == (0, 1.0, 0, "", 0)
