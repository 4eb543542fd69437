"""Three cosigners on real links and real journals, every link through a `ChaosProxy`; what each was told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from endpoints import Signal

from musignet.bitcoin.group import RECEIVE
from musignet.bitcoin.transaction import TxIn
from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.node.effects import News, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.effects import End, Outcome
from musignet.wire.messages import Chain
from support.ceremony import account, identity, signing_group
from support.chaos_proxy import ChaosProxy, Fault, Harm
from support.wallet import MEMBERS, outpoint, psbt, replace_tx, spend

__all__ = ["GROUP", "LIMITS", "ChaosCosigner", "Party", "chaos", "coins"]

GROUP: Final = signing_group()
LIMITS: Final = Limits(
    reapprove_s=0.3, phase_timeout_s=1.0, silent_attempts_max=16, backoff_min_s=0.01, backoff_max_s=0.1,
    act_one_timeout_s=0.5, handshake_timeout_s=0.6, frame_timeout_s=0.6, ping_interval_s=0.3, dead_after_s=0.9,
    stop_timeout_s=0.3, half_open_per_prefix=16, prefix_handshakes_per_s=1000.0, prefix_burst_handshakes=1000,
)  # fmt: skip
"""Impatient, so that a black hole costs a second and not a minute; every node comes from one address."""
DEADLINE_S: Final = 15.0


def coins(number: int) -> bytes:
    """Return a PSBT that spends a coin of its own."""
    tx, spent = spend(GROUP.wallet, coins=((RECEIVE, 0),))
    tx = replace_tx(tx, inputs=(TxIn(outpoint(number), tx.inputs[0].sequence),))
    return psbt(GROUP.wallet, tx, spent).serialize()


class ChaosCosigner(Signal):
    """One member, and the outcomes it was told by session."""

    def __init__(self, name: str, folder: Path, limits: Limits) -> None:
        super().__init__()
        self.name = name
        self.outcomes: dict[bytes, Outcome] = {}
        self.service = NetworkService(
            name, identity=identity(name), data_dir=folder / name, chain=Chain.REGTEST, on_event=self._told,
            limits=limits,
        )  # fmt: skip

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            self.outcomes[news.news.session] = news.news
        self.poke()

    @property
    def open_sessions(self) -> int:
        return sum(one.outcome is None for one in self.service.sessions(GROUP.id))

    async def ended(self, session: bytes, end: End | None = None) -> Outcome:
        """Return how a session ended here; with `end`, once it ended so."""

        def over() -> bool:
            told = self.outcomes.get(session)
            return told is not None and (end is None or told.end is end)

        await self.until(over, DEADLINE_S)
        return self.outcomes[session]


class Party:
    """The cosigners, and the proxies between them."""

    def __init__(self, members: Sequence[ChaosCosigner], proxies: Sequence[ChaosProxy]) -> None:
        self.members = members
        self.proxies = proxies

    @property
    def fired(self) -> Counter[Fault]:
        return sum((proxy.fired for proxy in self.proxies), Counter())


@asynccontextmanager
async def chaos(
    folder: Path, plan: Callable[[str], Callable[[int], Harm]], *, limits: Limits = LIMITS, both_ways: bool = False
) -> AsyncIterator[Party]:
    """Start three cosigners, who dial each other through proxies: the earlier one the later, or each the other.

    Args: `plan` returns what happens to the connections between two, given `"alice bob"`.
    """
    async with AsyncExitStack() as stack:
        members = [ChaosCosigner(name, folder, limits) for name in MEMBERS]
        for one in members:
            await one.service.start()
            stack.push_async_callback(one.service.stop)
        proxies, dials = [], []
        for one in members:
            for other in members:
                if one is other:
                    continue
                info = other.service.info
                if both_ways or MEMBERS.index(one.name) < MEMBERS.index(other.name):
                    name = f"{one.name} {other.name}"
                    proxy = await stack.enter_async_context(ChaosProxy(info.port, plan(name), name))
                    proxies.append(proxy)
                    info = replace(info, port=proxy.port)
                    dials.append((one, info))
                else:
                    info = PeerInfo(id=info.id, pubkey_hex=info.pubkey_hex)
                one.service.add_peer(info)
            one.service.cosign(account(one.name, GROUP))
        tasks = [asyncio.create_task(_connect(one, info)) for one, info in dials]
        try:
            yield Party(members, proxies)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(one: ChaosCosigner, info: PeerInfo) -> None:
    try:
        await one.service.connect_to_peer(info.pubkey_hex, persist=True)
    except NetworkError:
        pass  # the service was stopped meanwhile
