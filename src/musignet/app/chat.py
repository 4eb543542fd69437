"""`musignet chat`: lines typed here appear there, over an encrypted link, each one signed."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from contextlib import suppress

import click

from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, NetworkError
from ..limits import ADDRESS_MAX_CHARS, CHAT_MAX_BYTES, CHAT_STRANGERS_MAX
from ..net.handlers import MessageHandler
from ..net.peer import Peer
from ..net.service import NetworkService
from ..node.addresses import address_text
from ..node.effects import Fault, News, OldDisk, PeerDown, PeerUp, Undelivered
from ..node.peers import PeerInfo
from ..text import safe, short_key, who
from ..wire.envelope import Message
from ..wire.messages import MessageType
from .ending import ends

__all__ = ["Chat"]

_TEXT_MAX_CHARS = 2000
_FIRST_TRY_S = 3.0
_HELP = "Type a line and Enter to send it. /who shows who is here, /accept lets a stranger in, /quit leaves."


class Chat:
    """One person's side of a chat."""

    def __init__(self, name: str, identity: Identity, listen: tuple[str, int], connect: tuple[str, str] | None) -> None:
        self._name = name
        self._connect = connect
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._strangers: dict[str, PeerInfo] = {}
        self._crowded = False
        self._handler = MessageHandler()
        self._handler.register(MessageType.CHAT, self._show_message)
        self._network = NetworkService(
            name, name, *listen, identity=identity, accept=self._on_stranger, on_event=self._on_event
        )
        self._tty = sys.stdin.isatty()

    async def run(self) -> int:
        """Chat until /quit, Ctrl-C, or the end of the input. Returns the exit code."""
        target = None
        if self._connect is not None:
            key, where = self._connect
            target = PeerInfo(id=short_key(key), addresses=(where,), pubkey_hex=key)
            self._network.add_peer(target)
        await self._network.start(self._handler)
        loop = asyncio.get_running_loop()
        if sys.platform != "win32":
            for number in (signal.SIGINT, *ends()):
                loop.add_signal_handler(number, self._lines.put_nowait, None)
        threading.Thread(target=_read_lines, args=(loop, self._lines), daemon=True).start()
        self._welcome()
        dialling = loop.create_task(self._dial(target)) if target is not None else None
        try:
            while (line := await self._lines.get()) is not None:
                if not await self._typed(line.strip()):
                    break
        finally:
            if dialling is not None:
                dialling.cancel()
            await self._network.stop()
            self._show("goodbye")
        return 0

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _welcome(self) -> None:
        network = self._network
        click.echo(f"{safe(self._name)} has key {network.pubkey_hex}")
        if self._connect is None:
            host = "THIS-MACHINE" if network.host in ("0.0.0.0", "::") else network.host
            click.echo(f"listening on {address_text(network.host, network.port)}. On the other side, type:\n")
            click.echo(f"    musignet chat bob --connect {network.pubkey_hex}@{address_text(host, network.port)}\n")
        click.echo(_HELP)

    def _show(self, line: str) -> None:
        click.echo(f"\r\x1b[K{line}" if self._tty else line)

    def _show_message(self, message: Message, peer: Peer) -> None:
        text = message.payload.decode("utf-8", "replace")
        self._show(f"<{_name(peer.info)}> {safe(text, _TEXT_MAX_CHARS)}")

    def _on_event(self, news: News) -> None:
        info = self._network.peer(news.key.hex()).info
        if isinstance(news, PeerUp):
            self._show(f"* {_name(info)} is here: key {info.pubkey_hex}")
        elif isinstance(news, PeerDown):
            why = f": {news.error}" if news.error else ""
            again = "" if news.retry_in_s is None else f"; trying again in {news.retry_in_s:.1f} s"
            self._show(f"* {_name(info)} is gone{why}{again}")
        elif isinstance(news, Fault | OldDisk):
            self._show(f"! {news.error}")
        elif isinstance(news, Undelivered):
            self._show(f"! {news.count} lines to {_name(info)} were never acknowledged")

    def _on_stranger(self, info: PeerInfo) -> bool:
        """A key that nobody let in yet: say so once, and refuse it until somebody does."""
        if len(self._strangers) >= CHAT_STRANGERS_MAX:
            if not self._crowded:
                self._show("* more want to talk than are shown; /accept and the whole key lets one in that you know")
            self._crowded = True
        elif info.pubkey_hex not in self._strangers:
            self._strangers[info.pubkey_hex] = info
            self._show(f"* somebody at {safe(info.host)} wants to talk, with key {info.pubkey_hex}")
            self._show("  Compare the key with the other person's screen. The same? Then type: /accept")
        return False

    # --- what is typed ------------------------------------------------------------------------------------------------

    async def _typed(self, line: str) -> bool:
        """Do what a line says. Returns False when it says to leave."""
        if line in ("/quit", "/q"):
            return False
        if line == "/who":
            self._who()
        elif line.split(" ")[0] == "/accept":
            self._accept(line.removeprefix("/accept").strip())
        elif line.startswith("/"):
            self._show(_HELP)
        elif line:
            await self._say(line)
        return True

    async def _say(self, line: str) -> None:
        payload = line.encode("utf-8", "replace")
        if len(payload) > CHAT_MAX_BYTES:
            self._show(f"! not sent: {len(payload)} bytes, at most {CHAT_MAX_BYTES} fit into one line")
            return
        try:
            peers = await self._network.broadcast_message(Message(MessageType.CHAT, self._name, payload))
        except NetworkError as error:
            self._show(f"! not sent: {error}")
        else:
            if not peers:
                self._show("! nobody is here yet; the line was not sent")

    def _who(self) -> None:
        peers = self._network.peers()
        for peer in peers:
            trip = "" if peer.round_trip_s is None else f", {1000 * peer.round_trip_s:.1f} ms away"
            self._show(f"  {_name(peer.info)} is {peer.state.value}{trip}")
        if not peers:
            self._show("  nobody yet")

    def _accept(self, key: str) -> None:
        if _is_key(key):
            self._strangers.setdefault(key, PeerInfo(id=short_key(key), pubkey_hex=key))
        waiting = [stranger for stranger in self._strangers if stranger.startswith(key)]
        if len(waiting) != 1:
            self._show(
                "! nobody waits to be let in" if not waiting else "! several wait: /accept and the key's first digits"
            )
            return
        info = self._strangers.pop(waiting[0])
        self._network.add_peer(info)
        self._show(f"* let in: {short_key(info.pubkey_hex)}. It dials again by itself, which may take a few seconds.")

    # --- dialling -----------------------------------------------------------------------------------------------------

    async def _dial(self, info: PeerInfo) -> None:
        """Dial until it works, and say what it waits for."""
        self._show(f"* dialling {safe(info.places[0].text, ADDRESS_MAX_CHARS)}")
        try:
            await self._network.connect_to_peer(info, timeout_s=_FIRST_TRY_S, persist=True)
        except NetworkError as error:
            self._show(f"* not yet: {error.__cause__ or error}")
            if isinstance(error.__cause__, AuthenticationError):
                self._show(f"  If it does not know us, its side has to type: /accept {self._network.pubkey_hex[:12]}")
            self._show("  Trying again until it works; Ctrl-C stops.")


def _is_key(text: str) -> bool:
    try:
        PublicKey.from_hex(text)
    except AuthenticationError:
        return False
    return True


def _name(info: PeerInfo) -> str:
    return who(info.name or info.id, info.pubkey_hex)


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
    """Read standard input on a thread of its own: the one way that works for terminals, pipes and files alike."""
    with suppress(UnicodeDecodeError):  # no text: nobody is typing
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, None)
