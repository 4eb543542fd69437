"""What `musignet doctor` says about proxies and Tor. It asks nobody but the proxy and the control port."""

from __future__ import annotations

import asyncio
from secrets import token_bytes
from typing import Final

from ..crypto.onionkey import OnionKey
from ..errors import NetworkError
from ..net.onion import TorControl
from ..net.transport.proxyerrors import BeyondProxy, ProxyRefused, ProxyTimeout
from ..wire.onion import onion_host
from ..wire.torcontrol import bootstrapped
from .chain.url import check_url
from .config import Config
from .doctor import Finding, Verdict, of_error
from .proxies import chain_way, control_of, proxy_of, sealed

__all__ = ["TOR_ANSWER_S", "examine_tor", "not_tried"]

TOR_ANSWER_S: Final = 20.0
"""What a proxy has to say that an onion service is not there: a path through Tor, and a look into its directory."""
_READY_PERCENT: Final = 100


def not_tried() -> Finding:
    """Why, with only-tor, nothing else is tested: that would be seen by others."""
    return Finding("the network", Verdict.OK, "only through Tor: interfaces, routers and servers are not asked")


async def examine_tor(config: Config) -> list[Finding]:
    """Test what [proxy], [onion] and the chain backend ask for."""
    asked = [_proxy(config)] if config.proxy_socks5 else []
    asked += [_control(config)] if config.onion_service != "off" else []
    return [*await asyncio.gather(*asked), *_settings(config)]


async def _proxy(config: Config) -> Finding:
    """Ask it for an onion service that is not there: whoever says so works, all the way into Tor."""
    layer, host = "proxy", onion_host(OnionKey(token_bytes(32)).public)
    try:
        proxy = proxy_of(config, TOR_ANSWER_S)
        (await proxy.open_socket(host, 1)).close()
    except NetworkError as error:
        return _of_proxy(config, layer, error)
    return Finding(layer, Verdict.NOTE, f"{config.proxy_socks5} connects to what is not there", "is it Tor?")


def _of_proxy(config: Config, layer: str, error: NetworkError) -> Finding:
    if isinstance(error, BeyondProxy):
        return Finding(layer, Verdict.OK, f"{config.proxy_socks5} is a SOCKS5 proxy, and looks for onion services")
    verdict = Verdict.NOTE if isinstance(error, ProxyRefused | ProxyTimeout) else Verdict.BLOCKED
    return of_error(layer, error, verdict=verdict)


async def _control(config: Config) -> Finding:
    layer = "onion service"
    try:
        control = control_of(config)
        percent = await _progress(control)
    except NetworkError as error:
        return of_error(layer, error)
    if percent < _READY_PERCENT:
        hint = "wait; where it stays so, the network may block Tor: bridges in its torrc get around that"
        return Finding(layer, Verdict.NOTE, f"Tor lets us in, and is at {percent} % of its start", hint)
    return Finding(layer, Verdict.OK, f"Tor lets us in at {config.onion_control}, and is ready")


async def _progress(control: TorControl) -> int:
    try:
        await control.connect()
        return bootstrapped(await control.ask("say how far it is", "GETINFO status/bootstrap-phase"))
    finally:
        await control.close()


def _settings(config: Config) -> list[Finding]:
    """Whether a node would start with them."""
    try:
        sealed(config)
        if config.chain_backend:
            chain_way(config).proxy_for(check_url(config.chain_backend))
    except NetworkError as error:
        return [of_error("settings", error)]
    return []
