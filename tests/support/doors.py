"""Every place where bytes that others chose come in, with valid ones to begin from.

A function whose name ends in `_untrusted` takes whatever there is: it returns, or raises a `NetworkError`. `DOORS`
leads to each of them, so that tests and `make fuzz` can knock at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from musignet import limits
from musignet.bitcoin.bip32 import Xpub
from musignet.bitcoin.descriptor import Descriptor, KeyExpression
from musignet.bitcoin.group import Known
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import review
from musignet.bitcoin.transaction import Transaction
from musignet.chain import Chain
from musignet.crypto.keyagg import keys_untrusted
from musignet.crypto.musig2 import AggregateNonce, PublicNonce
from musignet.crypto.nip44 import conversation_key, decrypt_untrusted, encrypt
from musignet.crypto.relaykey import RelayKey
from musignet.errors import SerializationError
from musignet.net.approver import ApproverFile
from musignet.net.keyfile import LEAST_COST, check_untrusted, open_untrusted, seal
from musignet.node.addresses import readable_untrusted
from musignet.node.changes import shown_untrusted
from musignet.signing import founding_records, pipe, records
from musignet.signing.blamefile import BlameFile
from musignet.signing.groupfile import GroupFile
from musignet.signing.policyfile import TEMPLATE, Rules
from musignet.signing.proposal import Proposal
from musignet.signing.verbs import Approve, NoncesMade
from musignet.wire import bech32, giftwrap, letter, relaytalk, sealed, ur
from musignet.wire.beacon import Audience, Beacon, Datagram, Listening, announce
from musignet.wire.beacon import seal as seal_beacon
from musignet.wire.candidates import Candidate, Kind, Role, Signal
from musignet.wire.channel import SecureChannel
from musignet.wire.envelope import Gate, Message, _digest
from musignet.wire.invite import HRP, Invite
from musignet.wire.messages import MessageType, PeerAnnouncement
from musignet.wire.segment import DATA, Segment
from musignet.wire.torcontrol import Replies

from . import channels
from .blame import RECORDS
from .ceremony import NOW, identity, proposal, say, signing_group
from .keys import ALICE, BOB, secret
from .wallet import KNOWN, MEMBERS, SHAPES, descriptor_text, group, psbt, spend, xpub

__all__ = ["DOORS", "Door"]


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        enter:  takes any bytes; returns, or raises a `NetworkError`.
        valid:  bytes that it takes.
        covers: the functions behind it, as `module:name`, without `musignet.`.
        again:  writes what came out: where there is one, only these very bytes may have been taken.
    """

    enter: Callable[[bytes], object]
    valid: tuple[bytes, ...]
    covers: tuple[str, ...]
    again: Callable[[Any], bytes] | None = None


