"""Whole nodes on a network that loses packets, and whose cables are pulled: the kernel's TCP, the default bounds."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from chaos_party import coins

from support.lossy_lan import HOSTS, LossyLan, reason_against
from support.wallet import MEMBERS

pytestmark = [pytest.mark.driver, pytest.mark.skipif(bool(reason := reason_against()), reason=reason)]

TESTS: Final = Path(__file__).parent.parent
PORT: Final = 8737
DEADLINE_S: Final = 60.0
CEREMONIES: Final = int(os.environ.get("MUSIGNET_CHAOS_SEEDS", "3"))
CEREMONIES_MAX: Final = 10 * CEREMONIES
"""At 1 % a few ceremonies may lose nothing."""
PULLED_S: Final = 3.0
PULLS_MAX: Final = 12
"""Ceremonies are quick: some of them end before the cable is out."""


class Nodes:
    """The three processes, and what each of them said."""

    def __init__(self, lan: LossyLan, folder: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        node = [sys.executable, "-m", "support.lan_node"]
        self.processes = [
            subprocess.Popen(
                [*lan.inside(at), *node, name, str(folder / name), str(PORT), *HOSTS],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            )
            for at, name in enumerate(MEMBERS)
        ]  # fmt: skip
        self.said: list[list[dict[str, Any]]] = [[] for _ in MEMBERS]
        self._rest = [b"" for _ in MEMBERS]

    def read(self, timeout_s: float) -> None:
        """Wait for lines, so long at most, and take them."""
        streams = [process.stdout for process in self.processes]
        for stream in select.select(streams, [], [], max(0.0, timeout_s))[0]:
            at = streams.index(stream)
            data = os.read(stream.fileno(), 65_536)
            assert data, f"{MEMBERS[at]} ended by itself"
            *lines, self._rest[at] = (self._rest[at] + data).split(b"\n")
            self.said[at] += [json.loads(line) for line in lines]

    def heard(self, event: str, **facts: object) -> list[int]:
        """Return, of each, how often it said this."""
        wanted = {"event": event, **facts}.items()
        return [sum(wanted <= one.items() for one in said) for said in self.said]

    def wait(self, event: str, least: int, *, anybody: bool = False, **facts: object) -> None:
        deadline = time.monotonic() + DEADLINE_S
        enough = any if anybody else all
        while not enough(count >= least for count in self.heard(event, **facts)):
            assert time.monotonic() < deadline, f"{event} {facts}: {self.heard(event, **facts)}"
            self.read(deadline - time.monotonic())

    def pass_by(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.read(left_s)

    def propose(self, number: int) -> None:
        stdin = self.processes[number % len(MEMBERS)].stdin
        assert stdin is not None
        order = {"psbt": coins(number).hex(), "topology": ("MESH", "STAR")[number % 2]}
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@contextmanager
def nodes(lan: LossyLan, folder: Path) -> Iterator[Nodes]:
    made = Nodes(lan, folder)
    try:
        made.wait("connected", 2)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("percent", [1, 3, 5])
def test_every_ceremony_completes_where_packets_are_lost(tmp_path: Path, percent: int) -> None:
    with LossyLan(percent) as lan, nodes(lan, tmp_path) as all_:
        for number in range(CEREMONIES_MAX):
            all_.propose(number)
            all_.wait("outcome", number + 1, end="completed")
            if number + 1 >= CEREMONIES and lan.lost():
                break
        assert all_.heard("outcome") == [number + 1] * len(MEMBERS), "no other end"
        assert lan.lost() > 0


def test_the_cable_is_pulled_in_the_middle_of_a_ceremony_and_it_still_completes(tmp_path: Path) -> None:
    with LossyLan() as lan, nodes(lan, tmp_path) as all_:
        for number in range(PULLS_MAX):
            all_.propose(number)
            all_.wait("nonces", number + 1, anybody=True)
            lan.plug(number % len(MEMBERS), False)
            all_.pass_by(PULLED_S)
            held_up = min(all_.heard("outcome")) <= number
            lan.plug(number % len(MEMBERS), True)
            all_.wait("outcome", number + 1, end="completed")
            if held_up:
                break
        assert held_up, "no cable was out in time"
        assert all_.heard("outcome") == [number + 1] * len(MEMBERS), "no other end"
