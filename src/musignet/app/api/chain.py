"""`/v1/groups/{group}/...` and `/v1/sessions/{session}/broadcast`: what needs a chain backend."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from ... import limits
from ...bitcoin.transaction import Outpoint
from ...signing.effects import End
from ...signing.groupfile import GroupFile
from ..chain.service import on_a_thread
from ..chain.wallet import GroupWallet, parse_outpoint
from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "Broadcast", "CoinShown", "Made", "Payment", "WalletShown"]


class CoinShown(Struct, frozen=True):
    """One unspent output."""

    outpoint: str
    """`TXID:N`."""
    amount_sat: int
    branch: int
    """0 received, 1 change."""
    index: int
    confirmations: int


class WalletShown(Struct, frozen=True):
    """A group's wallet, as the backend said at the last sync."""

    group: str
    backend: str
    tip_height: int
    confirmed_sat: int
    unconfirmed_sat: int
    immature_sat: int
    next_address: str
    """The first one that nobody ever paid to."""
    next_index: int
    coins: list[CoinShown]


class Payment(Struct, frozen=True, forbid_unknown_fields=True):
    """What a PSBT is to do."""

    address: str
    amount_sat: Annotated[int, Meta(gt=0, le=limits.MONEY_MAX_SAT)] | None
    """`null`: all there is, less the fee."""
    fee_rate_sat_vb: Annotated[int, Meta(gt=0, le=limits.FEE_RATE_MAX_SAT_VB)] | None = None
    """`null` asks the backend."""
    target_blocks: Annotated[int, Meta(gt=0, le=limits.FEE_TARGET_MAX_BLOCKS)] = limits.FEE_TARGET_BLOCKS
    coins: Annotated[list[str], Meta(max_length=limits.PSBT_INPUTS_MAX)] = []
    """Spend these, all of them; empty: chosen here."""


class Made(Struct, frozen=True):
    """A PSBT that nobody has seen yet. Propose it: `POST /v1/sessions`."""

    psbt: str
    """In base64."""


class Broadcast(Struct, frozen=True):
    """A transaction that was passed on."""

    txid: str


def _wallet(daemon: Daemon, group: GroupFile) -> GroupWallet:
    return daemon.chain.wallet(group.group.id, group.group.wallet)


def _shown(daemon: Daemon, group: GroupFile) -> WalletShown:
    wallet = _wallet(daemon, group)
    state, balance = wallet.snapshot, wallet.balance()
    index, address = wallet.next_address()
    coins = [
        CoinShown(str(one.outpoint), one.out.amount_sat, one.branch, one.index, one.confirmations)
        for one in state.coins
    ]
    name = daemon.chain.backend.name
    return WalletShown(group.group.id.hex(), name, state.tip_height, *balance, address, index, coins)


async def _sync(daemon: Daemon, call: Call) -> WalletShown:
    group = daemon.groups.find(call.path["group"])
    await on_a_thread(_wallet(daemon, group).sync)
    return _shown(daemon, group)


async def _balance(daemon: Daemon, call: Call) -> WalletShown:
    return _shown(daemon, daemon.groups.find(call.path["group"]))


async def _build(daemon: Daemon, call: Call) -> Made:
    body: Payment = call.body
    group = daemon.groups.find(call.path["group"])
    wallet, reserved = _wallet(daemon, group), frozenset(_reserved(daemon, group))
    coins = [parse_outpoint(text) for text in body.coins]

    def build() -> bytes:
        wallet.sync()
        return wallet.send(
            body.address,
            body.amount_sat,
            fee_rate_sat_vb=body.fee_rate_sat_vb,
            target_blocks=body.target_blocks,
            coins=coins,
            reserved=reserved,
        ).serialize()

    return Made(base64.b64encode(await on_a_thread(build)).decode())


def _reserved(daemon: Daemon, group: GroupFile) -> Iterator[Outpoint]:
    """Yield the coins of open and of complete sessions: these are in the wallet until the transaction is seen."""
    for entry in daemon.sessions:
        if entry.group.id == group.group.id and entry.end in (None, End.COMPLETED) and (entry.live or entry.envelope):
            yield from (txin.outpoint for txin in entry.proposal().psbt.tx.inputs)


async def _broadcast(daemon: Daemon, call: Call) -> Broadcast:
    raw = daemon.sessions.find(call.path["session"]).transaction().raw
    backend = daemon.chain.backend
    return Broadcast((await on_a_thread(lambda: backend.broadcast(raw)))[::-1].hex())


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/groups/{group}/sync",
        needs=Capability.PROPOSE,
        summary="Ask the chain backend for a group's coins",
        call=_sync,
        answer=WalletShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/groups/{group}/wallet",
        needs=Capability.READ,
        summary="What the last sync said",
        call=_balance,
        answer=WalletShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/groups/{group}/psbt",
        needs=Capability.PROPOSE,
        summary="Sync, and make a PSBT that pays somebody; nothing is proposed yet",
        call=_build,
        body=Payment,
        answer=Made,
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions/{session}/broadcast",
        needs=Capability.PROPOSE,
        summary="Pass on the finished transaction of a session",
        call=_broadcast,
        answer=Broadcast,
    ),
)
