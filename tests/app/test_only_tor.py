"""With --only-tor nothing leaves but to the proxy: a whole node, seen by the kernel and by the interpreter."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.nodes import RunningNode, cli, make_data
from app.only_tor_world import BACKEND, BOBS, STRAIGHT, FakeTorProcess, alice, asked_for_more
from musignet.app.chain.url import open_backend
from musignet.app.chain.way import ChainWay
from musignet.app.config import Config
from musignet.app.leak import Leak
from musignet.app.proxies import SEALED, chain_way, check_advertised, route_of, sealed
from musignet.chain import Chain
from musignet.errors import IoError, LocalError, NetworkError
from musignet.limits import Limits
from musignet.wire.onion import onion_host

TESTS = Path(__file__).resolve().parents[1]
SOCKS5 = "127.0.0.1:9050"
ONLY = Config(proxy_socks5=SOCKS5, only_tor=True)
ONION = onion_host(bytes(32))

# --- a whole node -----------------------------------------------------------------------------------------------------


_IPV6_OFF = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
_PROBE = f"ip link add v0 type veth peer name v1 && {{ [ ! -e {_IPV6_OFF} ] || echo 1 > {_IPV6_OFF}; }}"


def _unshare() -> list[str]:
    """Return the command that makes a network namespace here, or nothing."""
    command = ["unshare", "-n" if os.geteuid() == 0 else "-Urn"]
    if not (shutil.which("unshare") and shutil.which("ip")):
        return []
    probed = subprocess.run([*command, "sh", "-c", _PROBE], capture_output=True, check=False)
    return command if probed.returncode == 0 else []


def world(path: Path, *args: str) -> dict[str, Any]:
    """Run a node in a network namespace, and return what was seen of it."""
    pytest.importorskip("bdkpython", reason="its chain backend needs bdkpython")
    namespace = _unshare()
    if not namespace:
        pytest.skip("needs network namespaces (unshare and ip, as root or with user namespaces)")
    command = [*namespace, sys.executable, str(TESTS / "app" / "only_tor_world.py"), str(path), *args]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.driver
def test_no_packet_leaves_by_another_way(tmp_path: Path) -> None:
    seen = world(tmp_path)
    assert seen["left"] == []
    assert seen["here"] == sorted([f"SYN 127.0.0.1:{seen['proxy']}", f"SYN 127.0.0.1:{seen['bob']}"]), (
        "bob by the proxy"
    )
    assert seen["asked"] == sorted([*STRAIGHT, BOBS, BACKEND]), "and it did all its work"
    assert "listening on 127.0.0.1:" in seen["ready"]
    assert f"nothing leaves but to the proxy at 127.0.0.1:{seen['proxy']}" in seen["ready"]
    assert seen["path"] == ["proxied by tcp", ""], "no address promises a better path here"
    assert seen["stopped"] == 0


@pytest.mark.driver
def test_without_it_the_same_node_is_seen(tmp_path: Path) -> None:
    """The proof that the test above would see what leaves."""
    seen = world(tmp_path, "all")
    assert {f"SYN {STRAIGHT[0]}:8737", f"SYN {STRAIGHT[2]}:8737"} <= set(seen["left"])
    assert any(what.startswith("UDP ") and what.endswith(":53") for what in seen["left"]), "names are looked up"
    assert "UDP 10.77.0.254:5351" in seen["left"], "the router is asked for a port"
    assert any(what.startswith("UDP 10.77.0.255:") for what in seen["left"]), "peers are looked for next door"
    assert seen["asked"] == [BOBS]


def audited(path: Path, straight: Sequence[str] = STRAIGHT, **settings: Any) -> tuple[set[str], set[str], int]:
    """Run a node on asyncio's own loop; return what its interpreter did, what the proxy was asked for, and its port."""
    with FakeTorProcess() as tor:
        data = alice(path, tor, straight, **settings)
        command = [sys.executable, str(TESTS / "app" / "audited.py"), str(data), "alice"]
        with RunningNode(data, command=command) as node:
            node.expect(r" on regtest; ")
            asked_for_more(data, straight)
            if not settings["only_tor"]:
                node.expect(f"AUDIT socket.getaddrinfo {straight[1]}")  # peers are dialled when their time has come
            node.stop()
        return set(re.findall(r"AUDIT (.*)", node.seen)), set(tor.asked), tor.port


