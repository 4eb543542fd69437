"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["cpus", "describe"]

_LIBRARIES = ("musignet", "btclib-secp256k1", "cryptography", "msgspec", "uvloop", "pyzmq")


def cpus() -> list[int]:
    """Return the CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def describe() -> dict[str, object]:
    """Return processor, cores, kernel, Python, library versions, load and date, without any name of the machine."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(cpus()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "revision": _revision(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _revision() -> str:
    """Return the commit measured, marked when the tree differs from it."""
    try:
        done = subprocess.run(("git", "describe", "--always", "--dirty"), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
