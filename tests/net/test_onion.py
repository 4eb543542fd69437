"""The onion service: published and taken back, over a control port that may be anybody's."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from endpoints import CARRIERS, Carrier, aio, turns

from musignet.crypto.onionkey import OnionKey
from musignet.errors import IoError, LocalError, NetworkError, Timeout
from musignet.net.onion import OnionService, TorControl, TorRefused, TorUnreachable, check_control
from musignet.wire.torcontrol import TorFault
from support.keys import ALICE
from support.tor_control import FakeControl

pytestmark = pytest.mark.driver

KEY = OnionKey.of(ALICE)
TARGET = "127.0.0.1:4711"
PATIENCE_S = 5.0


@pytest.fixture(params=["tcp", "tcp on uvloop"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


@pytest.fixture
def tor(tmp_path: Path) -> FakeControl:
    return FakeControl(tmp_path / "control.authcookie", password='a "quoted" \\ word')


def service(tor: FakeControl, password: str = "", key: OnionKey = KEY, timeout_s: float = PATIENCE_S) -> OnionService:
    return OnionService(lambda: TorControl(tor.place, password, timeout_s=timeout_s), key, TARGET, retry_s=0.01)


@aio
async def test_published_at_the_start_and_gone_at_the_stop(carrier: Carrier, tor: FakeControl) -> None:
    async with tor.running():
        onion = service(tor)
        assert not onion.published
        await onion.start()
        assert onion.published
        assert tor.services == {onion.host.removesuffix(".onion"): f"8737,{TARGET}"}
        assert onion.address == f"{onion.host}:8737"
        await onion.stop()
        assert tor.services == {}
        assert tor.heard[-1] == f"DEL_ONION {onion.host.removesuffix('.onion')}"
        await onion.stop()
    words = [line.partition(" ")[0] for line in tor.heard]
    assert words == ["PROTOCOLINFO", "AUTHCHALLENGE", "AUTHENTICATE", "ADD_ONION", "DEL_ONION"]
    assert not any(tor.cookie.hex() in line.lower() for line in tor.heard), "the cookie itself is never said"
    (added,) = (line for line in tor.heard if line.startswith("ADD_ONION"))
    assert "Flags=MaxStreamsCloseCircuit MaxStreams=8" in added
    assert "Detach" not in added


@aio
async def test_a_password_where_tor_wants_one(carrier: Carrier, tor: FakeControl) -> None:
    tor.methods = "HASHEDPASSWORD"
    async with tor.running():
        onion = service(tor, tor.password)
        await onion.start()
        await onion.stop()
        with pytest.raises(TorRefused, match="Tor does not log in: got 515 Authentication failed"):
            await service(tor, "wrong").start()
        with pytest.raises(TorRefused, match="wants another way in: expected its cookie"):
            await service(tor).start()
    assert tor.services == {}


@aio
async def test_a_unix_socket(carrier: Carrier, tor: FakeControl, tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(tor._serve, tmp_path / "control")
    onion = OnionService(lambda: TorControl(str(tmp_path / "control")), KEY, TARGET)
    await onion.start()
    assert len(tor.services) == 1
    await onion.stop()
    server.close()
    await tor.hang_up()
    await server.wait_closed()


@aio
async def test_a_tor_that_restarts_gets_it_again(carrier: Carrier, tor: FakeControl) -> None:
    async with tor.running(), asyncio.timeout(PATIENCE_S):
        onion = service(tor)
        await onion.start()
        for refusal in (None, b"551 not now\r\n", b"", b"garbage\r\n"):
            if refusal is not None:
                tor.answers["ADD_ONION"] = refusal
            await tor.hang_up()
            await tor.until(0)
            before = tor.heard.count("PROTOCOLINFO 1")
            while refusal is not None and tor.heard.count("PROTOCOLINFO 1") < before + 3:
                await turns(1)
            tor.answers.clear()
            await tor.until(1)
        await onion.stop()
        assert tor.services == {}


@aio
async def test_a_stop_while_tor_is_away(carrier: Carrier, tor: FakeControl) -> None:
    async with tor.running():
        onion = service(tor)
        await onion.start()
    while onion.published:
        await turns(1)
    await onion.stop()


@aio
async def test_a_second_node_with_the_same_key_is_told(carrier: Carrier, tor: FakeControl) -> None:
    async with tor.running():
        first = service(tor)
        await first.start()
        with pytest.raises(TorRefused, match="Tor does not publish the onion service: got 550 Onion address collision"):
            await service(tor).start()
        assert len(tor.services) == 1
        await first.stop()


HOSTILE: dict[str, tuple[str, bytes | None, type[NetworkError], str]] = {
    "stalls at once": ("PROTOCOLINFO", None, Timeout, "PROTOCOLINFO: no answer from Tor"),
    "stalls at the challenge": ("AUTHCHALLENGE", None, Timeout, "AUTHCHALLENGE: no answer"),
    "stalls at the service": ("ADD_ONION", None, Timeout, "ADD_ONION: no answer"),
    "hangs up at once": ("PROTOCOLINFO", b"", TorUnreachable, "broke: got it was closed"),
    "hangs up at the service": ("ADD_ONION", b"", TorUnreachable, "broke"),
    "an HTTP server": ("PROTOCOLINFO", b"HTTP/1.1 400 Bad Request\r\n\r\n", TorFault, "no line of a reply"),
    "a line without an end": ("PROTOCOLINFO", b"250-" + b"a" * 20_000, TorFault, "a reply without an end"),
    "lines without an end": ("PROTOCOLINFO", b"250-a\r\n" * 100, TorFault, "a reply without an end"),
    "lets anybody in": ("PROTOCOLINFO", b"250-AUTH METHODS=NULL\r\n250 OK\r\n", TorRefused, "way in: .*got NULL"),
    "wants the cookie itself": ("PROTOCOLINFO", b"250-AUTH METHODS=COOKIE\r\n250 OK\r\n", TorRefused, "another way in"),
    "names no file": ("PROTOCOLINFO", b"250-AUTH METHODS=SAFECOOKIE\r\n250 OK\r\n", NetworkError, "cookie"),
    "names another file": (
        "PROTOCOLINFO", b'250-AUTH METHODS=SAFECOOKIE COOKIEFILE="/etc/passwd"\r\n250 OK\r\n', TorFault, "32 bytes"),
    "names a device": (
        "PROTOCOLINFO", b'250-AUTH METHODS=SAFECOOKIE COOKIEFILE="/dev/zero"\r\n250 OK\r\n', TorFault, "32 bytes"),
    "names no file that is there": (
        "PROTOCOLINFO", b'250-AUTH METHODS=SAFECOOKIE COOKIEFILE="/nowhere"\r\n250 OK\r\n', IoError, "debian-tor"),
    "does not have the cookie": (
        "AUTHCHALLENGE", b"250 AUTHCHALLENGE SERVERHASH=" + b"00" * 32 + b" SERVERNONCE=" + b"00" * 32 + b"\r\n",
        TorFault, "does not have Tor's cookie"),
    "knows no challenge": ("AUTHCHALLENGE", b"510 Unrecognized command\r\n", TorFault, "no answer to a challenge"),
    "lets us not in": ("AUTHENTICATE", b"515 Bad authentication\r\n", TorRefused, "log in: got 515"),
    "publishes another": ("ADD_ONION", b"250-ServiceID=" + b"a" * 56 + b"\r\n250 OK\r\n", TorFault, "another service"),
    "knows no version 3": ("ADD_ONION", b"513 Invalid key type\r\n", TorRefused, "publish the onion service: got 513"),
}  # fmt: skip


@pytest.mark.parametrize(("word", "answer", "kind", "words"), HOSTILE.values(), ids=HOSTILE)
@aio
async def test_whoever_listens_there_gets_no_key_unless_it_is_tor(
    carrier: Carrier, tor: FakeControl, word: str, answer: bytes | None, kind: type[NetworkError], words: str
) -> None:
    tor.answers[word] = answer
    async with tor.running(), asyncio.timeout(PATIENCE_S):
        onion = service(tor, timeout_s=0.1 if answer is None else PATIENCE_S)
        with pytest.raises(kind, match=words):
            await onion.start()
        assert not onion.published
        await onion.stop()
    told = any(line.startswith("ADD_ONION") for line in tor.heard)
    assert told is (word == "ADD_ONION"), "the key is told after both have proved who they are"


@aio
async def test_nobody_listens(carrier: Carrier, tor: FakeControl, tmp_path: Path) -> None:
    async with tor.running():
        pass
    for place in (tor.place, str(tmp_path / "none")):
        with pytest.raises(TorUnreachable, match=f"no Tor at {re.escape(place)}: .*CookieAuthentication 1"):
            await OnionService(lambda place=place: TorControl(place), KEY, TARGET).start()  # type: ignore[misc]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@aio
async def test_a_cookie_that_we_may_not_read(carrier: Carrier, tor: FakeControl) -> None:
    tor.cookie_file.chmod(0)
    async with tor.running():
        with pytest.raises(IoError, match="be in the group debian-tor"):
            await service(tor).start()


@pytest.mark.parametrize("place", ["127.0.0.1:9051", "[::1]:9051", "/run/tor/control"])
def test_where_tor_may_be(place: str) -> None:
    assert check_control(place) == place


@pytest.mark.parametrize(
    "place", ["", "9051", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x", "192.0.2.7:9051", "localhost:9051"]
)
def test_where_it_may_not(place: str) -> None:
    with pytest.raises(LocalError, match=r"expected 127\.0\.0\.1:9051, or /run/tor/control"):
        check_control(place)