@pytest.mark.driver
def test_the_interpreter_contacts_the_proxy_only_and_asks_for_no_name(tmp_path: Path) -> None:
    done, asked, proxy = audited(tmp_path / "alice", only_tor=True)
    contacted = {line for line in done if line.startswith(("socket.connect", "socket.send"))}
    assert contacted == {f"socket.connect 127.0.0.1:{proxy}"}
    rest = {line.split()[1].rpartition(":")[0] or line.split()[1] for line in done - contacted}
    assert all(ip_address(host).is_loopback for host in rest), "listening here, and numbers are no names"
    assert {BOBS, *STRAIGHT} <= asked


@pytest.mark.driver
def test_the_interpreter_is_heard_without_it(tmp_path: Path) -> None:
    """With places on this machine, as nothing keeps it from dialling them."""
    straight = ("127.0.0.77", "localhost", "127.0.0.88", "127.0.0.99", "127.0.0.66")
    done, _, _ = audited(
        tmp_path / "alice",
        straight,
        only_tor=False,
        chain_backend="",
        nat_punch=False,
        nat_map_port="off",
        discovery_interfaces=(),
    )
    assert {f"socket.connect {straight[0]}:8737", f"socket.connect {straight[2]}:8737"} <= done
    assert f"socket.getaddrinfo {straight[1]}" in done
    assert any(line.startswith("socket.bind 0.0.0.0:") for line in done)


@pytest.mark.driver
def test_the_flag_is_the_setting(tmp_path: Path) -> None:
    assert cli(tmp_path / "data", "init", "--network", "regtest", "--insecure-no-passphrase").returncode == 0
    refused = cli(tmp_path / "data", "run", "--only-tor")
    assert refused.returncode == 1
    assert 'only through Tor, and no proxy is named; set socks5 = "127.0.0.1:9050" in [proxy]' in refused.stderr
    file = tmp_path / "data" / "config.toml"
    file.write_text(file.read_text().replace("[proxy]", f'[proxy]\nsocks5 = "{SOCKS5}"'))
    command = [sys.executable, "-m", "musignet", "run", "--data", str(tmp_path / "data"), "--only-tor"]
    with RunningNode(tmp_path / "data", command=command) as node:
        assert f"nothing leaves but to the proxy at {SOCKS5}" in node.ready()
        assert node.stop() == 0


