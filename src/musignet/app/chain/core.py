"""Bitcoin Core's RPC, through bitcoin-core-rpc: a watch-only wallet in the node, of our descriptors.

Core watches wallets of the form tr(musig(...)/<0;1>/*) by their synthetic key (BIP-328); the other form needs Core 31,
which knows musig(). The wallet has no private keys and no other purpose; its name is derived from the descriptor, so
that the same group finds it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from bitcoin_core_rpc import (
    BitcoinCoreRpcClient,
    CookieNotFoundError,
    FetchError,
    HttpError,
    RpcError,
    RPCErrorCode,
)

from ... import limits
from ...bitcoin.descriptor import checksum
from ...bitcoin.group import CHANGE, RECEIVE, Group
from ...bitcoin.rules import RuleBroken
from ...bitcoin.transaction import Outpoint, Transaction, TxOut
from ...chain import Chain
from ...errors import LocalError, NetworkError
from .base import (
    BackendFault,
    BroadcastRefused,
    ChainNotReady,
    ChainTimeout,
    ChainUnreachable,
    Coin,
    Snapshot,
    Unsupported,
    WrongChain,
    ordered,
    usable_rate,
)
from .deadline import Deadlines

__all__ = ["CHAINS", "CoreBackend", "wallet_name", "watch_only"]

T = TypeVar("T")

CHAINS: Final[Mapping[Chain, str]] = MappingProxyType(
    {Chain.MAINNET: "main", Chain.TESTNET4: "testnet4", Chain.SIGNET: "signet", Chain.REGTEST: "regtest"}
)
"""Core's own names of the networks."""
_SAT_PER_BITCOIN: Final = 100_000_000
_SAT_VB_PER_BTC_KVB: Final = 100_000
_UNAUTHORISED: Final = (401, 403)
_BUSY: Final = 503
_REFUSED: Final = (RPCErrorCode.VERIFY_ERROR, RPCErrorCode.VERIFY_REJECTED, RPCErrorCode.DESERIALIZATION_ERROR)
_MULTIPATH: Final = re.compile(r"<([0-9;]+)>", re.ASCII)
_GRACE_S: Final = 2.0
"""What the client may take beyond our deadline: ours is the one that is told, and its thread ends soon after."""
_RANGE: Final = 1_000
"""Addresses of each branch that Core watches beyond the last one used: its own default."""


# What Core answers, as far as it is used. Whatever else is in it is passed over.


class _ChainInfo(msgspec.Struct):
    chain: str
    blocks: int
    headers: int
    initialblockdownload: bool


class _Scanning(msgspec.Struct):
    progress: Decimal


class _WalletInfo(msgspec.Struct):
    scanning: _Scanning | bool = False


class _Watched(msgspec.Struct):
    desc: str
    next_index: int = 0


class _Descriptors(msgspec.Struct):
    descriptors: list[_Watched]


class _Imported(msgspec.Struct):
    success: bool
    error: dict[str, Any] = {}


class _Unspent(msgspec.Struct):
    txid: str
    vout: int
    amount: Decimal
    scriptPubKey: str
    confirmations: int


class _Mine(msgspec.Struct):
    immature: Decimal


class _Balances(msgspec.Struct):
    mine: _Mine


class _Estimate(msgspec.Struct):
    feerate: Decimal | None = None


