"""Letters: what is left at a relay for a peer that did not answer there, and read when it comes by.

A peer that is away has a mail link (`Mail.LETTERS`): what the node says on it is sealed to the peer, wrapped and
stored by the relays until it expires. What the peer left for us arrives on the same link, judged as anything else.
"""

from __future__ import annotations

import asyncio
from secrets import token_bytes
from typing import Final

from ... import limits
from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import NetworkError
from ...node.addresses import Path, path_by
from ...node.peers import Mail
from ...wire.envelope import Message
from ...wire.letter import Reassembly, split
from ...wire.messages import CloseCode
from ...wire.sealed import Bundle, open_untrusted, seal
from .base import MailSink, Sink
from .carried import Pile
from .link import numbers
from .relayline import RelayLine
from .relaystream import RelayStreams

__all__ = ["LetterBox", "RelayLetters"]


class RelayLetters(Pile):
    """A `Connection` to a peer that is away."""

    mail: Final = Mail.LETTERS
    outbound: Final = True

    def __init__(self, box: LetterBox, peer: PublicKey, line: RelayLine) -> None:
        super().__init__(next(numbers), peer)
        self.address = line.url
        self.lines = {line, *box.own_lines}
        self.left: set[bytes] = set()
        """Ids in the pile that lie at a relay."""
        self.timer: asyncio.TimerHandle | None = None
        self._box = box

    @property
    def path(self) -> Path:
        return path_by("ws", "")

    def flush(self) -> None:
        if self.open and (self.acks or any(one not in self.left for one in self.pile)):
            self._box.soon(self)

    def close(self, code: CloseCode | None = CloseCode.DONE, text: str = "") -> None:
        """Forget the pile. The node says again on the next link what was not acknowledged.

        A node that stops leaves what has not been left yet.
        """
        if self.open:
            if code is CloseCode.GOING_AWAY:
                self._box.leave(self)
            self.open = False
            self._box.forget(self)


class LetterBox:
    """The letters of one node."""

    def __init__(self, identity: Identity, sink: Sink, streams: RelayStreams) -> None:
        self._identity = identity
        self._sink = sink
        self._streams = streams
        self._links: dict[bytes, RelayLetters] = {}
        self._parts = Reassembly()

    @property
    def own_lines(self) -> list[RelayLine]:
        """The relays that are ours: where the peer looks, too, if it has them."""
        return self._streams.own_lines

    def open(self, peer: PublicKey, line: RelayLine) -> RelayLetters | None:
        """Return the link for letters to and from a peer, a new one where there is none; None where it is not wanted.

        The node closes it at once where a better link is there, or nobody has confirmed that key.
        """
        link = self._links.get(peer.compressed)
        if link is None and len(self._links) < limits.LETTER_LINKS_MAX:
            link = self._links[peer.compressed] = RelayLetters(self, peer, line)
            for one in link.lines:
                one.streams += 1
            self._sink.connected(link)
            link.flush()
        return link if link is not None and link.open else None

    def forget(self, link: RelayLetters) -> None:
        """A link was closed."""
        del self._links[link.peer.compressed]
        if link.timer is not None:
            link.timer.cancel()
        for one in link.lines:
            one.streams -= 1
        self._streams.tidy()

    def stop(self) -> None:
        """Leave what waits to be left, and close every link."""
        for link in list(self._links.values()):
            link.close(CloseCode.GOING_AWAY)

    def line_up(self, line: RelayLine) -> None:
        """A relay can be used again: leave there what waits."""
        for link in list(self._links.values()):
            if line in link.lines:
                link.flush()

    # --- leaving ------------------------------------------------------------------------------------------------------

    def soon(self, link: RelayLetters) -> None:
        """Leave what is new in a moment, together with what follows until then."""
        if link.timer is not None:
            link.timer.cancel()
        link.timer = self._streams.loop.call_later(limits.LETTER_GATHER_S, self.leave, link)

    def leave(self, link: RelayLetters) -> None:
        """Leave what is new. What nobody fetched is left again after some hours: relays forget."""
        if not link.open or not link.hello or not any(line.up for line in link.lines):
            return
        link.left.intersection_update(link.pile)
        for ids in _letters(link):
            self._write(link, tuple(link.pile[one] for one in ids))
            link.left.update(ids)
            link.acks.clear()
        if link.timer is not None:
            link.timer.cancel()
        link.timer = self._streams.loop.call_later(limits.LETTER_AGAIN_S, self._again, link)

    def _again(self, link: RelayLetters) -> None:
        link.left.clear()
        link.flush()

    def _write(self, link: RelayLetters, envelopes: tuple[bytes, ...]) -> None:
        now_s = self._streams.now_s()
        chain = Message.from_bytes(link.hello).body.chain
        expires_at_ms = 1000 * (now_s + limits.LETTER_TTL_S)
        bundle = Bundle(chain, expires_at_ms, tuple(link.acks), (link.hello, *envelopes))
        sealed = seal(self._identity, link.peer, bundle, token_bytes(32))
        for part in split(sealed, token_bytes(16)):
            self._streams.leave(part, link.peer, link.lines)

    # --- reading ------------------------------------------------------------------------------------------------------

    def arrived(self, part: bytes, line: RelayLine) -> None:
        """A part of a letter. Whatever is wrong with it, it is nobody's we could name."""
        try:
            sealed = self._parts.take_untrusted(part)
            if sealed is None:
                return
            sender, bundle = open_untrusted(self._identity, sealed)
            link = self.open(PublicKey(sender), line)
        except NetworkError:
            return
        if link is None or bundle.expires_at_ms < 1000 * self._streams.now_s():
            return
        ids = b"".join(bundle.acknowledged)
        link.acknowledged(ids)
        self._sink.received(link, list(bundle.envelopes), ids)
        if link.open and isinstance(self._sink, MailSink):
            self._sink.mail_moved(link)


def _letters(link: RelayLetters) -> list[list[bytes]]:
    """Return the ids of what is new, in letters that are not too large. What is larger alone waits for a link."""
    room = limits.LETTER_MAX_BYTES * 5 // 8  # beside the largest there is room for acknowledgements and padding
    letters: list[list[bytes]] = [[]]
    size = 0
    for one, envelope in link.pile.items():
        if one in link.left or len(envelope) > room:
            continue
        if size + len(envelope) > room:
            letters.append([])
            size = 0
        letters[-1].append(one)
        size += len(envelope)
    return letters if letters[0] or link.acks else []
