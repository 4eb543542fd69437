"""`config.toml`: what a person may set for one node. Strict: what is not understood is refused (THREATS.md Z7).

`OPTIONS` is the whole of it: the template that `musignet init` writes, the defaults and the checks come from there.
Nothing comes from the environment; only the place of the data folder does, and that is the command line's business.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..chain import Chain
from ..errors import LocalError
from ..limits import DISCOVERY_PORT, LABEL_MAX_CHARS, RELAYS_MAX, STUN_SERVERS_MAX, Limits
from ..node.addresses import parse_address
from ..text import safe
from .places import CONFIG_FILE

__all__ = ["OPTIONS", "Config", "Option", "load", "parse", "template"]

_CHAINS: Final = {one.name.lower(): one for one in Chain}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one node. The defaults are those of the template."""

    label: str = ""
    network: Chain = Chain.MAINNET
    listen_host: str = "0.0.0.0"
    listen_port: int = 8737
    advertise: tuple[str, ...] = ()
    tls_port: int = 0
    auto_connect: bool = True
    discovery_interfaces: tuple[str, ...] = ("lan",)
    discovery_port: int = DISCOVERY_PORT
    discovery_mdns: bool = False
    api_tcp_port: int = 0
    log_level: str = "info"
    log_format: str = "console"
    log_file: str = ""
    log_lines_per_s: int = 10
    metrics_port: int = 0
    chain_backend: str = ""
    chain_broadcast: bool = False
    proxy_socks5: str = ""
    proxy_login: str = ""
    proxy_http: str = ""
    proxy_everything: bool = False
    only_tor: bool = False
    onion_service: str = "off"
    onion_control: str = "127.0.0.1:9051"
    onion_passfile: str = ""
    nat_punch: bool = False
    nat_stun: tuple[str, ...] = ()
    nat_turn: tuple[str, ...] = ()
    nat_turn_username: str = ""
    nat_turn_password: str = field(default="", repr=False)
    nat_map_port: str = "off"
    relays: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


