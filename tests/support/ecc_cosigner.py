"""A cosigner in a process of its own that speaks BIP-327 in pure Python: the package `ecc`, without libsecp256k1.

    in:  {"do": "nonce", "random": ..., "secret": ..., "output": ..., "message": ..., "extra": ...}   out: the 66 bytes
    in:  {"do": "sign", "aggregate_nonce": ..., "keys": [...], "tweaks": [[..., true], ...]}           out: the 32 bytes
    in:  {"do": "verify", "signature": ..., "output": ..., "message": ...}                             out: "true"

One JSON object a line, one line of text back; bytes are hex. It refuses to start when `ecc` would call libsecp256k1.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["ECC_NO_LIBSECP256K1"] = "1"

from ecc.curves import is_libsecp256k1_serving
from ecc.ecc import musig2, ssa


class Cosigner:
    """Keeps the secret nonce and what it was made for, between the two rounds."""

    def nonce(self, random: str, secret: str, output: str, message: str, extra: str) -> str:
        self._secret, self._message = int(secret, 16), message
        pubkey = musig2.individual_pub_key(self._secret)
        self._secret_nonce, nonce = musig2.nonce_gen_(random, self._secret, pubkey, output, message, extra)
        return nonce.hex()

    def sign(self, aggregate_nonce: str, keys: list[str], tweaks: list[tuple[str, bool]]) -> str:
        scalars, modes = [scalar for scalar, _ in tweaks], [xonly for _, xonly in tweaks]
        session = musig2.SessionContext(aggregate_nonce, keys, scalars, modes, self._message)
        return musig2.sign(self._secret_nonce, self._secret, session).hex()

    def verify(self, signature: str, output: str, message: str) -> str:
        return json.dumps(ssa.verify_(message, output, signature))


def main() -> None:
    if is_libsecp256k1_serving():
        sys.exit("ecc calls libsecp256k1: this would compare the library with itself")
    cosigner = Cosigner()
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        print(getattr(cosigner, order.pop("do"))(**order), flush=True)


if __name__ == "__main__":
    main()
