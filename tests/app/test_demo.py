"""`musignet demo --json`, and what it says when a node fails."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.driver


def test_json_is_one_object_with_the_greetings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "musignet", "demo", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["greetings"] == ["hello bob, this is alice", "hello alice, nice to meet you"]
    assert sorted(result["nodes"]) == ["alice", "bob"]
    assert all(ms > 0 for ms in result["timings_ms"].values())


def test_help_has_an_example() -> None:
    for command in ("chat", "demo"):
        done = subprocess.run([sys.executable, "-m", "musignet", command, "--help"], capture_output=True, text=True)
        assert (done.returncode, "Example: musignet" in done.stdout) == (0, True)
