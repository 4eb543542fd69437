"""`/v1/sessions`: what is to be signed, and how it goes."""

from __future__ import annotations

import base64
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from ... import limits
from ...bitcoin.fields import In
from ...bitcoin.group import CHANGE
from ...bitcoin.taproot import SIGHASH_DEFAULT
from ...errors import InvalidMessage, NetworkError, SerializationError
from ...signing.blamefile import BlameFile
from ..daemon import Daemon
from ..sessions import Entry
from .route import Call, Capability, Endpoint, from_base64

__all__ = [
    "ENDPOINTS",
    "Consented",
    "Exported",
    "FromSigner",
    "Imported",
    "Left",
    "NewSession",
    "Reason",
    "SessionDetail",
    "SessionShown",
]


_Sessions: TypeAlias = Annotated[
    tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")], ...], Meta(max_length=limits.SESSIONS_NAMED_MAX)
]
"""Whole ids."""


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
    """A PSBT to be signed."""

    group: str
    """Its name, or the first digits of its id."""
    psbt: str
    """In base64."""
    memo: Annotated[str, Meta(max_length=limits.LABEL_MAX_CHARS * 4)] = ""
    """Words for the other cosigners."""
    expires_in_s: Annotated[float, Meta(gt=0, le=limits.SESSION_MAX_S)] = 3600.0


class Consented(Struct, frozen=True, forbid_unknown_fields=True):
    """A person's yes."""

    proof: str
    """The approver's signature, 128 hex digits. The keyholder checks it; this node cannot make it."""
    replaces: _Sessions = ()
    """The sessions that it gives up: the proof is over them, too."""


class Reason(Struct, frozen=True, forbid_unknown_fields=True):
    """Why not. The other cosigners are told."""

    reason: Annotated[str, Meta(max_length=limits.CLOSE_TEXT_MAX_BYTES)] = ""


class SessionShown(Struct, frozen=True):
    """One session in a list."""

    id: str
    group: str
    group_name: str
    state: str
    asked: bool
    """Whether it waits for the person here."""
    replaces: list[str]
    """Ids of the sessions that a yes must name: they spend the same coins, and our signature for them has left."""
    waiting_for: list[str]
    """Labels."""
    proposer: str
    expires_at_s: float
    """Since 1970; 0 where it is not known."""
    error: str
    ended: bool
    signer_wants: str
    """Where our key is in another signer, what a PSBT is to come back with: `nonces`, `partial signatures`, or
    `nothing`. Empty where a keyholder has it."""


class SessionDetail(Struct, frozen=True):
    """One session with all that a reader needs to judge it themselves."""

    session: SessionShown
    proposal: str
    """The signed proposal, in base64. Judge this, with the group file; believe no summary."""
    digest: str
    """What an approval is for, as this node sees it. The keyholder recomputes it."""
    attempt: int
    suspects: list[str]
    """Who was waited for at the end, or said no. It proves nothing about them."""
    proved: str
    """Who is proved to have broken the protocol, and how."""
    txid: str
    last_change: int
    """The highest change index of earlier transactions: change is recognised a gap beyond it. -1: none yet."""


class Left(Struct, frozen=True):
    """How leaving went."""

    too_late: bool
    """A partial signature of ours had left before: others may still finish the transaction."""


class FromSigner(Struct, frozen=True, forbid_unknown_fields=True):
    """What `export` gave for a signer elsewhere, back from there."""

    psbt: str
    """In base64."""
    replaces: _Sessions = ()
    """The sessions that the first nonces, which are the yes, give up."""


class Imported(Struct, frozen=True):
    """What came back from a signer elsewhere."""

    brought: str
    """`nonces` or `partial signatures`."""
    session: SessionShown


class Exported(Struct, frozen=True):
    """What came of a session."""

    psbt: str
    """In base64, with the signatures where there are some. While our key is in another signer and the session is open:
    the PSBT for that signer."""
    tx: str
    """The finished transaction in hex; empty where there is none."""
    txid: str
    blame: str
    """Where a cosigner is proved at fault, the proof: the text of a blame file. Else empty."""


def shown(daemon: Daemon, entry: Entry) -> SessionShown:
    """Return a session as lists show it."""
    proposer, expires_at = "", 0.0
    if entry.envelope:
        proposal = entry.proposal()
        proposer, expires_at = daemon.label_of(proposal.proposer), proposal.expires_at
    return SessionShown(
        entry.id.hex(),
        entry.group.id.hex(),
        daemon.groups.get(entry.group.id).name,
        entry.state,
        entry.asked,
        [one.hex() for one in sorted(entry.replaces)],
        [daemon.label_of(key) for key in entry.waiting_for],
        proposer,
        expires_at,
        "" if entry.error is None else str(entry.error),
        entry.end is not None,
        daemon.signer_wants(entry),
    )


async def _list(daemon: Daemon, call: Call) -> list[SessionShown]:
    entries = [one for one in daemon.sessions if call.query.get("open") != "true" or one.end is None]
    return [shown(daemon, one) for one in entries[: -limits.SESSIONS_LISTED_MAX - 1 : -1]]


async def _propose(daemon: Daemon, call: Call) -> SessionShown:
    body: NewSession = call.body
    group = daemon.groups.find(body.group)
    psbt = _psbt(body.psbt)
    return shown(daemon, await daemon.propose(group, psbt, body.memo, body.expires_in_s))


