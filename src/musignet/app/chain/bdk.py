"""Esplora and Electrum servers, through bdkpython: a watch-only wallet of the synthetic key of BIP-328.

The wallet is made afresh for each sync, in memory. In a shared wallet the others use addresses that we never revealed,
so every sync is a full scan anyway; and a wallet that a call hangs in is never used again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

import bdkpython as bdk

from ... import limits
from ...bitcoin.group import CHANGE, RECEIVE, Group
from ...bitcoin.transaction import Outpoint, Transaction, TxOut
from ...chain import Chain
from ...errors import LocalError
from ..blocks import COINBASE_MATURITY_BLOCKS
from .base import (
    BackendFault,
    BroadcastRefused,
    ChainNotReady,
    ChainUnreachable,
    Coin,
    Snapshot,
    Unsupported,
    WrongChain,
    ordered,
    usable_rate,
)
from .deadline import Deadlines
from .scan import Seen, scan

__all__ = ["GENESIS", "BdkBackend", "Electrum", "Esplora"]

T = TypeVar("T")

_NETWORKS: Final[Mapping[Chain, bdk.Network]] = MappingProxyType(
    {
        Chain.MAINNET: bdk.Network.BITCOIN,
        Chain.TESTNET4: bdk.Network.TESTNET4,
        Chain.SIGNET: bdk.Network.SIGNET,
        Chain.REGTEST: bdk.Network.REGTEST,
    }
)
GENESIS: Final[Mapping[Chain, str]] = MappingProxyType(
    {
        Chain.MAINNET: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        Chain.TESTNET4: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        Chain.SIGNET: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        Chain.REGTEST: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
    }
)
"""The hash of the first block of each network: a test compares them with those that bdkpython has."""
_BRANCHES: Final = {bdk.KeychainKind.EXTERNAL: RECEIVE, bdk.KeychainKind.INTERNAL: CHANGE}
_HTTP_REFUSED: Final = 400
_HTTP_TOO_MANY: Final = 429
_NOT_JSON: Final = re.compile(r"at line [0-9]+ column [0-9]+|invalid utf-8|malformed", re.ASCII)
"""The HTTP client reports an answer that it cannot parse as its own failure: only the sentence tells."""
_NO_WAY: Final = (
    bdk.ElectrumError.IoError,
    bdk.ElectrumError.SharedIoError,
    bdk.ElectrumError.CouldNotCreateConnection,
    bdk.ElectrumError.InvalidDnsNameError,
    bdk.ElectrumError.MissingDomain,
)
_GARBAGE: Final = (bdk.EsploraError, bdk.ElectrumError, bdk.CannotConnectError, bdk.InternalError)
"""The rest. `InternalError` is a panic of the library, caught at its border."""


class Server(Protocol):
    """One kind of server: what this module asks of it. Each method raises what `_told` turns into our errors."""

    name: str

    def genesis(self) -> bdk.BlockHash: ...

    def scan(self, request: bdk.FullScanRequest) -> bdk.Update: ...

    def rate(self, target_blocks: int) -> float | None:
        """Return sat/vB, or None where there is no estimate."""
        ...

    def send(self, tx: bdk.Transaction) -> None:
        """Pass it on. Raises: BroadcastRefused."""
        ...

    def has(self, txid: bdk.Txid) -> bool: ...

    def by_address(self, group: Group) -> Snapshot:
        """Return the state of a wallet that no xpub can watch. Raises: Unsupported where that cannot be asked."""
        ...


class Esplora:
    """An HTTP server such as blockstream's or mempool's.

    Args: url   - `http://...` or `https://...`.
          proxy - `host:port` of an HTTP proxy that tunnels (CONNECT): bdkpython knows no other kind here.
    """

    def __init__(self, url: str, proxy: str | None = None) -> None:
        self.name = url
        self._client = bdk.EsploraClient(url, proxy)

    def genesis(self) -> bdk.BlockHash:
        return self._client.get_block_hash(0)

    def scan(self, request: bdk.FullScanRequest) -> bdk.Update:
        return self._client.full_scan(request, limits.ADDRESS_GAP, limits.CHAIN_PARALLEL_REQUESTS)

    def rate(self, target_blocks: int) -> float | None:
        estimates = self._client.get_fee_estimates()
        return estimates[max(fits)] if (fits := [target for target in estimates if target <= target_blocks]) else None

    def send(self, tx: bdk.Transaction) -> None:
        try:
            self._client.broadcast(tx)
        except bdk.EsploraError.HttpResponse as error:
            if error.status != _HTTP_REFUSED:
                raise
            raise BroadcastRefused(error.error_message) from None

    def has(self, txid: bdk.Txid) -> bool:
        return self._client.get_tx(txid) is not None

    def by_address(self, group: Group) -> Snapshot:
        tip = self._client.get_height()
        return scan(group, tip, lambda address: self._history(bdk.Address(address, _NETWORKS[group.chain])))

    def _history(self, asked: bdk.Address) -> Iterator[Seen]:
        last: bdk.Txid | None = None
        for _ in range(limits.CHAIN_HISTORY_MAX_PAGES):
            page = self._client.get_address_txs(asked, last)
            for one in page:
                raw = self._client.get_tx_no_opt(one.txid).serialize()
                yield Seen(Transaction.parse_untrusted(raw, witness=True), one.status.block_height)
            if not page or not page[-1].status.confirmed:  # pages are counted from the last confirmed one
                return
            last = page[-1].txid
        raise _fault(self.name, "a history without an end")


class Electrum:
    """An Electrum server. Connects anew for each call.

    Args: url   - `tcp://host:port` or `ssl://host:port`.
          proxy - `host:port` of a SOCKS5 proxy, which looks the server's name up.
    """

    def __init__(self, url: str, proxy: str | None = None) -> None:
        self.name = url
        self._url = url
        self._proxy = proxy

    def _client(self) -> bdk.ElectrumClient:
        try:
            return bdk.ElectrumClient(
                self._url, socks5=self._proxy, timeout=math.ceil(limits.CHAIN_CALL_TIMEOUT_S), retry=0
            )
        except bdk.ElectrumError as error:
            raise _unreachable(self.name, error) from None

    def genesis(self) -> bdk.BlockHash:
        return self._client().server_features().genesis_hash

    def scan(self, request: bdk.FullScanRequest) -> bdk.Update:
        return self._client().full_scan(request, limits.ADDRESS_GAP, limits.CHAIN_PARALLEL_REQUESTS, False)

    def rate(self, target_blocks: int) -> float | None:
        per_kilobyte = self._client().estimate_fee(target_blocks)
        return per_kilobyte * 100_000 if per_kilobyte > 0 else None

    def send(self, tx: bdk.Transaction) -> None:
        try:
            self._client().transaction_broadcast(tx)
        except bdk.ElectrumError.Protocol as error:
            raise BroadcastRefused(error.error_message) from None

    def has(self, txid: bdk.Txid) -> bool:
        try:
            return self._client().fetch_tx(txid).compute_txid().serialize() == txid.serialize()
        except bdk.ElectrumError.Protocol:
            return False

    def by_address(self, group: Group) -> Snapshot:
        raise Unsupported(
            "an Electrum server can watch only wallets of the form tr(musig(...)/<0;1>/*)",
            hint="use an Esplora server (esplora+https://...) or Bitcoin Core 31 or newer (core+http://...) instead",
        )


class BdkBackend:
    """A ChainBackend over one of the servers above.

    Args: server - where it asks.
          chain  - the network that it must be on.
    """

    def __init__(
        self,
        server: Server,
        chain: Chain,
        *,
        call_timeout_s: float = limits.CHAIN_CALL_TIMEOUT_S,
        sync_timeout_s: float = limits.CHAIN_SYNC_TIMEOUT_S,
    ) -> None:
        self._server = server
        self._chain = chain
        self._call_timeout_s = call_timeout_s
        self._sync_timeout_s = sync_timeout_s
        self._deadlines = Deadlines(server.name)

    @property
    def name(self) -> str:
        return self._server.name

    def sync(self, group: Group) -> Snapshot:
        """Return the wallet's state: by the key of BIP-328 where there is one, else by one address after the other."""
        if self._ask("the first block's hash", self._server.genesis) != bdk.BlockHash.from_string(GENESIS[self._chain]):
            raise WrongChain(
                f"{self.name} is of another network", expected=self._chain.name.lower(),
                hint="name a backend of this wallet's network in config.toml",
            )  # fmt: skip
        return self._deadlines.within(self._sync_timeout_s, "sync", lambda: self._scan(group))

    def _scan(self, group: Group) -> Snapshot:
        with _told(self.name):
            if not group.descriptor.ranged or group.descriptor.branches != len(_BRANCHES) or not group.descriptor.path:
                return self._server.by_address(group)
            wallet = _wallet(group)
            wallet.apply_update(self._server.scan(wallet.start_full_scan().build()))
        return _snapshot(wallet, group)

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        def told() -> T:
            with _told(self.name):
                return call()

        return self._deadlines.within(self._call_timeout_s, doing, told)

    def fee_rate(self, target_blocks: int) -> int:
        return usable_rate(self._ask("a fee estimate", lambda: self._server.rate(target_blocks)), self.name)

    def broadcast(self, raw: bytes) -> bytes:
        """Where it is refused, asks whether it is there already: each of the cosigners may pass it on."""
        tx = _transaction(raw)
        txid = tx.compute_txid()
        try:
            self._ask("broadcast", lambda: self._server.send(tx))
        except BroadcastRefused:
            if not self._ask("whether the transaction is known", lambda: self._server.has(txid)):
                raise
        return txid.serialize()


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what bdkpython raises into our errors."""
    try:
        yield
    except (bdk.EsploraError.Minreq, *_NO_WAY) as error:
        if _NOT_JSON.search(str(error)):
            raise _fault(name, _said(error)) from None
        raise _unreachable(name, error) from None
    except bdk.EsploraError.HttpResponse as error:
        if error.status == _HTTP_TOO_MANY:
            raise ChainNotReady(f"{name} takes no more requests for now", hint="try again in some minutes") from None
        raise _fault(name, f"HTTP status {error.status}") from None
    except _GARBAGE as error:
        raise _fault(name, _said(error)) from None


def _unreachable(name: str, error: Exception) -> ChainUnreachable:
    hint = "is the address in config.toml right, and the server up?"
    return ChainUnreachable(f"cannot reach {name}", got=_said(error), hint=hint)


def _said(error: Exception) -> str:
    """Return the sentence in an error, or its kind where it has none."""
    return str(error).removeprefix("error_message=") or type(error).__name__


def _fault(name: str, got: object) -> BackendFault:
    return BackendFault(
        f"{name} does not answer as such a server does", got=got, hint="is it the right address, with its path?"
    )


def _wallet(group: Group) -> bdk.Wallet:
    """Return a wallet that watches the group's addresses, and knows nothing yet but the first block of its network."""
    kind = bdk.NetworkKind.MAIN if group.chain is Chain.MAINNET else bdk.NetworkKind.TEST
    descriptor = bdk.Descriptor(str(group.descriptor.watch_only(group.chain)), kind)
    return bdk.Wallet.create_from_two_path_descriptor(
        descriptor, _NETWORKS[group.chain], bdk.Persister.new_in_memory(), limits.ADDRESS_GAP
    )


