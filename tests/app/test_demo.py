"""`musignet demo`: a confirmed transaction, each liar named, and JSON that says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest

from support.kernel import RegtestChain

pytestmark = pytest.mark.driver
assert RegtestChain, "the demo needs the kernel: importing it skips this file where there is none"


def _demo(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "musignet", "demo", *args], capture_output=True, text=True, timeout=110, check=False
    )


def _result(*args: str) -> dict[str, Any]:
    done = _demo(*args, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize(("signers", "inputs", "topology"), [(2, 1, "mesh"), (3, 5, "mesh"), (4, 2, "star")])
def test_json_tells_of_a_confirmed_transaction(signers: int, inputs: int, topology: str) -> None:
    result = _result("--signers", str(signers), "--inputs", str(inputs), "--topology", topology)
    assert result["confirmations"] == 1
    assert result["blame"] is None
    assert len(result["signers"]) == signers
    assert [coin["amount_sat"] for coin in result["spent"]] == [1_000_000] * inputs
    assert bytes.fromhex(result["tx_hex"])
    assert len(result["txid"]) == 64
    assert result["topology"] == topology
    assert result["address"].startswith("bcrt1p")
    assert all(ms > 0 for ms in result["timings_ms"].values())


@pytest.mark.parametrize(
    ("liar", "topology", "kind", "proved"),
    [
        ("bad-partial", "mesh", "bad-partial", True),
        ("bad-partial", "star", "bad-partial", True),
        ("equivocate", "mesh", "equivocation", True),
        ("equivocate", "star", "equivocation", True),
        ("silent", "star", "silent", False),
    ],
)
def test_a_liar_is_named(liar: str, topology: str, kind: str, proved: bool) -> None:
    result = _result("--liar", liar, "--topology", topology)
    assert result["timings_ms"]["signing"] < 30_000
    assert (result["tx_hex"], result["txid"], result["confirmations"]) == (None, None, 0)
    last = result["signers"][-1]
    assert result["blame"] == {"pubkey": last, "label": "carol", "kind": kind, "proved": proved}


def test_while_somebody_is_silent_it_says_each_second_who_is_waited_for() -> None:
    done = _demo("--liar", "silent")
    assert done.returncode == 0, done.stderr
    assert re.search(r"named by everybody honest: carol, key \w+: silent, unproved", done.stdout)
    assert " still " not in done.stdout, "said beside the answer"
    for attempt in ("", " (attempt 2)", " (attempt 3)"):
        line = rf"([\d.]+) s  alice: still round 1{re.escape(attempt)}, waits for carol\n"
        said = [float(at) for at in re.findall(line, done.stderr)]
        assert len(said) >= 5
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(said))


def test_what_it_cannot_do_is_refused() -> None:
    done = _demo("--topology", "ring")
    assert (done.returncode, "'ring' is not one of 'mesh', 'star'" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", ["chat", "demo"])
def test_help_has_an_example(command: str) -> None:
    args = [sys.executable, "-m", "musignet", command, "--help"]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    assert "Example: musignet" in done.stdout
