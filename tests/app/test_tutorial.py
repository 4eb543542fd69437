"""The tutorial, typed: every command of the page, in its order, by two people who answer what they are asked."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.nodes import cli
from app.terminal import Terminal

pytestmark = pytest.mark.driver

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text("utf-8")
LINES = [
    line
    for block in re.findall(r"^<!-- typed -->\n```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
WAITS_FOR_THE_OTHER = ("musignet invite", "musignet group create")
"""Commands that end when the other person has answered, too."""
SEEN = {
    "INVITE": r"(musig1[a-z0-9]{80,})",
    "FOUNDING": r"musignet group join ([0-9a-f]{8})",
    "ADDRESS": r"(bcrt1p[a-z0-9]{58})\s",
    "SESSION": r"session ([0-9a-f]{64})",
}
"""The words in capitals, and where they are on a screen."""
MAKES = {"INVITE": "musignet invite", "FOUNDING": "musignet group create", "ADDRESS": "-", "SESSION": "-"}
DEADLINE_S = 60.0


@dataclass(eq=False)
class Person:
    """One terminal, and who sits at it."""

    name: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    last: str = ""

    def start(self, command: str) -> Terminal:
        words = shlex.split(command)
        assert words[0] == "musignet"
        environment = {**os.environ, **self.environment}
        return Terminal(*words[1:], environment=environment, folder=self.folder, controlling=True)

    def answer(self, screen: Terminal) -> None:
        """Answer what the screen asks now, if anything."""
        asked = screen.unread("|".join(f"(?:{pattern})" for pattern in ANSWERS))
        if asked is None:
            return
        (say,) = (say for pattern, say in ANSWERS.items() if re.fullmatch(pattern, asked.group(0)))
        if say == "WORD":
            written_down = dict(re.findall(r"(\d+)\. ([a-z]+)", screen.seen))
            say = written_down[asked.group(0).split()[1]]
        self.last = self.last if say == "AGAIN" else say.format(name=self.name)
        screen.type(self.last)


ANSWERS = {
    r"Enter once they are written down": "",
    r"Word \d+": "WORD",
    r"New passphrase for the identity:": "{name}'s node",
    r"New passphrase for the wallet:": "{name}'s coins",
    r"Repeat for confirmation:": "AGAIN",
    r"Passphrase of the identity[^:]*:": "{name}'s node",
    r"Passphrase of the wallet[^:]*:": "{name}'s coins",
    r"Do (?:both|all) screens show[^?]*\?": "y",
    r"Take part[^?]*\?": "y",
    r"Approve this transaction\?": "y",
}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    """Who types what, with ports that are free on this machine."""
    page = "\n".join(LINES).replace(" regtest fund ", " regtest fund --url http://127.0.0.1:3002 ")  # its default
    for port in ("3002", "8001", "8002"):
        page = page.replace(f":{port}", f":{free_port()}")
    return [(who, command) for who, _, command in (line.partition("$ ") for line in page.splitlines())]


def filled_in(command: str, screens: Sequence[Terminal]) -> str:
    """Put what was on a screen in the place of the words in capitals, the newest first."""
    for word, pattern in SEEN.items():
        if word in command:
            found = next(match for one in reversed(screens) if (match := re.search(pattern, one.seen)))
            command = command.replace(word, found.group(1))
    return command


def finish(open_screens: dict[Person, Terminal]) -> None:
    """Let both people answer what they are asked, until their commands have ended well."""
    deadline = time.monotonic() + DEADLINE_S
    while open_screens:
        for person, screen in list(open_screens.items()):
            screen.read(0.05)
            person.answer(screen)
            if screen.over:
                assert screen.exit_code() == 0, screen.seen
                del open_screens[person]
            assert time.monotonic() < deadline, screen.seen


def test_the_page_works_as_it_stands(lines: list[tuple[str, str]], tmp_path: Path) -> None:
    pytest.importorskip("pbk", reason="the chain needs Bitcoin Core's kernel")
    pytest.importorskip("bdkpython", reason="its client has no wheel for this Python")
    people = {name: Person(name, tmp_path) for name in ("alice", "bob")}
    screens: list[Terminal] = []
    open_screens: dict[Person, Terminal] = {}
    with ExitStack() as stack:
        for name in people:  # where the page does not get to its end, nothing stays behind
            stack.callback(cli, tmp_path / name, "stop")
        for name, line in lines:
            person = people[name]
            if line.startswith("export "):
                person.environment.update([line.removeprefix("export ").split("=")])
                continue
            screen = stack.enter_context(person.start(filled_in(line.removesuffix("&"), screens)))
            screens.append(screen)
            if line.endswith("&"):
                screen.expect("a regtest chain at")
                continue
            open_screens[person] = screen
            if line.startswith(WAITS_FOR_THE_OTHER):
                screen.expect(next(SEEN[word] for word in SEEN if line.startswith(MAKES[word])))
            else:
                finish(open_screens)
        said = "\n".join(screen.seen for screen in screens)
    assert said.count("stopped") == 2
    assert re.search(r"1 confirmation|confirmed", screens[-3].seen), screens[-3].seen
