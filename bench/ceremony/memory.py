"""Resident memory of a process that does one thing: `python -m bench.ceremony.memory WHAT FOLDER` prints MiB."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from secrets import token_bytes

from ..link.common import resident_kib
from ..sides import BenchError

__all__ = ["resident_mib"]

_INPUTS = 250


def resident_mib(what: str, folder: Path) -> float:
    """Return the resident memory of a fresh process, MiB. Raises BenchError when it fails."""
    command = [sys.executable, "-m", "bench.ceremony.memory", what, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the process that shows the memory of {what!r} failed; see above")
    return float(done.stdout)


def _node(folder: Path) -> float:
    """A node that listens, on uvloop, with its journals open and nobody connected."""
    import uvloop

    async def started() -> float:
        from musignet.net.service import NetworkService

        from .wallet import CHAIN, identity, signing_group
        from .world import account

        service = NetworkService("node", host="127.0.0.1", identity=identity(0), data_dir=folder / "node", chain=CHAIN)
        async with service:
            service.cosign(account(0, signing_group(3)))
            await asyncio.sleep(0)
            return resident_kib()

    return float(uvloop.run(started()))


def _keyholder(folder: Path) -> float:
    """A keyholder whose key was opened with a passphrase, its group and policy loaded."""
    from musignet.net.keystore import load_identity, save_identity
    from musignet.signing.keyholder import Keyholder

    from .wallet import identity, signing_group
    from .world import account

    save_identity(identity(0), folder / "wallet.key", "a passphrase of some length")
    load_identity(folder / "wallet.key", "a passphrase of some length")
    keyholder = Keyholder(account(0, signing_group(3)), token_bytes)
    assert keyholder.next_deadline() is None
    return resident_kib()


def _ceremony(_: Path) -> float:
    """Three nodes and keyholders that have signed 250 inputs: the most this process ever had."""
    from .wallet import signing_group, spend
    from .world import World

    World(3, spend(signing_group(3), _INPUTS)).run()
    return _most_kib()


def _most_kib() -> float:
    """Return the most that this process ever had. `getrusage` would count what its parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


_CASES = {"node": _node, "keyholder": _keyholder, "ceremony": _ceremony}

if __name__ == "__main__":
    print(_CASES[sys.argv[1]](Path(sys.argv[2])) / 1024)
