"""The blame file: a blame record with the group it is about, for anybody to check without a network or an account.

    {"musignet_blame": 1, "group": {...}, "record": "..."}

`group` is what a group file holds, `record` the blame record in base64. The group's names are those of whoever wrote
the file: a judge who has a group file of their own compares the ids.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from .. import limits
from ..errors import InvalidMessage, SerializationError
from ..text import safe
from . import strictjson
from .blame import Verdict, verify_blame
from .groupfile import GroupFile, GroupRecord

__all__ = ["BlameFile"]

_EXPECTED: Final = "JSON as `musignet export ID --blame` writes it"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    musignet_blame: Literal[1]
    group: GroupRecord
    record: Annotated[str, Meta(max_length=limits.BLAME_MAX_BYTES * 2)]


@dataclass(frozen=True, slots=True, eq=False)
class BlameFile:
    """A blame record that nobody has judged yet, and its group."""

    group: GroupFile
    record: bytes
    """As in `Outcome.blame`."""

    def encode(self) -> bytes:
        """Return the file."""
        record = base64.b64encode(self.record).decode("ascii")
        return strictjson.write(_File(1, self.group.record(), record))

    @classmethod
    def parse_untrusted(cls, data: bytes) -> BlameFile:
        """Return what a file says, not yet judged.

        Raises: SerializationError when it has another form. InvalidMessage, RuleBroken or AuthenticationError when its
                group cannot be.
        """
        file = strictjson.read_untrusted(data, _File, "a blame file", limits.BLAME_FILE_MAX_BYTES, _EXPECTED)
        try:
            record = base64.b64decode(file.record, validate=True)
        except (ValueError, binascii.Error):
            raise SerializationError("not a blame file", expected="a record in base64") from None
        return cls(GroupFile.of_untrusted(file.group), record)

    def judge(self, expected: GroupFile | None = None) -> Verdict:
        """Return what the record proves: every signature in it is checked, and every claim recomputed.

        Args:   expected - the group as the judge knows it.
        Raises: InvalidMessage when it is about another group, or does not prove what it says; that says nothing about
                who is at fault instead. SerializationError when it is no record.
        """
        if expected is not None and expected.group.id != self.group.group.id:
            raise InvalidMessage(
                "this blame file is about another group",
                expected=f"{safe(expected.name)} ({expected.fingerprint})",
                got=f"{safe(self.group.name)} ({self.group.fingerprint})",
            )
        return verify_blame(self.record, self.group.group)
