"""What [proxy] in the configuration means for one node. With `only`, nothing leaves but to the proxy.

`sealed` is the one place that says so: what can be turned off is, and a setting that a person made and that cannot hold
is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes
from typing import Final

from .. import limits
from ..crypto.keys import Identity
from ..crypto.onionkey import OnionKey
from ..errors import IoError, LocalError
from ..net.onion import OnionService, TorControl
from ..net.transport.route import Opener, Route, is_loopback
from ..node.addresses import parse_address
from ..wire.onion import is_onion
from .chain.way import ChainWay
from .config import Config
from .leak import Leak

__all__ = ["SEALED", "chain_way", "check_advertised", "control_of", "onion_of", "proxy_of", "route_of", "sealed"]

_HERE: Final = "127.0.0.1"
_TELLING: Final = frozenset(("tcp", "tls"))
"""Carriers whose addresses say where a node is. Those of a relay do not."""
SEALED: Final[Mapping[str, object]] = {
    "proxy_everything": True,
    "discovery_interfaces": (),
    "discovery_mdns": False,
    "nat_punch": False,
    "nat_stun": (),
    "nat_turn": (),
    "nat_map_port": "off",
}
"""What each of these settings becomes with `only`, whatever the file says."""


def sealed(config: Config) -> Config:
    """Return the settings that hold. Unless `only` is set, they are those of the file.

    Raises: Leak for a setting that tells, or would be asked, without the proxy; LocalError without a proxy.
    """
    if not config.only_tor:
        return config
    if not config.proxy_socks5:
        raise LocalError("only through Tor, and no proxy is named", hint='set socks5 = "127.0.0.1:9050" in [proxy]')
    check_advertised(config, config.advertise, "[listen] advertise")
    return replace(config, listen_host=_listen_host(config.listen_host), **SEALED)  # type: ignore[arg-type]


def check_advertised(config: Config, addresses: tuple[str, ...], setting: str) -> None:
    """Raise Leak where an address that others are told says where we are."""
    for one in addresses if config.only_tor else ():
        address = parse_address(one)
        if address.carrier in _TELLING and not is_onion(address.host):
            raise Leak(setting, f"{one} tells others where this node is", hint="name an .onion address, or none")


def route_of(config: Config) -> Route:
    """Return which way out this node's dials take. Raises LocalError, IoError."""
    if not config.proxy_socks5:
        return Route(None, config.proxy_everything, config.onion_service != "off")
    return Route(
        proxy_of(config, config.limits.proxy_dial_timeout_s),
        config.proxy_everything or config.only_tor,
        config.onion_service != "off",
    )


def chain_way(config: Config) -> ChainWay:
    """Return the way to the chain backend."""
    return ChainWay(config.proxy_socks5, config.proxy_http, config.proxy_everything, config.only_tor)


def onion_of(config: Config, identity: Identity, host: str, port: int) -> OnionService | None:
    """Return the onion service that leads to where this node listens, not published yet; None where none is wanted.

    Raises: LocalError for what cannot be Tor's control port, or a node that does not listen; IoError for the passfile.
    """
    if config.onion_service == "off":
        return None
    if not host:
        raise LocalError("an onion service that leads nowhere", hint='set host = "127.0.0.1" in [listen]')
    control_of(config)  # what is wrong with the settings is said now
    key = OnionKey.of(identity) if config.onion_service == "kept" else OnionKey(token_bytes(32))
    return OnionService(lambda: control_of(config), key, _target(host, port))


def control_of(config: Config) -> TorControl:
    """Return a connection to Tor's control port, not opened yet. Raises LocalError, IoError."""
    password = _secret(config.onion_passfile, "Tor's password") if config.onion_passfile else ""
    return TorControl(config.onion_control, password)


def _target(host: str, port: int) -> str:
    """Return where Tor, on this machine, finds the listener."""
    here = {"0.0.0.0": _HERE, "::": "::1", "localhost": _HERE}.get(host, host)
    return f"[{here}]:{port}" if ":" in here else f"{here}:{port}"


def proxy_of(config: Config, timeout_s: float) -> Opener:
    """Return the proxy that [proxy] names. Raises LocalError, also without the extra; IoError for its login."""
    try:
        from ..net.transport.proxy import Proxy
    except ModuleNotFoundError as error:
        if error.name != "python_socks":
            raise
        raise LocalError("a proxy needs an extra", hint='pip install "musignet[tor]"') from None
    host, _, port = config.proxy_socks5.rpartition(":")
    login = _login(config.proxy_login) if config.proxy_login else ("", "")
    return Proxy(host.removeprefix("[").removesuffix("]"), int(port), *login, timeout_s=timeout_s)


def _login(path: str) -> tuple[str, str]:
    username, colon, password = _secret(path, "the proxy's login").partition(":")
    if not colon:
        raise IoError(f"no login in {path}", expected="USER:PASSWORD in one line")
    return username, password


def _secret(path: str, what: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="ascii") as file:
            return file.read(limits.CONTROL_PAYLOAD_MAX_BYTES).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"cannot read {what} in {path}", got=error) from None


def _listen_host(host: str) -> str:
    """Only the onion service leads here: Tor runs on this machine."""
    return host if not host or is_loopback(host) else _HERE
