"""The pages are true: their Python runs, their links lead somewhere, and the README's transcript is what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_DEMO = re.compile(r"^<!-- demo -->\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", block)
        for page in PAGES
        for number, block in enumerate(_PYTHON.findall(page.read_text("utf-8")), 1)
    ]


@pytest.mark.driver
@pytest.mark.parametrize("block", [block for _, block in _blocks()], ids=[name for name, _ in _blocks()])
def test_python_in_the_pages_runs(block: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_python_to_run() -> None:
    assert len(_blocks()) > 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not _leads(page, link)] == []


def _leads(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    """What a link may name of a page: its headings, in small letters, with hyphens and without marks."""
    headings = _HEADING.findall(_CODE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _skeleton(text: str) -> list[str]:
    """A transcript without what differs from run to run: keys, addresses, times, and who waited for whom when."""
    text = re.sub(r"\bbcrt1\w+\b|\b[0-9a-f]{64}\b", "KEY", text)
    lines = re.sub(r"\d+(\.\d+)?", "N", re.sub(r"^ +", "", text, flags=re.MULTILINE)).strip().splitlines()
    return sorted(line for line in lines if ", waits for " not in line)


@pytest.mark.driver
def test_the_readme_shows_what_the_demo_prints() -> None:
    pytest.importorskip("pbk", reason="the demo needs Bitcoin Core's kernel")
    shown = _DEMO.search((ROOT / "README.md").read_text("utf-8"))
    assert shown is not None
    done = subprocess.run([sys.executable, "-m", "musignet", "demo"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert _skeleton(done.stdout) == _skeleton(shown.group(1))
    assert ": round 2, waits for " in done.stdout
    assert ": round 2, waits for " in shown.group(1)
