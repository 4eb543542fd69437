"""Data folders and node processes for tests: three people of one group, each with a `musignet run` of their own."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from musignet.app.config import Config, template
from musignet.app.pins import Pins
from musignet.app.places import APPROVER_FILE, CONFIG_FILE
from musignet.chain import Chain
from musignet.limits import Limits
from musignet.net.approver import make_approver
from musignet.net.folder import DataFolder
from musignet.net.keyfile import LEAST_COST
from musignet.node.peers import PeerInfo
from musignet.signing.groupfile import GroupFile
from support.ceremony import identity, signing_group
from support.netns import Machine
from support.wallet import MEMBERS

__all__ = ["GROUP", "GROUP_FILE", "RunningNode", "cli", "cli_json", "make_data"]

GROUP = signing_group()
GROUP_FILE = GroupFile("savings", GROUP, {identity(name).pubkey: name for name in MEMBERS})
_TESTS = Path(__file__).resolve().parents[1]
_DEADLINE_S = 30.0


def make_data(
    path: Path,
    name: str,
    *,
    groups: Sequence[GroupFile] = (),
    peers: Sequence[PeerInfo] = (),
    passphrase: str | None = None,
    **settings: Any,
) -> Path:
    """Make the data folder of a person whose identity is that of the name; with a passphrase they approve by hand."""
    soon = Limits(reapprove_s=0.5, phase_timeout_s=1.0)  # what was said to nobody is said again
    quiet = {"listen_host": "127.0.0.1", "discovery_interfaces": ()}  # tests run side by side, with the same keys
    config = replace(Config(label=name, network=Chain.REGTEST, listen_port=0, limits=soon), **(quiet | settings))
    folder = DataFolder.lock(path)
    (path / CONFIG_FILE).write_text(template(config))
    (path / "groups").mkdir(mode=0o700)
    for one in groups:
        (path / "groups" / f"{one.group.id.hex()}.json").write_bytes(one.encode())
    if passphrase is not None:
        (path / APPROVER_FILE).parent.mkdir(mode=0o700)
        make_approver(path / APPROVER_FILE, passphrase, LEAST_COST)
    pins = Pins(folder)
    for info in peers:
        pins.pin(info)
    pins.close()
    folder.close()
    return path


class RunningNode:
    """A node process, from its ready line on."""

    def __init__(
        self, data: Path, name: str = "", *, command: Sequence[str] = (), machine: Machine | None = None
    ) -> None:
        self.data = data
        self.name = name
        here = [sys.executable, str(_TESTS / "app" / "here.py"), str(data), name]
        if machine is not None:
            here = [*machine.command(*here)]
        environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
        self.process = subprocess.Popen(
            list(command) or here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
        )
        self.seen = ""

    def ready(self) -> str:
        """Wait for the ready line, and return it."""
        return self.expect(r"^.* on (regtest|mainnet); .*$").group(0)

    @property
    def port(self) -> int:
        return int(self.expect(r"listening on \S+:(\d+)").group(1))

    @property
    def info(self) -> PeerInfo:
        key = identity(self.name).pubkey_hex
        return PeerInfo(id=self.name, host="127.0.0.1", port=self.port, pubkey_hex=key)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until what it has printed matches."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + _DEADLINE_S
        while (match := re.search(pattern, self.seen, re.MULTILINE)) is None:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65_536) if ready else b""  # no buffer that select cannot see
            assert data, f"{pattern!r} did not come; it printed:\n{self.seen}"
            self.seen += data.decode("utf-8", "replace")
        return match

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop, and return its exit code."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=_DEADLINE_S)
        self.seen += out
        return self.process.returncode

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait()


def cli(data: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command on a data folder."""
    command = [sys.executable, "-m", "musignet", args[0], "--data", str(data), *args[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


def cli_json(data: Path, *args: str) -> Any:
    """Run a command that succeeds, and return what it prints as JSON."""
    done = cli(data, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