class Option(NamedTuple):
    """One line of the file."""

    table: str
    key: str
    field: str
    """Of `Config`."""
    read: Callable[[Any], Any]
    """From the value in TOML to that in `Config`. Raises ValueError with what was expected."""
    note: str
    """For the person who edits the file: what it is, in which unit."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("printable text in quotes")
    return value


def _label(value: Any) -> str:
    if len(_text(value)) > LABEL_MAX_CHARS:
        raise ValueError(f"at most {LABEL_MAX_CHARS} characters")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return read


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(" or ".join(words))
        return str(value)

    return read


def _chain(value: Any) -> Chain:
    return _CHAINS[_one_of(*_CHAINS)(value)]


def _list(read_one: Callable[[Any], str], example: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"a list, such as {example}")
        return tuple(read_one(one) for one in value)

    return read


def _address(value: Any) -> str:
    try:
        return parse_address(_text(value)).text
    except LocalError as error:
        raise ValueError(f"addresses such as {error.expected}") from None


def _endpoint(value: Any) -> str:
    """A place on the network that nobody need be asked for: empty, or an IP address and a port."""
    if value == "":
        return ""
    host, _, port = _text(value).rpartition(":")
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
        right = port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535
    except ValueError:
        right = False
    if not right:
        raise ValueError('IP:PORT, such as "127.0.0.1:9050"; no name')
    return str(value)


def _servers(form: str, example: str, *carriers: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:
        named = _ADDRESSES(value)
        if len(named) > STUN_SERVERS_MAX or any(parse_address(one).carrier not in carriers for one in named):
            raise ValueError(f"at most {STUN_SERVERS_MAX} of {form}, such as {example}")
        return named

    return read


_PORT: Final = _whole(0, 65_535)
_ADDRESSES: Final = _list(_address, '["192.0.2.7:8737"]')


def _relays(value: Any) -> tuple[str, ...]:
    relays = _ADDRESSES(value)
    if len(relays) > RELAYS_MAX or any(parse_address(one).carrier not in ("ws", "wss") for one in relays):
        raise ValueError(f'at most {RELAYS_MAX} relays, such as ["wss://relay.example"]')
    return relays


_BACKEND: Final = (
    "who is asked for coins and passes transactions on: esplora+https://HOST/api, electrum+ssl://HOST:PORT or "
    "core+http://HOST:PORT; empty: nobody"
)
_MAP_PORT: Final = "ask the router to forward the listening port, and how; auto: natpmp, then upnp"

_ONION: Final = "be reached through Tor: kept: always at one address, fresh: at a new one after each start; off"
_SOCKS5: Final = "IP:PORT of a SOCKS5 proxy, such as Tor's 127.0.0.1:9050; .onion addresses need one; empty: none"
_INTERFACES: Final = (
    "network interfaces on which peers find each other: names; lan: every private address, all: every one; empty: off"
)

_STUN: Final = _servers("HOST:PORT", '["stun.example.org:3478"]', "tcp")
_TURN: Final = _servers("HOST:PORT or tls://HOST:PORT", '["turn.example.org:3478"]', "tcp", "tls")

OPTIONS: Final = (
    Option("node", "label", "label", _label, "how others see this node; empty: the first digits of its key"),
    Option("node", "network", "network", _chain, f"the Bitcoin network: {', '.join(_CHAINS)}"),
    Option("listen", "host", "listen_host", _text, "address to listen on; 0.0.0.0: every interface; empty: dial only"),
    Option("listen", "port", "listen_port", _PORT, "TCP port; 0 picks a free one at each start"),
    Option("listen", "advertise", "advertise", _ADDRESSES, "addresses that invites name; empty: where it listens"),
    Option("tls", "port", "tls_port", _PORT, "listen for TLS too, on this port of the same address; 0: off"),
    Option("relays", "urls", "relays", _relays, "Nostr relays where this node has its inbox, wss://...; two or more"),
    Option("peers", "auto_connect", "auto_connect", _flag, "dial pinned peers at start, and until they answer"),
    Option("discovery", "interfaces", "discovery_interfaces", _list(_text, '["eth0"]'), _INTERFACES),
    Option("discovery", "port", "discovery_port", _whole(1, 65_535), "UDP port that all nodes of a network share"),
    Option("discovery", "mdns", "discovery_mdns", _flag, "the same by mDNS, too; it needs the extra mdns"),
    Option("api", "tcp_port", "api_tcp_port", _PORT, "also serve the API on this port of 127.0.0.1, by token; 0: off"),
    Option("chain", "backend", "chain_backend", _text, _BACKEND),
    Option("chain", "broadcast", "chain_broadcast", _flag, "pass on what the cosigners have finished, unasked"),
    Option("proxy", "socks5", "proxy_socks5", _endpoint, _SOCKS5),
    Option("proxy", "login", "proxy_login", _text, "file with USER:PASSWORD, where the proxy wants them; Tor does not"),
    Option("proxy", "http", "proxy_http", _endpoint, "IP:PORT of Tor's HTTPTunnelPort, for an Esplora server"),
    Option("proxy", "everything", "proxy_everything", _flag, "reach everybody through it, not onion services alone"),
    Option("proxy", "only", "only_tor", _flag, "nothing leaves otherwise, as with musignet run --only-tor"),
    Option("onion", "service", "onion_service", _one_of("off", "kept", "fresh"), _ONION),
    Option("onion", "control", "onion_control", _text, "Tor's control port: IP:PORT here, or /run/tor/control"),
    Option("onion", "passfile", "onion_passfile", _text, "file with its password; empty: its cookie file is used"),
    Option("nat", "punch", "nat_punch", _flag, "reach peers through NATs by hole punching; it needs the extra nat"),
    Option("nat", "stun", "nat_stun", _STUN, "HOST:PORT that say how the internet sees this node; empty: nobody"),
    Option(
        "nat", "turn", "nat_turn", _TURN, "HOST:PORT or tls://HOST:PORT that pass ciphertext on where no path opens"
    ),
    Option("nat", "turn_username", "nat_turn_username", _text, "for all of them"),
    Option("nat", "turn_password", "nat_turn_password", _text, "for all of them"),
    Option("nat", "map_port", "nat_map_port", _one_of("off", "auto", "natpmp", "upnp"), _MAP_PORT),
    Option("log", "level", "log_level", _one_of("debug", "info", "warning", "error"), "the least that is logged"),
    Option("log", "format", "log_format", _one_of("console", "json"), "lines for people, or JSON objects"),
    Option("log", "file", "log_file", _text, "a path, kept at 5 files of 10 MiB; empty: standard error"),
    Option("log", "lines_per_s", "log_lines_per_s", _whole(1, 10_000), "lines that one peer can cause per second"),
    Option("metrics", "port", "metrics_port", _PORT, "Prometheus metrics on this port of 127.0.0.1; 0: off"),
)

BANDWIDTH: Final = {
    "peer_messages_per_s": "messages read from one peer; what comes faster waits on its side, nothing is dropped",
    "peer_burst_messages": "messages read from one peer at once, after a pause",
    "peer_bytes_per_s": "bytes a second read from one peer",
    "peer_burst_bytes": "bytes read from one peer at once, after a pause",
    "total_messages_per_s": "messages read from all peers together; who is quiet does not wait for who is loud",
    "total_burst_messages": "messages read from all peers at once, after a pause",
    "total_bytes_per_s": "bytes a second read from all peers together",
    "total_burst_bytes": "bytes read from all peers at once, after a pause",
    "peer_send_bytes_per_s": "bytes a second sent to one peer; a ceremony's rounds do not wait; 0: as fast as it goes",
    "total_send_bytes_per_s": "the same to all peers together",
}
"""Of `Limits`: what stands in a table of its own, and what it means. Those that are 0 by default may be 0."""

_LIMITS: Final = {
    "bandwidth": tuple(BANDWIDTH),
    "limits": tuple(one.name for one in fields(Limits) if one.name not in BANDWIDTH),
}
_TABLES: Final = (*dict.fromkeys(one.table for one in OPTIONS), *_LIMITS)


def template(config: Config | None = None) -> str:
    """Return a file with every option and its unit. What differs from the default is set, the rest commented out."""
    config = config or Config()
    lines = ["# MuSigNet's configuration. A line that begins with # is not read: it shows the default.", ""]
    for table in _TABLES:
        lines.append(f"[{table}]")
        lines += _limit_lines(table, config.limits) if table in _LIMITS else _lines(table, config)
        lines.append("")
    return "\n".join(lines)


def _lines(table: str, config: Config) -> list[str]:
    default = Config()
    return [
        f"{_mark(getattr(config, one.field) == getattr(default, one.field))}"
        f"{one.key} = {_toml(getattr(config, one.field))}  # {one.note}"
        for one in OPTIONS
        if one.table == table
    ]


_UNITS: Final = "# What one node chooses for itself. Units: _s is seconds, _bytes bytes, everything else a count."


def _limit_lines(table: str, limits: Limits) -> list[str]:
    default = Limits()
    lines = [] if table == "bandwidth" else [_UNITS]
    for name in _LIMITS[table]:
        value, note = getattr(limits, name), BANDWIDTH.get(name, "")
        lines.append(f"{_mark(value == getattr(default, name))}{name} = {_toml(value)}{f'  # {note}' if note else ''}")
    return lines


def _mark(default: bool) -> str:
    return "# " if default else ""


def _toml(value: object) -> str:
    """Return a value as TOML has it. Its strings are JSON's, as far as printable text goes."""
    if isinstance(value, Chain):
        return json.dumps(value.name.lower())
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def parse(text: str, where: str = CONFIG_FILE) -> Config:
    """Return the settings of a file. Raises LocalError that names the table and the key."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number or a depth beyond Python, too
        raise LocalError(f"{where} is not TOML: {error}", hint="correct that line") from error
    _only(_TABLES, tables, where, "table")
    found: dict[str, Any] = {}
    for table, values in tables.items():
        if not isinstance(values, dict):
            raise LocalError(f"{table} in {where}", expected=f"a table [{safe(table)}]", got="a value")
        if table in _LIMITS:
            found["limits"] = _limits(table, values, found.get("limits", Limits()), where)
        else:
            found |= _table(table, values, where)
    return Config(**found)


def _table(table: str, values: Mapping[str, object], where: str) -> dict[str, Any]:
    options = {one.key: one for one in OPTIONS if one.table == table}
    _only(options, values, where, f"key in [{table}]")
    return {options[key].field: _read(options[key].read, table, key, value, where) for key, value in values.items()}


def _limits(table: str, values: Mapping[str, object], so_far: Limits, where: str) -> Limits:
    _only(_LIMITS[table], values, where, f"key in [{table}]")
    kinds = {key: _number(getattr(Limits(), key)) for key in values}
    return replace(so_far, **{key: _read(kinds[key], table, key, value, where) for key, value in values.items()})


def _number(default: float) -> Callable[[Any], float]:
    """A limit is a positive number of the kind that its default is; 0 where that is 0."""
    kind = type(default)

    def read(value: Any) -> float:
        right = isinstance(value, int | kind) and not isinstance(value, bool)
        if not right or not (0 < value < 2**63 or value == default):
            raise ValueError("a positive number" if kind is float else "a positive whole number")
        return kind(value)

    return read


def _read(read: Callable[[Any], Any], table: str, key: str, value: object, where: str) -> Any:
    try:
        return read(value)
    except (ValueError, OverflowError) as error:
        raise LocalError(f"{key} in [{table}] of {where}", expected=error, got=repr(value)) from None


def _only(known: Any, values: Mapping[str, object], where: str, what: str) -> None:
    for name in values:
        if name not in known:
            raise LocalError(f"unknown {what} of {where}", got=repr(name), hint=f"known: {', '.join(known)}")


def load(folder: Path) -> Config:
    """Return the settings of a data folder. Raises LocalError, also where there is no file."""
    path = folder / CONFIG_FILE
    try:
        return parse(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise LocalError(f"no {path}", hint=f"make it: musignet init --data {folder}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"cannot read {path}: {error}", hint="check the file and who owns it") from error
