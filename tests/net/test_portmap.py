"""A forwarded port: the first way that works, never a useless one, renewed, and given back whatever happens."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from endpoints import Signal, aio
from services import LogLines

from musignet.errors import NetworkError, Timeout, TransportError
from musignet.limits import PORT_MAPPING_ANSWER_MAX_BYTES
from musignet.net import portmap
from musignet.net.mapping import Mapping
from musignet.net.natpmp import NatPmp
from musignet.net.portmap import PortMapper, ways
from musignet.net.upnp import Upnp


class Way(Signal):
    """A router that does as it is told."""

    name = "test"

    def __init__(self, host: str = "11.0.113.10", *, error: NetworkError | None = None) -> None:
        super().__init__()
        self.host = host
        self.error = error
        self.done: list[str] = []

    def _note(self, what: str) -> None:
        self.done.append(what)
        self.poke()
        if self.error is not None:
            raise self.error

    async def look(self) -> str:
        return self.host

    async def map(self, local_port: int, port: int, lease_s: int) -> Mapping:
        self._note(f"map {local_port} {port}")
        return Mapping(self.name, self.host, 9000, local_port, lease_s)

    async def unmap(self, mapping: Mapping) -> None:
        self._note(f"unmap {mapping.port}")


DEAF = TransportError("deaf")


@aio
async def test_the_first_way_that_works_is_kept_and_given_back() -> None:
    deaf, works, spare = Way(error=DEAF), Way(), Way()
    mapper = PortMapper((deaf, works, spare))
    assert (await mapper.start(8737)).address == "11.0.113.10:9000"
    await mapper.stop()
    assert (deaf.done, works.done, spare.done) == (["map 8737 8737"], ["map 8737 8737", "unmap 9000"], [])
    assert mapper.mapping is None
    await mapper.stop()
    assert works.done[-2:] == ["map 8737 8737", "unmap 9000"]


@aio
async def test_no_way_is_the_error_of_the_last() -> None:
    with pytest.raises(TransportError, match="deaf"):
        await PortMapper((Way(error=Timeout("slow")), Way(error=DEAF))).start(8737)
    with pytest.raises(TransportError, match="map_port"):
        await PortMapper(()).start(8737)


@aio
@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "0.0.0.0"])
async def test_a_router_behind_another_nat_is_no_use_and_its_port_is_given_back(host: str) -> None:
    way = Way(host)
    with pytest.raises(TransportError, match="not one of the internet"):
        await PortMapper((way,)).start(8737)
    assert way.done == ["map 8737 8737", "unmap 9000"]


@aio
async def test_it_is_renewed_at_the_same_port_and_a_failure_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portmap, "PORT_MAPPING_PAUSE_MIN_S", 0.01)
    way = Way()
    mapper = PortMapper((way,), lease_s=0)
    with LogLines() as log:
        await mapper.start(8737)
        await way.until(lambda: way.done[1:3] == ["map 8737 9000"] * 2)
        way.error = DEAF
        await log.until(lambda: log.lines)
        assert mapper.mapping is None
        assert "forwards no port at present" in log.lines[0]
        way.error = None
        await way.until(lambda: mapper.mapping is not None)
        await mapper.stop()
    assert way.done[-1] == "unmap 9000"


@aio
async def test_a_router_that_does_not_take_it_back_is_said() -> None:
    way = Way()
    mapper = PortMapper((way,))
    await mapper.start(8737)
    way.error = DEAF
    with LogLines() as log:
        await mapper.stop()
    assert "stays open until its lease ends" in log.lines[0]


def test_the_words_of_the_configuration() -> None:
    assert [[type(way) for way in ways(word)] for word in ("off", "natpmp", "upnp", "auto")] == [
        [], [NatPmp], [Upnp], [NatPmp, Upnp],
    ]  # fmt: skip


# --- the process that speaks UPnP -------------------------------------------------------------------------------------


@aio
async def test_a_process_that_cannot_be_begun_is_one_of_our_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory or descriptors: whoever renews a port tries again later."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(TransportError, match="UPnP: No such file"):
        await Upnp().look()


def helper(folder: Path, body: str) -> Upnp:
    path = folder / "helper.py"
    path.write_text(f"import json, sys\n{body}\n")
    return Upnp(path)


@aio
async def test_upnp_is_asked_by_a_process_of_its_own(tmp_path: Path) -> None:
    said = tmp_path / "said"
    way = helper(
        tmp_path,
        f"open({str(said)!r}, 'a').write(' '.join(sys.argv[1:]) + ';')\nprint(json.dumps({{'host': '11.0.113.10'}}))",
    )
    mapping = await way.map(8737, 8737, 3600)
    assert mapping == Mapping("UPnP", "11.0.113.10", 8737, 8737, 3600)
    await way.unmap(mapping)
    assert await way.look() == "11.0.113.10"
    assert said.read_text() == "map 8737 8737 3600;unmap 8737;look;"


@aio
async def test_a_port_that_is_taken_is_asked_for_once_more_elsewhere(tmp_path: Path) -> None:
    way = helper(
        tmp_path,
        "if sys.argv[3] == '8737': raise Exception('ConflictInMappingEntry')\nprint(json.dumps({'host': '8.8.8.8'}))",
    )
    assert (await way.map(8737, 8737, 3600)).port >= 49_152


LIES = {
    "not JSON": ("print('hello')", "cannot be read"),
    "a list": ("print('[]')", "cannot be read"),
    "nothing": ("", "cannot be read"),
    "bytes": ("sys.stdout.buffer.write(bytes([255, 254]))", "cannot be read"),
    "a flood": ("print('[' * 1_000_000)", "UPnP"),
    "no address": ("print('{}')", "does not say its address"),
    "a name": ("print(json.dumps({'host': 'router.local'}))", "does not say its address"),
    "a refusal": ("raise Exception('Not \\x1b[31mAuthorized')", "Authorized"),
    "a crash": ("import os; os.abort()", "without a word"),
}


@pytest.mark.parametrize(("body", "sentence"), LIES.values(), ids=LIES.keys())
def test_whatever_the_router_makes_it_say_is_a_typed_error(tmp_path: Path, body: str, sentence: str) -> None:
    @aio
    async def run() -> None:
        with pytest.raises(TransportError, match=sentence) as caught:
            await helper(tmp_path, body).look()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < PORT_MAPPING_ANSWER_MAX_BYTES

    run()


@aio
async def test_a_router_that_stalls_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musignet.net.upnp.PORT_MAPPING_S", 0.3)
    way = helper(tmp_path, "import time\ntime.sleep(60)")
    async with asyncio.timeout(5):
        with pytest.raises(Timeout, match="no router answered"):
            await way.look()
