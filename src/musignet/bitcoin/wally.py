"""The only binding to libwally: the second opinion on what this floor reads, hashes and finishes.

Private keys are in `wallykeys`, which takes the import from here.

libwally refuses everything with "Invalid argument"; callers give the refusal a meaning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from ..chain import Chain
from .transaction import TxOut

# SWIG makes its last type while the interpreter exits, with a DeprecationWarning (seen on Python 3.11). Where
# warnings are errors that type is NULL, and the process ends in a segmentation fault.
warnings.filterwarnings("ignore", "builtin type [sS]wig", DeprecationWarning)
import wallycore  # noqa: E402

__all__ = [
    "WallyError",
    "address_script",
    "base58check_decode",
    "base58check_encode",
    "finish",
    "hash160",
    "key_path_sighashes",
    "legacy_address",
    "segwit_address",
    "unsigned_transaction",
    "wallycore",
]


class WallyError(Exception):
    """libwally refused, without a reason. Never leaves `bitcoin`."""


_NO_CODE_SEPARATOR = 0xFFFF_FFFF
_CACHE_ITEMS = 16


def unsigned_transaction(psbt: bytes, version: int) -> bytes:
    """Return the unsigned transaction that libwally reads in a PSBT of version 0 or 2, parsed strictly."""
    try:
        parsed = wallycore.psbt_from_bytes(psbt, wallycore.WALLY_PSBT_PARSE_FLAG_STRICT)
        if version == 0:
            tx = wallycore.psbt_get_global_tx(parsed)
        else:
            tx = wallycore.psbt_extract(parsed, wallycore.WALLY_PSBT_EXTRACT_NON_FINAL)
        return bytes(wallycore.tx_to_bytes(tx, 0))
    except ValueError as error:
        raise WallyError(str(error)) from None


def key_path_sighashes(tx: bytes, spent: Sequence[TxOut], wanted: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return the BIP-341 key-path digests of a raw transaction for pairs of (input, sighash type)."""
    scripts, amounts = wallycore.map_init(len(spent), None), wallycore.map_init(len(spent), None)
    cache = wallycore.map_init(_CACHE_ITEMS, None)
    try:
        parsed = wallycore.tx_from_bytes(tx, 0)
        for index, out in enumerate(spent):
            wallycore.map_add_integer(scripts, index, out.script)
            wallycore.map_add_integer(amounts, index, out.to_bytes()[:8])
        return [
            bytes(
                wallycore.tx_get_input_signature_hash(
                    parsed, index, scripts, None, amounts, None, 0, _NO_CODE_SEPARATOR, None, None, sighash_type,
                    wallycore.WALLY_SIGTYPE_SW_V1, cache,
                )
            )
            for index, sighash_type in wanted
        ]  # fmt: skip
    except ValueError as error:
        raise WallyError(str(error)) from None


def finish(psbt: bytes) -> bytes:
    """Finalise a PSBT whose inputs all have their signatures, and return the raw transaction.

    It takes a wrong signature as readily as a right one: verify first.
    """
    try:
        parsed = wallycore.psbt_from_bytes(psbt, wallycore.WALLY_PSBT_PARSE_FLAG_STRICT)
        wallycore.psbt_finalize(parsed, 0)
        tx = wallycore.psbt_extract(parsed, wallycore.WALLY_PSBT_EXTRACT_FINAL)
        return bytes(wallycore.tx_to_bytes(tx, wallycore.WALLY_TX_FLAG_USE_WITNESS))
    except ValueError as error:
        raise WallyError(str(error)) from None


def segwit_address(script: bytes, chain: Chain) -> str:
    """Return the address of a witness program (BIP-173, BIP-350)."""
    try:
        return wallycore.addr_segwit_from_bytes(script, chain.hrp, 0)
    except ValueError as error:
        raise WallyError(str(error)) from None


def legacy_address(script: bytes, chain: Chain) -> str:
    """Return the address of a pay-to-pubkey-hash or pay-to-script-hash script."""
    main = chain is Chain.MAINNET
    network = wallycore.WALLY_NETWORK_BITCOIN_MAINNET if main else wallycore.WALLY_NETWORK_BITCOIN_TESTNET
    try:
        return wallycore.scriptpubkey_to_address(script, network)
    except ValueError as error:
        raise WallyError(str(error)) from None


def address_script(text: str, chain: Chain) -> bytes:
    """Return the script that an address of this network stands for: the other direction of the two above."""
    main = chain is Chain.MAINNET
    network = wallycore.WALLY_NETWORK_BITCOIN_MAINNET if main else wallycore.WALLY_NETWORK_BITCOIN_TESTNET
    try:
        if text.lower().startswith(f"{chain.hrp}1"):
            return bytes(wallycore.addr_segwit_to_bytes(text, chain.hrp, 0))
        return bytes(wallycore.address_to_scriptpubkey(text, network))
    except ValueError as error:
        raise WallyError(str(error)) from None


def base58check_decode(text: str) -> bytes:
    """Return the bytes in a Base58Check text, without its checksum."""
    try:
        return bytes(wallycore.base58check_to_bytes(text))
    except ValueError as error:
        raise WallyError(str(error)) from None


def base58check_encode(data: bytes) -> str:
    """Return `data` as Base58Check."""
    return wallycore.base58check_from_bytes(data)


def hash160(data: bytes) -> bytes:
    """Return RIPEMD160(SHA256(data)), 20 bytes: OpenSSL builds may lack RIPEMD160."""
    return bytes(wallycore.hash160(data))
