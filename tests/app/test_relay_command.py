"""`musignet relay`: it runs, keeps what is to be kept, shows it to its owner, and ends when told."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import nostr_sdk
import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect

from musignet.app.cli import main
from musignet.app.relay import GiftWrapsOnly, _sweep
from musignet.crypto.relaykey import RelayKey
from musignet.limits import (
    RELAY_FRAME_MAX_BYTES,
    RELAY_SERVE_INBOXES_MAX,
    RELAY_SERVE_MAIL_MAX,
    RELAY_SERVE_SKEW_S,
    RELAY_SERVE_TTL_MAX_S,
)
from musignet.wire import relaytalk
from musignet.wire.giftwrap import LIVE, MAIL, Event, auth_event, wrap
from support.keys import BOB, secret

pytestmark = pytest.mark.driver

STOP_S = 10.0
INBOX = RelayKey.inbox(BOB, 1)


class Running:
    """The command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "musignet", "relay", "--listen", "127.0.0.1:0", "--data", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[3].rstrip(";")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=STOP_S)
        return self.process.returncode, out, err


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "relay")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


def event(kind: int, *, age_s: int = 0, lives_s: int = 60, inbox: RelayKey = INBOX) -> Event:
    now = int(time.time()) - age_s
    return wrap(kind, b"x", inbox.xonly, now_s=now, expires_s=now + lives_s, secret=secret("s"), nonce=secret("n"))