def _text(take: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: take(data.decode(errors="replace"))


def _typed(take: Callable[[int, bytes], object]) -> Callable[[bytes], object]:
    """The first byte says which type."""
    return lambda data: take(data[0] if data else 0, data[1:])


def _one_of(take: Callable[[int, bytes], object], kinds: Iterable[int]) -> Callable[[bytes], object]:
    """The same, of these types: no other gets as far."""
    known = sorted(kinds)
    return _typed(lambda number, payload: take(number if number in known else known[number % len(known)], payload))


# --- what is behind them ----------------------------------------------------------------------------------------------

_GROUP = signing_group()
_FILE = GroupFile("savings", _GROUP, {identity(name).pubkey: name for name in MEMBERS})
_TX, _ = spend(group())
_ANNOUNCEMENT = PeerAnnouncement("alice", ("127.0.0.1:9735",), (1,), bytes(8), bytes(8), 7)
_SIGNED = tuple(
    Message(kind, "alice", payload).sign(ALICE, chain=Chain.REGTEST).raw
    for kind, payload in ((MessageType.CHAT, b"hello"), (MessageType.PEER_ANNOUNCEMENT, _ANNOUNCEMENT))
)
_SHOWN_BACK = Message(MessageType.PEER_ANNOUNCEMENT, "alice", _ANNOUNCEMENT).sign(
    ALICE, to=BOB.pubkey, chain=Chain.REGTEST
)
_GATE = Gate(ALICE.public, BOB.pubkey, Chain.REGTEST)
_PAIR = Audience.pair(BOB, ALICE.public)
_LISTENING = Listening([_PAIR])
_BEACON = Beacon(ALICE.pubkey, b"epoch123", 7, int(NOW * 1000), 8737)
_SHOWN = replace(_BEACON, label="alice")
_INBOX = RelayKey.inbox(BOB, 20_000)
_INBOXES = {_INBOX.xonly.hex(): _INBOX}
_ONCE = RelayKey.one_time(secret("once"))
_SEGMENT = Segment(DATA, bytes(16), ALICE.pubkey, 1, data=b"hello").encode()
_EVENT = giftwrap.wrap(
    giftwrap.LIVE, _SEGMENT, _INBOX.xonly,
    now_s=1_790_000_000, expires_s=1_790_000_060, secret=secret("once"), nonce=secret("nonce"),
)  # fmt: skip
_TEXT = decrypt_untrusted(conversation_key(_ONCE.shared_x(_INBOX.xonly)), _EVENT.content)
_CONVERSATION = conversation_key(bytes(31) + b"\x05")
_RECORDS = {
    MessageType.TRANSACTION_PROPOSAL: records.TransactionProposal(bytes(32), bytes(32), 1, b"psbt", "memo"),
    MessageType.PUBLIC_NONCE: records.PublicNonce(1, bytes(8), bytes(66)),
    MessageType.PARTIAL_SIGNATURE: records.PartialSignature(16, bytes(8), bytes(32), bytes(32)),
    MessageType.NONCE_LIST: records.NonceList(1, b"own", (b"one", b"two")),
    MessageType.ATTEMPT_FAILED: records.AttemptFailed(1, (bytes(33),), (bytes(33), bytes(33))),
}
_FOUNDING = {
    MessageType.FOUNDING_VIEW: founding_records.FoundingView(bytes(32), (bytes(32),), True),
    MessageType.FOUNDING_END: founding_records.FoundingEnd(1, "no"),
}
_INVITE = Invite.make(
    ALICE.pubkey, "alice", ("127.0.0.1:9735",), chain=Chain.REGTEST, expires_at=NOW + 600, secret=bytes(16)
)
_SIGNAL = Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, (Candidate.of(Kind.HOST, "192.168.7.2", 40_000),))


def _signed_by_a_member(body: bytes) -> object:
    """A cosigner signs whatever it likes: what is behind the signature has to bear it."""
    return _GATE.open_untrusted(ALICE.sign(_digest(body)) + body).content


def _proposed(payload: bytes) -> object:
    """A member may propose whatever it likes, under the session id that follows from it."""
    record = records.decode_untrusted(MessageType.TRANSACTION_PROPOSAL, payload)
    assert isinstance(record, records.TransactionProposal)
    session = records.session_id(identity("alice").pubkey, record)
    proposed = Proposal.open_untrusted(say("alice", MessageType.TRANSACTION_PROPOSAL, session, payload), _GROUP)
    return proposed.review(_GROUP, Known(), NOW)


def _founded(body: bytes) -> object:
    chain = Chain.REGTEST
    signature = ALICE.sign(founding_records._proposal(bytes((chain,)), body))
    signed = founding_records.SignedProposal(chain, ALICE.pubkey, body, signature)
    return founding_records.Proposal.open_untrusted(signed, chain)


def _frames(data: bytes) -> object:
    """An authenticated peer seals what it likes: each line is one frame."""
    channel, keys = channels.raw_peer()
    channel.receive_data(channels.sealed(keys, *data.split(b"\n")))
    return channels.drain(channel)


def _packets(data: bytes) -> object:
    channel, _ = channels.raw_peer()
    channel.receive_data(data)
    return channels.drain(channel)


def _handshake(data: bytes) -> object:
    channel = SecureChannel.responder(BOB, secret("bob's ephemeral"))
    channel.receive_data(data)
    return channels.drain(channel)


