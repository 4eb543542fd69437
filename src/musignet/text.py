"""Text that came from somebody else, made safe to show (THREATS.md Z1, X16).

Labels, error texts and addresses are chosen by peers. Whatever reaches a log, a terminal or an
exception passes `safe` first, so that no byte of it can move a cursor, hide a word or forge a line.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from .limits import LABEL_MAX_CHARS

__all__ = ["name_fault", "safe", "short_key", "who"]

_SHORT_KEY_CHARS = 8

_UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Unicode's controls, formats (bidirectional marks, joiners), surrogates, private and unassigned, line separators."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


def safe(text: object, limit: int = LABEL_MAX_CHARS) -> str:
    """Return `text` as printable ASCII (0x20 to 0x7e) of at most `limit` characters.

    Everything else is escaped as in a Python literal (`\\x1b`, `\\u202e`). Doing it twice changes nothing, so a
    sentence may be built from parts that are safe already. A text that is cut ends in `...`.
    """
    shown = str(text)
    if len(shown) <= limit and shown.isascii() and shown.isprintable():
        return shown  # as most are
    shown = shown[: limit + 1].translate(_CONTROLS).encode("ascii", "backslashreplace").decode("ascii")
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def short_key(pubkey: bytes | str) -> str:
    """Return the first 8 hex digits after the parity byte of a 33-byte key: enough to tell peers apart on a screen.

    It identifies nobody: two keys can share it. Compare whole keys wherever it matters.
    """
    hexed = pubkey if isinstance(pubkey, str) else pubkey.hex()
    return safe(hexed[2 : 2 + _SHORT_KEY_CHARS]) or "no key"


def who(label: str, pubkey: bytes | str) -> str:
    """Return how a peer is named in every sentence a person reads: `bob (1f3a09cc)`."""
    short = short_key(pubkey)
    return f"{safe(label)} ({short})" if label and label != short else f"key {short}"


def name_fault(name: str) -> str | None:
    """Return what is wrong with a name that people give to a device or a group; None where it is in order.

    1 to 64 characters that can be seen, with single spaces inside and no slash: a name is said aloud and typed again.
    """
    if not 0 < len(name) <= LABEL_MAX_CHARS:
        return f"a name has 1 to {LABEL_MAX_CHARS} characters"
    if any(unicodedata.category(char) in _UNSEEN for char in name):
        return "a name has no control, direction or invisible characters"
    if name != " ".join(name.split()) or name.startswith((".", "-")):
        return "a name begins with neither a dot nor a dash, and has single spaces inside only"
    if any(char in "/\\" for char in name):
        return "a name has no slashes"
    return None
