"""What the keyholder's process imports: nothing with a network, and of others' code only what it needs to sign."""

from __future__ import annotations

import subprocess
import sys

ALLOWED = {
    "_btclib_secp256k1", "btclib_secp256k1",  # signs
    "_wallycore", "wallycore", "swig_runtime_data4",  # reviews
    "msgspec", "typing_extensions",  # reads; the second is the first one's
    "_cffi_backend", "_openssl", "cryptography",  # opens key files
}  # fmt: skip
FORBIDDEN = {"socket", "_socket", "ssl", "_ssl", "asyncio", "selectors", "http", "multiprocessing", "subprocess"}
SCRIPT = """
import sys
before = set(sys.modules)
from musignet.app.keyholder.hardening import NO_NETWORK, harden
harden()
import musignet.app.keyholder.process
loaded = {name for name, module in sys.modules.items() if module is not None and name not in before}
print(" ".join(sorted({name.split(".")[0] for name in loaded})))
for name in NO_NETWORK:
    try:
        __import__(name)
    except ImportError:
        continue
    print("imported", name)
"""


def test_only_what_it_needs_is_imported() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded, *more = done.stdout.splitlines()
    names = set(loaded.split())
    assert "musignet" in names
    assert not names & FORBIDDEN
    assert names - set(sys.stdlib_module_names) - {"musignet"} <= ALLOWED
    assert more == []
