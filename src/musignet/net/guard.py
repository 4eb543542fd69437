"""Code of the application, called so that its failure stays its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["guarded", "guarded_await"]

logger = logging.getLogger("musignet")


def guarded(call: Callable[..., Any], *args: Any) -> Any:
    """Call code of the application. What it raises is logged and goes no further; then None is returned."""
    try:
        return call(*args)
    except Exception:
        logger.exception("a callback of the application failed; the node goes on")
        return None


async def guarded_await(result: Awaitable[Any]) -> None:
    """Await code of the application, with the same guard."""
    try:
        await result
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        logger.exception("a handler of the application was cancelled; the node goes on")
    except Exception:
        logger.exception("a handler of the application failed; the node goes on")
