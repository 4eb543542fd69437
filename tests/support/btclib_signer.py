"""Another signer of BIP-373 in a process of its own: btclib-wallet, in pure Python. Nothing of ours takes part.

    argv: the secret keys in hex.   in: a PSBT in base64, one a line.   out: the PSBT with what the signer added

It adds nonces where they are missing, partial signatures where everybody's nonces are there. It keeps its secret nonces
in memory between the rounds, and spends them by signing. It refuses to start when it would call libsecp256k1.
"""

from __future__ import annotations

import base64
import os
import sys

os.environ["ECC_NO_LIBSECP256K1"] = "1"

from btclib_wallet.psbt import musig2
from btclib_wallet.psbt.psbt import Psbt
from ecc.curves import is_libsecp256k1_serving
from ecc.ecc.musig2 import individual_pub_key


class Signer:
    """Holds keys; a PSBT comes and goes."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = {individual_pub_key(int(one, 16)): int(one, 16) for one in secrets}
        self._nonces: dict[tuple[int, bytes], bytearray] = {}

    def sign(self, data: bytes) -> bytes:
        psbt = Psbt.parse(data)
        for at, one in enumerate(psbt.inputs):
            for aggregate, members in list(one.musig2_participant_pub_keys.items()):
                for key in members:
                    if key in self._secrets:
                        self._contribute(psbt, at, aggregate, key, len(members))
        return psbt.serialize()

    def _contribute(self, psbt: Psbt, at: int, aggregate: bytes, key: bytes, members: int) -> None:
        here = psbt.inputs[at].musig2_pub_nonces
        if not any(data.startswith(key) for data in here):
            self._nonces[at, key] = musig2.nonce_gen(psbt, at, self._secrets[key], aggregate)
        elif len(here) == members:
            musig2.partial_sign(psbt, at, self._nonces.pop((at, key)), self._secrets[key], aggregate)


def main() -> None:
    if is_libsecp256k1_serving():
        sys.exit("ecc calls libsecp256k1: this would compare the library with itself")
    signer = Signer(sys.argv[1:])
    for line in sys.stdin:
        print(base64.b64encode(signer.sign(base64.b64decode(line))).decode(), flush=True)


if __name__ == "__main__":
    main()
