"""The sessions of a node: what is remembered of them, also after they have expired, and what cannot be called back."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from app.test_api import on_socket
from musignet.app.client import Client
from musignet.app.commands.common import Failure
from musignet.app.commands.spend import _left
from musignet.app.judged import judge
from musignet.app.sessions import NotFound, SessionBook
from musignet.errors import InvalidMessage, LocalError
from musignet.limits import SESSIONS_REMEMBERED_MAX
from musignet.signing.blame import verify_blame
from musignet.signing.coordinator import Sessions, SigningCoordinator
from musignet.signing.effects import End, Outcome, Publish, SendToGroup
from musignet.signing.keyholder import Keyholder
from musignet.signing.session import Present
from musignet.signing.verbs import Asked, NoncesMade
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.blame import record_of
from support.ceremony import NOW, account, drawer, identity, proposal, signing_group
from support.one_session import EPOCH, POINTS, One
from support.wallet import MEMBERS, psbt

GROUP = signing_group()
ROUNDS = 40


class Member:
    """One member with the records of its node, and the messages it sent."""

    def __init__(self, name: str, records: tuple[bytes, ...] = ()) -> None:
        self.records: list[bytes] = list(records)
        holder = Keyholder(account(name, GROUP), drawer((name, len(records))))
        self.coordinator = SigningCoordinator(identity(name), holder, self._store, label=name, records=records)

    def _store(self, keyholder: bool, record: bytes) -> None:
        if not keyholder:
            self.records.append(record)


@pytest.fixture(scope="module")
def finished() -> tuple[bytes, tuple[bytes, ...], bytes]:
    """A ceremony that came to its end: the session, alice's records, and the transaction."""
    members = {name: Member(name) for name in MEMBERS}
    sent = members["alice"].coordinator.propose(psbt().serialize(), bytes(32), NOW + 600, NOW)
    session = Message.from_bytes(sent[0]).session
    waiting = [("alice", data) for data in sent]
    for _ in range(ROUNDS * len(MEMBERS)):
        if waiting:
            author, data = waiting.pop(0)
            for name, member in members.items():
                if name != author:
                    answers = member.coordinator.handle_other(Message.from_bytes(data).verify(), NOW)
                    waiting += [(name, one) for one in answers]
    outcomes = [one for one in members["alice"].coordinator.news if isinstance(one, Outcome)]
    assert [one.end for one in outcomes] == [End.COMPLETED]
    assert outcomes[0].transaction is not None
    return session, tuple(members["alice"].records), outcomes[0].transaction.raw


def test_a_transaction_can_be_had_after_a_restart_and_long_after_it_expired(
    finished: tuple[bytes, tuple[bytes, ...], bytes],
) -> None:
    session, records, raw = finished
    for now in (NOW + 1, NOW + 10_000_000):
        sessions, book = Sessions(GROUP, identity("alice").pubkey), SessionBook()
        for effect in sessions.resume(records, now):
            assert not isinstance(effect, SendToGroup) or now < NOW + 600, "nobody is told about it again"
            if isinstance(effect, Publish):
                assert not isinstance(effect.news, Outcome) or effect.news.end is End.COMPLETED
                book.told(sessions, effect.news)
        book.load(GROUP, records)
        book.look(sessions)
        entry = book.find(session.hex()[:6])
        assert (entry.end, entry.state, entry.error) == (End.COMPLETED, "completed", None)
        assert entry.transaction().raw == raw
        assert entry.waiting_for == ()


def test_what_was_open_when_it_expired_has_expired(finished: tuple[bytes, tuple[bytes, ...], bytes]) -> None:
    session, records, _ = finished
    only = tuple(one for one in records if one[0] == 0)
    sessions, book = Sessions(GROUP, identity("alice").pubkey), SessionBook()
    (effect,) = sessions.resume(only, NOW + 601)
    assert isinstance(effect, Publish)
    book.load(GROUP, only)
    entry = book.told(sessions, effect.news)
    assert (entry.id, entry.state) == (session, "expired")
    with pytest.raises(LocalError, match="no transaction"):
        entry.transaction()
    assert entry.signatures() == {}


def test_an_end_on_record_is_an_end() -> None:
    message = proposal()
    book = SessionBook()
    book.load(GROUP, [b"\x00" + message.to_bytes(), b"\x01" + message.session + b"cancelled"])
    (entry,) = book
    assert (len(book), entry.state, entry.proposal().record.memo) == (1, "cancelled", "rent")


def test_a_session_is_followed_from_the_question_to_its_end() -> None:
    one, book = One(), SessionBook()
    book.look(one.sessions)
    (entry,) = book
    assert (entry.state, entry.asked) == ("reviewing", False)
    session = one.sessions[entry.id]
    book.told(one.sessions, Asked(entry.id, one.digest, session.review))
    assert entry.waiting_for[0] == identity("carol").pubkey, "the person here"
    for here in (frozenset(), frozenset(GROUP.identities)):
        for effect in one.do(Present(here)):
            if isinstance(effect, Publish):
                book.told(one.sessions, effect.news)
        assert entry.asked, "whoever comes or goes does not answer for the person here"
    for effect in one.do(Message.from_bytes(proposal().to_bytes()).verify()):
        assert not isinstance(effect, Publish)
    one.approved()
    book.look(one.sessions)
    assert entry.state == "round 1"
    book.told(one.sessions, Outcome(entry.id, End.SILENT, error=LocalError("who knows")))
    assert (entry.state, str(entry.error), entry.live, entry.asked) == ("silent", "who knows", None, False)
    book.told(one.sessions, Outcome(entry.id, End.COMPLETED, signatures=(bytes(64),) * 2))
    assert entry.state == "completed", "what the others could finish is finished"
    book.told(one.sessions, Outcome(entry.id, End.REFUSED))
    assert entry.state == "completed", "and nothing undoes that"


def test_what_a_rule_refused_at_once_is_remembered_for_a_while() -> None:
    sessions, book = Sessions(GROUP, identity("carol").pubkey), SessionBook()
    for number in range(SESSIONS_REMEMBERED_MAX + 20):
        book.told(sessions, Outcome(number.to_bytes(32), End.REFUSED, error=LocalError("a rule")))
    assert len(book) == SESSIONS_REMEMBERED_MAX
    newest = list(book)[-1]
    assert newest.id == (SESSIONS_REMEMBERED_MAX + 19).to_bytes(32)
    with pytest.raises(NotFound, match="refused its proposal at once"):
        newest.proposal()
    assert newest.waiting_for == ()


def test_ids_are_found_by_their_first_digits_if_only_one_has_them() -> None:
    sessions, book = Sessions(GROUP, identity("carol").pubkey), SessionBook()
    for start in (0xAA, 0xAB):
        book.told(sessions, Outcome(bytes((start,)) * 32, End.REFUSED))
    assert book.find("AA").id[0] == 0xAA
    for bad, sentence in (("a", "several sessions begin"), ("", "no session"), ("b", "musignet sessions")):
        with pytest.raises(LocalError, match=sentence):
            book.find(bad)


def test_a_partial_signature_that_has_left_is_known_to_have_left() -> None:
    one = One().approved()
    session = next(iter(one.sessions))
    assert not session.released
    one.do(NoncesMade(session.id, 1, EPOCH, POINTS))
    assert not session.released
    session._send(MessageType.PARTIAL_SIGNATURE, b"")
    assert session.released
    with pytest.raises(Failure, match="too late: your signature had left") as caught:
        _left("cancelled", {"too_late": True})
    assert caught.value.exit_code == 1


@pytest.mark.driver
def test_a_node_that_shows_another_session_is_not_believed(tmp_path: Path) -> None:
    def work(client: Client) -> None:
        ids = []
        for memo in ("one", "two"):
            body = {"group": "savings", "psbt": base64.b64encode(psbt().serialize()).decode(), "memo": memo}
            ids.append(client.post("/v1/sessions", body)["id"])
        first, second = (client.get(f"/v1/sessions/{one}") for one in ids)
        assert judge(client, first).review.memo == "one"
        assert judge(client, first).digest.hex() == first["digest"]
        with pytest.raises(InvalidMessage, match="do not approve anything"):
            judge(client, {**first, "proposal": second["proposal"]})
        with pytest.raises(LocalError, match="nothing is written down"):
            judge(client, {**first, "proposal": ""})
        changed = bytearray(base64.b64decode(first["proposal"]))
        changed[-1] ^= 1
        with pytest.raises(Exception, match="signature"):
            judge(client, {**first, "proposal": base64.b64encode(changed).decode()})

    on_socket(tmp_path / "a", work)


def test_change_is_looked_for_behind_what_complete_sessions_paid(
    finished: tuple[bytes, tuple[bytes, ...], bytes],
) -> None:
    _, records, _ = finished
    book = SessionBook()
    assert book.known(GROUP).last_index == (-1, -1)
    book.load(GROUP, records)
    assert book.known(GROUP).last_index == (-1, 3)
    assert book.known(signing_group("each")).last_index == (-1, -1)


def test_the_proof_of_a_fault_outlives_a_restart() -> None:
    _, world = record_of("bad partial")
    alice = world.parties["alice"]
    assert alice.outcomes[-1].end is End.BLAMED
    again = Sessions(world.group, identity("alice").pubkey)
    told = again.resume(alice.disk, NOW + 60)[-1]
    assert isinstance(told, Publish)
    assert isinstance(told.news, Outcome)
    assert (told.news.end, told.news.verdict) == (End.BLAMED, alice.outcomes[-1].verdict)
    book = SessionBook()
    book.load(world.group, alice.disk)
    (entry,) = book
    assert entry.outcome is not None
    assert verify_blame(entry.outcome.blame, world.group).accused == identity("bob").pubkey
