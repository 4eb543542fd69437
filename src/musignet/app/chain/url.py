"""Which backend a URL in the configuration names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from ... import limits
from ...chain import Chain
from ...errors import IoError, LocalError
from .base import ChainBackend
from .way import STRAIGHT, ChainWay

if TYPE_CHECKING:
    from bitcoin_core_rpc import BitcoinCoreRpcClient

__all__ = ["check_url", "open_backend"]

_HOW: Final = "esplora+https://HOST/api, electrum+ssl://HOST:PORT, electrum://HOST:PORT or core+http://HOST:PORT"
_SCHEMES: Final = frozenset(("esplora+http", "esplora+https", "electrum", "electrum+ssl", "core+http", "core+https"))
_CORE_OPTIONS: Final = frozenset(("cookie", "passfile", "since"))


def open_backend(url: str, chain: Chain, way: ChainWay = STRAIGHT) -> ChainBackend:
    """Return the backend that a URL names, reached by `way`. Nothing is sent yet.

    `core+http://` and `core+https://` take options behind a `?`: `cookie=PATH` of Core's cookie file (without it, where
    Core puts it), or a user in front of the host and `passfile=PATH` of a file with nothing but the password; and
    `since=2026-11-01`, a day before which the wallet cannot have coins. No password is ever part of a URL.

    Raises: LocalError for any other URL, and where the extra named `chain` is missing; Leak where the way there needs a
            proxy that is not there; IoError for the password's file.
    """
    split = check_url(url)
    proxy = way.proxy_for(split)
    try:
        return _core(split, chain) if split.scheme.startswith("core") else _server(split, chain, proxy)
    except ModuleNotFoundError as error:
        if error.name not in ("bdkpython", "bitcoin_core_rpc"):
            raise
        raise LocalError(
            "chain backends need an extra",
            hint='pip install "musignet[chain]" (for Esplora and Electrum: Python below 3.14)',
        ) from None


def check_url(url: str) -> SplitResult:
    """Return the parts of a URL that has the form of one of ours. No error shows what may be a password."""
    try:
        split = urlsplit(url)
        right = split.scheme in _SCHEMES and bool(split.hostname) and split.port != 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable():
        raise LocalError("not the URL of a chain backend", expected=_HOW)
    is_core = split.scheme.startswith("core")
    if split.password is not None or split.fragment or (not is_core and (split.username is not None or split.query)):
        raise LocalError(
            "more in the URL of a chain backend than belongs there", expected=_HOW,
            hint="no password in a URL: core+http://USER@HOST:PORT?passfile=PATH",
        )  # fmt: skip
    return split


def _server(split: SplitResult, chain: Chain, proxy: str | None) -> ChainBackend:
    from .bdk import BdkBackend, Electrum, Esplora

    family, _, scheme = split.scheme.partition("+")
    if family == "esplora":
        return BdkBackend(Esplora(urlunsplit((scheme, split.netloc, split.path.rstrip("/"), "", "")), proxy), chain)
    if split.port is None or split.path not in ("", "/"):
        raise LocalError("not the address of an Electrum server", expected="electrum://HOST:PORT")
    return BdkBackend(Electrum(f"{scheme or 'tcp'}://{split.netloc}", proxy), chain)


def _core(split: SplitResult, chain: Chain) -> ChainBackend:
    from .core import CoreBackend

    if split.port is None:
        raise LocalError("not the address of Bitcoin Core", expected="core+http://HOST:PORT, such as 127.0.0.1:8332")
    options = dict(parse_qsl(split.query, keep_blank_values=True))
    if options.keys() - _CORE_OPTIONS:
        raise LocalError("an unknown option in the URL of Bitcoin Core", expected=", ".join(sorted(_CORE_OPTIONS)))
    return CoreBackend(_client(split, options, chain), chain, since_s=_since_s(options.get("since")))


def _client(split: SplitResult, options: dict[str, str], chain: Chain) -> BitcoinCoreRpcClient:
    from bitcoin_core_rpc import BitcoinCoreRpcClient, cookie_path_from_chain

    from .core import CHAINS

    host = split.netloc.rpartition("@")[2]
    url = urlunsplit((split.scheme.partition("+")[2], host, split.path.rstrip("/"), "", ""))
    if (split.username is None) != ("passfile" not in options) or (split.username and "cookie" in options):
        raise LocalError(
            "how to log in to Bitcoin Core is not clear", expected="cookie=PATH, or USER@ and passfile=PATH"
        )
    if split.username is not None:
        return BitcoinCoreRpcClient(url, user=split.username, password=_password(Path(options["passfile"])))
    cookie = options.get("cookie") or cookie_path_from_chain(CHAINS[chain])
    return BitcoinCoreRpcClient(url, cookie_path=cookie)


def _password(path: Path) -> str:
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            return file.read(limits.CONTROL_PAYLOAD_MAX_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"cannot read {path}", got=error) from None


def _since_s(day: str | None) -> int:
    if day is None:
        return 0
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise LocalError("not a day", expected="since=2026-11-01", got=day) from None
