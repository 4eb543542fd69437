"""TLS 1.3 over TCP, by the standard library. Inside it both sides prove their keys (`wire.tlsauth`).

For networks that let only TLS through. The clocks and the slots are those of TCP: they start with the first byte of
TLS, so that whoever stalls inside it costs what a stalled Noise handshake costs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from secrets import token_bytes
from typing import Any, cast

from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import ReceiveError, Timeout
from ...limits import TLS_HANDSHAKE_COST_S, Limits
from ...text import safe
from ...wire import tlsauth
from ...wire.channel import SecureChannel
from .base import Sink
from .certificate import client_context, listener_context
from .link import ChannelLink
from .listener import Stream
from .route import DIRECT, Route
from .tcp import TcpLink, TcpTransport

__all__ = ["TlsTransport"]


class _TlsLink(TcpLink):
    """One TLS connection."""

    cut_below: Callable[[], None] | None = None
    """Ends the TCP connection while TLS is not there yet."""

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError) and not (self._closing or self._gone):
            self._error = ReceiveError(
                "a TLS record does not decrypt", hint="bytes were changed, lost or reordered on the way"
            )
        super().connection_lost(exc)

    def certificate(self) -> bytes:
        """Return the certificate that the other side of the stream showed, in DER; nothing where it showed none."""
        stream = cast(asyncio.Transport, self._stream).get_extra_info("ssl_object")
        return cast(ssl.SSLObject, stream).getpeercert(binary_form=True) or b""

    def _abort_stream(self) -> None:
        if self._stream is None and self.cut_below is not None:
            self.cut_below()
        super()._abort_stream()


class TlsTransport(TcpTransport):
    """Links over TLS. A `Transport`.

    Args: as for `TcpTransport`. Each run that listens has a certificate of its own.
    """

    carrier = "tls"
    _first_bytes = 1
    _peeks = True

    def __init__(
        self,
        identity: Identity,
        sink: Sink,
        host: str = "",
        port: int = 0,
        *,
        limits: Limits | None = None,
        route: Route = DIRECT,
    ) -> None:
        super().__init__(identity, sink, host, port, limits=limits, route=route)
        self._dials_with: ssl.SSLContext | None = None
        self._listens_with: ssl.SSLContext | None = None
        self.certificate_hash = b""
        """SHA-256 of our own certificate, once it listens."""

    def _channel_in(self, link: TcpLink) -> SecureChannel:
        """Return the channel of a stream that is open: its certificate is known now."""
        handshake: tlsauth.Initiator | tlsauth.Responder
        if link._dialled is None:
            handshake = tlsauth.Responder(self.identity, token_bytes(32), self.certificate_hash)
        else:
            shown = sha256(cast(_TlsLink, link).certificate()).digest()
            handshake = tlsauth.Initiator(self.identity, link._dialled, token_bytes(32), shown)
        return SecureChannel(handshake, self._budget)

    def _channel_to(self, key: PublicKey | None) -> SecureChannel | None:
        return None

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return _TlsLink(self, channel, outbound, address)

    async def _listen(self) -> None:
        if self.host:
            self._listens_with, certificate = listener_context()
            self.certificate_hash = sha256(certificate).digest()
        await super()._listen()

    async def _unlisten(self) -> None:
        for link in list(self.slots.half_open):
            cast(_TlsLink, link)._abort_stream()  # or their TLS handshakes would be waited for
        await super()._unlisten()

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        if self._dials_with is None:
            self._dials_with = client_context()
        near = cast(_TlsLink, link)
        way = await self._way(near, host, port)
        try:
            await self.loop.create_connection(
                lambda: near, **way, ssl=self._dials_with, server_hostname="", **self._clocks()
            )
        except ConnectionAbortedError:
            within_s = self.limits.handshake_timeout_s
            raise Timeout(f"no handshake with {safe(link.address)} within {within_s:g} s") from None
        except (ssl.SSLError, ConnectionResetError) as error:
            near.lost(error)
        if near._stream is None:  # the connection broke meanwhile
            near.lost(None)

    def _serve(self, stream: Stream) -> None:
        super()._serve(stream)
        self.slots.doors.worked(TLS_HANDSHAKE_COST_S, self.loop.time())

    async def _adopt(self, accepted: socket.socket, link: TcpLink) -> None:
        near = cast(_TlsLink, link)
        if link._gone or not self._running:
            accepted.close()
            link.lost(None)
            return
        near.cut_below = partial(_cut, accepted)
        near.began()
        try:
            await self.loop.connect_accepted_socket(lambda: link, accepted, ssl=self._listens_with, **self._clocks())
        except OSError as error:
            link.lost(error)
        if link._stream is None:  # the connection broke meanwhile
            link.lost(None)

    def _clocks(self) -> dict[str, Any]:
        """Return what asyncio may spend on TLS of its own, at either end of a connection."""
        limits = self.limits
        return {"ssl_handshake_timeout": limits.handshake_timeout_s, "ssl_shutdown_timeout": limits.stop_timeout_s}


def _cut(accepted: socket.socket) -> None:
    """Let the owner of a socket read its end: closing it is the owner's business."""
    with suppress(OSError):
        accepted.shutdown(socket.SHUT_RDWR)