class Client:
    """One connection, by hand."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    async def say(self, text: str) -> None:
        await self._socket.send(text)

    async def hears(self, kind: type) -> Any:
        async with asyncio.timeout(5):
            while True:
                said = relaytalk.parse_untrusted(await self._socket.recv())
                if isinstance(said, kind):
                    return said

    async def publish(self, event: Event) -> relaytalk.Accepted:
        await self.say(relaytalk.publish(event))
        said: relaytalk.Accepted = await self.hears(relaytalk.Accepted)
        return said

    async def read(self, inbox: RelayKey, url: str, key: RelayKey | None = None) -> Event | str:
        """Subscribe to an inbox and prove that `key` is ours. Returns what is stored there, or why not."""
        await self.say(relaytalk.subscribe(relaytalk.LETTERS, [inbox.xonly.hex()]))
        challenge = (await self.hears(relaytalk.Challenged)).challenge

        await self.say(relaytalk.auth(auth_event(key or inbox, url, challenge, int(time.time()))))
        await self.hears(relaytalk.Accepted)
        await self.say(relaytalk.subscribe(relaytalk.LETTERS, [inbox.xonly.hex()]))
        said = await self.hears(relaytalk.Delivered | relaytalk.Ended)  # type: ignore[arg-type]
        return said.event if isinstance(said, relaytalk.Delivered) else str(said.why)


def talk(url: str, work: Any) -> Any:
    async def run() -> Any:
        async with connect(url, compression=None) as socket:
            return await work(Client(socket))

    return asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["SIGTERM", "Ctrl-C", "SIGHUP"])
def test_it_says_where_it_is_and_ends_when_told(relay: Running, number: int) -> None:
    assert relay.line.startswith("a relay at ws://127.0.0.1:")
    assert str(relay.folder) in relay.line
    assert relay.stop(number) == (0, "stopped\n", "")


def test_mail_waits_on_disk_for_its_reader_over_a_restart_and_for_nobody_else(relay: Running, tmp_path: Path) -> None:
    mail = event(MAIL)
    assert talk(relay.url, lambda client: client.publish(mail)).taken
    relay.stop()
    again = Running(tmp_path / "relay")
    try:
        stranger = RelayKey.one_time(secret("stranger"))
        assert "gift wrap" in talk(again.url, lambda client: client.read(INBOX, again.url, stranger))
        assert talk(again.url, lambda client: client.read(INBOX, again.url)) == mail
    finally:
        again.stop()


def test_what_is_taken_and_what_is_not(relay: Running) -> None:
    async def work(client: Client) -> None:
        assert (await client.publish(event(LIVE))).taken
        refused = await client.publish(event(MAIL, lives_s=RELAY_SERVE_TTL_MAX_S + 60))
        assert not refused.taken
        assert "expire within 8 days" in refused.why

    talk(relay.url, work)


@pytest.mark.parametrize("kind", [LIVE, MAIL])
@pytest.mark.parametrize("names", [None, [], [f"{n:064x}" for n in range(1, 1 + RELAY_SERVE_INBOXES_MAX + 1)]])
def test_nobody_is_shown_what_passes_between_others(relay: Running, kind: int, names: list[str] | None) -> None:
    wanted = {"kinds": [kind]} | ({} if names is None else {"#p": names})

    async def work(client: Client) -> str:
        await client.say(json.dumps(["REQ", "all", wanted]))
        ended: relaytalk.Ended = await client.hears(relaytalk.Ended)
        return ended.why

    assert re.match("blocked: ask for inboxes by their names|auth-required:", talk(relay.url, work))


def test_inboxes_that_are_named_are_shown_live_to_whoever_knows_their_names(relay: Running) -> None:
    async def work(client: Client) -> Event:
        await client.say(relaytalk.subscribe(relaytalk.LIVES, [INBOX.xonly.hex()]))
        await client.hears(relaytalk.StoredEnd)
        await client.say(relaytalk.publish(event(LIVE)))
        said: relaytalk.Delivered = await client.hears(relaytalk.Delivered)
        return said.event

    assert talk(relay.url, work).kind == LIVE


OBJECTIONS = {
    "a live one": (LIVE, {}, ""),
    "mail": (MAIL, {}, ""),
    "two days old": (LIVE, {"age_s": RELAY_SERVE_SKEW_S - 60}, ""),
    "older": (LIVE, {"age_s": RELAY_SERVE_SKEW_S + 60}, "invalid: its time"),
    "from the future": (LIVE, {"age_s": -RELAY_SERVE_SKEW_S - 60}, "invalid: its time"),
    "another kind": (1, {}, "blocked: this relay is for gift wraps"),
    "mail that lasts too long": (MAIL, {"lives_s": RELAY_SERVE_TTL_MAX_S + 60}, "invalid: what is stored"),
    "mail that has expired": (MAIL, {"lives_s": -1}, "invalid: what is stored"),
    "mail that never expires": (MAIL, {"lives_s": 2**60}, "invalid: what is stored"),
}


@pytest.mark.parametrize(("kind", "times", "why"), OBJECTIONS.values(), ids=OBJECTIONS.keys())
def test_its_policy(kind: int, times: dict[str, int], why: str) -> None:
    made = event(kind, **times)
    found = GiftWrapsOnly().objection(nostr_sdk.Event.from_json(msgspec.json.encode(made).decode()))
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_there_is_an_end_to_what_it_stores(tmp_path: Path) -> None:
    """Whoever wants can leave gift wraps: they are counted as they come, and again with each sweep."""

    async def run() -> None:
        policy = GiftWrapsOnly()
        mail, live = (nostr_sdk.Event.from_json(msgspec.json.encode(event(kind)).decode()) for kind in (MAIL, LIVE))
        for _ in range(RELAY_SERVE_MAIL_MAX):
            await policy.admit_event(mail, "")
        assert policy.objection(mail).startswith("error: no room")
        assert not policy.objection(live), "that is not stored"
        database = await nostr_sdk.NostrLmdb.open(str(tmp_path))
        await database.save_event(mail)
        await _sweep(database, policy)
        assert (policy.stored, policy.objection(mail)) == (1, "")

    asyncio.run(run())


def test_what_is_larger_than_any_gift_wrap_is_not_taken() -> None:
    large = nostr_sdk.EventBuilder(nostr_sdk.Kind(LIVE), "x" * (RELAY_FRAME_MAX_BYTES + 1))
    assert GiftWrapsOnly().objection(large.finalize(nostr_sdk.Keys.generate())) == "invalid: too large"


def test_an_address_that_is_taken_is_a_sentence(relay: Running, tmp_path: Path) -> None:
    where = relay.url.removeprefix("ws://")
    done = CliRunner().invoke(main, ["relay", "--listen", where, "--data", str(tmp_path / "other")])
    assert done.exit_code == 1
    assert "cannot listen on" in done.output
    name = CliRunner().invoke(main, ["relay", "--listen", "relay.example:80", "--data", str(tmp_path / "other")])
    assert (name.exit_code, "cannot listen on relay.example:80" in name.output) == (1, True)


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nostr_sdk", None)
    monkeypatch.delitem(sys.modules, "musignet.app.relay", raising=False)
    done = CliRunner().invoke(main, ["relay", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert 'pip install "musignet[relay]"' in done.output
