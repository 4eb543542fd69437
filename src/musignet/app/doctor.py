"""What stands between a node and its peers on the local network: each layer tested by itself, the lowest first.

It needs no running node: it sends on the port that all nodes share, and hears its own datagrams there, or does not.
They are sealed for nobody, so that every node that hears them knows at once that they are not for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

from ..chain import Chain
from ..crypto.keys import Identity
from ..errors import IoError, NetworkError
from ..limits import BEACON_PORT_MIN
from ..net.lan import Interface, Lan, Way, interfaces
from ..node.sightings import Unheard
from ..text import safe
from ..wire.beacon import Audience, Beacon, seal
from .config import Config

__all__ = ["Finding", "Verdict", "examine", "firewalls", "of_error", "of_the_node"]

_HEAR_S: Final = 1.0
_CONNECT_S: Final = 2.0
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 512


class Verdict(Enum):
    """How it is with one layer."""

    OK = "ok"
    NOTE = "note"
    """Nothing that blocks by itself, but worth a look."""
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer, in words."""

    layer: str
    verdict: Verdict
    text: str
    hint: str = ""
    """What to do about it."""


def of_error(
    layer: str, error: NetworkError, hint: str = "", *, where: str = "", verdict: Verdict = Verdict.BLOCKED
) -> Finding:
    """Say what an error says, and apart from that what to do: its own hint, or else `hint`."""
    text = str(error).removesuffix(f"; {error.hint}")
    return Finding(layer, verdict, f"{where}: {text}" if where else text, error.hint or hint)


async def examine(config: Config, tcp_port: int) -> list[Finding]:
    """Test what does not need the node. `tcp_port` is where it listens; 0 where that is not known."""
    if not config.discovery_interfaces:
        off = Finding("discovery", Verdict.BLOCKED, "it is switched off", 'set interfaces = ["lan"] in [discovery]')
        return [off, *_listens(config)]
    found = interfaces(config.discovery_interfaces)
    out = [*_interfaces(found, config), *await _hears(found, config.discovery_port), *_listens(config)]
    if tcp_port:
        out += [
            await _answers(str(one.ip), tcp_port) for it in found for one in it.v4 if _listened(config, str(one.ip))
        ]
    return [*out, *firewalls(config, tcp_port or config.listen_port), _clock()]


# --- interfaces and datagrams -------------------------------------------------------------------------------------


def _interfaces(found: list[Interface], config: Config) -> Iterator[Finding]:
    for one in found:
        yield Finding("interface", Verdict.OK, f"{one.name}: {', '.join(str(it) for it in one.addresses)}")
    if not found:
        named = ", ".join(safe(one) for one in config.discovery_interfaces)
        hint = "plug in the cable or join the network; [discovery] interfaces names others"
        yield Finding("interface", Verdict.BLOCKED, f"none of {named} is up with an address", hint)


async def _hears(found: list[Interface], port: int) -> list[Finding]:
    """Send by each way, and say which of it came back."""
    arrived: set[bytes] = set()
    wake = asyncio.Event()

    def heard(data: bytes, _source: str, _way: str) -> None:
        arrived.add(data)
        wake.set()

    lan = Lan(port, heard)
    try:
        lan.open()
    except IoError as error:
        return [Finding("UDP port", Verdict.BLOCKED, str(error), error.hint)]
    try:
        lan.join(found)
        out = [Finding("UDP port", Verdict.OK, f"{lan.port} can be had; nodes share it"), *_missing(found, lan)]
        sent = {_datagram(): way for one in found for way in lan.ways(one)}
        left = {data: way for data, way in sent.items() if lan.send(data, way)}
        await _all_of(left, arrived, wake)
        return out + [_way(way, data in left, data in arrived, lan) for data, way in sent.items()]
    finally:
        lan.close()


def _missing(found: list[Interface], lan: Lan) -> Iterator[Finding]:
    for what, problem in lan.problems.items():
        wanted = what != "IPv6" or any(one.v6 for one in found)
        yield Finding(what, Verdict.NOTE if wanted else Verdict.OK, problem)


async def _all_of(wanted: dict[bytes, Way], arrived: set[bytes], wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_HEAR_S):
            while not wanted.keys() <= arrived:
                wake.clear()
                await wake.wait()
    except TimeoutError:
        pass


def _datagram() -> bytes:
    """Return a beacon for an audience that nobody is in."""
    nobody = Identity.generate()
    beacon = Beacon(nobody.pubkey, bytes(8), 0, 0, BEACON_PORT_MIN)
    return seal(beacon, nobody, Chain.REGTEST, Audience(token_bytes(32), [nobody.pubkey]), token_bytes(12))


def _way(way: Way, left: bool, arrived: bool, lan: Lan) -> Finding:
    if arrived:
        return Finding(str(way), Verdict.OK, f"to {way.target}: sent, and heard by this machine itself")
    verdict = Verdict.NOTE if way.name == "multicast6" else Verdict.BLOCKED
    if left:
        hint = f"let UDP port {lan.port} in and out, on {way.interface.name}"
        return Finding(str(way), verdict, f"to {way.target}: sent, but not heard: a firewall here drops it", hint)
    why = lan.problems.get(str(way), "refused")
    return Finding(str(way), verdict, f"to {way.target}: the system does not send it: {why}", "see `ip route`")


