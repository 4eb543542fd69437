"""What `musignet doctor` says about relays: those that work, refuse, forget, stall, lie, or are none."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nostr_sdk", reason="needs the extra `relay`")

import nostr_sdk

from app.nodes import cli, make_data
from app.terminal import Terminal
from musignet.app.config import Config
from musignet.app.doctor import Finding, Verdict
from musignet.app.relaydoctor import examine_relays
from musignet.limits import Limits
from support.hostile_relay import BEHAVIOURS, Behaviour, Client, HostileRelay

pytestmark = pytest.mark.driver

SOON = Limits(dial_timeout_s=0.5)
WITHIN_S = 0.7
WORKS, WARNS, BLOCKS = Verdict.OK, Verdict.NOTE, Verdict.BLOCKED


async def found(*urls: str) -> list[Finding]:
    return await examine_relays(Config(relays=urls, limits=SOON), WITHIN_S)


def examined(behaviour: Behaviour) -> list[Finding]:
    """Return what is found with this relay alone, without the advice to name another one."""

    async def main() -> list[Finding]:
        async with HostileRelay(behaviour).running() as relay:
            return await found(relay.url)

    *of_it, advice = asyncio.run(main())
    assert (advice.verdict, advice.text) == (WARNS, "only one is named")
    return of_it


def test_a_proxy_whose_login_cannot_be_read_is_a_finding() -> None:
    config = Config(relays=("wss://relay.example",), proxy_socks5="127.0.0.1:9050", proxy_login="/nowhere")
    (finding,) = asyncio.run(examine_relays(config))
    assert (finding.verdict, "the proxy's login" in finding.text) == (BLOCKS, True)


class _Refuses(Behaviour):
    """It takes no event of a kind: `WORD` is its answer to each."""

    KINDS = frozenset((1059, 21_059))
    WORD = "blocked: members only"

    async def published(self, client: Client, event: dict[str, Any]) -> None:
        refused = event["kind"] in self.KINDS
        await client.say("OK", event["id"], not refused, self.WORD if refused else "")

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        if event["kind"] not in self.KINDS:
            await super().deliver(client, event)


class _RefusesLetters(_Refuses):
    KINDS = frozenset((1059,))
    WORD = "blocked: nothing is stored here"


class _Keeps(Behaviour):
    """It passes on, and stores what is to be stored."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        for one in self.events:
            if one["kind"] == 1059 and client.wants(one):
                await client.say("EVENT", subscription, one)
        await super().subscribed(client, subscription)


CASES = {
    "keeps": (_Keeps, WORKS, "and keeps letters"),
    "forgets": (Behaviour, WARNS, "but keeps no letters"),
    "refuses letters": (
        _RefusesLetters,
        WARNS,
        "but keeps no letters: it refused an event: blocked: nothing is stored",
    ),
    "refuses": (_Refuses, BLOCKS, "it refused an event: blocked: members only"),
    "black hole": (
        BEHAVIOURS["takes everything and delivers nothing"],
        BLOCKS,
        "what is said there is not passed on within 0.7 s",
    ),
}


@pytest.mark.parametrize(("make", "verdict", "words"), CASES.values(), ids=CASES.keys())
def test_what_a_relay_does(make: type[Behaviour], verdict: Verdict, words: str) -> None:
    (one,) = examined(make())
    assert (one.layer, one.verdict) == ("relay", verdict)
    assert words in one.text
    assert bool(one.hint) == (verdict is not WORKS)


@pytest.mark.parametrize("name", [name for name in BEHAVIOURS])
def test_a_relay_that_does_wrong_ends_in_words_and_in_time(name: str) -> None:
    began = time.monotonic()
    (one,) = examined(BEHAVIOURS[name]())
    assert time.monotonic() - began < SOON.dial_timeout_s + 3 * WITHIN_S + 2
    assert one.verdict is WORKS or one.hint
    assert one.text.startswith("ws://127.0.0.1:")
    assert len(one.text) < 500


def test_a_relay_of_ones_own_works_and_one_beside_it_may_not(tmp_path: Path) -> None:
    with Terminal("relay", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "relay")) as keeper:
        url = keeper.expect(r"a relay at (ws://127\.0\.0\.1:\d+)").group(1)
        one, _ = asyncio.run(found(url))
        assert one.verdict is WORKS
        assert one.text.endswith("ms, and keeps letters")
        data = make_data(tmp_path / "alice", "alice", relays=(url, "ws://127.0.0.1:9"))
        done = cli(data, "doctor")
        assert f"ok       relay: {url} passes on what is said" in done.stdout
        assert "note     relay: ws://127.0.0.1:9: " in done.stdout, "one that works is enough"
        keeper.interrupt()
        keeper.expect("stopped")


def test_a_relay_of_another_make_works() -> None:
    async def main() -> list[Finding]:
        relay = nostr_sdk.LocalRelayBuilder().addr("127.0.0.1").build()
        await relay.run()
        try:
            return await found(str(await relay.url()))
        finally:
            relay.shutdown()

    one, _ = asyncio.run(main())
    assert (one.verdict, one.text.endswith("ms, and keeps letters")) == (WORKS, True), one


@contextmanager
def nobody(*, listens: bool) -> Iterator[str]:
    """A port where nobody answers: nobody listens, or somebody takes what comes and says nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        yield f"ws://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("listens", [False, True], ids=["a dead port", "a server that stalls"])
def test_where_no_relay_is_that_is_said_in_time(listens: bool) -> None:
    with nobody(listens=listens) as url:
        began = time.monotonic()
        one, _ = asyncio.run(found(url))
        assert time.monotonic() - began < 3
    assert one.verdict is BLOCKS
    assert one.text == f"{url}: {'timed out during opening handshake' if listens else 'Connection refused'}"
    assert "does this network let it through?" in one.hint
    assert one.hint not in one.text


def test_none_that_is_named_asks_nobody() -> None:
    (one,) = asyncio.run(found())
    assert (one.verdict, "urls = " in one.hint) == (WARNS, True)