def _psbt(text: str) -> bytes:
    return from_base64(text, SerializationError("the PSBT is not in base64"))


def _ids(sessions: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(map(bytes.fromhex, sessions))


async def _show(daemon: Daemon, call: Call) -> SessionDetail:
    entry = daemon.sessions.find(call.path["session"])
    outcome = entry.outcome
    verdict = outcome.verdict if outcome is not None else None
    return SessionDetail(
        shown(daemon, entry),
        base64.b64encode(entry.envelope).decode(),
        _digest(entry),
        entry.live.attempt if entry.live is not None else 0,
        [daemon.label_of(key) for key in (outcome.suspects if outcome is not None else ())],
        f"{daemon.label_of(verdict.accused)}: {verdict.kind.name.lower().replace('_', ' ')}" if verdict else "",
        _txid(entry),
        daemon.sessions.known(entry.group).last_index[CHANGE],
    )


def _digest(entry: Entry) -> str:
    """Return the digest, or nothing where a rule is broken."""
    if not entry.envelope:
        return ""
    try:
        return entry.proposal().digest(entry.group, entry.review()).hex()
    except InvalidMessage:
        return ""


def _txid(entry: Entry) -> str:
    if not entry.completion:
        return ""
    try:
        return entry.transaction().txid_hex
    except NetworkError:  # strangers' inputs are not signed yet
        return ""


async def _consent(daemon: Daemon, call: Call) -> SessionShown:
    entry = daemon.sessions.find(call.path["session"])
    try:
        proof = bytes.fromhex(call.body.proof)
    except ValueError:
        raise SerializationError("the proof is not in hex") from None
    await daemon.consent(entry, proof, _ids(call.body.replaces))
    return shown(daemon, entry)


async def _reject(daemon: Daemon, call: Call) -> Left:
    reason = f"rejected: {call.body.reason}" if call.body.reason else "rejected"
    return Left(await daemon.leave(daemon.sessions.find(call.path["session"]), reason))


async def _cancel(daemon: Daemon, call: Call) -> Left:
    return Left(await daemon.leave(daemon.sessions.find(call.path["session"]), call.body.reason or "cancelled"))


async def _import(daemon: Daemon, call: Call) -> Imported:
    entry = daemon.sessions.find(call.path["session"])
    brought = daemon.psbt_from_signer(entry, _psbt(call.body.psbt), _ids(call.body.replaces))
    entry.asked = False
    return Imported(brought, shown(daemon, entry))


async def _export(daemon: Daemon, call: Call) -> Exported:
    entry = daemon.sessions.find(call.path["session"])
    if daemon.signer_wants(entry):
        return Exported(base64.b64encode(daemon.psbt_for_signer(entry)).decode(), "", "", "")
    psbt = entry.proposal().psbt
    slots = {slot.input_index: slot for slot in (entry.review().slots if entry.completion else ())}
    for index, signature in entry.signatures().items():
        kind = slots[index].sighash_type
        suffix = b"" if kind == SIGHASH_DEFAULT else bytes((kind,))
        psbt = psbt.with_input(index, psbt.inputs[index].with_field(In.TAP_KEY_SIG, b"", signature + suffix))
    txid = _txid(entry)
    raw = entry.transaction().raw.hex() if txid else ""
    return Exported(base64.b64encode(psbt.serialize()).decode(), raw, txid, _blame(daemon, entry))


def _blame(daemon: Daemon, entry: Entry) -> str:
    if entry.outcome is None or not entry.outcome.blame:
        return ""
    return BlameFile(daemon.groups.get(entry.group.id), entry.outcome.blame).encode().decode("ascii")


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/sessions",
        needs=Capability.READ,
        summary=f"The newest {limits.SESSIONS_LISTED_MAX} sessions, the newest first",
        call=_list,
        answer=list[SessionShown],
        query={"open": "`true`: only those that have not ended"},
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions",
        needs=Capability.PROPOSE,
        summary="Ask a group to sign a PSBT",
        call=_propose,
        body=NewSession,
        answer=SessionShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/sessions/{session}",
        needs=Capability.READ,
        summary="One session, named by the first digits of its id",
        call=_show,
        answer=SessionDetail,
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions/{session}/consent",
        needs=Capability.APPROVE,
        summary="A person said yes, and this proves it to the keyholder",
        call=_consent,
        body=Consented,
        answer=SessionShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions/{session}/reject",
        needs=Capability.APPROVE,
        summary="A person said no",
        call=_reject,
        body=Reason,
        answer=Left,
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions/{session}/cancel",
        needs=Capability.APPROVE,
        summary="Leave a session",
        call=_cancel,
        body=Reason,
        answer=Left,
    ),
    Endpoint(
        method="GET",
        path="/v1/sessions/{session}/export",
        needs=Capability.READ,
        summary="What came of a session: the PSBT, and the finished transaction where there is one",
        call=_export,
        answer=Exported,
    ),
    Endpoint(
        method="POST",
        path="/v1/sessions/{session}/import",
        needs=Capability.APPROVE,
        summary="The PSBT is back from the signer that has our key: its nonces, which are the yes, or its signatures",
        call=_import,
        body=FromSigner,
        answer=Imported,
    ),
)
