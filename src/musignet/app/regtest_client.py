"""What is asked of a regtest chain that another process keeps: coins and blocks. Needs no kernel."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import msgspec

from .. import limits
from ..errors import ConnectionError, LocalError
from ..net.oserror import spoken

__all__ = ["ask"]


def ask(url: str, path: str, body: Mapping[str, object]) -> dict[str, Any]:
    """Send one of the two requests to play with to a chain that runs in another process, and return its answer.

    Raises: LocalError with the server's reason; ConnectionError when nobody answers, or not as it should.
    """
    try:
        request = urllib.request.Request(url.rstrip("/") + path, msgspec.json.encode(body), method="POST")
        with urllib.request.urlopen(request, timeout=limits.CHAIN_CALL_TIMEOUT_S) as response:
            answer: dict[str, Any] = msgspec.json.decode(response.read(limits.REGTEST_BODY_MAX_BYTES), type=dict)
    except urllib.error.HTTPError as error:
        raise LocalError(error.read(limits.CONTROL_PAYLOAD_MAX_BYTES).decode("ascii", "replace")) from None
    except (OSError, ValueError, HTTPException) as error:
        hint = "start one: musignet regtest --esplora 127.0.0.1:3002"
        raise ConnectionError(f"no regtest chain answers at {url}", got=spoken(_reason(error)), hint=hint) from None
    return answer


def _reason(error: Exception) -> Exception:
    """urllib wraps what the system says."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, Exception) else error