# --- where it listens ---------------------------------------------------------------------------------------------


def _listens(config: Config) -> Iterator[Finding]:
    host = config.listen_host
    if not host:
        yield Finding("listening", Verdict.NOTE, "this node listens nowhere: it can dial others, and is not found")
    elif _is_loopback(host):
        hint = 'set host = "0.0.0.0" in [listen] of config.toml'
        yield Finding("listening", Verdict.BLOCKED, f"on {safe(host)}, which is this machine only", hint)
    else:
        yield Finding("listening", Verdict.OK, f"on {safe(host)}:{config.listen_port}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listened(config: Config, address: str) -> bool:
    return config.listen_host in ("0.0.0.0", "::", address)


async def _answers(host: str, port: int) -> Finding:
    """Whether the node can be dialled at an address of this machine, from this machine."""
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        hint = f"a firewall here, or another program: let TCP port {port} in"
        return Finding("TCP", Verdict.BLOCKED, f"{where} does not answer: {error or 'no answer'}", hint)
    return Finding("TCP", Verdict.OK, f"{where} answers")


# --- firewall and clock -------------------------------------------------------------------------------------------


def firewalls(config: Config, tcp_port: int, etc: Path = Path("/etc"), run: Path = Path("/run")) -> Iterator[Finding]:
    """Say which firewalls are on here, as far as that can be seen, and what they have to let in."""
    udp, tcp = config.discovery_port, tcp_port
    seen = False
    if _says(etc / "ufw" / "ufw.conf", "ENABLED=yes"):
        seen = True
        yield Finding("firewall", Verdict.NOTE, "ufw is on", f"ufw allow {udp}/udp; ufw allow {tcp}/tcp")
    if (run / "firewalld").exists():
        seen = True
        hint = f"firewall-cmd --permanent --add-port={udp}/udp --add-port={tcp}/tcp; firewall-cmd --reload"
        yield Finding("firewall", Verdict.NOTE, "firewalld is on", hint)
    rules = _rules()
    if rules is not None and not seen and ("drop" in rules or "reject" in rules):
        yield Finding("firewall", Verdict.NOTE, "there are nftables rules that drop", f"let {udp}/udp and {tcp}/tcp in")
    elif not seen:
        text = "none is seen" if rules is not None else "none is seen, but only root sees all rules"
        yield Finding("firewall", Verdict.OK, f"{text}; a router can still keep its clients apart (client isolation)")


def _says(path: Path, line: str) -> bool:
    try:
        return line in path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False


def _rules() -> str | None:
    """Return the rules of nftables; None where they cannot be read."""
    nft = shutil.which("nft", path=f"{os.defpath}:/usr/sbin:/sbin")
    if nft is None:
        return None
    try:
        done = subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _clock() -> Finding:
    synchronised = _synchronised()
    if synchronised is None:
        return Finding("clock", Verdict.NOTE, "it cannot be told whether somebody sets it", "see that NTP is on")
    if synchronised:
        return Finding("clock", Verdict.OK, "the system keeps it by NTP")
    hint = "turn NTP on; nodes whose clocks differ by more than a minute do not hear each other"
    return Finding("clock", Verdict.NOTE, "the system says that nobody sets it", hint)


def _synchronised() -> bool | None:
    """Return what the kernel says (adjtimex); None where it says nothing."""
    if sys.platform != "linux":
        return None
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR


# --- the running node ---------------------------------------------------------------------------------------------


def of_the_node(found: dict[str, Any], peers: int) -> Iterator[Finding]:
    """Say what a running node has met: `found` is its `/v1/discovery`."""
    if not found["on"]:
        yield Finding("the node", Verdict.BLOCKED, found["why"])
        return
    for way, problem in found["problems"].items():
        yield Finding("the node", Verdict.NOTE, f"{safe(way, 80)}: {safe(problem, 200)}")
    for why, verdict, hint in _MET:
        count = found["ignored"].get(why.value, 0)
        if count:
            yield Finding("the node", verdict, f"{count} beacons ignored: {why.value}", hint)
    known = sum(one["known"] for one in found["nodes"])
    yield Finding("the node", Verdict.OK, f"sees {known} of {peers} peers on the local network now")


_MET: Final[tuple[tuple[Unheard, Verdict, str], ...]] = (
    (Unheard.AGE, Verdict.BLOCKED, "set the clock here or there"),
    (Unheard.SOURCE, Verdict.NOTE, "somebody forwards beacons, or this machine lacks an address on their network"),
    (Unheard.FORM, Verdict.NOTE, "a node of another Bitcoin network or version, or another program"),
    (Unheard.OFTEN, Verdict.NOTE, "somebody floods the port"),
    (Unheard.BUSY, Verdict.NOTE, "somebody floods the port"),
)
