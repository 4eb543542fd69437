"""One signature from three implementations: libsecp256k1 under MuSigNet, `ecc` in pure Python, and BIP-327's text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from musignet.bitcoin.review import review
from musignet.crypto.keyagg import KeyAgg
from musignet.crypto.musig2 import PublicNonce, SigningSession, nonce_agg
from musignet.crypto.secret_nonces import SecretNonces
from support.keys import secret
from support.musig import DIGEST, generate, signing_key
from support.plain_musig2 import Aggregate, Session, aggregate_nonces, make_nonce, verify
from support.wallet import KNOWN, group, psbt

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


@pytest.mark.parametrize("tweaks", TWEAKS.values(), ids=TWEAKS)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_three_implementations_make_one_signature(
    ecc: Peer, order: tuple[int, int, int], tweaks: list[tuple[bytes, bool]]
) -> None:
    """Each has a key of its own and works by itself: keys, tweaks, nonces and the sighash are all they share."""
    sighash = review(psbt(), group(), KNOWN).slots[0].message
    names = ("ours", "ecc", "plain")
    mine, theirs, plain = order
    keys = [signing_key(names[order.index(at)]) for at in range(3)]
    listed = [key.pubkey_hex for key in keys]
    keyagg = KeyAgg([key.public for key in keys])
    for scalar, xonly in tweaks:
        keyagg = keyagg.tweak(scalar, xonly=xonly)
    group_key = Aggregate([bytes.fromhex(key) for key in listed], tweaks)
    assert group_key.output.encoded == keyagg.output.compressed
    output = keyagg.xonly

    held = SecretNonces(1)
    asked = {"random": secret("their random").hex(), "extra": secret("their extra").hex(), "message": sighash.hex()}
    secret_nonce, plain_nonce = make_nonce(
        secret("plain random"), secret("wallet plain"), output, sighash, secret("plain extra")
    )
    sent = {
        mine: generate(held, keys[mine], keyagg, sighash).encoded,
        theirs: bytes.fromhex(ecc.ask("nonce", **asked, secret=secret("wallet ecc").hex(), output=output.hex())),
        plain: plain_nonce,
    }
    nonces = [PublicNonce.parse_untrusted(sent[at], at, keys[at].public) for at in range(3)]
    session = SigningSession(nonce_agg(nonces), sighash, keyagg)
    aggregate = aggregate_nonces([sent[at] for at in range(3)])
    assert aggregate == session.aggregate_nonce.encoded

    independent = Session(group_key, aggregate, sighash)
    hexed = [(scalar.hex(), xonly) for scalar, xonly in tweaks]
    made = {
        mine: held.partial_sign(0, keys[mine], session),
        theirs: bytes.fromhex(ecc.ask("sign", aggregate_nonce=aggregate.hex(), keys=listed, tweaks=hexed)),
        plain: independent.sign(secret_nonce, secret("wallet plain")),
    }
    partials = [made[at] for at in range(3)]
    for at in range(3):
        assert session.partial_verify(at, nonces[at], partials[at])
        assert independent.holds(partials[at], sent[at], bytes.fromhex(listed[at]))
    signature = session.complete(nonces, partials)
    assert independent.finish(partials) == signature
    assert verify(signature, output, sighash)
    assert ecc.ask("verify", signature=signature.hex(), output=output.hex(), message=sighash.hex()) == "true"


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
