"""Two whole nodes behind two NATs that share nothing but a relay: they find the direct path over it, or TURN's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aioquic", reason="needs the extra `nat`")
pytest.importorskip("nostr_sdk", reason="needs the extra `relay`")

from support.lab_nodes import Node
from support.netlab import Lab, reason_against

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against()), reason=why or "a lab can be built"),
]


@asynccontextmanager
async def away(lab: Lab, *, turn: bool) -> AsyncIterator[tuple[Node, Node, Node]]:
    """Return the relay, Alice and Bob. Alice has dialled Bob over the relay."""
    relay = await Node.run(lab, "pub", "away_node", "relay")
    alice = await Node.start(lab, "A", "away_node", friend="bob", turn=turn)
    bob = await Node.start(lab, "B", "away_node", friend="alice", turn=turn)
    try:
        alice.do("dial", "")
        for node in (alice, bob):
            assert (await node.hears("path"))["path"] == "relayed by ws"
        yield relay, alice, bob
    finally:
        for node in (relay, alice, bob):
            await node.kill()


async def exchanged(alice: Node, bob: Node, text: str) -> None:
    for one, other in ((alice, bob), (bob, alice)):
        one.do("send", text)
        assert (await other.hears("heard"))["text"] == text


@pytest.mark.parametrize(
    ("kinds", "turn", "path"),
    [(("cone", "cone"), False, "punched by ice"), (("symmetric", "cone"), True, "proxied by turn")],
    ids=["cone", "symmetric"],
)
def test_over_the_relay_they_find_a_better_path_which_outlives_the_relay(
    kinds: tuple[str, str], turn: bool, path: str
) -> None:
    async def main() -> None:
        async with away(lab, turn=turn) as (relay, alice, bob):
            await exchanged(alice, bob, "over the relay, or already not")
            for node in (alice, bob):
                assert (await node.hears("path"))["path"] == path
            await relay.kill()
            await exchanged(alice, bob, "without the relay")

    with Lab(kinds) as lab:
        lab.start_turn()
        asyncio.run(main())
