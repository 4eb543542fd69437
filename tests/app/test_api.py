"""The local API: who may do what, what is refused before it is read, and what it says of itself."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.nodes import GROUP, GROUP_FILE, make_data
from musignet.app import config
from musignet.app.api.openapi import describe
from musignet.app.api.route import MAY, Endpoint, Role
from musignet.app.api.serve import Api, peer_uid, tcp_socket, token_file
from musignet.app.api.table import ENDPOINTS
from musignet.app.client import ApiError, Client, NotRunning
from musignet.app.daemon import Daemon
from musignet.app.events import MISSED, Events
from musignet.app.keys import KeysHere
from musignet.app.places import API_SOCKET as SOCKET
from musignet.errors import IoError, Timeout, TransportError
from musignet.limits import (
    API_BODY_MAX_BYTES,
    API_CONNECTIONS_MAX,
    API_EVENT_CLIENTS_MAX,
    API_EVENTS_WAITING_MAX,
    API_IDLE_S,
)
from musignet.net.folder import DataFolder
from musignet.node.pairing import Role as Pairer
from musignet.node.pairing import hello_proof
from musignet.node.peers import PeerInfo
from musignet.wire.messages import PairHello
from support.ceremony import account, identity

pytestmark = pytest.mark.driver

ROOT = Path(__file__).resolve().parents[2]
BOB = PeerInfo(id="bob", pubkey_hex=identity("bob").pubkey_hex)


@asynccontextmanager
async def running(path: Path, **settings: Any) -> AsyncIterator[tuple[Daemon, Api]]:
    """Alice's node with its API."""
    make_data(path, "alice", groups=[GROUP_FILE], peers=[BOB], listen_host="", **settings)
    folder = DataFolder.lock(path)
    keys = KeysHere({GROUP.id: account("alice", GROUP)})
    daemon = Daemon(folder, config.load(path), identity("alice"), keys)
    api = Api(daemon)
    await daemon.start()
    try:
        await api.start()
        yield daemon, api
    finally:
        await daemon.stop()
        await api.stop()
        folder.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(port: int, method: str, route: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """One request over TCP. Returns the code and the JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, route, data, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        if answer.headers.get_content_type() == "text/event-stream":
            return answer.status, None
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def over_tcp(path: Path, work: Callable[[int, dict[Role, str]], None]) -> None:
    """Run `work` on a thread, with the port and the tokens."""

    async def main() -> None:
        port = free_port()
        async with running(path, api_tcp_port=port):
            tokens = {role: token_file(path, role).read_text().strip() for role in TOKEN_ROLES}
            await asyncio.to_thread(work, port, tokens)

    asyncio.run(main())


# --- roles --------------------------------------------------------------------------------------------------------

TOKEN_ROLES = (Role.ADMIN, Role.WALLET, Role.WATCH)

NEEDS = {
    ("GET", "/v1/status"): "read",
    ("GET", "/v1/peers"): "read",
    ("POST", "/v1/peers/{peer}/rename"): "admin",
    ("DELETE", "/v1/peers/{peer}"): "admin",
    ("POST", "/v1/invites"): "admin",
    ("DELETE", "/v1/invites/{invite}"): "admin",
    ("GET", "/v1/pairings"): "admin",
    ("POST", "/v1/pairings"): "admin",
    ("GET", "/v1/pairings/{key}"): "admin",
    ("POST", "/v1/pairings/{key}/confirm"): "admin",
    ("POST", "/v1/pairings/{key}/refuse"): "admin",
    ("DELETE", "/v1/pairings/{key}"): "admin",
    ("GET", "/v1/discovery"): "read",
    ("POST", "/v1/discovery/look"): "admin",
    ("GET", "/v1/foundings"): "read",
    ("POST", "/v1/foundings"): "admin",
    ("GET", "/v1/foundings/{founding}"): "read",
    ("POST", "/v1/foundings/{founding}/join"): "admin",
    ("POST", "/v1/foundings/{founding}/confirm"): "approve",
    ("POST", "/v1/foundings/{founding}/refuse"): "admin",
    ("POST", "/v1/groups/import"): "approve",
    ("GET", "/v1/groups/{group}/address"): "read",
    ("POST", "/v1/groups/{group}/address"): "propose",
    ("GET", "/v1/groups"): "read",
    ("GET", "/v1/groups/{group}"): "read",
    ("POST", "/v1/groups/{group}/relays"): "admin",
    ("POST", "/v1/groups/{group}/sync"): "propose",
    ("GET", "/v1/groups/{group}/wallet"): "read",
    ("POST", "/v1/groups/{group}/psbt"): "propose",
    ("POST", "/v1/sessions/{session}/broadcast"): "propose",
    ("GET", "/v1/sessions"): "read",
    ("POST", "/v1/sessions"): "propose",
    ("GET", "/v1/sessions/{session}"): "read",
    ("POST", "/v1/sessions/{session}/consent"): "approve",
    ("POST", "/v1/sessions/{session}/reject"): "approve",
    ("POST", "/v1/sessions/{session}/cancel"): "approve",
    ("GET", "/v1/sessions/{session}/export"): "read",
    ("POST", "/v1/sessions/{session}/import"): "approve",
    ("POST", "/v1/outbox/{peer}"): "admin",
    ("POST", "/v1/inbox"): "admin",
    ("GET", "/v1/key"): "admin",
    ("GET", "/v1/events"): "read",
    ("GET", "/v1/openapi.json"): "read",
}
"""Written out here a second time, on purpose: a route that changes what it needs changes this table too."""

ROLES = {
    Role.OWNER: {"read", "propose", "approve", "admin"},
    Role.ADMIN: {"read", "propose", "approve", "admin"},
    Role.WALLET: {"read", "propose"},
    Role.WATCH: {"read"},
}


def test_the_role_matrix_is_as_it_was_decided() -> None:
    assert {(one.method, one.path): one.needs.value for one in ENDPOINTS} == NEEDS
    assert {role: {one.value for one in may} for role, may in MAY.items()} == ROLES


def test_each_role_can_use_its_routes_and_no_other(tmp_path: Path) -> None:
    def work(port: int, tokens: dict[Role, str]) -> None:
        assert len(set(tokens.values())) == len(TOKEN_ROLES)
        for role in TOKEN_ROLES:
            for (method, path), needs in NEEDS.items():
                route = path.replace("{peer}", "nobody").replace("{group}", "nothing").replace("{session}", "ff")
                code, _ = ask(port, method, route, {}, Authorization=f"Bearer {tokens[role]}")
                assert (code == 403) == (needs not in ROLES[role]), (role, method, path, code)
                assert code != 401

    over_tcp(tmp_path / "a", work)


REFUSED: list[tuple[str, dict[str, str]]] = [
    ("no token", {}),
    ("a wrong token", {"Authorization": f"Bearer {'0' * 64}"}),
    ("an empty token", {"Authorization": "Bearer "}),
    ("a token cut short", {"Authorization": "Bearer {token:.63}"}),
    ("not a bearer", {"Authorization": "{token}"}),
    ("basic", {"Authorization": "Basic {token}"}),
    ("a foreign host", {"Authorization": "Bearer {token}", "Host": "evil.example:{port}"}),
    ("a foreign host with our port's name", {"Authorization": "Bearer {token}", "Host": "127.0.0.1.evil.example"}),
    ("no port", {"Authorization": "Bearer {token}", "Host": "127.0.0.1"}),
    ("a web page", {"Authorization": "Bearer {token}", "Origin": "http://127.0.0.1:{port}"}),
    ("a web page without an origin", {"Authorization": "Bearer {token}", "Origin": "null"}),
]


def test_over_tcp_nobody_is_answered_without_a_token_a_host_of_ours_and_no_browser(tmp_path: Path) -> None:
    def work(port: int, tokens: dict[Role, str]) -> None:
        token = tokens[Role.ADMIN]
        for what, headers in REFUSED:
            filled = {name: value.format(token=token, port=port) for name, value in headers.items()}
            code, problem = ask(port, "GET", "/v1/status", **filled)
            assert (code, problem["kind"]) == (401, "Unauthorised"), what
            assert token not in json.dumps(problem)
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            code, found = ask(port, "GET", "/v1/status", Authorization=f"Bearer {token}", Host=host)
            assert (code, found["label"]) == (200, "alice")
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(
                f"GET /v1/status HTTP/1.1\r\nHost: evil\r\nHost: 127.0.0.1:{port}\r\n"
                f"Authorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode()
            )
            assert b" 400 " in raw.recv(100) or b" 401 " in raw.recv(100)

    over_tcp(tmp_path / "a", work)


def test_strangers_of_this_machine_hold_few_connections_and_not_for_long(tmp_path: Path) -> None:
    """Another user reaches the TCP port: without a bound it would take the node's descriptors, links and all."""

    def work(port: int, tokens: dict[Role, str]) -> None:
        with ExitStack() as stack:
            held = [stack.enter_context(_half_a_request(port)) for _ in range(API_CONNECTIONS_MAX + 1)]
            held[-1].settimeout(API_IDLE_S / 2)
            assert _hung_up(held[-1])  # at once
            assert _hung_up(held[0])
        assert ask(port, "GET", "/v1/status", Authorization=f"Bearer {tokens[Role.WATCH]}")[0] == 200

    over_tcp(tmp_path / "a", work)


def _half_a_request(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=4 * API_IDLE_S)
    made.sendall(b"GET /v1")
    return made


def _hung_up(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


def test_answers_carry_no_permission_for_web_pages(tmp_path: Path) -> None:
    def work(port: int, tokens: dict[Role, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("OPTIONS", "/v1/status", headers={"Origin": "http://evil.example"})
        answer = connection.getresponse()
        assert answer.status == 405
        assert [name for name in answer.headers if name.lower().startswith("access-control")] == []
        connection.close()

    over_tcp(tmp_path / "a", work)


def test_tcp_is_off_unless_it_is_set_and_tokens_are_private(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "off") as (_, api):
            assert api.port == 0
            assert list((tmp_path / "off").glob("*.token")) == []
        async with running(tmp_path / "on", api_tcp_port=free_port()):
            for role in TOKEN_ROLES:
                assert stat.S_IMODE(token_file(tmp_path / "on", role).stat().st_mode) == 0o600
        first = token_file(tmp_path / "on", Role.ADMIN)
        for text, mode, sentence in (("x" * 64, 0o600, "64 hex"), ("ab" * 32, 0o644, "mode 600"), ("ab", 0o600, "64")):
            first.write_text(text)
            first.chmod(mode)
            with pytest.raises(IoError, match=sentence):
                await _again(tmp_path / "on")

    asyncio.run(main())


async def _again(path: Path) -> None:
    folder = DataFolder.lock(path)
    daemon = Daemon(folder, config.load(path), identity("alice"), KeysHere({GROUP.id: account("alice", GROUP)}))
    api = Api(daemon)
    await daemon.start()
    try:
        await api.start()
    finally:
        await daemon.stop()
        await api.stop()
        folder.close()


# --- the Unix socket ----------------------------------------------------------------------------------------------

_STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
try:
    one.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(one.recv(100))
except OSError as error:
    print("hung up:", type(error).__name__)
"""


def test_the_socket_is_the_owners_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "a"):
            path = tmp_path / "a" / SOCKET
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            status = await asyncio.to_thread(Client(path).get, "/v1/status")
            assert status["label"] == "alice"
        assert not path.exists()

    asyncio.run(main())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_hung_up_on_even_where_the_socket_can_be_reached() -> None:
    def stranger(path: Path) -> str:
        path.chmod(0o755)
        (path / "a").chmod(0o711)
        (path / "a" / SOCKET).chmod(0o666)
        command = [sys.executable, "-c", _STRANGER, str(path / "a" / SOCKET)]
        return subprocess.check_output(command, text=True, timeout=30, cwd="/")

    async def main(path: Path) -> str:
        async with running(path / "a"):
            return await asyncio.to_thread(stranger, path)

    with tempfile.TemporaryDirectory() as folder:
        said = asyncio.run(main(Path(folder)))
    assert said.strip() in ("b''", "hung up: ConnectionResetError", "hung up: BrokenPipeError")


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


def test_a_path_too_long_for_a_socket_is_one_sentence(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / ("x" * 120)):
            pass

    with pytest.raises(IoError, match="choose a shorter data folder"):
        asyncio.run(main())


def test_a_port_that_two_have_bound_is_whose_who_listens_first() -> None:
    """Else the second one would wait without end for a server that never begins."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.socket())
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        stack.enter_context(tcp_socket(port))
        with pytest.raises(OSError, match="in use"):
            first.listen()
        with pytest.raises(IoError, match="another program may have this port"):
            tcp_socket(port)


def test_what_a_killed_node_left_there_is_replaced(tmp_path: Path) -> None:
    make_data(tmp_path / "a", "alice")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "a" / SOCKET))
    with pytest.raises(NotRunning, match="musignet run"):
        Client(tmp_path / "a" / SOCKET).get("/v1/status")
    asyncio.run(_again(tmp_path / "a"))


# --- bodies -------------------------------------------------------------------------------------------------------


def on_socket(path: Path, work: Callable[[Client], None]) -> None:
    async def main() -> None:
        async with running(path):
            await asyncio.to_thread(work, Client(path / SOCKET))

    asyncio.run(main())


def test_bad_requests_have_a_code_a_kind_and_a_sentence(tmp_path: Path) -> None:
    bad: list[tuple[str, object, int, str]] = [
        ("/v1/sessions", {"group": "savings"}, 400, "SerializationError"),
        ("/v1/sessions", {"group": "savings", "psbt": "!"}, 400, "SerializationError"),
        ("/v1/sessions", {"group": "savings", "psbt": "\u00e9"}, 400, "SerializationError"),
        ("/v1/inbox", {"sealed": "\u00e9"}, 400, "SerializationError"),
        ("/v1/groups/import", {"file": "\u00e9"}, 422, "InvalidMessage"),
        ("/v1/sessions", {"group": "savings", "psbt": "", "expires_in_s": 1e9}, 400, "SerializationError"),
        ("/v1/sessions", {"group": "savings", "psbt": "", "surprise": 1}, 400, "SerializationError"),
        ("/v1/sessions", {"group": "none", "psbt": ""}, 404, "NotFound"),
        ("/v1/sessions", [], 400, "SerializationError"),
        ("/v1/sessions/ff/consent", {"proof": "00"}, 404, "NotFound"),
        ("/v1/peers/nobody/rename", {"label": "x"}, 404, "PeerNotFound"),
        ("/v1/peers/bob/rename", {"label": "a\x1b[31m"}, 422, "InvalidMessage"),
        ("/v1/peers/bob/rename", {"label": "a\u202eb"}, 422, "InvalidMessage"),
        ("/v1/peers/bob/rename", {"label": "../../etc"}, 422, "InvalidMessage"),
        ("/v1/peers/bob/rename", {"label": ""}, 422, "InvalidMessage"),
        ("/v1/peers/bob/rename", {"label": "carol"}, 403, "AuthenticationError"),
        ("/v1/nonsense", {}, 404, "NoSuchRoute"),
        ("/v1/sessions/", {"group": "savings", "psbt": ""}, 404, "NoSuchRoute"),
        ("/v1/status", {}, 405, "NoSuchRoute"),
    ]

    def work(client: Client) -> None:
        for route, body, status, kind in bad:
            with pytest.raises(ApiError) as caught:
                client.post(route, body)
            assert (caught.value.status, caught.value.kind) == (status, kind), route
            assert str(caught.value).isascii()
            assert str(caught.value).isprintable()
        for psbt in ("", "bm8="):
            with pytest.raises(ApiError) as caught:
                client.post("/v1/sessions", {"group": "savings", "psbt": psbt})
            assert caught.value.status in (400, 422)

    on_socket(tmp_path / "a", work)


def test_a_body_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    def work(client: Client) -> None:
        with pytest.raises(ApiError) as caught:
            client.post("/v1/sessions", {"group": "savings", "psbt": "A" * API_BODY_MAX_BYTES})
        assert (caught.value.status, caught.value.kind) == (413, "TooLarge")

    on_socket(tmp_path / "a", work)


def test_peers_are_renamed_and_forgotten_for_good(tmp_path: Path) -> None:
    dave = PeerInfo(id="dave", pubkey_hex=identity("dave").pubkey_hex)

    async def main() -> None:
        async with running(tmp_path / "a") as (daemon, _):
            daemon.pin(dave)
            client = Client(tmp_path / "a" / SOCKET)
            found = await asyncio.to_thread(client.post, "/v1/peers/dave/rename", {"label": "dave 2"})
            assert (found["label"], found["pinned"]) == ("dave 2", True)
            found = await asyncio.to_thread(client.post, "/v1/peers/bob/rename", {"label": "robert"})
        folder = DataFolder.lock(tmp_path / "a")
        daemon = Daemon(
            folder, config.load(tmp_path / "a"), identity("alice"), KeysHere({GROUP.id: account("alice", GROUP)})
        )
        assert sorted(one.id for one in daemon.pins) == ["dave 2", "robert"]
        await daemon.start()
        assert sorted(one.info.id for one in daemon.network.peers()) == ["carol", "dave 2", "robert"]
        await daemon.forget("dave 2")
        assert daemon.pins.get(dave.pubkey_hex) is None
        assert daemon.label_of(identity("dave").pubkey) == identity("dave").pubkey_hex[2:10]
        await daemon.stop()
        await daemon.stop()
        folder.close()

    asyncio.run(main())


# --- events -------------------------------------------------------------------------------------------------------


def test_events_come_as_they_happen_until_the_node_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "a") as (daemon, _):
            client = Client(tmp_path / "a" / SOCKET)
            events = await asyncio.to_thread(client.events)
            daemon.events.publish("group", name="first")
            daemon.events.publish("group", name="second")
            for name in ("first", "second"):
                assert await asyncio.to_thread(next, events) == {"event": "group", "name": name}
            last = asyncio.create_task(asyncio.to_thread(list, events))
        assert await last == []
        with pytest.raises(NotRunning):
            client.events()

    asyncio.run(main())


def test_a_reader_waits_no_longer_than_it_said(tmp_path: Path) -> None:
    def work(client: Client) -> None:
        with pytest.raises(Timeout, match="nothing came in time"):
            list(client.events(0.05))

    on_socket(tmp_path / "a", work)


def test_a_slow_reader_is_told_that_it_missed_some_and_holds_nobody_up() -> None:
    async def main() -> None:
        events = Events()
        stream = events.listen()
        for number in range(API_EVENTS_WAITING_MAX + 5):
            events.publish("peer", number=number)
        assert await anext(stream) == MISSED
        assert (await anext(stream))["number"] == API_EVENTS_WAITING_MAX + 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert len(events) == 0

    asyncio.run(main())


def test_events_show_nothing_that_a_reader_may_not_ask_for(tmp_path: Path) -> None:
    """`/v1/pairings` is for admins; everybody who may read hears that something happened there."""

    async def main() -> None:
        async with running(tmp_path / "a") as (daemon, _):
            guest, transcript = identity("guest").pubkey, bytes(32)
            invite = daemon.pairings.invite(("127.0.0.1:1",))
            hello = PairHello(hello_proof(Pairer.GUEST, invite.secret, transcript), "guest", ())
            stream = daemon.events.listen()
            daemon.pairings._perform(daemon.pairings.machine.heard(guest, hello, transcript, time.time()))
            (shown,) = daemon.pairings.machine
            assert shown.words
            assert await anext(stream) == {"event": "pairing", "key": guest.hex(), "step": "compare the words"}

    asyncio.run(main())


def test_streams_are_bounded_and_end_with_what_waits_in_them() -> None:
    async def main() -> None:
        events = Events()
        streams = [events.listen() for _ in range(API_EVENT_CLIENTS_MAX)]
        with pytest.raises(TransportError, match="too many event streams"):
            events.listen()
        events.publish("peer")
        events.close()
        assert [[one async for one in stream] for stream in streams] == [[{"event": "peer"}]] * API_EVENT_CLIENTS_MAX

    asyncio.run(main())


# --- what it says of itself ---------------------------------------------------------------------------------------


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(one) for one in node.values()))
    return set().union(*(references(one) for one in node)) if isinstance(node, list) else set()


def test_the_document_describes_every_route_and_refers_to_what_is_there() -> None:
    document = describe(ENDPOINTS)
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == set(NEEDS)
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    assert {one.removeprefix("#/components/schemas/") for one in references(document)} == set(
        document["components"]["schemas"]
    )
    for one, endpoint in zip(operations, sorted(ENDPOINTS, key=_order(document)), strict=True):
        in_path = {name["name"] for name in one["parameters"] if name["in"] == "path"}
        assert in_path == {part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")}
        assert ("requestBody" in one) == (endpoint.body is not None)
    json.dumps(document)


def _order(document: dict[str, Any]) -> Callable[[Endpoint], int]:
    order = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    return lambda one: order.index((one.method, one.path))


def test_the_page_names_every_route_and_no_other() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    named = {tuple(line.split("`")[1].split(" ")) for line in page.splitlines() if re.match(r"\| `[A-Z]+ /", line)}
    assert named == set(NEEDS)
