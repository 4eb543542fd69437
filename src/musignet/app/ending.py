"""How a command ends before its time: Ctrl-C, SIGTERM, and a prompt that nobody can answer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

__all__ = ["interrupted", "sigterm_ends"]


def interrupted(prompt: click.Abort) -> bool:
    """Return whether Ctrl-C ended a prompt. Otherwise nobody is there to ask."""
    return isinstance(prompt.__context__, KeyboardInterrupt)


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Have SIGTERM unwind what is done here, as Ctrl-C does: a prompt gives the terminal its echo back, an invite that
    waits is withdrawn.
    """
    if threading.current_thread() is not threading.main_thread():  # nobody else may say so
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
