"""What must hold in every run, checked after every step and once more when the network has been whole for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ..errors import NetworkError
from ..node.effects import Store
from ..node.kept import Box
from ..node.peers import PeerState
from .actors import Actor

__all__ = ["Broken", "Invariants"]


class Broken(AssertionError):
    """An invariant does not hold. The text says which, where and when."""


class Invariants:
    """Watches one world.

    During a run: a message reaches one life of its receiver at most once, and with disks no later one either, once it
    is on disk that it was handled; no honest node finds fault with another; every bound of `Limits` holds; a timer that
    has fired does not ask to fire again at once.
    In the end: every command was answered, everybody is connected to each friend by one and the same link, nothing is
    left on its way, and every message that was accepted arrived, unless its sender died first; with disks, was handled.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._delivered: set[tuple[str, int, bytes]] = set()
        self._arrived: dict[tuple[str, bytes], int] = {}
        self._handled: set[tuple[str, bytes]] = set()
        self._finished: set[tuple[str, bytes]] = set()
        self._accepted: list[tuple[Actor, int, Actor, bytes]] = []

    def accepted(self, sender: Actor, receiver: Actor, payload: bytes) -> None:
        """A node took a message on."""
        self._accepted.append((sender, sender.life, receiver, payload))

    def delivered(self, receiver: Actor, sender: Actor, payload: bytes) -> None:
        """A message reached the application."""
        if not payload.startswith(sender.name.encode("ascii") + b"."):
            self._break(receiver, f"{payload!r} was attributed to {sender.name}")
        once = (receiver.name, receiver.life, payload)
        if once in self._delivered:
            self._break(receiver, f"{payload!r} was delivered twice")
        self._delivered.add(once)
        arrived = (receiver.name, payload)
        self._arrived[arrived] = self._arrived.get(arrived, 0) + 1

    def on_disk(self, actor: Actor, effect: Store) -> None:
        """A write is finished."""
        self._handled |= {(actor.name, one.message_id) for one in effect.puts if one.box is Box.HANDLED}

    def once(self, receiver: Actor, message_id: bytes) -> None:
        """A message reaches the application: not one that is handled already."""
        if (receiver.name, message_id) in self._handled:
            self._break(receiver, f"{message_id.hex()} was handed over again after it was handled")

    def finished(self, receiver: Actor, payload: bytes) -> None:
        """The application has handled a message."""
        self._finished.add((receiver.name, payload))

    def fault(self, actor: Actor, error: NetworkError) -> None:
        """A node says that another one broke a rule: here nobody does."""
        self._break(actor, f"an honest node was blamed: {error}")

    def undelivered(self, actor: Actor) -> None:
        """A node gave messages up: here nobody is told to hang up."""
        self._break(actor, "messages were given up")

    def after_step(self, actor: Actor) -> None:
        """Bounds, after every input."""
        node = actor.node
        if node is None:
            return
        limits = node.limits
        for peer in node.book:
            if len(peer.unacked) > limits.unacked_max:
                self._break(actor, f"{len(peer.unacked)} messages on their way, at most {limits.unacked_max}")
            if len(peer.windows) > limits.epochs_per_sender:
                self._break(actor, f"{len(peer.windows)} windows, at most {limits.epochs_per_sender}")
            if len(peer.links) > 2:
                self._break(actor, f"{len(peer.links)} links to one peer")
            if peer.unacked_bytes != sum(len(message.data) for message in peer.unacked.values()):
                self._break(actor, "bytes on their way are miscounted")

    def woken(self, actor: Actor, now: float) -> None:
        """A timer has fired."""
        deadline = actor.node.next_deadline() if actor.node is not None else None
        if deadline is not None and deadline <= now:
            self._break(actor, "a timer asks to fire again at once")

    def at_rest(self, actors: Iterable[Actor]) -> None:
        """In the end: everything is connected, and everything arrived."""
        for actor in actors:
            if actor.sent:
                self._break(actor, f"{len(actor.sent)} commands were never answered")
            for friend in actor.friends:
                self._pair_at_rest(actor, friend)
        for sender, life, receiver, payload in self._accepted:
            disk = sender.config.disk
            arrived = (receiver.name, payload) in (self._finished if disk else self._arrived)
            if (sender.life == life or disk) and not arrived:
                self._break(sender, f"{payload!r} was accepted for {receiver.name} and never arrived")

    def _pair_at_rest(self, actor: Actor, friend: Actor) -> None:
        if actor.node is None or friend.node is None:
            self._break(actor, "is still down in the end")
        peer = actor.node.book.get(friend.key)
        if peer is None or peer.state is not PeerState.CONNECTED:
            self._break(actor, f"is not connected to {friend.name}: {peer.state if peer else 'unknown'}")
        if len(peer.links) != 1:
            self._break(actor, f"has {len(peer.links)} links to {friend.name}")
        if peer.unacked or peer.parked:
            self._break(
                actor, f"still has {len(peer.unacked)}+{len(peer.parked)} messages on their way to {friend.name}"
            )
        end = actor.ends[peer.links[0].number]
        back = friend.node.book.get(actor.key)
        if back is None or not back.links or friend.ends.get(back.links[0].number) is not end.other:
            self._break(actor, f"and {friend.name} use different links")

    def _break(self, actor: Actor, what: str) -> NoReturn:
        raise Broken(f"seed {self._seed}, {actor!r}: {what}")