def _heard(data: bytes) -> object:
    datagram = Datagram.parse_untrusted(data)
    found = _LISTENING.find(datagram.tag, NOW)
    return datagram.unseal_untrusted(*found) if found else datagram.read_untrusted()


def _relayed(data: bytes) -> object:
    said = relaytalk.parse_untrusted(data.decode(errors="surrogateescape"))
    if not isinstance(said, relaytalk.Delivered):
        return said
    return giftwrap.open_untrusted(said.event, giftwrap.check_untrusted(said.event, _INBOXES))


def _wrapped(text: bytes) -> object:
    """A stranger may encrypt anything to an inbox."""
    conversation = conversation_key(_ONCE.shared_x(_INBOX.xonly))
    content = encrypt(conversation, text[:65_535] or b"\0", bytes(32))
    event = giftwrap._signed(_ONCE, giftwrap.LIVE, _EVENT.tags, content, _EVENT.created_at)
    return giftwrap.open_untrusted(event, giftwrap.check_untrusted(event, _INBOXES))


def _parts(data: bytes) -> object:
    reassembly = letter.Reassembly()
    taken = [reassembly.take_untrusted(part) for part in data.split(b"\n")]
    assert reassembly.held_bytes <= limits.LETTERS_HELD_MAX_BYTES
    return taken


def _codes(data: bytes) -> object:
    decoder = ur.UrDecoder()
    return [decoder.add_untrusted(line) for line in data.decode(errors="replace").split("\n")]


def _addresses(data: bytes) -> object:
    """What cannot be read is left out; here that is a refusal."""
    texts = data.decode(errors="replace").split("\n")
    read = readable_untrusted(texts)
    if len(read) < len(texts):
        raise SerializationError("an address that cannot be read, or is there twice")
    return read


def _piped(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    return lambda data: [read(body) for body in pipe.Frames().feed_untrusted(data)]


# --- the doors --------------------------------------------------------------------------------------------------------

_PROPOSAL = proposal()
_PSBTS = tuple(psbt(version=version).serialize() for version in (0, 2))
_OPENED = founding_records.propose(
    ALICE, Chain.REGTEST, "savings", {ALICE.pubkey: "alice", BOB.pubkey: "bob"},
    shape=founding_records.Shape.AGGREGATE, random=bytes(32), expires_at=NOW + 3600,
)  # fmt: skip
_BUNDLE = sealed.Bundle(Chain.REGTEST, int(NOW * 1000), (bytes(16),), (_SIGNED[0],))
_KEY_FILES = (seal(ALICE, b"pass", LEAST_COST, bytes(32)), seal(ALICE, None, LEAST_COST, bytes(32)))
_REQUESTS = (pipe.Hello(b"\x02" * 33, 3), Approve(_PROPOSAL, b"proof", frozenset({bytes(32)})))
_ANSWERS = (pipe.Failed("IoError", "no"), NoncesMade(bytes(32), 1, bytes(8), b"n"))
_TOR = b'250-AUTH METHODS=COOKIE COOKIEFILE="/run/tor/a \\"b\\""\r\n250 OK\r\n'
_POINTS = ALICE.pubkey + BOB.pubkey

DOORS: dict[str, Door] = {
    "a nonce": Door(
        lambda data: PublicNonce.parse_untrusted(data, 0, ALICE.public),
        (_POINTS,),
        ("crypto.musig2:PublicNonce.parse_untrusted",),
    ),
    "an aggregate nonce": Door(
        AggregateNonce.parse_untrusted, (_POINTS, bytes(66)), ("crypto.musig2:AggregateNonce.parse_untrusted",)
    ),
    "signers' keys": Door(
        lambda data: keys_untrusted([data[at : at + 33] for at in range(0, len(data), 33)]),
        (_POINTS,),
        ("crypto.keyagg:keys_untrusted",),
    ),
    "NIP-44": Door(
        _text(partial(decrypt_untrusted, _CONVERSATION)),
        (encrypt(_CONVERSATION, b"hello", bytes(32)).encode(),),
        ("crypto.nip44:decrypt_untrusted",),
    ),
    "a transaction": Door(
        partial(Transaction.parse_untrusted, witness=True),
        (_TX.to_bytes(),),
        ("bitcoin.transaction:Transaction.parse_untrusted",),
    ),
    "a PSBT": Door(Psbt.parse_untrusted, _PSBTS, ("bitcoin.psbt:Psbt.parse_untrusted",), lambda made: made.serialize()),
    "a PSBT under review": Door(lambda data: review(Psbt.parse_untrusted(data), group(), KNOWN), _PSBTS, ()),
    "a BIP-32 key": Door(
        _text(Xpub.parse_untrusted), (str(xpub("alice")).encode(),), ("bitcoin.bip32:Xpub.parse_untrusted",)
    ),
    "a key expression": Door(
        _text(KeyExpression.parse_untrusted),
        (f"[d34db33f/87h/1h/0h]{xpub('alice')}/<0;1>/*".encode(),),
        ("bitcoin.descriptor:KeyExpression.parse_untrusted",),
    ),
    "a descriptor": Door(
        _text(Descriptor.parse_untrusted),
        tuple(descriptor_text(shape).encode() for shape in SHAPES),
        ("bitcoin.descriptor:Descriptor.parse_untrusted",),
    ),
    "bech32": Door(
        _text(partial(bech32.decode_untrusted, HRP)),
        (bech32.encode(HRP, b"hello").encode(),),
        ("wire.bech32:decode_untrusted", "wire.bech32:unchecked_untrusted"),
    ),
    "an invite": Door(
        _text(Invite.parse_untrusted), (_INVITE.text().encode(),), ("wire.invite:Invite.parse_untrusted",)
    ),
    "an envelope": Door(
        _GATE.open_untrusted,
        _SIGNED,
        ("wire.envelope:Gate.open_untrusted", "wire.codec:Codec.decode_untrusted"),
    ),
    "an announcement shown to its sender": Door(
        lambda data: shown_untrusted(data, ALICE.pubkey, BOB.pubkey, Chain.REGTEST, "bob")[0],
        (_SHOWN_BACK.raw,),
        ("node.changes:shown_untrusted",),
        again=lambda message: message.raw,
    ),
    "what a member signs": Door(
        _signed_by_a_member, tuple(raw[64:] for raw in _SIGNED), ("wire.messages:payload_decode_untrusted",)
    ),
    "a beacon": Door(
        _heard,
        (announce(_SHOWN, ALICE, Chain.REGTEST), seal_beacon(_BEACON, ALICE, Chain.REGTEST, _PAIR, bytes(12))),
        (
            "wire.beacon:Datagram.parse_untrusted",
            "wire.beacon:Datagram.unseal_untrusted",
            "wire.beacon:Datagram.read_untrusted",
        ),
    ),
    "a handshake": Door(
        _handshake,
        (channels.wire(channels.fresh()[0]),),
        (
            "wire.noise:act_untrusted",
            "wire.noise:point_untrusted",
        ),
    ),
    "an open channel": Door(
        _packets,
        (channels.sealed(channels.raw_peer()[1], channels.frame(0, 0, _SIGNED[0])),),
        ("wire.noise:Cipher.open_untrusted",),
    ),
    "frames": Door(
        _frames, (channels.frame(0, 0, b"whole"), channels.frame(1, 2, b"\0\0\0\3ab") + b"\n" + b"\x22\0c"), ()
    ),
    "a sealed bundle": Door(
        partial(sealed.open_untrusted, BOB),
        (sealed.seal(ALICE, BOB.public, _BUNDLE, secret("once")),),
        ("wire.sealed:open_untrusted",),
    ),
    "UR": Door(
        _text(ur.decode_single_untrusted), (ur.encode(b"hello").encode(),), ("wire.ur:decode_single_untrusted",)
    ),
    "UR codes": Door(
        _codes,
        ("\n".join(islice(ur.parts(bytes(300), 50), 9)).encode(),),
        ("wire.ur:UrDecoder.add_untrusted",),
    ),
    "parts of a letter": Door(
        _parts, (b"\n".join(letter.split(b"sealed", b"l" * 16)),), ("wire.letter:Reassembly.take_untrusted",)
    ),
    "an offer of hole punching": Door(
        Signal.parse_untrusted,
        (_SIGNAL.encode(),),
        ("wire.candidates:Signal.parse_untrusted",),
        lambda made: made.encode(),
    ),
    "what a relay says": Door(
        _relayed,
        tuple(msgspec.json.encode(said) for said in (("EVENT", relaytalk.LIVES, _EVENT), ("AUTH", "challenge"))),
        ("wire.relaytalk:parse_untrusted", "wire.giftwrap:check_untrusted", "wire.giftwrap:open_untrusted"),
    ),
    "a gift wrap": Door(_wrapped, (_TEXT,), ()),
    "a piece of a link over relays": Door(
        Segment.decode_untrusted, (_SEGMENT,), ("wire.segment:Segment.decode_untrusted",), lambda made: made.encode()
    ),
    "Tor's control port": Door(
        lambda data: list(Replies().receive_untrusted(data)), (_TOR,), ("wire.torcontrol:Replies.receive_untrusted",)
    ),
    "addresses": Door(
        _addresses,
        (b"127.0.0.1:1\n[::1]:2\ntls://a.example:3\nwss://relay.example/path\nice:",),
        ("node.addresses:readable_untrusted",),
    ),
    "a record of a ceremony": Door(
        _one_of(records.decode_untrusted, records._CODECS),
        tuple(bytes((kind,)) + records.encode(one) for kind, one in _RECORDS.items()),
        ("signing.records:decode_untrusted",),
    ),
    "a proposal": Door(_proposed, (_PROPOSAL.payload,), ("signing.proposal:Proposal.open_untrusted",)),
    "a record of a founding": Door(
        _one_of(founding_records.decode_untrusted, founding_records._CODECS),
        tuple(bytes((kind,)) + founding_records.encode(kind, one) for kind, one in _FOUNDING.items()),
        ("signing.founding_records:decode_untrusted",),
    ),
    "a proposed group": Door(_founded, (_OPENED.signed.body,), ("signing.founding_records:Proposal.open_untrusted",)),
    "the keyholder's requests": Door(
        _piped(pipe.read_request_untrusted),
        tuple(map(pipe.frame, _REQUESTS)),
        ("signing.pipe:Frames.feed_untrusted", "signing.pipe:read_request_untrusted"),
    ),
    "the keyholder's answers": Door(
        _piped(pipe.read_answer_untrusted), tuple(map(pipe.frame, _ANSWERS)), ("signing.pipe:read_answer_untrusted",)
    ),
    "a policy": Door(
        lambda data: Rules.parse_untrusted(data, Chain.REGTEST),
        (TEMPLATE.encode(), b'mode = "auto"\nmax_amount_per_day_sat = 7'),
        ("signing.policyfile:Rules.parse_untrusted",),
    ),
    "a group file": Door(
        GroupFile.parse_untrusted,
        (_FILE.encode(),),
        (
            "signing.groupfile:GroupFile.parse_untrusted",
            "signing.groupfile:GroupFile.of_untrusted",
            "signing.strictjson:read_untrusted",
        ),
    ),
    "a blame file": Door(
        lambda data: BlameFile.parse_untrusted(data).judge(),
        tuple(BlameFile(_FILE, record).encode() for record in RECORDS.values()),
        ("signing.blamefile:BlameFile.parse_untrusted",),
    ),
    "a key file": Door(
        lambda data: open_untrusted(data, None, "here"),
        _KEY_FILES[1:],
        ("net.keyfile:open_untrusted", "net.keyfile:open_as_untrusted"),
    ),
    "an encrypted key file": Door(
        lambda data: check_untrusted(data, "here"), _KEY_FILES, ("net.keyfile:check_untrusted",)
    ),
    "an approver's file": Door(
        lambda data: ApproverFile.parse_untrusted(data).approver(),
        (ApproverFile(bytes(32), LEAST_COST, ALICE.pubkey[1:]).encode(),),
        ("net.approver:ApproverFile.parse_untrusted",),
    ),
}
