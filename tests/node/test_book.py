"""The peer book: labels, keys, squatters (THREATS.md T10), and its bound (T12)."""

from __future__ import annotations

import pytest
from pair import info_of

from musignet.errors import AuthenticationError, PeerNotFound, TransportError
from musignet.node.book import Book
from musignet.node.peers import PeerInfo
from support.keys import ALICE, BOB, CAROL


@pytest.fixture
def book() -> Book:
    return Book(ALICE.pubkey, max_peers=2)


def test_a_peer_is_found_by_its_label_and_by_its_key(book: Book) -> None:
    record = book.put(info_of(BOB, "bob"))
    assert book.find("bob") is book.find(BOB.pubkey_hex) is book.get(BOB.pubkey) is record
    assert record.info.id == "bob"
    assert list(book) == [record]
    assert len(book) == 1


@pytest.mark.parametrize(
    "name", ["nobody", "", CAROL.pubkey_hex, BOB.pubkey_hex.upper(), BOB.pubkey_hex[:-1] + " ", "z" * 66]
)
def test_nobody_else_is_found(book: Book, name: str) -> None:
    book.put(info_of(BOB, "bob"))
    with pytest.raises(PeerNotFound, match=r"no peer .* in the book; it knows bob; add_peer"):
        book.find(name)
    assert book.get(CAROL.pubkey) is None


def test_an_empty_book_says_so_and_prints_nothing_raw(book: Book) -> None:
    with pytest.raises(PeerNotFound) as raised:
        book.find("\x1b[31m")
    assert str(raised.value).startswith("no peer '\\\\x1b[31m' in the book; it knows nobody;")


def test_labels_in_the_sentence_are_escaped_and_few(book: Book) -> None:
    crowd = Book(ALICE.pubkey, max_peers=20)
    crowd.put(PeerInfo(id="\x1b]0;", pubkey_hex=BOB.pubkey_hex))
    with pytest.raises(PeerNotFound, match=r"it knows \\x1b\]0;;"):
        crowd.find("x")


def test_putting_a_peer_again_renews_its_name_and_address(book: Book) -> None:
    record = book.put(info_of(BOB, "bob"))
    assert book.put(info_of(BOB, "robert", port=1)) is record
    assert book.find("robert").info.port == 1
    with pytest.raises(PeerNotFound):
        book.find("bob")
    book.put(info_of(CAROL, "bob"))
    assert book.find("bob").key == CAROL.pubkey


@pytest.mark.parametrize("key", ["", "02", "zz" * 33, "00" * 33, "02" + "ff" * 32, BOB.pubkey_hex + "00"])
def test_a_key_that_is_none_is_refused(book: Book, key: str) -> None:
    with pytest.raises(AuthenticationError):
        book.put(PeerInfo(id="bob", pubkey_hex=key))
    assert len(book) == 0


def test_our_own_key_is_no_peer(book: Book) -> None:
    with pytest.raises(AuthenticationError, match="is this node itself"):
        book.put(info_of(ALICE, "me"))


def test_a_label_belongs_to_one_key_until_that_peer_is_forgotten(book: Book) -> None:
    book.put(info_of(BOB, "bob"))
    with pytest.raises(AuthenticationError, match="the label 'bob' belongs to another key: expected key") as raised:
        book.put(info_of(CAROL, "bob"))
    assert BOB.pubkey_hex[2:10] in str(raised.value)
    assert CAROL.pubkey_hex[2:10] in str(raised.value)
    assert len(book) == 1
    book.refuse_squatter("bob", BOB.pubkey)
    book.refuse_squatter("free", CAROL.pubkey)
    book.remove(BOB.pubkey)
    assert book.put(info_of(CAROL, "bob")).key == CAROL.pubkey


def test_renaming_to_the_label_of_somebody_else_is_refused_and_changes_nothing(book: Book) -> None:
    book.put(info_of(BOB, "bob"))
    book.put(info_of(CAROL, "carol"))
    with pytest.raises(AuthenticationError):
        book.put(info_of(CAROL, "bob"))
    assert book.find("carol").key == CAROL.pubkey
    assert book.find("bob").key == BOB.pubkey


def test_a_provisional_key_is_not_confirmed_under_the_label_of_somebody_else(book: Book) -> None:
    book.put(info_of(BOB, "bob"))
    book.put(info_of(CAROL, "somebody"), provisional=True)
    with pytest.raises(AuthenticationError, match="the label 'bob' belongs to another key"):
        book.put(info_of(CAROL, "bob"))
    assert book.find("bob").key == BOB.pubkey
    assert book.find("somebody").provisional


def test_a_full_book_takes_nobody_new_but_renews_who_is_there() -> None:
    book = Book(ALICE.pubkey, max_peers=1)
    book.put(info_of(BOB, "bob"))
    with pytest.raises(TransportError, match="the peer book is full: expected at most 1 peers; forget one first"):
        book.put(info_of(CAROL, "carol"))
    assert book.put(info_of(BOB, "robert")).info.id == "robert"
    book.remove(BOB.pubkey)
    book.put(info_of(CAROL, "carol"))


def test_forgetting_twice_is_harmless(book: Book) -> None:
    book.put(info_of(BOB, "bob"))
    book.remove(BOB.pubkey)
    book.remove(BOB.pubkey)
    assert len(book) == 0
    with pytest.raises(PeerNotFound):
        book.find("bob")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(book: Book, port: int) -> None:
    with pytest.raises(TransportError, match=f"expected 0 to 65535, got {port}"):
        book.put(PeerInfo(id="bob", host="h", port=port, pubkey_hex=BOB.pubkey_hex))
    assert len(book) == 0
