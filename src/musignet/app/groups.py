"""The groups of this node: files in `groups/` of the data folder, public data that people have confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import IoError, LocalError, NetworkError
from ..net.folder import DataFolder
from ..net.privatefile import write_whole
from ..signing.groupfile import GroupFile
from ..text import safe
from .places import GROUPS_FOLDER
from .sessions import NotFound

__all__ = ["Groups"]

_WHAT: Final = "group file"
_ELSEWHERE: Final = ".elsewhere"
"""An empty file beside a group file: our key in that group is in another signer."""


class Groups:
    """See the module. Raises IoError when a file is damaged."""

    def __init__(self, folder: DataFolder) -> None:
        self._path = folder.path / GROUPS_FOLDER
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._groups: dict[bytes, GroupFile] = {}
        for path in sorted(self._path.glob("*.json")):
            group = _read(path)
            self._groups[group.group.id] = group

    def __iter__(self) -> Iterator[GroupFile]:
        return iter(self._groups.values())

    def get(self, group: bytes) -> GroupFile:
        """Return a group by its id. Raises NotFound."""
        return self.find(group.hex())

    def find(self, name: str) -> GroupFile:
        """Return the group of this name, or whose id begins so. Raises NotFound, LocalError when several do."""
        found = [one for one in self if one.name == name]
        found = found or [one for one in self if name and one.group.id.hex().startswith(name.lower())]
        if not found:
            known = ", ".join(safe(one.name) for one in self) or "none"
            raise NotFound(f"no group {safe(name)!r}", hint=f"there is {known}; see: musignet group list")
        if len(found) > 1:
            raise LocalError(f"several groups are called {safe(name)}", hint="give the first digits of its id")
        return found[0]

    def elsewhere(self, group: bytes) -> bool:
        """Return whether our key in a group is in another signer."""
        return self._marker(group).exists()

    def add(self, group: GroupFile, *, elsewhere: bool = False) -> None:
        """Keep a group; `elsewhere`: our key in it is in another signer.

        Raises: LocalError when there is one of that name already, or it is kept the other way; IoError.
        """
        kept = group.group.id in self._groups
        if kept and elsewhere is not self.elsewhere(group.group.id):
            raise LocalError(f"{safe(group.name)} is kept already, with its key in another place")
        if any(one.name == group.name and one.group.id != group.group.id for one in self):
            raise LocalError(f"another group is called {safe(group.name)}", hint="choose another name")
        marker = self._marker(group.group.id)
        if elsewhere:
            write_whole(marker, _WHAT, b"", overwrite=True)
        else:  # a crash may have left it without its group
            marker.unlink(missing_ok=True)
        write_whole(self._path / f"{group.group.id.hex()}.json", _WHAT, group.encode(), overwrite=True)
        self._groups[group.group.id] = group

    def _marker(self, group: bytes) -> Path:
        return self._path / f"{group.hex()}{_ELSEWHERE}"


def _read(path: Path) -> GroupFile:
    try:
        group = GroupFile.parse_untrusted(path.read_bytes())
    except OSError as error:
        raise IoError(f"{error.strerror}: {path}", hint="check the file and who owns it") from error
    except NetworkError as error:
        raise IoError(f"damaged group file {path}: {error}", hint="import it again from another cosigner") from error
    if path.stem != group.group.id.hex():
        raise IoError(f"group file {path}", expected=f"the name {group.group.id.hex()}.json", got=path.name)
    return group
