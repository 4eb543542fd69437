"""What the node tells, as lines of the log. Floods of strangers and of faults cost a bounded number of them."""

from __future__ import annotations

import logging

from ..errors import NetworkError
from ..node.book import Book
from ..node.effects import Expired, Fault, News, PeerDown, PeerUp, Undelivered
from ..text import safe, short_key
from .lograte import LinesPerSecond

__all__ = ["NewsLog"]

logger = logging.getLogger("musignet")


class NewsLog:
    """Writes to the logger `musignet`."""

    def __init__(self, book: Book, lines_per_s: float) -> None:
        self._book = book
        self._lines = LinesPerSecond(lines_per_s)

    def tell(self, news: News) -> None:
        """Say what is new of a peer."""
        record = self._book.get(news.key)
        name = record.name if record is not None else f"key {short_key(news.key)}"
        if isinstance(news, PeerUp):
            logger.info("connected to %s", name)
        elif isinstance(news, PeerDown):
            again = "" if news.retry_in_s is None else f"; next try in {news.retry_in_s:.1f} s"
            logger.info("%s is gone%s%s", name, f": {news.error}" if news.error else "", again)
        elif isinstance(news, Fault) and self._lines.allow():
            logger.warning("fault of %s: %s%s", name, news.error, self._lines.left_out())
        elif isinstance(news, Undelivered):
            logger.warning("%d messages to %s were never acknowledged: %s", news.count, name, news.error)
        elif isinstance(news, Expired):
            logger.warning("%d messages kept for %s expired", len(news.message_ids), name)

    def unknown(self, key: bytes, address: str) -> None:
        """Somebody proved a key that nobody here knows."""
        if self._lines.allow():
            logger.warning("refused unknown key %s at %s%s", key.hex(), safe(address), self._lines.left_out())

    def refused(self, address: str, error: NetworkError) -> None:
        """Somebody did not get as far as proving a key."""
        if self._lines.allow():
            where = safe(address) or "anywhere"
            logger.warning("refused a connection from %s: %s%s", where, error, self._lines.left_out())
