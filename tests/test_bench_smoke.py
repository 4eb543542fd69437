"""The benchmark runs and writes what it measured. How fast is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import netlab
from support.independent import MAKES

ROOT = Path(__file__).parent.parent


@pytest.mark.driver
def test_the_benchmark_measures_the_import_and_writes_it(tmp_path: Path) -> None:
    results = tmp_path / "link.json"
    command = [sys.executable, "-m", "bench", "link", "--quick", "--only", "import", "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "import musignet" in done.stdout
    samples = json.loads(results.read_text())["measures"]["import"]["samples"]["imports"]
    assert len(samples["ratio"]) == 2
    assert all(ratio > 0 for ratio in samples["ratio"])


@pytest.mark.driver
def test_the_benchmark_measures_the_command_line_and_a_node_with_a_journal(tmp_path: Path) -> None:
    results = tmp_path / "cli.json"
    command = [sys.executable, "-m", "bench", "cli", "--rounds", "1", "--stored", "40", "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    samples = json.loads(results.read_text())["samples_ms"]
    assert set(samples) == {"python -c pass", "musignet --help", "musignet peers", "run, ready with 40 stored"}


@pytest.mark.driver
def test_the_ceremony_is_measured_beside_its_floor_and_reported(tmp_path: Path) -> None:
    results = tmp_path / "ceremony.json"
    only = [option for name in ("mesh-3x1", "bytes", "tcp") for option in ("--only", name)]
    command = [sys.executable, "-m", "bench", "ceremony", "--quick", "--rounds", "1", *only, "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    measures = json.loads(results.read_text())["measures"]
    assert set(measures) == {"mesh-3x1", "bytes", "tcp"}
    assert measures["mesh-3x1"]["samples"].keys() == {"floor", "sum", "ours"}
    # Bytes are counted, not timed: they are the same everywhere.
    assert 98 < measures["bytes"]["samples"]["ours"]["rounds-10"][0] < 160
    preface = tmp_path / "preface.md"
    preface.write_text("Seen by a person.\n")
    command = [sys.executable, "-m", "bench", "report", str(results), "--preface", str(preface)]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert report.startswith("# Results\n")
    assert "Seen by a person." in report
    assert "| 3 signers, 1 input: both rounds, all signers, ms |" in report


@pytest.mark.driver
def test_the_benchmark_measures_discovery(tmp_path: Path) -> None:
    results = tmp_path / "discovery.json"
    command = [sys.executable, "-m", "bench", "discovery", "--rounds", "1", "--seconds", "1", "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    samples = json.loads(results.read_text())["samples"]
    assert len(samples["ms from a node's start to its link"]) == 1
    assert samples["flood: signatures checked a second"][0] <= 2 * 220, "in the first second, too"
    assert "flood: ms from an honest node's start to its link" in done.stdout


@pytest.mark.driver
def test_the_benchmark_measures_durable_sends(tmp_path: Path) -> None:
    results = tmp_path / "outbox.json"
    command = [sys.executable, "-m", "bench", "outbox", "--rounds", "1", "--messages", "40", "--callers", "4"]
    command += ["--stored", "40", "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(results.read_text())["samples"]) == 4


@pytest.mark.driver
@pytest.mark.skipif(bool(why := netlab.reason_against()), reason=why or "a lab can be built")
def test_the_benchmark_measures_punched_and_turn_paths(tmp_path: Path) -> None:
    pytest.importorskip("aioice", reason="needs the extra `nat`")
    results = tmp_path / "reach.json"
    command = [sys.executable, "-m", "bench", "reach", "--rounds", "1", "--messages", "100", "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    samples = json.loads(results.read_text())["samples"]
    made = [name for name, make in MAKES.items() if not make.missing]
    assert {"a relay", "3-of-3 over two relays", *made} <= samples.keys()
    assert {"TCP, a forwarded port", "punched", "TURN over UDP", "TURN over TCP"} <= samples.keys()
    assert samples["punched"].keys() == {"open, s", "round trip, ms", "messages/s"}


@pytest.mark.driver
def test_a_flood_is_run_and_reported(tmp_path: Path) -> None:
    results = tmp_path / "flood.json"
    only = [option for name in ("strangers", "beacons") for option in ("--only", name)]
    command = [sys.executable, "-m", "bench", "flood", "--seconds", "1", *only, "--json", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    floods = json.loads(results.read_text())["floods"]
    assert floods.keys() == {"strangers", "beacons"}
    for flood in floods.values():
        assert flood["attacks_per_s"] > 0
        assert flood["ceremony_end"] == "completed"
    command = [sys.executable, "-m", "bench", "report", str(results)]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "| flood | attacks/s | resident at most, MiB |" in report
    assert "| strangers with valid handshakes | " in report
