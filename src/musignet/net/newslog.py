"""What the node tells, as lines of the log. Floods of strangers, faults and links cost a line a second together."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

from ..errors import NetworkError
from ..limits import LOG_LINK_LINES_MAX, LOG_LINK_LINES_S, LOG_SOURCES_MAX
from ..node.book import Book
from ..node.effects import Expired, Fault, News, OldDisk, PeerDown, PeerUp, Undelivered
from ..text import safe, short_key
from .lograte import LinesPerSecond

__all__ = ["NewsLog"]

logger = logging.getLogger("musignet")


class NewsLog:
    """Writes to the logger `musignet`."""

    def __init__(self, book: Book, lines_per_s: float) -> None:
        self._book = book
        self._lines = LinesPerSecond(lines_per_s)
        self._links: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        """Of a peer: since when its lines about links are counted, and how many there were."""

    def tell(self, news: News) -> None:
        """Say what is new of a peer."""
        if isinstance(news, PeerUp | PeerDown) and not logger.isEnabledFor(logging.INFO):
            return
        record = self._book.get(news.key)
        name = record.name if record is not None else f"key {short_key(news.key)}"
        if isinstance(news, PeerUp):
            if self._link_line(news.key):
                logger.info("connected to %s%s", name, self._lines.left_out())
        elif isinstance(news, PeerDown):
            again = "" if news.retry_in_s is None else f"; next try in {news.retry_in_s:.1f} s"
            if self._link_line(news.key):
                why = f": {news.error}" if news.error else ""
                logger.info("%s is gone%s%s%s", name, why, again, self._lines.left_out())
        elif isinstance(news, Fault) and self._lines.allow():
            logger.warning("fault of %s: %s%s", name, news.error, self._lines.left_out())
        elif isinstance(news, OldDisk):
            logger.error("%s", news.error)
        elif isinstance(news, Undelivered):
            logger.warning("%d messages to %s were never acknowledged: %s", news.count, name, news.error)
        elif isinstance(news, Expired):
            logger.warning("%d messages kept for %s expired", len(news.message_ids), name)

    def _link_line(self, key: bytes) -> bool:
        """Return whether to write a line about a peer's link: the first few in a while, then what the second allows."""
        now = time.monotonic()
        since, count = self._links.pop(key, (now, 0))
        if now - since >= LOG_LINK_LINES_S:
            since, count = now, 0
        self._links[key] = (since, count + 1)
        if len(self._links) > LOG_SOURCES_MAX:
            self._links.popitem(last=False)
        if count >= LOG_LINK_LINES_MAX:
            return self._lines.allow()
        self._lines.charge()
        return True

    def unknown(self, key: bytes, address: str) -> None:
        """Somebody proved a key that nobody here knows."""
        if self._lines.allow():
            logger.warning("refused unknown key %s at %s%s", key.hex(), safe(address), self._lines.left_out())

    def refused(self, address: str, error: NetworkError) -> None:
        """Somebody did not get as far as proving a key."""
        if self._lines.allow():
            where = safe(address) or "anywhere"
            logger.warning("refused a connection from %s: %s%s", where, error, self._lines.left_out())
