"""The peers that people have pinned, durable: `book.db` in the data folder. Disk before use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from ..errors import IoError
from ..net.folder import DataFolder
from ..net.store import Journal, Kind, Record
from ..node.addresses import readable_untrusted
from ..node.peers import PeerInfo

__all__ = ["Pins"]

_PINNED: Final = 0
_FORGOTTEN: Final = 1
_KINDS: Final = (Kind(_PINNED, "peer pinned"), Kind(_FORGOTTEN, "peer forgotten"))


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pinned peer on disk, as JSON."""

    label: str
    key: str
    name: str = ""
    host: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()


class Pins:
    """See the module. Raises IoError when the journal is damaged: then nobody is let in."""

    def __init__(self, folder: DataFolder) -> None:
        self._journal = Journal.open(folder, "book", _KINDS)
        self._by_key: dict[str, PeerInfo] = {}
        for stored in self._journal.replay():
            self._replay(stored.record)

    def __iter__(self) -> Iterator[PeerInfo]:
        return iter(self._by_key.values())

    def get(self, key: str) -> PeerInfo | None:
        """Return the pinned peer with this key in hex."""
        return self._by_key.get(key)

    def pin(self, info: PeerInfo) -> None:
        """Keep a peer, or its new label and address. Raises IoError."""
        if self._by_key.get(info.pubkey_hex) == info:
            return
        row = _Row(info.id, info.pubkey_hex, info.name, info.host, info.port, info.addresses)
        self._journal.append([Record(_PINNED, bytes.fromhex(info.pubkey_hex), msgspec.json.encode(row))])
        self._by_key[info.pubkey_hex] = info

    def forget(self, key: str) -> None:
        """Keep a peer no longer. Raises IoError."""
        if key in self._by_key:
            self._journal.append([Record(_FORGOTTEN, bytes.fromhex(key), b"")])
            del self._by_key[key]

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _replay(self, record: Record) -> None:
        if record.kind == _FORGOTTEN:
            self._by_key.pop(record.key.hex(), None)
            return
        try:
            row = msgspec.json.decode(record.body, type=_Row)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            hint = "restore it from a backup, or pair again"
            raise IoError(f"damaged journal book.db: {error}", hint=hint) from error
        addresses = tuple(one.text for one in readable_untrusted(row.addresses))  # a newer run may have known more
        self._by_key[row.key] = PeerInfo(
            id=row.label, name=row.name, host=row.host, port=row.port, addresses=addresses, pubkey_hex=row.key
        )
