"""Network namespaces on one bridge: machines of one local network, where that is allowed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

__all__ = ["Machine", "network", "reason_against"]

_count = itertools.count()


def reason_against(needed: Sequence[str], packages: str, *first: str) -> str:
    """Return why there can be no namespace here with these commands in it, or an empty string.

    `first` is a command that must work inside, where the commands alone do not tell.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: {packages})"
    name = f"mr{os.getpid()}try"
    tries = [("ip", "netns", "add", name), *((("ip", "netns", "exec", name, *first),) if first else ())]
    refused = any(subprocess.run(one, capture_output=True, check=False).returncode for one in tries)
    subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
    if not refused:
        return ""
    return "this machine allows no network namespaces" + (f", or no {first[0]} in them" if first else "")


class Machine:
    """One namespace with an `eth0`."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace, self.address = namespace, address

    def command(self, *words: str) -> tuple[str, ...]:
        """Return a command that runs there."""
        return ("ip", "netns", "exec", self.namespace, *words)

    def run(self, *words: str) -> str:
        """Run one there to its end, and return what it prints."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def move(self, address: str) -> None:
        """Take another address: what a new lease does."""
        self.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        self.address = address
        self.run("ip", "addr", "add", f"{address}/24", "brd", "+", "dev", "eth0")


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=30)


@contextmanager
def network(names: Sequence[str]) -> Iterator[list[Machine]]:
    """Make one machine for each name, 10.77.0.1 and so on; skip the test where that is not allowed."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here: network namespaces cannot be made")
    tag = f"ms{os.getpid()}-{next(_count)}"
    switch, made = f"{tag}-sw", []
    try:
        try:
            _ip("netns", "add", switch)
            _ip("-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
        _ip("-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate(names, 1):
            one = Machine(f"{tag}-{name}", f"10.77.0.{number}")
            _ip("netns", "add", one.namespace)
            made.append(one)
            _ip(
                "link",
                "add",
                "eth0",
                "netns",
                one.namespace,
                "type",
                "veth",
                "peer",
                "name",
                f"p{number}",
                "netns",
                switch,
            )
            _ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            for words in (("link", "set", "lo", "up"), ("addr", "add", f"{one.address}/24", "brd", "+", "dev", "eth0"),
                          ("link", "set", "eth0", "up")):  # fmt: skip
                _ip("-n", one.namespace, *words)
        yield made
    finally:
        for namespace in (*(one.namespace for one in made), switch):
            subprocess.run(("ip", "netns", "del", namespace), capture_output=True, timeout=30)
