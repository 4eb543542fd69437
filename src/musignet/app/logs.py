"""The log of a running node: every line safe to show, none that a peer can flood (THREATS.md Z1, Z6)."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import Final

from ..errors import IoError
from ..limits import LOG_FILE_MAX_BYTES, LOG_FILES, LOG_LINE_MAX_CHARS, LOG_SOURCES_MAX
from ..text import safe
from .config import Config

__all__ = ["PerPeer", "set_up"]

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Console(logging.Formatter):
    """`2026-11-26 01:02:03 WARNING bob is gone`."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{at} {record.levelname} {_message(self, record)}"


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        facts = {"time": at, "level": record.levelname.lower(), "from": record.name}
        return json.dumps(facts | {"text": _message(self, record)})


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the text with its traceback, if any, as one line of printable ASCII."""
    text = record.getMessage()
    if record.exc_info:
        text = f"{text} | {formatter.formatException(record.exc_info)}"
    return safe(text, LOG_LINE_MAX_CHARS)


class PerPeer(logging.Filter):
    """At most `per_s` lines a second about one peer; what was left out is counted in the next line.

    A line is about the first argument of its text, which in this house is the peer it is about.
    """

    def __init__(self, per_s: int, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._per_s = per_s
        self._now = now
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """About whom: in which second, how many lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = safe(record.args[0]) if isinstance(record.args, tuple) and record.args else record.name
        second = int(self._now())
        then, count = self._seen.pop(about, (second, 0))
        self._seen[about] = (second, 1) if then != second else (second, count + 1)
        if len(self._seen) > LOG_SOURCES_MAX:
            self._seen.popitem(last=False)
        left_out = count - self._per_s
        if then != second and left_out > 0:
            record.msg, record.args = f"{record.getMessage()} ({left_out} lines left out)", ()
        return then != second or count < self._per_s


class _File(RotatingFileHandler):
    """On a disk that may be full: then lines are lost, and a traceback on the screen for each would bring none back."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def set_up(config: Config) -> logging.Handler:
    """Send everything that is logged to one place. Returns its handler, to be closed at the end. Raises IoError."""
    handler: logging.Handler
    try:
        handler = (
            _File(config.log_file, maxBytes=LOG_FILE_MAX_BYTES, backupCount=LOG_FILES - 1)
            if config.log_file
            else logging.StreamHandler()
        )
    except OSError as error:
        raise IoError(f"{error.strerror}: log file {config.log_file}", hint="check file in [log]") from error
    handler.setFormatter(_Json() if config.log_format == "json" else _Console())
    handler.addFilter(PerPeer(config.log_lines_per_s))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[config.log_level])
    for name in ("asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler
