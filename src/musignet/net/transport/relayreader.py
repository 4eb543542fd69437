"""What is said on one connection to a relay: which inboxes are asked for, whose they are, and what comes of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from ... import limits
from ...crypto.relaykey import RelayKey
from ...errors import ReceiveError, SerializationError
from ...text import safe
from ...wire.giftwrap import Event, auth_event, check_untrusted
from ...wire.relaytalk import (
    SUBSCRIPTIONS,
    Accepted,
    Challenged,
    Delivered,
    Ended,
    FromRelay,
    StoredEnd,
    auth,
    parse_untrusted,
    subscribe,
)

__all__ = ["ReadFor", "Reader"]

_AUTH_REQUIRED: Final = "auth-required:"


class ReadFor(Protocol):
    """For whom a relay is read."""

    def now_s(self) -> int:
        """Seconds since 1970."""
        ...

    def seen(self, event_id: str) -> bool:
        """Whether an event came already, by this relay or another one."""
        ...


class Reader:
    """The subscriptions of one connection, and the judge of what the relay says.

    Args:
        url:     the relay's.
        owner:   for whom it is read.
        keys:    returns the inbox keys to read with, by name, that of now first.
        say:     called with each message for the relay.
        deliver: called with each event for one of these inboxes that was not seen before; its id and signature hold.
        wanted:  which of `SUBSCRIPTIONS`.
    """

    def __init__(
        self,
        url: str,
        owner: ReadFor,
        keys: Callable[[], Mapping[str, RelayKey]],
        say: Callable[[str], None],
        deliver: Callable[[Event, RelayKey], None],
        wanted: Iterable[str] = SUBSCRIPTIONS,
    ) -> None:
        self.url = url
        self.refusal = ""
        """Why the last event was refused, for people."""
        self.read: set[str] = set()
        """Subscriptions of which all that was stored is here."""
        self.narrowed: set[str] = set()
        """Subscriptions that this relay grants for the key alone that we proved."""
        self._owner = owner
        self._keys = keys
        self._say = say
        self._deliver = deliver
        self._wanted = tuple(wanted)
        self._excuses = 0
        self._challenge = ""
        self._proved = self._must_prove = False
        self._repeats = 0
        self._delivered: OrderedDict[str, None] = OrderedDict()

    def ask(self) -> None:
        """Subscribe."""
        self._repeats = 0
        self._delivered.clear()
        for one in self._wanted:
            self._ask(one)

    def take(self, text: str | bytes) -> FromRelay:
        """Take one message, and return it. Raises ReceiveError when the relay broke a rule."""
        said = parse_untrusted(text)
        if isinstance(said, Delivered):
            self._event(said)
        elif isinstance(said, StoredEnd):
            self.read |= {said.subscription} & set(self._wanted)  # others are not ours
        elif isinstance(said, Challenged):
            self._excuse()
            self._challenge, self._proved = said.challenge, False
            if self._must_prove:
                self._prove()
        elif isinstance(said, Ended):
            self._unsubscribed(said)
        elif isinstance(said, Accepted) and not said.taken:
            self.refusal = f"it refused an event: {safe(said.why, 120)}"
            if said.why.startswith(_AUTH_REQUIRED) and not self._proved:
                self._prove()
        return said

    def _ask(self, subscription: str) -> None:
        names = list(self._keys())
        self._say(subscribe(subscription, names[:1] if subscription in self.narrowed else names))

    def _event(self, said: Delivered) -> None:
        if said.subscription not in SUBSCRIPTIONS:
            raise ReceiveError("an event for another subscription", got=said.subscription)
        event = said.event
        if event.id in self._delivered:
            self._repeats += 1
            if self._repeats > limits.RELAY_REPEATS_MAX:
                raise ReceiveError("the same events again and again")
            return
        if self._owner.seen(event.id):
            return
        try:
            inbox = check_untrusted(event, self._keys())
        except SerializationError:
            return  # a stranger's: the relay is not to blame
        self._delivered[event.id] = None
        if len(self._delivered) > limits.RELAY_SEEN_MAX:
            self._delivered.popitem(last=False)
        self._deliver(event, inbox)

    def _unsubscribed(self, said: Ended) -> None:
        """A relay that does not let us read is of no use, unless it only wants to know whose inbox it is.

        It is told of the inbox of today, and asked for that one alone: relays that ask for this know one key for each
        connection, and refuse the others. Relays that do not ask are not told more than they ask for.
        """
        if not said.why.startswith(_AUTH_REQUIRED):
            raise ReceiveError("it ended the subscription", got=safe(said.why, 120))
        self._excuse()
        again = said.subscription in self._wanted and said.subscription not in self.narrowed
        self.narrowed.add(said.subscription)
        if not self._proved:
            self._prove()
        elif again:
            self._ask(said.subscription)

    def _prove(self) -> None:
        self._must_prove = True
        if not self._challenge:
            return
        self._proved = True
        key = next(iter(self._keys().values()))
        self._say(auth(auth_event(key, self.url, self._challenge, self._owner.now_s())))
        for one in self._wanted:
            if one in self.narrowed:
                self._ask(one)

    def _excuse(self) -> None:
        """Each challenge and each refusal costs us an answer."""
        self._excuses += 1
        if self._excuses > limits.RELAY_CHALLENGES_MAX:
            raise ReceiveError("challenges without end")
