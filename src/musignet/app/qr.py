"""A QR code in the terminal, two rows of modules in a row of characters."""

from __future__ import annotations

import sys

import click

__all__ = ["show_qr"]

_BORDER = 2
_BLOCKS = {(False, False): " ", (True, False): "\u2580", (False, True): "\u2584", (True, True): "\u2588"}
"""Light modules are drawn, as on a dark terminal; scanners read the inverse too."""


def show_qr(text: str) -> bool:
    """Print a QR code of a text that reads the same in upper case. Returns whether there is one to see.

    There is none where `segno` is not installed, or the terminal cannot show blocks.
    """
    try:
        import segno

        "\u2588".encode(sys.stdout.encoding or "ascii")
    except (ModuleNotFoundError, UnicodeEncodeError):
        return False
    code = segno.make(text.upper(), error="l", micro=False)
    rows = [[not dark for dark in row] for row in code.matrix_iter(border=_BORDER)]
    rows += [[False] * len(rows[0])] * (len(rows) % 2)
    for top, bottom in zip(rows[::2], rows[1::2], strict=True):
        click.echo("".join(_BLOCKS[pair] for pair in zip(top, bottom, strict=True)))
    return True
