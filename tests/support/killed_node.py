"""One cosigner in a process of its own, to be killed and started again on the same folder, with the same keys and port.

It reports on standard output, a line of JSON each. What its keyholder says is reported before the node hears it: from
then on it may leave, and nothing of it may be lost. Orders come on standard input; at its end the process ends.

Run as a program it is the mother of such processes: it has imported everything, and forks, so that a node comes back in
milliseconds and kills hit ceremonies rather than imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from musignet.limits import Limits
from musignet.net.cosigner import HolderHere
from musignet.net.folder import DataFolder
from musignet.net.service import NetworkService
from musignet.node.effects import News, PeerUp, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.effects import Outcome
from musignet.signing.records import Topology
from musignet.signing.verbs import Approved, NoncesMade, PartialsMade, Reply
from musignet.wire.messages import Chain
from support.ceremony import account, identity, signing_group
from support.wallet import MEMBERS

LIMITS: Final = Limits(
    reapprove_s=0.4, phase_timeout_s=1.0, silent_attempts_max=16, backoff_min_s=0.02, backoff_max_s=0.2
)
"""What was said to nobody is said again soon, and a busy machine is not taken for a silent cosigner."""


def _report(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def _on_event(news: News) -> None:
    if isinstance(news, PeerUp):
        _report("connected")
    elif isinstance(news, SessionNews) and isinstance(news.news, Outcome):
        told = news.news
        txid, proved = told.transaction and told.transaction.txid_hex, told.verdict and told.verdict.accused.hex()
        session, error = told.session.hex(), told.error and str(told.error)
        _report("outcome", session=session, end=told.end.value, txid=txid, proved=proved, error=error)


def _overheard(answer: Callable[[Reply], None]) -> Callable[[Reply], None]:
    """Return what reports an answer of the keyholder, and then gives it to the node."""

    def hear(reply: Reply) -> None:
        if isinstance(reply, Approved):
            _report("approved", session=reply.session.hex(), digest=reply.digest.hex())
        elif isinstance(reply, NoncesMade | PartialsMade):
            event = "nonces" if isinstance(reply, NoncesMade) else "partials"
            _report(event, session=reply.session.hex(), attempt=reply.attempt, payload=reply.payload.hex())
        answer(reply)

    return hear


async def _propose(service: NetworkService, order: dict[str, Any]) -> None:
    topology, psbt = Topology[order["topology"]], bytes.fromhex(order["psbt"])
    session = await service.propose(signing_group().id, psbt, topology=topology)
    _report("proposed", session=session.hex())


async def main(
    name: str, path: str, ports: Sequence[int], hosts: Sequence[str] = ("127.0.0.1",) * 3, limits: Limits = LIMITS
) -> None:
    group, folder = signing_group(), DataFolder.lock(Path(path))
    own = MEMBERS.index(name)
    service = NetworkService(
        name, host=hosts[own], port=ports[own], identity=identity(name), data_dir=folder, chain=Chain.REGTEST,
        on_event=_on_event, limits=limits,
    )  # fmt: skip
    others = {
        other: PeerInfo(id=other, host=host, port=port, pubkey_hex=identity(other).pubkey_hex)
        for other, host, port in zip(MEMBERS, hosts, ports, strict=True)
        if other != name
    }
    for info in others.values():
        service.add_peer(info)
    await service.start()
    service.cosign_with(group, lambda answer: HolderHere(account(name, group), folder, _overheard(answer)))
    _report("ready")
    async with asyncio.TaskGroup() as dialling:
        for later in MEMBERS[own + 1 :]:
            dialling.create_task(service.connect_to_peer(others[later], persist=True))
        while line := await asyncio.to_thread(sys.stdin.readline):
            await _propose(service, json.loads(line))


def bear(parent: socket.socket) -> list[str] | None:
    """Answer the parent: fork for arguments and two streams, wait for a process id. A child gets the arguments."""
    while data := (received := socket.recv_fds(parent, 4096, 2))[0]:
        order = json.loads(data)
        if isinstance(order, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(order, 0)[1])
        elif (answer := os.fork()) == 0:
            for number, stream in enumerate(received[1]):
                os.dup2(stream, number)
                os.close(stream)
            return list(order)
        for stream in received[1]:
            os.close(stream)
        parent.sendall(json.dumps(answer).encode())
    return None


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as mother:
        arguments = bear(mother)
    if arguments:
        asyncio.run(main(arguments[0], arguments[1], [int(port) for port in arguments[2:]]))
