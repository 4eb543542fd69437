"""Text that came from somebody else, made safe to show (THREATS.md Z1, X16).

Labels, error texts and addresses are chosen by peers. Whatever reaches a log, a terminal or an
exception passes `safe` first, so that no byte of it can move a cursor, hide a word or forge a line.
"""

from __future__ import annotations

from .limits import LABEL_MAX_CHARS

__all__ = ["safe", "short_key", "who"]

_SHORT_KEY_CHARS = 8

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


def safe(text: object, limit: int = LABEL_MAX_CHARS) -> str:
    """Return `text` as printable ASCII (0x20 to 0x7e) of at most `limit` characters.

    Everything else is escaped as in a Python literal (`\\x1b`, `\\u202e`). Doing it twice changes nothing, so a
    sentence may be built from parts that are safe already. A text that is cut ends in `...`.
    """
    shown = str(text)[: limit + 1].translate(_CONTROLS).encode("ascii", "backslashreplace").decode("ascii")
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
