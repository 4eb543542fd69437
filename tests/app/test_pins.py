"""Pinned peers: on disk before they are used, and gone from it before they are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from musignet.app.pins import Pins
from musignet.errors import IoError
from musignet.net.folder import DataFolder
from musignet.node.peers import PeerInfo
from support.ceremony import identity

BOB = PeerInfo(id="bob", pubkey_hex=identity("bob").pubkey_hex)
CAROL = PeerInfo(id="carol", pubkey_hex=identity("carol").pubkey_hex)


def test_what_the_disk_does_not_take_has_not_happened(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path)
    pins = Pins(folder)
    pins.pin(BOB)
    pins.close()
    for change in (lambda: pins.forget(BOB.pubkey_hex), lambda: pins.pin(CAROL)):
        with pytest.raises(IoError):
            change()
    assert list(pins) == [BOB]
    again = Pins(folder)
    assert list(again) == [BOB]
    again.close()
