"""How a command ends before its time: Ctrl-C, SIGTERM, a closed terminal, and a prompt that nobody can answer."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

__all__ = ["ends", "interrupted", "unwinding"]


def interrupted(prompt: click.Abort) -> bool:
    """Return whether Ctrl-C ended a prompt. Otherwise nobody is there to ask."""
    return isinstance(prompt.__context__, KeyboardInterrupt)


def ends() -> tuple[signal.Signals, ...]:
    """Return what ends a command as Ctrl-C does: SIGTERM, and a closed terminal's, unless `nohup` says to go on."""
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return signal.SIGTERM, signal.SIGHUP


@contextmanager
def unwinding() -> Iterator[None]:
    """Have those signals unwind what is done here, as Ctrl-C does: a prompt gives the terminal its echo back, an invite
    that waits is withdrawn.
    """
    if threading.current_thread() is not threading.main_thread():  # nobody else may say so
        yield
        return
    before = {number: signal.signal(number, _end) for number in ends()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
