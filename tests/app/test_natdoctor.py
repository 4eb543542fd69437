"""What `musignet doctor` says about NATs, from servers that answer, stall, or are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("aioice", reason="needs the extra `nat`")

from aioice import stun

from musignet.app import natdoctor
from musignet.app.config import Config
from musignet.app.doctor import Finding, Verdict
from musignet.app.natdoctor import examine_nat
from musignet.errors import TransportError
from musignet.limits import Limits

SHORT = Limits(ice_gather_s=0.3)
Reply = Callable[[stun.Message, tuple[str, int]], bytes]


def mapped(port: int) -> Reply:
    def reply(request: stun.Message, _: tuple[str, int]) -> bytes:
        answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("11.0.113.10", port)
        return bytes(answer)

    return reply


def empty(request: stun.Message, _: tuple[str, int]) -> bytes:
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id))


def junk(_: stun.Message, __: tuple[str, int]) -> bytes:
    return b"\1\1\0\0junk"


def cut(request: stun.Message, _: tuple[str, int]) -> bytes:
    """An answer with a LIFETIME of two bytes, which has four."""
    return b"\1\1\0\x08" + bytes(request)[4:20] + b"\0\x0d\0\2\0\0\0\0"


class _Server(asyncio.DatagramProtocol):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._reply(stun.parse_message(data), addr), addr)


@asynccontextmanager
async def stun_servers(*replies: Reply) -> AsyncIterator[tuple[str, ...]]:
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_datagram_endpoint(lambda r=reply: _Server(r), local_addr=("127.0.0.1", 0)))[0]  # type: ignore[misc]
        for reply in replies
    ]
    try:
        yield tuple(f"127.0.0.1:{one.get_extra_info('sockname')[1]}" for one in made)
    finally:
        for one in made:
            one.close()


def examined(*replies: Reply, turn: bool = False, **options: Any) -> list[Finding]:
    """Return what is found with STUN servers that reply so, and hole punching on; `turn`: they lend addresses too."""

    async def run() -> list[Finding]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with stun_servers(*replies) as servers:
            named = options | ({"nat_turn": servers} if turn else {})
            return await examine_nat(Config(nat_punch=True, nat_stun=servers, limits=SHORT, **named))

    unheard: list[dict[str, Any]] = []
    found = asyncio.run(run())
    assert not unheard, "a person would see a traceback"
    return found


def test_what_is_off_asks_nobody() -> None:
    (found,) = asyncio.run(examine_nat(Config()))
    assert (found.layer, found.verdict) == ("hole punching", Verdict.NOTE)
    (found,) = examined()
    assert (found.layer, found.verdict) == ("STUN", Verdict.NOTE)
    assert "none is built in" in found.hint


def test_a_server_that_answers_says_how_the_internet_sees_us() -> None:
    found = examined(mapped(4000), mapped(4000))
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK]
    assert "sees this machine as 11.0.113.10:4000" in found[0].text


def test_two_servers_that_see_different_ports_are_a_symmetric_nat() -> None:
    found = examined(mapped(4000), mapped(4001))
    assert [(one.layer, one.verdict) for one in found] == [
        ("STUN", Verdict.OK), ("STUN", Verdict.OK), ("NAT", Verdict.NOTE),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "text"),
    [(empty, "names no address"), (junk, "no answer within 0.3 s"), (cut, "no answer within 0.3 s")],
    ids=["empty", "junk", "cut"],
)
def test_a_server_that_is_none_is_said_and_keeps_no_other_from_being_asked(reply: Reply, text: str) -> None:
    bad, good = examined(reply, mapped(4000))
    assert (bad.verdict, good.verdict) == (Verdict.BLOCKED, Verdict.OK)
    assert text in bad.text


def test_a_name_that_cannot_be_looked_up_is_a_sentence() -> None:
    found = asyncio.run(examine_nat(Config(nat_punch=True, nat_stun=("a..b:1",), nat_turn=("a..b:1",), limits=SHORT)))
    assert [(one.layer, one.verdict) for one in found] == [("STUN", Verdict.BLOCKED), *[("TURN", Verdict.BLOCKED)] * 2]


@pytest.mark.parametrize("reply", [empty, junk, cut], ids=["empty", "junk", "cut"])
def test_what_a_turn_server_says_wrongly_is_no_traceback(reply: Reply) -> None:
    found = examined(reply, turn=True)
    assert {one.verdict for one in found if one.layer == "TURN"} == {Verdict.BLOCKED}


def test_a_turn_server_that_does_not_answer_is_said_for_each_way() -> None:
    found = examined(mapped(4000), nat_turn=("127.0.0.1:9",), nat_turn_password="secret")
    turn = [one for one in found if one.layer == "TURN"]
    assert [one.verdict for one in turn] == [Verdict.BLOCKED, Verdict.BLOCKED]
    assert ["UDP" in one.text for one in turn] == [True, False]
    assert not any("secret" in str(one) for one in found)


class _Way:
    def __init__(self, name: str, answer: str | None) -> None:
        self.name = name
        self._answer = answer

    async def look(self) -> str:
        if self._answer is None:
            raise TransportError("deaf")
        return self._answer


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        (["11.0.113.10", None], [Verdict.OK]),
        ([None, "11.0.113.10"], [Verdict.OK]),
        ([None, None], [Verdict.BLOCKED] * 2),
        (["192.168.1.2"], [Verdict.BLOCKED]),
    ],
)
def test_one_way_to_a_forwarded_port_is_enough(
    answers: list[str | None], verdicts: list[Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [_Way(f"way {number}", answer) for number, answer in enumerate(answers)]
    monkeypatch.setattr(natdoctor, "ways", lambda word: made if word == "auto" else [])
    _, *found = asyncio.run(examine_nat(replace(Config(), nat_map_port="auto")))
    assert [one.verdict for one in found] == verdicts
