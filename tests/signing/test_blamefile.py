"""Blame files: what they hold is judged as a whole, and nothing in them accuses anybody by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from musignet import limits
from musignet.errors import InvalidMessage, NetworkError, SerializationError
from musignet.signing.blame import Kind
from musignet.signing.blamefile import BlameFile
from musignet.signing.groupfile import GroupFile
from support.blame import RECORDS
from support.ceremony import identity, signing_group
from support.wallet import MEMBERS

BOB = identity("bob").pubkey
GROUP = GroupFile("savings", signing_group(), {identity(name).pubkey: name for name in MEMBERS})
FILES = {liar: BlameFile(GROUP, record) for liar, record in RECORDS.items()}


@pytest.mark.parametrize("liar", FILES)
def test_a_file_is_read_as_it_was_written_and_proves_what_its_record_does(liar: str) -> None:
    file = BlameFile.parse_untrusted(FILES[liar].encode())
    assert (file.record, file.group.group.id) == (RECORDS[liar], GROUP.group.id)
    assert file.judge().accused == file.judge(GROUP).accused == BOB
    assert file.judge().kind in Kind


def test_a_file_about_another_group_than_the_judges_is_refused() -> None:
    other = GroupFile("other", signing_group("each"), dict(GROUP.labels))
    with pytest.raises(InvalidMessage, match=r"about another group: expected other \(.*\), got savings"):
        FILES["bad partial"].judge(other)


def test_another_group_written_into_the_file_proves_nothing() -> None:
    other = GroupFile("savings", signing_group("participants"), dict(GROUP.labels))
    with pytest.raises(NetworkError):
        BlameFile(other, RECORDS["bad partial"]).judge()


@pytest.mark.parametrize("liar", FILES)
def test_one_byte_changed_is_refused_or_says_the_same(liar: str) -> None:
    whole = FILES[liar].encode()
    said = FILES[liar].judge()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[at] ^= 1
        try:
            assert BlameFile.parse_untrusted(bytes(data)).judge() == said
        except NetworkError:
            continue


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    tree = json.loads(FILES["bad partial"].encode())
    change(tree)
    return json.dumps(tree).encode()


OTHER_FORMS = {
    "empty": b"",
    "no JSON": b"{",
    "a group file": GROUP.encode(),
    "another version": changed(lambda tree: tree.update(musignet_blame=2)),
    "an unknown key": changed(lambda tree: tree.update(more=1)),
    "no record": changed(lambda tree: tree.pop("record")),
    "no base64": changed(lambda tree: tree.update(record="?" + tree["record"])),
    "too large": b" " * (limits.BLAME_FILE_MAX_BYTES + 1),
}


@pytest.mark.parametrize("data", OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_another_form_is_no_blame_file(data: bytes) -> None:
    with pytest.raises(SerializationError, match="not a blame file"):
        BlameFile.parse_untrusted(data)


def test_a_record_that_is_none_is_no_proof() -> None:
    with pytest.raises(SerializationError):
        BlameFile(GROUP, b"nothing").judge()
