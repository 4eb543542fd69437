"""Calls that may never come back: the client of Esplora has no timeout, and no name lookup has one."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import TypeVar

from ... import limits
from ...errors import NetworkError
from .base import BackendFault, ChainTimeout

__all__ = ["Deadlines"]

T = TypeVar("T")


class Deadlines:
    """Runs calls on threads of their own, and stops waiting when their time is up.

    A thread cannot be ended from outside. One that hangs keeps its socket until the other side closes, does not keep
    the process from ending (it is a daemon), and counts: beyond four of them nothing is begun.

    Args: name - of whom is asked, for the sentences.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = Lock()
        self._hung: list[Thread] = []

    def within(self, timeout_s: float, doing: str, call: Callable[[], T]) -> T:
        """Return what `call` returns. What it raises of NetworkError is raised here.

        Raises: ChainTimeout after `timeout_s`, naming what hung; BackendFault when `call` failed as it never should.
        """
        self._check(doing)
        results: list[T] = []
        errors: list[NetworkError] = []

        def run() -> None:
            try:
                results.append(call())
            except NetworkError as error:
                errors.append(error)

        thread = Thread(target=run, name=f"chain: {doing}", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            with self._lock:
                self._hung.append(thread)
            raise ChainTimeout(
                f"{doing}: no answer from {self._name}", expected=f"one within {timeout_s:g} s",
                hint="is it overloaded, or behind a broken proxy? try again, or name another backend in config.toml",
            )  # fmt: skip
        if errors:
            raise errors[0]
        if not results:
            raise BackendFault(f"{doing}: failed with {self._name}", hint="the log has the details; please report it")
        return results[0]

    def _check(self, doing: str) -> None:
        with self._lock:
            self._hung = [thread for thread in self._hung if thread.is_alive()]
            if len(self._hung) >= limits.CHAIN_HUNG_MAX:
                raise ChainTimeout(
                    f"{doing}: {len(self._hung)} calls before it still wait for {self._name}",
                    hint="restart the node, or name another backend in config.toml",
                )
