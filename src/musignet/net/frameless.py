"""Errors that are kept."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["frameless"]

_Error = TypeVar("_Error", bound=BaseException)


def frameless(error: _Error) -> _Error:
    """Return the error itself, and what caused it, without the frames they went through.

    A node keeps the last error of each peer: with its frames it would keep the link, and whatever the peer had sent.
    """
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error
