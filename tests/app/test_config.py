"""`config.toml`: the template is the defaults, and whatever is not understood is refused by name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.app.config import BANDWIDTH, OPTIONS, Config, load, parse, template
from musignet.chain import Chain
from musignet.errors import LocalError
from musignet.limits import Limits

UNUSUAL = Config(
    label='al"ice\\ \u00fc',
    network=Chain.SIGNET,
    listen_host="::",
    listen_port=1,
    advertise=("192.0.2.7:8737", "[2001:db8::1]:8737", "tls://bob.example:443"),
    tls_port=8443,
    auto_connect=False,
    discovery_interfaces=("eth0", "wlan0"),
    discovery_port=9737,
    discovery_mdns=True,
    api_tcp_port=8738,
    log_level="debug",
    log_format="json",
    log_file="/var/log/musignet.log",
    log_lines_per_s=7,
    metrics_port=9000,
    chain_backend="core+http://127.0.0.1:8332",
    chain_broadcast=True,
    proxy_socks5="127.0.0.1:9050",
    proxy_login="/etc/login",
    proxy_http="[::1]:9080",
    proxy_everything=True,
    only_tor=True,
    onion_service="kept",
    onion_control="/run/tor/control",
    onion_passfile="/etc/tor.pass",
    nat_punch=True,
    nat_stun=("stun.example:3478",),
    nat_turn=("turn.example:3478", "tls://[2001:db8::2]:5349"),
    nat_turn_username="alice",
    nat_turn_password='p"w',
    nat_map_port="natpmp",
    relays=("wss://relay.example", "ws://127.0.0.1:7447"),
    limits=replace(Limits(), phase_timeout_s=3.5, unacked_max=7, peer_bytes_per_s=5000),
)


def test_the_template_says_the_defaults_and_sets_nothing() -> None:
    assert parse(template()) == Config()
    assert parse("") == Config()
    assert all(not table for table in tomllib.loads(template()).values())


def test_each_option_is_in_the_template_with_a_note_and_its_default_is_the_one_that_counts() -> None:
    text = template()
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line.split("  #")[0] else line for line in text.splitlines()
    )
    assert parse(uncommented) == Config()
    told = tomllib.loads(uncommented)
    assert {(table, key) for table, keys in told.items() for key in keys} == {
        *((one.table, one.key) for one in OPTIONS),
        *(("bandwidth" if one.name in BANDWIDTH else "limits", one.name) for one in fields(Limits)),
    }
    assert {one.field for one in OPTIONS} | {"limits"} == {one.name for one in fields(Config)}
    assert all(one.note for one in OPTIONS)


def test_the_page_of_settings_is_what_the_tables_say() -> None:
    root = Path(__file__).resolve().parents[2]
    tool = [sys.executable, "tools/configpage.py"]
    made = subprocess.run(tool, cwd=root, capture_output=True, check=True, timeout=60)
    assert (root / "docs/config.md").read_bytes() == made.stdout, "run `make diagrams`"


def test_what_is_set_comes_back() -> None:
    assert UNUSUAL.label in parse(template(UNUSUAL)).label
    assert parse(template(UNUSUAL)) == UNUSUAL
    assert all(getattr(UNUSUAL, one.name) != getattr(Config(), one.name) for one in fields(Config))


REFUSED = [
    ('[relays]\nurls = "wss://one"\n', r"urls in \[relays\]"),
    ('[relays]\nurls = ["192.0.2.7:1"]\n', "at most 4 relays"),
    ('[relays]\nurls = ["wss://a", "wss://b", "wss://c", "wss://d", "wss://e"]\n', "at most 4 relays"),
    ("[nodes]\n", "unknown table .* known: node, listen"),
    ("[node]\nlable = 'x'\n", r"unknown key in \[node\] .*'lable'.* known: label, network"),
    ("label = 'x'\n", "unknown table"),
    ("node = 3\n", r"expected a table \[node\]"),
    ("[node]\nlabel = 3\n", r"label in \[node\].*printable text"),
    ('[node]\nlabel = "a\\u001b"\n', "printable text"),
    ('[node]\nlabel = "a\\u202e"\n', "printable text"),
    (f"[node]\nlabel = '{'x' * 65}'\n", "at most 64 characters"),
    ("[node]\nnetwork = 'litecoin'\n", "mainnet or testnet4"),
    ("[node]\nnetwork = ['regtest']\n", "mainnet or testnet4"),
    ("[listen]\nport = 65536\n", "0 to 65535"),
    ("[listen]\nport = true\n", "0 to 65535"),
    ("[listen]\nport = '1'\n", "0 to 65535"),
    ("[listen]\nport = 1.0\n", "0 to 65535"),
    ("[listen]\nadvertise = 'x'\n", "a list"),
    ("[listen]\nadvertise = [1]\n", "printable text"),
    ("[listen]\nadvertise = ['bob.example']\n", "addresses such as HOST:PORT"),
    ("[tls]\nport = 65536\n", "a whole number from 0 to 65535"),
    ("[peers]\nauto_connect = 1\n", "true or false"),
    ("[proxy]\nsocks5 = '127.0.0.1'\n", "IP:PORT"),
    ("[proxy]\nsocks5 = 'localhost:9050'\n", "no name"),
    ("[proxy]\nsocks5 = '127.0.0.1:0'\n", "IP:PORT"),
    ("[proxy]\nhttp = '127.0.0.1:65536'\n", "IP:PORT"),
    ("[proxy]\nhttp = 9080\n", "printable text"),
    ("[nat]\nstun = ['tls://stun.example:3478']\n", "HOST:PORT"),
    ("[nat]\nturn = ['a:1', 'b:1', 'c:1']\n", "at most 2"),
    ("[nat]\nmap_port = 'yes'\n", "off or auto or natpmp or upnp"),
    ("[discovery]\ninterfaces = 'eth0'\n", r"a list, such as .*eth0"),
    ("[discovery]\ninterfaces = [0]\n", "printable text"),
    ("[discovery]\nport = 0\n", "1 to 65535"),
    ("[log]\nlevel = 'loud'\n", "debug or info"),
    ("[log]\nlines_per_s = 0\n", "from 1"),
    ("[limits]\nphase_timeout = 1\n", r"unknown key in \[limits\]"),
    ("[limits]\nphase_timeout_s = 0\n", "a positive number"),
    ("[limits]\nphase_timeout_s = inf\n", "a positive number"),
    ("[limits]\nphase_timeout_s = nan\n", "a positive number"),
    ("[limits]\nunacked_max = 1.5\n", "a positive whole number"),
    ("[limits]\nunacked_max = true\n", "a positive whole number"),
    ("[bandwidth]\npeer_bytes_per_s = 0\n", "a positive whole number"),
    ("[bandwidth]\npeer_send_bytes_per_s = -1\n", "a positive whole number"),
    ("[bandwidth]\ninbox_max = 1\n", r"unknown key in \[bandwidth\]"),
    ("[limits]\npeer_bytes_per_s = 1\n", r"unknown key in \[limits\]"),
    ("[node\n", "is not TOML"),
    (f"[listen]\nport = {'9' * 5000}\n", "is not TOML"),
    (f"[listen]\nport = {'[' * 20_000}\n", "is not TOML"),
    ("[node]\nlabel = 'a'\nlabel = 'b'\n", "is not TOML"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_is_not_understood_is_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence) as caught:
        parse(text)
    assert "config.toml" in str(caught.value)
    assert str(caught.value).isascii()


def test_a_whole_number_is_a_number_of_seconds() -> None:
    assert parse("[limits]\nphase_timeout_s = 3\n").limits.phase_timeout_s == 3.0


def test_rates_have_a_table_of_their_own_and_both_tables_count() -> None:
    text = "[bandwidth]\npeer_bytes_per_s = 5_000\npeer_send_bytes_per_s = 0\n[limits]\nunacked_max = 7\n"
    read = parse(text).limits
    assert (read.peer_bytes_per_s, read.peer_send_bytes_per_s, read.unacked_max) == (5000, 0, 7)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse(text), Config)
    except LocalError:
        pass


def test_the_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="make it: musignet init"):
        load(tmp_path)
    (tmp_path / "config.toml").write_text(template(UNUSUAL))
    assert load(tmp_path) == UNUSUAL
    (tmp_path / "config.toml").write_bytes(b"\xff")
    with pytest.raises(LocalError, match="cannot read"):
        load(tmp_path)
