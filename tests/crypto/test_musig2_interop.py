"""One signature from two implementations: libsecp256k1 under MuSigNet, and `ecc` in pure Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from musignet.crypto.keyagg import KeyAgg
from musignet.crypto.musig2 import PublicNonce, SigningSession, nonce_agg
from musignet.crypto.secret_nonces import SecretNonces
from support.keys import secret
from support.musig import DIGEST, generate, signing_key

pytestmark = pytest.mark.skipif(find_spec("ecc") is None, reason="the package ecc is missing: install the group `test`")

COSIGNER = Path(__file__).parents[1] / "support" / "ecc_cosigner.py"


class Peer:
    """The other implementation, asked over a pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **arguments: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def ecc() -> Iterator[Peer]:
    command = [sys.executable, str(COSIGNER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Peer(process)


TWEAKS: dict[str, list[tuple[bytes, bool]]] = {
    "no tweak": [],
    "BIP-341": [(secret("taproot"), True)],
    "BIP-328 and BIP-341": [(secret("change"), False), (secret("index"), False), (secret("taproot"), True)],
    "plain after x-only": [(secret("one"), True), (secret("two"), False), (secret("three"), True)],
}


@pytest.mark.parametrize("tweaks", TWEAKS.values(), ids=TWEAKS)
@pytest.mark.parametrize("theirs", [0, 1, 2])
def test_two_implementations_make_one_signature(ecc: Peer, theirs: int, tweaks: list[tuple[bytes, bool]]) -> None:
    keys = [signing_key(name) for name in ("alice", "bob", "carol")]
    keyagg = KeyAgg([key.public for key in keys])
    for scalar, xonly in tweaks:
        keyagg = keyagg.tweak(scalar, xonly=xonly)
    held = [SecretNonces(1) for _ in keys]
    nonces = [generate(own, key, keyagg, name=str(n)) for n, (own, key) in enumerate(zip(held, keys, strict=True))]

    asked = {"random": secret("their random").hex(), "extra": secret("their extra").hex(), "message": DIGEST.hex()}
    sent = ecc.ask(
        "nonce", **asked, secret=secret(f"wallet {('alice', 'bob', 'carol')[theirs]}").hex(), output=keyagg.xonly.hex()
    )
    nonces[theirs] = PublicNonce.parse_untrusted(bytes.fromhex(sent), theirs, keys[theirs].public)

    session = SigningSession(nonce_agg(nonces), DIGEST, keyagg)
    partials = [
        own.partial_sign(0, key, session) if n != theirs else b""
        for n, (own, key) in enumerate(zip(held, keys, strict=True))
    ]
    ordered = [key.pubkey_hex for key in keys]
    hexed = [(scalar.hex(), xonly) for scalar, xonly in tweaks]
    sent = ecc.ask("sign", aggregate_nonce=session.aggregate_nonce.encoded.hex(), keys=ordered, tweaks=hexed)
    partials[theirs] = bytes.fromhex(sent)
    assert session.partial_verify(theirs, nonces[theirs], partials[theirs])

    signature = session.complete(nonces, partials)
    verdict = ecc.ask("verify", signature=signature.hex(), output=keyagg.xonly.hex(), message=DIGEST.hex())
    assert verdict == "true"


def test_both_make_the_same_nonce_from_the_same_inputs(ecc: Peer) -> None:
    key = signing_key("alice")
    keyagg = KeyAgg([key.public]).tweak(DIGEST, xonly=True)
    ours = generate(SecretNonces(1), key, keyagg, name="shared")
    theirs = ecc.ask(
        "nonce",
        random=secret("random shared").hex(),
        secret=secret("wallet alice").hex(),
        output=keyagg.xonly.hex(),
        message=DIGEST.hex(),
        extra=secret("extra shared").hex(),
    )
    assert ours.encoded.hex() == theirs
