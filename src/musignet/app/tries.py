"""Three tries for whoever types a passphrase. The keyholder has them too, which imports as little as it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ..errors import AuthenticationError

__all__ = ["until_it_opens"]

T = TypeVar("T")

_TRIES: Final = 3


def until_it_opens(ask: Callable[[], str], opens: Callable[[str], T], tell: Callable[[str], None]) -> T:
    """Ask until what is typed opens it, three times at most, and return what was opened.

    Args:   tell - is given what was wrong, before it is asked again.
    Raises: AuthenticationError after the third time; what `ask` raises.
    """
    for _ in range(_TRIES - 1):
        try:
            return opens(ask())
        except AuthenticationError as error:
            tell(f"{error}; type it again")
    return opens(ask())
