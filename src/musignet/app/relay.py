"""A relay of one's own: nostr-sdk's, which keeps what it stores in LMDB, for gift wraps and nothing else.

What it stores has to say when it expires, so that nobody can use it as a store, and there is an end to how much it is:
the disk is not for strangers to fill.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import nostr_sdk

from .. import limits
from ..errors import IoError
from ..wire.giftwrap import LIVE, MAIL
from .ending import ends

__all__ = ["GiftWrapsOnly", "NamedInboxesOnly", "serve"]


class GiftWrapsOnly(nostr_sdk.WritePolicy):
    """Which events are taken."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.stored = 0
        """How many events lie on the disk: counted with each sweep, and those that came since."""

    async def admit_event(self, event: nostr_sdk.Event, socket_addr: str) -> nostr_sdk.WritePolicyResult:
        """Called by the relay, once for each event."""
        why = self.objection(event)
        if why:
            return nostr_sdk.WritePolicyResult.REJECT(why)
        self.stored += event.kind().as_u16() == MAIL
        return nostr_sdk.WritePolicyResult.ACCEPT()

    def objection(self, event: nostr_sdk.Event) -> str:
        """Return why an event is not taken, as NIP-01 words it, or an empty string."""
        now, kind = self._now(), event.kind().as_u16()
        if kind not in (LIVE, MAIL):
            return "blocked: this relay is for gift wraps (kinds 1059 and 21059)"
        if abs(event.created_at().as_secs() - now) > limits.RELAY_SERVE_SKEW_S:
            return "invalid: its time is too far from now"
        if kind == MAIL and not 0 < _expires_at(event) - now <= limits.RELAY_SERVE_TTL_MAX_S:
            return (
                f"invalid: what is stored has to expire within {limits.RELAY_SERVE_TTL_MAX_S // 86_400} days (NIP-40)"
            )
        if len(event.content()) > limits.RELAY_FRAME_MAX_BYTES:
            return "invalid: too large"
        if kind == MAIL and self.stored >= limits.RELAY_SERVE_MAIL_MAX:
            return "error: no room for more until some of it has expired"
        return ""


class NamedInboxesOnly(nostr_sdk.QueryPolicy):
    """What may be asked for: inboxes whose names are known. Nobody is shown what passes between others."""

    async def admit_query(self, query: nostr_sdk.Filter, socket_addr: str) -> nostr_sdk.QueryPolicyResult:
        """Called by the relay, once for each filter."""
        names = json.loads(query.as_json()).get("#p", ())
        if 0 < len(names) <= limits.RELAY_SERVE_INBOXES_MAX:
            return nostr_sdk.QueryPolicyResult.ACCEPT()
        most = limits.RELAY_SERVE_INBOXES_MAX
        return nostr_sdk.QueryPolicyResult.REJECT(f"ask for inboxes by their names, at most {most}")


def _expires_at(event: nostr_sdk.Event) -> int:
    """Return when it expires, or 0 where it does not say so."""
    for tag in event.tags():
        name, *values = tag.to_vec()
        if name == "expiration" and values and values[0].isascii() and values[0].isdecimal() and len(values[0]) < 17:
            return int(values[0])
    return 0


async def serve(folder: Path, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Run until it is told to end (`ending`). `tell` hears the address, and the end.

    Raises: IoError when the folder or the address cannot be had.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, *ends()):
        loop.add_signal_handler(number, stop.set)
    nostr_sdk.uniffi_set_event_loop(loop)  # it asks the policy from threads of its own
    try:
        await _serve(folder, host, port, tell, stop)
    finally:
        nostr_sdk.uniffi_set_event_loop(None)  # type: ignore[arg-type]  # else it is the whole process's


async def _serve(folder: Path, host: str, port: int, tell: Callable[[str], None], stop: asyncio.Event) -> None:
    database, policy = await _open(folder), GiftWrapsOnly()
    try:
        relay = _relay(database, policy, host, port)
        await relay.run()
    except nostr_sdk.NostrSdkError as error:
        raise IoError(f"cannot listen on {host}:{port}: {error}", hint="another program may have this port") from None
    try:
        tell(f"a relay at {await relay.url()}; what waits for its readers is in {folder}")
        await _sweep_until(stop, database, policy)
    finally:
        relay.shutdown()
    tell("stopped")


async def _open(folder: Path) -> nostr_sdk.NostrLmdb:
    try:
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        return await nostr_sdk.NostrLmdb.open(str(folder))
    except (OSError, nostr_sdk.NostrSdkError) as error:
        raise IoError(f"cannot use {folder}: {error}", hint="check the folder and who owns it") from None


def _relay(database: nostr_sdk.NostrLmdb, policy: GiftWrapsOnly, host: str, port: int) -> nostr_sdk.LocalRelay:
    rate = nostr_sdk.RateLimit(max_reqs=500, notes_per_minute=limits.RELAY_SERVE_EVENTS_PER_MINUTE)
    builder = (
        nostr_sdk.LocalRelayBuilder()
        .addr(host)
        .database(database)
        .write_policy(policy)
        .query_policy(NamedInboxesOnly())
        .auth_dm(True)  # an inbox is shown to whoever has its key
        .rate_limit(rate)
        .max_connections(limits.RELAY_SERVE_CLIENTS_MAX)
        .max_subid_length(64)
        .max_filter_limit(limits.RELAY_SUBSCRIPTION_MAX)
        .default_filter_limit(limits.RELAY_SUBSCRIPTION_MAX)
    )
    return (builder.port(port) if port else builder).build()


async def _sweep_until(stop: asyncio.Event, database: nostr_sdk.NostrLmdb, policy: GiftWrapsOnly) -> None:
    """Sweep now and every hour, until `stop`."""
    while not stop.is_set():
        await _sweep(database, policy)
        try:
            async with asyncio.timeout(limits.RELAY_SERVE_SWEEP_S):
                await stop.wait()
        except TimeoutError:
            continue


async def _sweep(database: nostr_sdk.NostrLmdb, policy: GiftWrapsOnly) -> None:
    """Delete what is too old to be unexpired, and count what is left."""
    oldest = int(time.time()) - limits.RELAY_SERVE_TTL_MAX_S - limits.RELAY_SERVE_SKEW_S
    await database.delete_events(nostr_sdk.Filter().until(nostr_sdk.Timestamp.from_secs(oldest)))
    policy.stored = await database.count(nostr_sdk.Filter())