@pytest.mark.driver
def test_an_invite_names_only_onion_services(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", "alice", only_tor=True, proxy_socks5=SOCKS5)
    with RunningNode(data, "alice") as node:
        node.ready()
        refused = cli(data, "invite", "--address", "203.0.113.5:8737")
        assert refused.returncode == 1
        assert "--address: 203.0.113.5:8737 tells others where this node is" in refused.stderr
        node.stop()


# --- the settings -----------------------------------------------------------------------------------------------------

QUIET = frozenset(
    """label network listen_port tls_port discovery_port auto_connect api_tcp_port metrics_port limits relays
    log_level log_format log_file log_lines_per_s proxy_socks5 proxy_login proxy_http only_tor
    onion_service onion_control onion_passfile nat_turn_username nat_turn_password chain_broadcast""".split()
)
"""Nothing leaves by these: files, names, loopback ports, and what goes through the proxy."""
CHECKED = frozenset(("listen_host", "advertise", "chain_backend"))
"""Changed, or refused, below."""


def test_each_setting_was_thought_of() -> None:
    """A new one goes into QUIET where nothing leaves by it, else into SEALED of `app/proxies.py`."""
    assert QUIET | CHECKED | SEALED.keys() == {one.name for one in fields(Config)}
    assert not (QUIET | CHECKED) & SEALED.keys()
    assert not QUIET & CHECKED


def test_without_only_the_settings_are_those_of_the_file() -> None:
    config = Config(listen_host="0.0.0.0", advertise=("192.0.2.7:8737",))
    assert sealed(config) is config


def test_what_can_be_turned_off_is() -> None:
    config = sealed(ONLY)
    assert {name: getattr(config, name) for name in SEALED} == SEALED


@pytest.mark.parametrize(
    ("host", "held"),
    [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("192.168.1.5", "127.0.0.1"), ("node.example", "127.0.0.1"),
     ("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.9", "127.0.0.9"), ("::1", "::1"), ("", "")],
)  # fmt: skip
def test_only_this_machine_reaches_the_listener(host: str, held: str) -> None:
    assert sealed(replace(ONLY, listen_host=host)).listen_host == held


@pytest.mark.parametrize("address", ["192.0.2.7:8737", "[2001:db8::1]:8737", "node.example:8737", "tls://192.0.2.7:1"])
def test_an_address_that_says_where_we_are_is_refused(address: str) -> None:
    with pytest.raises(Leak, match=rf"^\[listen\] advertise: {re.escape(address)} tells others where this node is"):
        sealed(replace(ONLY, advertise=(f"{ONION}:8737", address)))
    check_advertised(Config(), (address,), "--address")


def test_addresses_that_do_not_say_where_we_are_may_be_told() -> None:
    told = (f"{ONION}:8737", f"tls://{ONION}:8738", "wss://relay.example", "ice:")
    assert sealed(replace(ONLY, advertise=told)).advertise == told


def test_without_a_proxy_it_does_not_start() -> None:
    with pytest.raises(LocalError, match="no proxy is named"):
        sealed(Config(only_tor=True))
    with pytest.raises(LocalError, match="everything through a proxy, and no proxy"):
        route_of(Config(proxy_everything=True))


def test_the_route_that_a_configuration_means() -> None:
    assert route_of(Config()).through("192.0.2.7") is None
    assert route_of(Config(proxy_socks5=SOCKS5)).through("192.0.2.7") is None
    assert route_of(Config(proxy_socks5=SOCKS5)).through(ONION) is not None
    assert route_of(Config(proxy_socks5=SOCKS5, proxy_everything=True)).through("192.0.2.7") is not None
    assert route_of(sealed(ONLY)).through("127.0.0.1") is not None


def test_the_proxys_bound_is_that_of_the_limits() -> None:
    (proxy,) = {route_of(replace(ONLY, limits=replace(Limits(), proxy_dial_timeout_s=7.0))).through(ONION)}
    assert proxy._timeout_s == 7.0  # type: ignore[union-attr]


def test_a_login_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "login"
    path.write_text("alice:correct:horse\n")
    proxy = route_of(replace(ONLY, proxy_login=str(path))).through(ONION)
    assert proxy._login == ("alice", "correct:horse")  # type: ignore[union-attr]
    path.write_text("alice")
    with pytest.raises(IoError, match="expected USER:PASSWORD in one line"):
        route_of(replace(ONLY, proxy_login=str(path)))
    with pytest.raises(IoError, match="cannot read the proxy's login"):
        route_of(replace(ONLY, proxy_login=str(tmp_path / "missing")))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "musignet.net.transport.proxy", raising=False)
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(LocalError, match=r"pip install.*musignet\[tor\]"):
        route_of(ONLY)


# --- the chain backend ------------------------------------------------------------------------------------------------

HTTP = "127.0.0.1:9080"
WAYS: dict[str, ChainWay] = {
    "straight": ChainWay(),
    "a proxy": ChainWay(SOCKS5, HTTP),
    "everything": ChainWay(SOCKS5, HTTP, everything=True),
    "only": ChainWay(SOCKS5, HTTP, everything=True, only=True),
    "only, no tunnel": ChainWay(SOCKS5, everything=True, only=True),
}


