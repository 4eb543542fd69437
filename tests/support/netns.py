"""Network namespaces on one bridge: machines of one local network, where that is allowed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

__all__ = ["Machine", "network"]

_count = itertools.count()


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