class CoreBackend:
    """A ChainBackend over a node of one's own: the one that tells nobody else which addresses belong together.

    Args: client  - of the node, without a wallet.
          chain   - the network that it must be on.
          since_s - when the oldest coin can be from, in seconds since 1970; 0 reads the whole chain, once.
    """

    def __init__(
        self,
        client: BitcoinCoreRpcClient,
        chain: Chain,
        *,
        since_s: int = 0,
        call_timeout_s: float = limits.CHAIN_CALL_TIMEOUT_S,
    ) -> None:
        self._node = client
        self._chain = chain
        self._since_s = since_s
        self._timeout_s = call_timeout_s
        self._deadlines = Deadlines(client.url)

    @property
    def name(self) -> str:
        return self._node.url

    # --- one call ----------------------------------------------------------------------------------------------------

    def _try(self, client: BitcoinCoreRpcClient, method: str, *params: object) -> Any:
        """Return a call's result, or the RpcError that Core answered."""

        def told() -> Any:
            try:
                return client.call(method, list(params), request_timeout=self._timeout_s + _GRACE_S)
            except RpcError as error:
                return error
            except FetchError as error:
                raise self._unanswered(error) from None

        answer = self._deadlines.within(self._timeout_s, method, told)
        if _refused(answer, RPCErrorCode.IN_WARMUP):
            raise ChainNotReady(f"Bitcoin Core at {self.name} is starting", got=answer, hint="try again in a minute")
        return answer

    def _ask(self, client: BitcoinCoreRpcClient, answer_type: type[T], method: str, *params: object) -> T:
        answer = self._try(client, method, *params)
        if _refused(answer):
            raise BackendFault(f"Bitcoin Core at {self.name} refused {method}", got=answer)
        try:
            return msgspec.convert(answer, answer_type)
        except msgspec.ValidationError as error:
            raise BackendFault(f"{self.name} does not answer {method} as Bitcoin Core does", got=error) from None

    def _unanswered(self, error: FetchError) -> NetworkError:
        where = f"Bitcoin Core at {self.name}"
        if isinstance(error, CookieNotFoundError):
            return ChainUnreachable(
                "no cookie file of Bitcoin Core", got=error,
                hint="is it running, with server=1? name the file: core+http://HOST:PORT?cookie=PATH",
            )  # fmt: skip
        if isinstance(error, HttpError) and error.status in _UNAUTHORISED:
            return LocalError(f"{where} refuses our credentials", hint="is the cookie file its own?")
        if isinstance(error, HttpError) and error.status == _BUSY:
            return ChainNotReady(f"{where} is too busy", hint="try again in a minute")
        if isinstance(error.__cause__, OSError):
            hint = "is it running, with server=1, and is the port the one of this network?"
            return ChainUnreachable(f"cannot reach {where}", got=error.__cause__, hint=hint)
        return BackendFault(f"{self.name} does not answer as Bitcoin Core does", got=error)

    # --- a wallet's state --------------------------------------------------------------------------------------------

    def sync(self, group: Group) -> Snapshot:
        """Return the wallet's state.

        The first time makes the wallet, and Core reads the chain for it; ChainNotReady says how far it is.
        """
        tip = self._tip()
        wallet = self._opened(group)
        self._check_scan(wallet)
        last = self._last(wallet, group) or self._import(wallet, group)
        listed = self._ask(wallet, list[_Unspent], "listunspent", 0)
        places = {
            group.derive(branch, index).script: (branch, index)
            for branch in range(group.descriptor.branches)
            for index in range(last[branch] + 1)
        }
        coins = ordered(_coin(one, places) for one in listed)
        immature_sat = _sat(self._ask(wallet, _Balances, "getbalances").mine.immature)
        return Snapshot(tip, coins, (last[RECEIVE], last.get(CHANGE, -1)), immature_sat)

    def _tip(self) -> int:
        info = self._ask(self._node, _ChainInfo, "getblockchaininfo")
        if info.chain != CHAINS[self._chain]:
            raise WrongChain(
                f"Bitcoin Core at {self.name} is of another network", expected=CHAINS[self._chain], got=info.chain,
                hint="name the node of this wallet's network in config.toml",
            )  # fmt: skip
        if info.initialblockdownload and info.blocks < info.headers:
            raise ChainNotReady(
                f"Bitcoin Core at {self.name} is still reading the chain", expected=f"{info.headers} blocks",
                got=info.blocks, hint="wait until it has caught up",
            )  # fmt: skip
        return info.blocks

    def _opened(self, group: Group) -> BitcoinCoreRpcClient:
        """Return a client of the group's wallet, which is loaded, or made without keys."""
        name = wallet_name(group)
        wallet = self._node.for_wallet(name)
        if not _refused(self._try(wallet, "getwalletinfo"), RPCErrorCode.WALLET_NOT_FOUND):
            return wallet
        loaded = self._try(self._node, "loadwallet", name)
        if _refused(loaded, RPCErrorCode.WALLET_NOT_FOUND):
            self._ask(self._node, dict[str, Any], "createwallet", name, True, True)  # no private keys, blank
        elif _refused(loaded) and not _refused(loaded, RPCErrorCode.WALLET_ALREADY_LOADED):
            raise BackendFault(f"Bitcoin Core cannot load the wallet {name}", got=loaded)
        return wallet

    def _check_scan(self, wallet: BitcoinCoreRpcClient) -> None:
        scanning = self._ask(wallet, _WalletInfo, "getwalletinfo").scanning
        if isinstance(scanning, _Scanning):
            raise ChainNotReady(
                "Bitcoin Core is still reading the chain for this wallet", got=f"{scanning.progress:.0%} of it",
                hint="sync again later",
            )  # fmt: skip

    def _last(self, wallet: BitcoinCoreRpcClient, group: Group) -> dict[int, int]:
        """Return the last index used of each branch; nothing unless the wallet watches all of them.

        A branch is recognised by its first address: Core may write a descriptor in another spelling than ours.
        """
        branches = {group.address(branch, 0): branch for branch in range(group.descriptor.branches)}
        found = {}
        for one in self._ask(wallet, _Descriptors, "listdescriptors").descriptors:
            first = self._ask(self._node, list[str], "deriveaddresses", one.desc, [0, 0])
            if first and first[0] in branches:
                if one.next_index > limits.ADDRESS_INDEX_MAX:
                    raise BackendFault("every address that is asked for is said to be used", got=one.next_index)
                found[branches[first[0]]] = one.next_index - 1
        return found if len(found) == len(branches) else {}

    def _import(self, wallet: BitcoinCoreRpcClient, group: Group) -> dict[int, int]:
        requests = [
            {"desc": text, "range": [0, _RANGE - 1], "timestamp": self._since_s, "internal": branch == CHANGE}
            for branch, text in enumerate(watch_only(group))
        ]
        try:
            results = self._ask(wallet, list[_Imported], "importdescriptors", requests)
        except ChainTimeout:  # Core goes on without us
            self._check_scan(wallet)
            raise
        for result in results:
            if not result.success:
                raise Unsupported(
                    "Bitcoin Core does not watch this wallet", got=result.error.get("message"),
                    hint="tr(musig(xpub/<0;1>/*,...)) needs Bitcoin Core 31 or newer",
                )  # fmt: skip
        last = self._last(wallet, group)
        if not last:
            raise BackendFault(f"Bitcoin Core at {self.name} derives other addresses than we do")
        return last

    # --- fee rate and broadcast --------------------------------------------------------------------------------------

    def fee_rate(self, target_blocks: int) -> int:
        rate = self._ask(self._node, _Estimate, "estimatesmartfee", target_blocks).feerate
        return usable_rate(None if rate is None else float(rate * _SAT_VB_PER_BTC_KVB), self.name)

    def broadcast(self, raw: bytes) -> bytes:
        try:
            txid = Transaction.parse_untrusted(raw, witness=True).txid()
        except RuleBroken as error:
            raise LocalError("not a finished transaction", got=error.text) from None
        answer = self._try(self._node, "sendrawtransaction", raw.hex())
        if _refused(answer, *_REFUSED):
            raise BroadcastRefused(str(answer))
        if _refused(answer) and not _refused(answer, RPCErrorCode.VERIFY_ALREADY_IN_UTXO_SET):
            raise BackendFault(f"Bitcoin Core at {self.name} refused sendrawtransaction", got=answer)
        return txid