@pytest.mark.parametrize(
    ("way", "url", "proxy"),
    [
        ("straight", "electrum+ssl://a.example:1", None),
        ("a proxy", "electrum+ssl://a.example:1", None),
        ("a proxy", f"electrum://{ONION}:1", SOCKS5),
        ("a proxy", f"esplora+http://{ONION}", HTTP),
        ("everything", "electrum+ssl://a.example:1", SOCKS5),
        ("everything", "esplora+https://a.example/api", HTTP),
        ("everything", "esplora+http://localhost:3002", None),
        ("everything", "core+http://127.0.0.1:8332", None),
        ("only", "electrum+ssl://a.example:1", SOCKS5),
        ("only", "electrum://192.168.1.5:1", SOCKS5),
        ("only", "electrum://[::1]:1", None),
        ("only", "esplora+http://127.0.0.1:3002", None),
        ("only", "esplora+https://a.example/api", HTTP),
        ("only", "core+http://127.0.0.1:8332", None),
    ],
)
def test_the_way_to_a_backend(way: str, url: str, proxy: str | None) -> None:
    assert WAYS[way].proxy_for(urlsplit(url)) == proxy


@pytest.mark.parametrize(
    ("way", "url", "words"),
    [
        ("straight", f"electrum://{ONION}:1", 'set socks5 = "127.0.0.1:9050"'),
        ("straight", f"esplora+http://{ONION}", 'set http = "127.0.0.1:9080"'),
        ("a proxy", f"core+http://{ONION}:8332", "Bitcoin Core on another machine"),
        ("everything", "core+http://192.168.1.5:8332", "Bitcoin Core on another machine"),
        ("only", "core+http://localhost:8332", "use core.http://127.0.0.1:8332"),
        ("only, no tunnel", "esplora+https://a.example/api", "Esplora at a.example would be asked without a proxy"),
        ("only, no tunnel", "esplora+http://localhost:3002", "for this machine write 127.0.0.1"),
    ],
)
def test_a_backend_that_would_be_asked_without_a_proxy_is_refused(way: str, url: str, words: str) -> None:
    with pytest.raises(Leak, match=rf"^\[chain\] backend: .*{words}"):
        WAYS[way].proxy_for(urlsplit(url))


@pytest.mark.driver
def test_a_node_with_such_a_backend_does_not_start(tmp_path: Path) -> None:
    settings = {"only_tor": True, "proxy_socks5": SOCKS5, "chain_backend": "esplora+https://a.example/api"}
    with RunningNode(make_data(tmp_path / "data", "alice", **settings), "alice") as node:
        node.expect(r"Error: \[chain\] backend: Esplora at a.example would be asked without a proxy; set http")
        assert node.process.wait(10) == 1


def test_the_way_of_a_configuration() -> None:
    assert chain_way(Config()) == ChainWay()
    assert chain_way(sealed(replace(ONLY, proxy_http=HTTP))) == WAYS["only"]


@pytest.mark.driver
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("esplora+https://a.example/api", b"CONNECT a.example:443 HTTP/1.1\r\n"),
        ("electrum://a.example:50001", bytes((5, 1, 0))),
    ],
)
def test_the_real_clients_ask_the_proxy(url: str, said: bytes) -> None:
    """The proxy hangs up after the first bytes, which are the client's own."""
    pytest.importorskip("bdkpython", reason="no bdkpython here")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(10)
        here = f"127.0.0.1:{listener.getsockname()[1]}"
        backend = open_backend(url, Chain.REGTEST, ChainWay(here, here, everything=True, only=True))
        asking = pool.submit(backend.fee_rate, 6)
        caller, _ = listener.accept()
        with caller:
            caller.settimeout(10)
            assert caller.recv(4096).startswith(said)
        with pytest.raises(NetworkError):
            asking.result(10)
