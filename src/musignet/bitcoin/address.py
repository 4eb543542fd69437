"""From the address that a person was given to the script that is paid, or a sentence why not."""

from __future__ import annotations

from .. import limits
from ..chain import Chain
from ..errors import LocalError
from . import taproot, wally
from .transaction import TxOut

__all__ = ["script_of"]


def script_of(text: str, chain: Chain) -> bytes:
    """Return the script of an address on `chain`.

    Testnet and signet addresses are written alike: neither this nor anybody else can tell them apart.

    Raises: LocalError for no address (one wrong character is enough), one of another network, or one of a SegWit
            version that has no rules yet, where anybody could take the coins.
    """
    if len(text) > limits.BITCOIN_ADDRESS_MAX_CHARS or not text.isascii():
        raise LocalError("not a Bitcoin address", got=text[:20])
    script = _script(text, chain)
    if script is None:
        others = [other for other in Chain if other.hrp != chain.hrp and _script(text, other) is not None]
        if others:
            raise LocalError(
                "an address of another network", expected=chain.name.lower(), got=others[0].name.lower(),
                hint="ask for an address of this wallet's network",
            )  # fmt: skip
        raise LocalError("not a Bitcoin address", got=text, hint="copy it again: one wrong character is enough")
    out = TxOut(0, script)
    if out.is_witness and script[0] != 0 and not out.is_taproot:
        raise LocalError("an address of a SegWit version without rules", expected="version 0 or 1", got=text)
    return script


def _script(text: str, chain: Chain) -> bytes | None:
    """Return the script, where its own address is this text again: libwally reads no further than a NUL."""
    try:
        script = wally.address_script(text, chain)
    except wally.WallyError:
        return None
    back = taproot.address(script, chain)
    return script if back in (text, text.lower()) else None