def _snapshot(wallet: bdk.Wallet, group: Group) -> Snapshot:
    tip = wallet.latest_checkpoint().height
    coins = [_coin(one, group, tip) for one in wallet.list_unspent() if not _immature(one, wallet, tip)]
    last = {branch: wallet.derivation_index(keychain) for keychain, branch in _BRANCHES.items()}
    receive, change = (-1 if index is None else index for index in (last[RECEIVE], last[CHANGE]))
    return Snapshot(tip, ordered(coins), (receive, change), wallet.balance().immature.to_sat())


def _coin(one: bdk.LocalOutput, group: Group, tip: int) -> Coin:
    outpoint = Outpoint(one.outpoint.txid.serialize(), one.outpoint.vout)
    out = TxOut(one.txout.value.to_sat(), one.txout.script_pubkey.to_bytes())
    branch, index = _BRANCHES[one.keychain], one.derivation_index
    if group.derive(branch, index).script != out.script:
        raise BackendFault("two implementations disagree about our addresses", got=f"{branch}/{index}")
    return Coin(outpoint, out, branch, index, _confirmations(one, tip))


def _confirmations(one: bdk.LocalOutput, tip: int) -> int:
    position = one.chain_position
    if not isinstance(position, bdk.ChainPosition.CONFIRMED):
        return 0
    return tip - position.confirmation_block_time.block_id.height + 1


def _immature(one: bdk.LocalOutput, wallet: bdk.Wallet, tip: int) -> bool:
    if _confirmations(one, tip) >= COINBASE_MATURITY_BLOCKS:
        return False
    made = wallet.get_tx(one.outpoint.txid)
    return made is not None and made.transaction.is_coinbase()


def _transaction(raw: bytes) -> bdk.Transaction:
    try:
        return bdk.Transaction(raw)
    except bdk.TransactionError as error:
        raise LocalError("not a finished transaction", got=_said(error)) from None
