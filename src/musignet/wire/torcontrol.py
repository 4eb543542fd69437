"""Tor's control protocol, version 1, as far as an onion service needs it: commands out, replies in. Pure.

Specification: control-spec, sections 2.3 (replies), 3.5 (AUTHENTICATE), 3.21 (PROTOCOLINFO), 3.24 (AUTHCHALLENGE), 3.27
and 3.28 (ADD_ONION, DEL_ONION). What listens on the port may be anything: a reply is bounded, and read strictly.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..errors import NetworkError, Other
from ..limits import TOR_REPLY_MAX_BYTES, TOR_REPLY_MAX_LINES

__all__ = [
    "COOKIE_BYTES",
    "PROTOCOLINFO",
    "Challenge",
    "Offered",
    "Replies",
    "Reply",
    "TorFault",
    "add_onion",
    "authenticate",
    "bootstrapped",
    "challenge",
    "cookie_proof",
    "del_onion",
    "quoted",
]

COOKIE_BYTES: Final = 32
PROTOCOLINFO: Final = "PROTOCOLINFO 1"
_SERVER: Final = b"Tor safe cookie authentication server-to-controller hash"
_CONTROLLER: Final = b"Tor safe cookie authentication controller-to-server hash"
_END: Final = b"\r\n"
_LINE: Final = re.compile(r"([2-6][0-9]{2})([ -])([ -~]*)", re.ASCII)
_AUTH: Final = re.compile(r'AUTH METHODS=([A-Z,]+)(?: COOKIEFILE="((?:[^"\\]|\\["\\])*)")?(?: .*)?', re.ASCII)
_CHALLENGED: Final = re.compile(r"AUTHCHALLENGE SERVERHASH=([0-9A-F]{64}) SERVERNONCE=([0-9A-F]{64})", re.ASCII)
_PROGRESS: Final = re.compile(r"status/bootstrap-phase=[A-Z]+ BOOTSTRAP PROGRESS=([0-9]{1,3})(?: .*)?", re.ASCII)
_ASYNCHRONOUS: Final = 650


class TorFault(Other):
    """What answers on the control port does not answer as Tor does. Nothing was told to it that is secret."""

    def __init__(self, why: str, *, expected: object = None, got: object = None) -> None:
        super().__init__(why, expected=expected, got=got, hint="is [onion] control really Tor's control port?")


class Reply(NamedTuple):
    """One whole reply: what stands behind its code in each line."""

    code: int
    lines: tuple[str, ...]

    @property
    def good(self) -> bool:
        return 200 <= self.code < 300


class Replies:
    """Takes bytes as they come, and yields whole replies. Events nobody asked for are passed over."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._lines: list[str] = []
        self._code = 0
        self._used = 0

    def receive_untrusted(self, data: bytes) -> Iterator[Reply]:
        """Yield what is complete. Raises: TorFault; nothing that follows it means anything."""
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            line = bytes(self._data[:end])
            del self._data[: end + len(_END)]
            self._used += end
            reply = self._line(line)
            if reply is not None and reply.code != _ASYNCHRONOUS:
                yield reply
        self._bound()

    def _bound(self) -> None:
        if self._used + len(self._data) > TOR_REPLY_MAX_BYTES or len(self._lines) > TOR_REPLY_MAX_LINES:
            raise TorFault(
                "a reply without an end", expected=f"{TOR_REPLY_MAX_BYTES} bytes, {TOR_REPLY_MAX_LINES} lines"
            )

    def _line(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line.decode("latin-1"))
        if found is None:
            raise TorFault("no line of a reply", expected="three digits, a mark, and ASCII", got=line[:80])
        code = int(found[1])
        if self._lines and code != self._code:
            raise TorFault("a reply with two codes", expected=self._code, got=code)
        self._code = code
        self._lines.append(found[3])
        self._bound()
        if found[2] == "-":
            return None
        whole = Reply(code, tuple(self._lines))
        self._lines, self._used = [], 0
        return whole


class Offered(NamedTuple):
    """How Tor lets somebody in."""

    methods: frozenset[str]
    cookie_file: str

    @classmethod
    def of(cls, reply: Reply) -> Offered:
        """Read the reply to PROTOCOLINFO. Raises TorFault."""
        for line in reply.lines if reply.good else ():
            if found := _AUTH.fullmatch(line):
                return cls(frozenset(found[1].split(",")), re.sub(r"\\(.)", r"\1", found[2] or ""))
        raise TorFault("no way in is offered", expected="AUTH METHODS=...", got=" / ".join(reply.lines))


class Challenge(NamedTuple):
    """What Tor answers to AUTHCHALLENGE."""

    server_hash: bytes
    server_nonce: bytes

    @classmethod
    def of(cls, reply: Reply) -> Challenge:
        """Read the reply. Raises TorFault."""
        found = _CHALLENGED.fullmatch(reply.lines[0]) if reply.good else None
        if found is None:
            raise TorFault("no answer to a challenge", got=" / ".join(reply.lines))
        return cls(bytes.fromhex(found[1]), bytes.fromhex(found[2]))


def challenge(nonce: bytes) -> str:
    """Return the question whether Tor has the cookie too; 32 random bytes."""
    return f"AUTHCHALLENGE SAFECOOKIE {nonce.hex()}"


def cookie_proof(cookie: bytes, nonce: bytes, answer: Challenge) -> bytes:
    """Return what proves that we have the cookie, once Tor has proved that it does. The cookie itself is never said.

    Raises: TorFault where it does not: it may be anybody who listens on that port.
    """
    said = cookie + nonce + answer.server_nonce
    if not hmac.compare_digest(hmac.digest(_SERVER, said, "sha256"), answer.server_hash):
        raise TorFault("what listens on the control port does not have Tor's cookie")
    return hmac.digest(_CONTROLLER, said, "sha256")


def authenticate(proof: bytes | str) -> str:
    """Return the command that lets us in: with a proof, or a password."""
    return f"AUTHENTICATE {proof.hex() if isinstance(proof, bytes) else quoted(proof)}"


def quoted(text: str) -> str:
    """Return a QuotedString (section 2.1.1). Raises NetworkError for what cannot stand in one line."""
    if not text.isascii() or not text.isprintable():
        raise NetworkError("not a password for Tor's control port", expected="printable ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def add_onion(expanded: bytes, virtual_port: int, target: str, streams_max: int) -> str:
    """Return the command that publishes a service with an Ed25519 key (64 bytes, expanded), while we are connected.

    Args: target - `IP:PORT` of this machine. A visitor with more than `streams_max` streams at once is cut off.
    """
    key = base64.b64encode(expanded).decode()
    flags = f"Flags=MaxStreamsCloseCircuit MaxStreams={streams_max}"
    return f"ADD_ONION ED25519-V3:{key} {flags} Port={virtual_port},{target}"


def del_onion(host: str) -> str:
    """Return the command that takes a service back."""
    return f"DEL_ONION {host.removesuffix('.onion')}"


def bootstrapped(reply: Reply) -> int:
    """Return how far Tor is, in percent, of `GETINFO status/bootstrap-phase`. Raises TorFault."""
    for line in reply.lines if reply.good else ():
        if (found := _PROGRESS.fullmatch(line)) and int(found[1]) <= 100:
            return int(found[1])
    raise TorFault("no word on how far Tor is", got=" / ".join(reply.lines))
