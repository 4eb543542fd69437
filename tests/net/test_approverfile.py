"""The approver's file: the key that says yes, from the wallet's passphrase."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from musignet.errors import AuthenticationError, IoError, LocalError, SerializationError
from musignet.net.approver import ApproverFile, load_approver, make_approver
from musignet.net.keyfile import LEAST_COST, KdfCost
from musignet.signing.approver import prove_group

GROUP = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "approver.json"
    make_approver(path, "caf\u00e9", LEAST_COST)
    return path


def test_the_passphrase_says_yes_and_the_file_alone_checks_it(path: Path) -> None:
    file = load_approver(path)
    for spelling in ("caf\u00e9", "cafe\u0301", "caf\u00e9".encode()):
        assert file.approver().pinned(GROUP, prove_group(file.unlock(spelling), GROUP))
    assert ApproverFile.parse_untrusted(file.encode()) == file
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("passphrase", ["cafe", "caf\u00e9 ", None])
def test_another_passphrase_does_not(path: Path, passphrase: str | None) -> None:
    with pytest.raises(AuthenticationError, match="wrong passphrase"):
        load_approver(path).unlock(passphrase)


def test_two_files_of_one_passphrase_have_two_keys(path: Path) -> None:
    make_approver(path.with_name("other"), "caf\u00e9", LEAST_COST)
    assert load_approver(path).public != load_approver(path.with_name("other")).public


def test_without_a_passphrase_anybody_with_the_file_says_yes(path: Path) -> None:
    make_approver(path.with_name("open"), None)
    file = load_approver(path.with_name("open"))
    assert file.approver().pinned(GROUP, prove_group(file.unlock(None), GROUP))


def test_no_file_is_replaced(path: Path) -> None:
    with pytest.raises(IoError):
        make_approver(path, "other", LEAST_COST)
    load_approver(path).unlock("caf\u00e9")


def test_a_file_that_others_may_write_or_a_link_is_refused(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(IoError):
        load_approver(link)
    os.chmod(path, 0o606)
    with pytest.raises(IoError, match=r"approver file .* mode 600"):
        load_approver(path)


def test_a_cost_below_the_least_is_refused(path: Path) -> None:
    with pytest.raises(LocalError, match="cost of an approver file"):
        make_approver(path.with_name("cheap"), "x", KdfCost(memory_kib=1, passes=1, lanes=1))


def test_too_little_memory_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("musignet.net.approver.argon2id", no_memory)
    with pytest.raises(LocalError, match="not enough memory"):
        load_approver(path).unlock("x")


CHANGES: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("another version", lambda tree: tree.update(musignet_approver=2)),
    ("an unknown key", lambda tree: tree.update(extra=1)),
    ("no salt", lambda tree: tree.pop("salt")),
    ("a short salt", lambda tree: tree.update(salt="00")),
    ("cheap guesses", lambda tree: tree.update(memory_kib=1024)),
    ("endless work", lambda tree: tree.update(passes=1_000_000)),
    ("a key in capitals", lambda tree: tree.update(public="AB" * 32)),
]


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_another_file_is_refused(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tree = json.loads(path.read_bytes())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(SerializationError):
        load_approver(path)


def test_a_key_put_in_the_place_of_ours_is_noticed(path: Path) -> None:
    make_approver(path.with_name("mallory"), "mallory's", LEAST_COST)
    mallory = json.loads(path.with_name("mallory").read_bytes())
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"public": mallory["public"]}))
    with pytest.raises(AuthenticationError, match="altered approver file"):
        load_approver(path).unlock("caf\u00e9")
