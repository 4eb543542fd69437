"""`musignet doctor` behind real routers, with real servers: coturn, miniupnpd, a relay; and where they are silent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.nodes import make_data
from musignet.limits import Limits
from support.netlab import INTERNET, INTERNET_TOO, Lab, reason_against

pytest.importorskip("aioice", reason="needs the extra `nat`")
pytest.importorskip("miniupnpc", reason="needs the extra `nat`")

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against("miniupnpd")), reason=why or "a lab can be built"),
]

SERVER = f"{INTERNET}:3478"
NAT = {
    "listen_host": "0.0.0.0", "nat_punch": True, "nat_stun": (SERVER, f"{INTERNET_TOO}:3478"), "nat_turn": (SERVER,),
    "nat_turn_username": "u", "nat_turn_password": "p", "limits": Limits(ice_gather_s=1.0, ice_close_s=0.5),
}  # fmt: skip
ABOUT = ("STUN", "NAT", "TURN", "UDP", "port by NAT-PMP", "port by UPnP")


class Doctor:
    """One run at side A of a lab: what it found, what it said meanwhile, and how long it took."""

    def __init__(self, lab: Lab, folder: Path, **settings: Any) -> None:
        data = make_data(folder / "alice", "alice", **{**NAT, **settings})
        command = lab.machine("A").command(sys.executable, "-m", "musignet", "doctor", "--data", str(data), "--json")
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.took_s = time.monotonic() - began
        self.code, self.meanwhile = done.returncode, done.stderr
        self.found: list[dict[str, str]] = [one for one in json.loads(done.stdout) if one["layer"] in ABOUT]

    def shape(self) -> list[tuple[str, str]]:
        return [(one["layer"], one["verdict"]) for one in self.found]

    def of(self, layer: str, words: str = "") -> dict[str, str]:
        return next(one for one in self.found if one["layer"] == layer and words in one["text"])


OK_STUN, OK_TURN = [("STUN", "ok")] * 2, [("TURN", "ok")] * 2


def test_behind_a_cone_nat_with_a_router_that_forwards_all_is_well(tmp_path: Path) -> None:
    with Lab(("cone", "cone")) as lab:
        lab.start_turn()
        lab.start_miniupnpd()
        seen = Doctor(lab, tmp_path, nat_map_port="auto")
    assert seen.shape() == [*OK_STUN, *OK_TURN, ("port by NAT-PMP", "ok"), ("port by UPnP", "ok")]
    assert f"{SERVER} sees this machine as {Lab.outside('A')}:" in seen.of("STUN")["text"]
    assert f"the router at {Lab.outside('A')} forwards ports" in seen.of("port by UPnP")["text"]
    assert seen.of("TURN", "TCP")["text"].startswith(f"{SERVER} over TCP lends {INTERNET}:")


def test_a_symmetric_nat_is_told_from_another(tmp_path: Path) -> None:
    with Lab(("symmetric", "cone")) as lab:
        lab.start_turn()
        seen = Doctor(lab, tmp_path)
    assert seen.shape() == [*OK_STUN, ("NAT", "note"), *OK_TURN]
    assert "TURN" in seen.of("NAT")["hint"]


def test_where_udp_does_not_get_through_it_says_so_and_what_is_left(tmp_path: Path) -> None:
    with Lab(("cone", "cone"), no_udp="A") as lab:
        lab.start_turn()
        seen = Doctor(lab, tmp_path)
    blocked = [("STUN", "BLOCKED")] * 2
    assert seen.shape() == [*blocked, ("TURN", "note"), ("TURN", "ok"), ("UDP", "note")]
    assert "no answer within 1 s" in seen.of("STUN")["text"]
    assert "by way of TURN over TCP" in seen.of("UDP")["hint"]
    assert seen.code == 1


def test_a_turn_server_that_does_not_know_us_is_told_from_one_that_is_silent(tmp_path: Path) -> None:
    with Lab(("cone", "cone")) as lab:
        lab.start_turn()
        wrong = Doctor(lab, tmp_path / "wrong", nat_turn_password="another")
        lab.signal_turn(signal.SIGSTOP)
        silent = Doctor(lab, tmp_path / "silent", nat_map_port="natpmp")
    for by in ("UDP", "TCP"):
        assert "turn_password" in wrong.of("TURN", by)["hint"]
        assert "no answer within 1 s" in silent.of("TURN", by)["text"]
        assert f"let {by} out" in silent.of("TURN", by)["hint"]
    assert wrong.shape()[:2] == OK_STUN
    assert "port by NAT-PMP" in dict(silent.shape())
    assert silent.shape()[:-1] == [("STUN", "BLOCKED")] * 2 + [("TURN", "BLOCKED")] * 2
    assert all(one["hint"] for one in silent.found)
    assert "waiting for NATs, " in silent.meanwhile
    assert silent.took_s < 15


def test_without_a_stun_server_turn_is_tried_all_the_same(tmp_path: Path) -> None:
    with Lab(("cone", "cone")) as lab:
        lab.start_turn()
        seen = Doctor(lab, tmp_path, nat_stun=())
    assert seen.shape() == [("STUN", "note"), *OK_TURN]


def test_turn_over_tls_wants_the_certificate_of_an_authority_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_tls = f"tls://{INTERNET}:5349"
    with Lab(("cone", "cone"), no_udp="A") as lab:
        lab.start_turn()
        strange = Doctor(lab, tmp_path / "strange", nat_stun=(), nat_turn=(by_tls,))
        monkeypatch.setenv("SSL_CERT_FILE", str(lab.authority))
        known = Doctor(lab, tmp_path / "known", nat_turn=(SERVER, by_tls))
    assert strange.shape() == [("STUN", "note"), ("TURN", "BLOCKED")]
    assert "certificate must be for this name" in strange.of("TURN")["hint"]
    assert known.of("TURN", "TLS")["text"].startswith(f"{INTERNET}:5349 over TLS lends {INTERNET}:")
    assert known.shape()[2:] == [("TURN", "note"), ("TURN", "ok"), ("TURN", "ok"), ("UDP", "note")]
