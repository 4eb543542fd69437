"""Two nodes behind two NATs, in network namespaces, with coturn between them: which path opens, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

pytest.importorskip("aioice", reason="needs the extra `nat`")
pytest.importorskip("aioquic", reason="needs the extra `nat`")

from support.lab_nodes import Node, nodes
from support.netlab import Lab, reason_against

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against()), reason=why or "a lab can be built"),
]


SOON = {"ice_gather_s": 1.5, "ice_direct_s": 0.8}
"""Inside one machine nothing that is still under way after so long arrives."""


async def linked(alice: Node, bob: Node) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dial from A to B. Returns what each side heard of its link."""
    alice.do("connect", bob.key)
    first = await alice.hears("connected", "failed")
    assert first["event"] == "connected", first
    return first, await bob.hears("connected")


DIRECT, TURN = "punched by ice", "proxied by turn"
PATHS = [
    (("cone", "cone"), "", DIRECT),
    (("cone", "symmetric"), "", TURN),
    (("symmetric", "symmetric"), "", TURN),
    (("cone", "cone"), "A", TURN),
    (("symmetric", "symmetric"), "AB", TURN),
]


@pytest.mark.parametrize(("kinds", "no_udp", "path"), PATHS, ids=lambda value: str(value))
def test_a_path_opens_the_direct_one_if_there_is_one(kinds: tuple[str, str], no_udp: str, path: str) -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, limits=SOON) as (alice, bob):
            near, far = await linked(alice, bob)
            assert (near["path"], far["path"]) == (path, path)
            alice.do("send", [bob.key, "?", 20, 300])
            alice.do("send", [bob.key, "?", 1, 500_000])
            while (answer := await alice.hears("answer"))["count"] < 21:
                pass
            assert answer["length"] == 500_001
            bob.do("disconnect", alice.key)
            assert (await alice.hears("closed"))["goodbye"]

    with Lab(kinds, no_udp=no_udp) as lab:
        lab.start_turn()
        asyncio.run(main())


def test_where_nothing_but_tls_gets_out_turn_goes_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, tls=True, limits=SOON) as (alice, bob):
            near, far = await linked(alice, bob)
            assert (near["path"], far["path"]) == (TURN, TURN)
            alice.do("send", [bob.key, "?", 20, 60_000])
            while (await alice.hears("answer"))["count"] < 20:
                pass

    with Lab(("symmetric", "symmetric"), no_udp="AB") as lab:
        lab.start_turn()
        monkeypatch.setenv("SSL_CERT_FILE", str(lab.authority))
        asyncio.run(main())


def test_without_turn_two_symmetric_nats_end_in_a_typed_error_within_the_bounds() -> None:
    async def main() -> None:
        async with nodes(lab, limits={"ice_checks_s": 2.0}) as (alice, bob):
            alice.do("connect", bob.key)
            failed = await alice.hears("failed")
            assert failed["error"] in ("Timeout", "ConnectionError")
            assert "TURN" in failed["text"]
            assert failed["seconds"] < 8
            assert (await bob.hears("refused"))["error"] in ("Timeout", "ConnectionError")

    with Lab(("symmetric", "symmetric")) as lab:
        lab.start_turn()
        asyncio.run(main())


def test_a_turn_server_that_is_not_heard_of_leaves_the_direct_path() -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, turn_host="11.0.113.99", limits=SOON) as (alice, bob):
            near, far = await linked(alice, bob)
            assert (near["path"], far["path"]) == (DIRECT, DIRECT)

    with Lab(("cone", "cone")) as lab:
        lab.start_turn()
        asyncio.run(main())


def test_a_server_that_stalls_ends_the_dial_within_the_bounds_and_in_a_typed_error() -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, limits={"ice_gather_s": 1.0, "ice_checks_s": 3.0}) as (alice, bob):
            lab.signal_turn(signal.SIGSTOP)
            alice.do("connect", bob.key)
            failed = await alice.hears("failed")
            assert failed["error"] in ("Timeout", "ConnectionError")
            assert failed["seconds"] < 8

    with Lab(("cone", "cone")) as lab:
        lab.start_turn()
        asyncio.run(main())


def test_a_turn_server_that_stalls_under_a_link_ends_it_and_keeps_nobody_from_stopping() -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, consent_s=0.1, limits=SOON) as (alice, bob):
            near, _ = await linked(alice, bob)
            assert near["path"] == TURN
            lab.signal_turn(signal.SIGSTOP)
            assert (await alice.hears("closed"))["error"] == "ConnectionError"
            assert (await bob.hears("closed"))["error"] == "ConnectionError"
            assert (await alice.stop())["seconds"] < 3
            assert (await bob.stop())["seconds"] < 3

    with Lab(("symmetric", "symmetric")) as lab:
        lab.start_turn()
        asyncio.run(main())


def test_beside_a_link_by_way_of_turn_only_a_direct_one_is_looked_for() -> None:
    async def main() -> None:
        async with nodes(lab, turn=True, limits={**SOON, "ice_checks_s": 3.0, "ice_offers_pause_s": 0.1}) as (
            alice,
            bob,
        ):
            near, _ = await linked(alice, bob)
            assert near["path"] == TURN
            await alice.hears("dialled")
            alice.do("connect", bob.key)
            assert (await alice.hears("failed", "connected"))["event"] == "failed"
            alice.do("send", [bob.key, "?", 1, 300])
            await alice.hears("answer")

    with Lab(("symmetric", "symmetric")) as lab:
        lab.start_turn()
        asyncio.run(main())