def wallet_name(group: Group) -> str:
    """Return the name of the group's wallet in Core: equal for equal wallets, and nothing can be read from it."""
    text = f"{group.chain.name} {group.descriptor.canonical()}"
    return f"musignet-{sha256(text.encode()).hexdigest()[:16]}"


def watch_only(group: Group) -> list[str]:
    """Return a descriptor with its checksum for each branch: of the synthetic key where there is one."""
    whole = group.descriptor.watch_only(group.chain) or group.descriptor.canonical()
    body = whole.partition("#")[0]
    found = _MULTIPATH.search(body)
    parts = [body.replace(found[0], step) for step in found[1].split(";")] if found else [body]
    return [f"{part}#{checksum(part)}" for part in parts]


def _refused(answer: object, *codes: int) -> bool:
    """Whether Core answered an error: one of these, or any."""
    return isinstance(answer, RpcError) and (not codes or answer.code in codes)


def _coin(one: _Unspent, places: Mapping[bytes, tuple[int, int]]) -> Coin:
    try:
        outpoint = Outpoint(bytes.fromhex(one.txid)[::-1], one.vout)
        out = TxOut(_sat(one.amount), bytes.fromhex(one.scriptPubKey))
    except ValueError as error:
        raise BackendFault("Bitcoin Core lists a coin that is none", got=error) from None
    if out.script not in places:
        raise BackendFault("Bitcoin Core lists a coin that is not ours", got=outpoint)
    return Coin(outpoint, out, *places[out.script], one.confirmations)


def _sat(amount: Decimal) -> int:
    """Return an amount of Core, in bitcoin, as satoshi."""
    sat = amount * _SAT_PER_BITCOIN
    if sat != sat.to_integral_value() or not 0 <= sat <= limits.MONEY_MAX_SAT:
        raise BackendFault("Bitcoin Core names an impossible amount", got=amount)
    return int(sat)
