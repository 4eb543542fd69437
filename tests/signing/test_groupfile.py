"""Group files: one form, every word of it checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import AuthenticationError, InvalidMessage, NetworkError, SerializationError
from musignet.signing.groupfile import GroupFile, fingerprint
from support.ceremony import identity, signing_group
from support.wallet import MEMBERS

GROUP = signing_group()
LABELS = {identity(name).pubkey: name for name in MEMBERS}
FILE = GroupFile("savings", GROUP, LABELS)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    tree = json.loads(FILE.encode())
    change(tree)
    return json.dumps(tree).encode()


def first(tree: dict[str, Any]) -> dict[str, Any]:
    member: dict[str, Any] = tree["members"][0]
    return member


@pytest.mark.parametrize("shape", ["aggregate", "each"])
def test_a_file_is_read_as_it_was_written(shape: str) -> None:
    group = signing_group(shape)
    file = GroupFile.parse_untrusted(GroupFile("savings", group, LABELS).encode())
    assert (file.name, file.group.id, file.labels) == ("savings", group.id, LABELS)
    assert str(file.group.wallet.descriptor) == str(group.wallet.descriptor)
    assert GroupFile.parse_untrusted(file.encode()).encode() == file.encode()


def test_the_file_holds_what_is_promised_and_no_more() -> None:
    tree = json.loads(FILE.encode())
    assert list(tree) == ["musignet_group", "name", "network", "descriptor", "members", "policy_version"]
    assert [list(one) for one in tree["members"]] == [["label", "identity", "key"]] * len(MEMBERS)
    assert FILE.encode().endswith(b"\n")


def test_the_fingerprint_is_short_and_of_the_group() -> None:
    assert FILE.fingerprint == fingerprint(GROUP.id) == f"{GROUP.id.hex()[:4]} {GROUP.id.hex()[4:8]}"
    assert fingerprint(signing_group("each").id) != FILE.fingerprint


def test_labels_cannot_be_changed_afterwards() -> None:
    given_labels = dict(LABELS)
    file = GroupFile("savings", GROUP, given_labels)
    given_labels.clear()
    assert file.labels == LABELS
    with pytest.raises(TypeError):
        file.labels[b""] = "mallory"  # type: ignore[index]


FORMS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("another version", lambda tree: tree.update(musignet_group=2)),
    ("a version that is true", lambda tree: tree.update(musignet_group=True)),
    ("an unknown key", lambda tree: tree.update(extra=1)),
    ("an unknown key of a member", lambda tree: tree["members"][0].update(extra=1)),
    ("no name", lambda tree: tree.pop("name")),
    ("no descriptor", lambda tree: tree.pop("descriptor")),
    ("an unknown network", lambda tree: tree.update(network="testnet3")),
    ("a name that is a number", lambda tree: tree.update(name=7)),
    ("members that are no list", lambda tree: tree.update(members={})),
    ("a policy version with a fraction", lambda tree: tree.update(policy_version=0.5)),
    ("a policy version that is text", lambda tree: tree.update(policy_version="0")),
    ("an identity in capitals", lambda tree: tree["members"][0].update(identity="02" + "AB" * 32)),
    ("an identity and a line end", lambda tree: tree["members"][0].update(identity="02" + "ab" * 32 + "\n")),
    ("an identity cut", lambda tree: tree["members"][0].update(identity="02")),
    ("a key too long", lambda tree: tree["members"][0].update(key="t" * (limits.KEY_TEXT_MAX_CHARS + 1))),
    ("a descriptor too long", lambda tree: tree.update(descriptor="t" * (limits.DESCRIPTOR_MAX_CHARS + 1))),
    ("members too many", lambda tree: tree.update(members=tree["members"][:1] * (limits.GROUP_KEYS_MAX + 1))),
]


@pytest.mark.parametrize("change", [change for _, change in FORMS], ids=[name for name, _ in FORMS])
def test_another_form_is_no_group_file(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(SerializationError, match="not a group file"):
        GroupFile.parse_untrusted(changed(change))


TEXT = FILE.encode()
BYTES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("a list", b"[]"),
    ("no JSON", TEXT[:-3]),
    ("a trailing word", TEXT + b"{}"),
    ("a key twice", TEXT.replace(b'"name"', b'"name": "other", "name"', 1)),
    ("a key of a member twice", TEXT.replace(b'"label"', b'"label": "other", "label"', 1)),
    ("not UTF-8", TEXT.replace(b"savings", b"\xff")),
    ("a byte order mark", b"\xef\xbb\xbf" + TEXT),
    ("not a number", TEXT.replace(b'"policy_version": 0', b'"policy_version": NaN')),
    ("a number of 5,000 digits", TEXT.replace(b'"policy_version": 0', b'"policy_version": ' + b"9" * 5000)),
    ("deep", b"[" * 100_000),
    ("too large", TEXT + b" " * limits.GROUP_FILE_MAX_BYTES),
]


@pytest.mark.parametrize("data", [data for _, data in BYTES], ids=[name for name, _ in BYTES])
def test_other_bytes_are_no_group_file(data: bytes) -> None:
    with pytest.raises(SerializationError, match="not a group file"):
        GroupFile.parse_untrusted(data)


MEANINGS: list[tuple[str, type[NetworkError], Callable[[dict[str, Any]], object]]] = [
    ("no cosigners", InvalidMessage, lambda tree: tree["members"].pop()),
    ("another descriptor", InvalidMessage, lambda tree: tree.update(descriptor=tree["descriptor"][:-1] + "!")),
    ("another's key", InvalidMessage, lambda tree: tree["members"][0].update(key=tree["members"][1]["key"])),
    ("another network", NetworkError, lambda tree: tree.update(network="mainnet")),
    ("an identity off the curve", AuthenticationError, lambda tree: first(tree).update(identity="02" + "ff" * 32)),
    ("an identity twice", InvalidMessage, lambda tree: first(tree).update(identity=tree["members"][1]["identity"])),
    ("one label twice", InvalidMessage, lambda tree: tree["members"][0].update(label=tree["members"][1]["label"])),
    ("a label of none", InvalidMessage, lambda tree: tree["members"][0].update(label="")),
    ("a label too long", InvalidMessage, lambda tree: tree["members"][0].update(label="x" * 65)),
    ("a label that moves the cursor", InvalidMessage, lambda tree: tree["members"][0].update(label="\x1b[2J")),
    ("a label that runs backwards", InvalidMessage, lambda tree: tree["members"][0].update(label="a\u202eb")),
    ("half a character", InvalidMessage, lambda tree: tree["members"][0].update(label="\ud800")),
    ("a name that is a path", InvalidMessage, lambda tree: tree.update(name="../../etc")),
    ("other rules", InvalidMessage, lambda tree: tree.update(policy_version=1)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "change"), [row[1:] for row in MEANINGS], ids=[row[0] for row in MEANINGS])
def test_what_cannot_be_is_refused(error: type[NetworkError], change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(error):
        GroupFile.parse_untrusted(changed(change))


def test_labels_are_for_the_members_alone() -> None:
    with pytest.raises(InvalidMessage, match="one for each member"):
        GroupFile("savings", GROUP, dict(list(LABELS.items())[1:]))
    with pytest.raises(InvalidMessage, match="one for each member"):
        GroupFile("savings", GROUP, LABELS | {bytes(33): "mallory"})


@given(st.binary(max_size=200) | st.integers(0, len(TEXT) - 1).flatmap(
    lambda at: st.binary(min_size=1, max_size=3).map(lambda new: TEXT[:at] + new + TEXT[at + 1 :])
))  # fmt: skip
def test_any_bytes_are_a_group_or_refused_in_a_sentence(data: bytes) -> None:
    try:
        file = GroupFile.parse_untrusted(data)
    except NetworkError as error:
        said = str(error)
    else:
        said = file.fingerprint
    assert said.isascii()


def test_the_largest_group_fits() -> None:
    frame = '    {\n      "label": "",\n      "identity": "",\n      "key": ""\n    },\n'
    member = len(frame) + 4 * limits.LABEL_MAX_CHARS + 66 + limits.KEY_TEXT_MAX_CHARS
    assert limits.GROUP_KEYS_MAX * member + limits.DESCRIPTOR_MAX_CHARS + limits.KIB < limits.GROUP_FILE_MAX_BYTES
