"""Where the members of a group look for each other: its relays, as the person at this node has them.

Each node has a list of its own for each group, in a file beside the group file, and tells it to the other members. What
another member tells is shown and nothing more, until a person here takes it: no peer makes this node connect anywhere.
Nothing that is signed depends on it. With a list, this node reads its inbox at these relays, too, and dials the other
members there; so who has another list is only found elsewhere, or later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Final

from msgspec import Meta, Struct

from ..errors import InvalidMessage, IoError, NetworkError
from ..limits import ADDRESS_MAX_CHARS, ADDRESSES_MAX, GROUP_RELAYS_MAX, RELAYS_FILE_MAX_BYTES
from ..net.peer import Peer
from ..net.privatefile import write_whole
from ..node.addresses import parse_address
from ..node.effects import News, PeerUp
from ..signing import strictjson
from ..signing.groupfile import GroupFile
from ..text import safe
from ..wire.envelope import Message
from ..wire.messages import GroupRelays, MessageType
from .desk import Desk, House
from .places import GROUPS_FOLDER

__all__ = ["RelayDesk", "relay_list"]

_SUFFIX: Final = ".relays"
_Text = Annotated[str, Meta(max_length=ADDRESS_MAX_CHARS)]


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    musignet_relays: Annotated[int, Meta(ge=1, le=1)]
    relays: Annotated[tuple[_Text, ...], Meta(max_length=GROUP_RELAYS_MAX)]


def relay_list(texts: Iterable[str]) -> tuple[str, ...]:
    """Return relays in their shortest form, each once. Raises InvalidMessage for what is none, or too many."""
    try:
        places = [parse_address(text) for text in texts]
    except NetworkError as error:
        raise InvalidMessage("not a relay", expected="wss://HOST", got=error.got) from None
    wrong = next((one.text for one in places if one.carrier not in ("ws", "wss")), None)
    if wrong is not None:
        raise InvalidMessage("not a relay", expected="wss://HOST", got=safe(wrong, 80))
    relays = tuple(dict.fromkeys(one.text for one in places))
    if len(relays) > GROUP_RELAYS_MAX:
        raise InvalidMessage("too many relays of a group", expected=f"at most {GROUP_RELAYS_MAX}", got=len(relays))
    return relays


class RelayDesk:
    """See the module. It registers itself for the messages and the news of the daemon.

    Raises: IoError when a file of it is damaged.
    """

    def __init__(self, daemon: House) -> None:
        self._daemon = daemon
        self._folder = daemon.folder.path / GROUPS_FOLDER
        self._own: dict[bytes, tuple[str, ...]] = {one.group.id: self._load(one) for one in daemon.groups}
        self._told: dict[bytes, dict[bytes, tuple[str, ...]]] = {}
        self._desk = Desk(lambda: None, lambda: None)
        daemon.handler.register(MessageType.GROUP_RELAYS, self._heard)
        daemon.listeners.append(self._on_news)

    async def stop(self) -> None:
        """Do nothing more."""
        await self._desk.stop()

    def of(self, group: bytes) -> tuple[str, ...]:
        """Return the relays of a group, as this node has them."""
        return self._own.get(group, ())

    def told(self, group: bytes) -> Mapping[bytes, tuple[str, ...]]:
        """Return what other members have told in this run, by identity key, where it is something else."""
        own = self.of(group)
        return {key: relays for key, relays in self._told.get(group, {}).items() if relays != own}

    @property
    def all(self) -> tuple[str, ...]:
        """The relays of all groups, each once: where this node reads its inbox beside its own."""
        return tuple(dict.fromkeys(relay for one in self._daemon.groups for relay in self.of(one.group.id)))

    def beside(self, identity: bytes, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Return where a cosigner is dialled: at its own addresses, and at the relays of the groups that it is in."""
        groups = [one.group.id for one in self._daemon.groups if identity in one.group]
        relays = [relay for group in groups for relay in self.of(group)]
        return tuple(dict.fromkeys((*addresses, *relays)))[:ADDRESSES_MAX]

    def set(self, group: GroupFile, relays: tuple[str, ...]) -> None:
        """A person here says what the relays of a group are. The other members are told, also who is away.

        Raises: IoError. Then nothing has changed.
        """
        path = self._folder / f"{group.group.id.hex()}{_SUFFIX}"
        write_whole(path, "relay list", strictjson.write(_File(1, relays)), overwrite=True)
        self._own[group.group.id] = relays
        self._daemon.look_at_relays()
        for key in group.group.identities:
            if key != self._daemon.network.identity.pubkey:
                self._desk.do(partial(self._say, group.group.id, key, durable=True), key)
        self._changed(group)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _load(self, group: GroupFile) -> tuple[str, ...]:
        path = self._folder / f"{group.group.id.hex()}{_SUFFIX}"
        if not path.exists():
            return ()
        try:
            file = strictjson.read_untrusted(
                path.read_bytes(), _File, "a relay list", RELAYS_FILE_MAX_BYTES, "`musignet group relays`"
            )
            return relay_list(file.relays)
        except (OSError, NetworkError) as error:
            raise IoError(f"damaged {path}: {error}", hint="remove it, and set the relays again") from error

    def _on_news(self, news: News) -> None:
        if isinstance(news, PeerUp):
            for one in self._daemon.groups:
                if news.key in one.group and self.of(one.group.id):
                    self._desk.do(partial(self._say, one.group.id, news.key, durable=False), news.key)

    async def _say(self, group: bytes, key: bytes, *, durable: bool) -> None:
        kind = MessageType.GROUP_RELAYS
        message = Message(kind, self._daemon.network.id, GroupRelays(group, self.of(group)))
        await self._daemon.network.send_message_to(key.hex(), message, durable=durable)

    def _heard(self, message: Message, peer: Peer) -> None:
        """A member has a list. It is theirs to say, and a person's to take. What cannot be is dropped."""
        key = bytes.fromhex(peer.pubkey_hex)
        try:
            content = message.content
            assert isinstance(content, GroupRelays)
            relays = relay_list(content.relays)
        except NetworkError as error:
            self._daemon.events.publish("fault", key=peer.pubkey_hex, label=peer.info.id, error=str(error))
            return
        group = next((one for one in self._daemon.groups if one.group.id == content.group and key in one.group), None)
        if group is None:
            return
        told = self._told.setdefault(group.group.id, {})
        if told.get(key) != relays:
            told[key] = relays
            self._changed(group)

    def _changed(self, group: GroupFile) -> None:
        self._daemon.events.publish("group", group=group.group.id.hex(), name=group.name)
