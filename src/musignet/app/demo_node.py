"""One cosigner of `musignet demo`, in a process of its own. It reports on standard output, a line of JSON each.

It makes its identity and its wallet key itself; neither leaves the process. Its journals are in the folder it is given.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from secrets import token_bytes
from typing import Any

from ..bitcoin.bip32 import Xpub
from ..bitcoin.descriptor import Descriptor
from ..bitcoin.group import RECEIVE, Group
from ..bitcoin.review import Review
from ..chain import Chain
from ..crypto.keys import Identity, SigningKey
from ..errors import NetworkError
from ..net.service import NetworkService
from ..node.effects import News, PeerUp, SessionNews
from ..node.peers import PeerInfo
from ..signing.coordinator import Sessions
from ..signing.effects import Outcome, Progress
from ..signing.group import Member, SigningGroup
from ..signing.keyholder import Account
from ..signing.policy import Answer, Yes
from ..signing.records import Topology
from ..signing.session import Session
from .liars import LIARS

_CHAIN = Chain.REGTEST
_TICK_S = 0.5


def _report(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def _yes(_: Review) -> Answer:
    """The demo's policy. What a review wants a person for is asked all the same."""
    return Yes()


class _Node:
    def __init__(self, label: str, folder: Path, liar: str) -> None:
        self._identity = Identity.generate()
        self._key = SigningKey.from_secret(token_bytes(32))
        self._xpub = Xpub(_CHAIN.xpub_version, self._key.pubkey, token_bytes(32))
        self._sessions = LIARS.get(liar, Sessions)
        self._network = NetworkService(
            label, host="127.0.0.1", identity=self._identity, data_dir=folder, chain=_CHAIN, on_event=self._on_event
        )
        self._group: SigningGroup | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self._network.start()
        _report("ready", pubkey_hex=self._network.pubkey_hex, port=self._network.port, key=str(self._xpub))
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                await (self._join if order["order"] == "join" else self._propose)(order)
        finally:
            if self._ticking is not None:
                self._ticking.cancel()
            await self._network.stop()

    async def _join(self, order: dict[str, Any]) -> None:
        """Learn the others, recompute the wallet, and dial those who come later in the list."""
        wallet = Group(Descriptor.parse_untrusted(order["descriptor"]), _CHAIN)
        members = [Member(bytes.fromhex(one["pubkey_hex"]), one["key"]) for one in order["members"]]
        self._group = SigningGroup(wallet, members)
        own = [one["pubkey_hex"] for one in order["members"]].index(self._network.pubkey_hex)
        others = [PeerInfo(id=one["label"], host="127.0.0.1", port=one["port"], pubkey_hex=one["pubkey_hex"])
                  for one in order["members"] if one["pubkey_hex"] != self._network.pubkey_hex]  # fmt: skip
        for info in others:
            self._network.add_peer(info)
        account = Account(group=self._group, identity=self._identity.pubkey, key=self._key, policy=_yes)
        self._network.cosign(account, self._sessions)
        self._ticking = asyncio.create_task(self._tick(self._group.id))
        _report("joined", group=self._group.id.hex(), address=wallet.address(RECEIVE, 0))
        for info in others[own:]:
            await self._network.connect_to_peer(info, persist=True)

    async def _propose(self, order: dict[str, Any]) -> None:
        assert self._group is not None
        topology = Topology[order["topology"].upper()]
        await self._network.propose(self._group.id, bytes.fromhex(order["psbt_hex"]), topology=topology)

    async def _tick(self, group: bytes) -> None:
        """Report who is missing now: the news say it when a state begins, and nothing while rounds fill up."""
        while True:
            await asyncio.sleep(_TICK_S)
            for session in self._network.sessions(group):
                if session.outcome is None:
                    _report("standing", **_standing(session, ()))

    def _on_event(self, news: News) -> None:
        if isinstance(news, PeerUp):
            _report("connected", peer=news.key.hex())
        elif isinstance(news, SessionNews) and isinstance(news.news, Progress):
            _report("progress", **_standing(news.news, news.news.away))
        elif isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            _report("outcome", **_outcome(news.news))


def _standing(now: Progress | Session, away: Iterable[bytes]) -> dict[str, Any]:
    waiting, absent = ([key.hex() for key in keys] for keys in (now.waiting_for, away))
    return {"state": now.state.value, "attempt": now.attempt, "waiting_for": waiting, "away": absent}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    verdict, transaction = outcome.verdict, outcome.transaction
    proved = verdict and {"pubkey": verdict.accused.hex(), "kind": verdict.kind.name.lower().replace("_", "-")}
    return {
        "end": outcome.end.value,
        "tx_hex": transaction and transaction.raw.hex(),
        "txid": transaction and transaction.txid_hex,
        "proved": proved,
        "suspects": [key.hex() for key in outcome.suspects],
        "error": outcome.error and str(outcome.error),
    }


def _main() -> int:
    label, folder, liar = sys.argv[1:4]
    try:
        asyncio.run(_Node(label, Path(folder), liar).run())
    except NetworkError as error:
        _report("failed", error=str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
