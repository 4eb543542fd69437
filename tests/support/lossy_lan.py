"""Three machines on one switch, in network namespaces of this one, whose cables lose packets and can be pulled.

node 0 --- switch --- node 1        10.77.0.1 to 10.77.0.3
             |
           node 2
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

from . import netns

__all__ = ["HOSTS", "LossyLan", "reason_against"]

HOSTS: Final = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
_NEEDED: Final = ("ip", "nft")
_RULES: Final = """
table inet loss {{
    chain input {{
        type filter hook input priority 0
        iifname "eth0" numgen random mod 100 < {percent} counter drop
    }}
}}
"""


def reason_against() -> str:
    """Return why there can be no such network here, or an empty string."""
    return netns.reason_against(_NEEDED, "iproute2, nftables", "nft", "add", "table", "inet", "loss")


class LossyLan:
    """The switch and the machines. Each of them loses `percent` of the packets that reach it."""

    def __init__(self, percent: int = 0) -> None:
        self._percent = percent
        self._name = f"ml{os.getpid()}"

    def __enter__(self) -> LossyLan:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inside(self, node: int) -> list[str]:
        """Return how a command is run at a machine."""
        return ["ip", "netns", "exec", self._ns(node)]

    def lost(self) -> int:
        """Return how many packets were lost so far."""
        total = 0
        for node in range(len(HOSTS)):
            rules = json.loads(_run([*self.inside(node), "nft", "-j", "list", "ruleset"]))["nftables"]
            parts = [part for rule in rules if "rule" in rule for part in rule["rule"]["expr"]]
            total += sum(part["counter"]["packets"] for part in parts if "counter" in part)
        return total

    def plug(self, node: int, plugged: bool) -> None:
        """Pull the cable of a machine out of the switch, or put it back."""
        _run(["ip", "-n", self._ns("switch"), "link", "set", f"port{node}", "up" if plugged else "down"])

    def close(self) -> None:
        """Take everything down."""
        for place in (*range(len(HOSTS)), "switch"):
            subprocess.run(["ip", "netns", "del", self._ns(place)], capture_output=True, check=False)

    # --- building -----------------------------------------------------------------------------------------------------

    def _ns(self, place: int | str) -> str:
        return f"{self._name}{place}"

    def _build(self) -> None:
        switch = self._ns("switch")
        _run(["ip", "netns", "add", switch])
        _ip(switch, "link add switch type bridge", "link set switch up")
        for node, host in enumerate(HOSTS):
            here = self._ns(node)
            _run(["ip", "netns", "add", here])
            _ip(switch, f"link add port{node} type veth peer name eth0 netns {here}")
            _ip(switch, f"link set port{node} master switch up")
            _ip(here, "link set lo up", f"addr add {host}/24 dev eth0", "link set eth0 up")
            if self._percent:
                _run([*self.inside(node), "nft", "-f", "-"], _RULES.format(percent=self._percent))


def _ip(namespace: str, *commands: str) -> None:
    for command in commands:
        _run(["ip", "-n", namespace, *command.split()])


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
