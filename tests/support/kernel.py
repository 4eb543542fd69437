"""Bitcoin Core's kernel for the tests that need it: they skip where it is not installed, but fail there in CI."""

from __future__ import annotations

import os
import sys

import pytest

__all__ = ["RegtestChain", "TransactionRefused"]

try:
    from musignet.app.regtest import RegtestChain, TransactionRefused
except ModuleNotFoundError as error:
    if error.name != "pbk" or (os.environ.get("CI") and sys.version_info < (3, 14)):
        raise
    pytest.skip("no Bitcoin kernel: install the extra named demo (Python below 3.14)", allow_module_level=True)
