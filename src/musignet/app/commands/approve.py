"""`musignet approve`: a person sees what they sign, says yes, and proves it to the keyholder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ...bitcoin.checks import Confirm
from ...bitcoin.review import Review
from ...signing.approver import prove_consent
from ...signing.records import consent_digest
from ..client import path
from ..judged import judge
from ..unlock import unlock
from .common import Command, Failure, connect, data_option, fd, json_option, say, show
from .sessions import describe, matched, told

__all__ = ["approve"]


@click.command(cls=Command, example="musignet approve 1f3a")
@data_option
@json_option
@click.argument("session", metavar="ID")
@click.option("--yes", is_flag=True, help="Ask nothing: for scripts that have looked at `show --json`.")
@click.option("--fee-sat", type=int, metavar="SAT", help="With --yes: the fee, where the review wants it typed.")
@click.option(
    "--replace", "named", metavar="ID", multiple=True, help="With --yes: a session that `show` says is given up for it."
)
@click.option("--passphrase-fd", type=fd, metavar="N", help="Read the wallet's passphrase from file descriptor N.")
def approve(
    data: Path, as_json: bool, session: str, yes: bool, fee_sat: int | None, named: tuple[str, ...],
    passphrase_fd: int | None,
) -> None:  # fmt: skip
    """Approve a session, after its review.

    The review is made here, from the signed proposal. The passphrase of the wallet makes a proof of your yes for this
    one transaction; it goes to the keyholder, and the node never sees the passphrase.
    """
    client = connect(data)
    detail = client.get(path("v1", "sessions", session))
    one = detail["session"]
    judged = judge(client, detail)
    if not as_json:
        told(detail, judged.facts()["lines"])
    if not one["asked"]:
        raise Failure("this session does not wait for you", hint=describe(one))
    replaces = one["replaces"]
    if yes and (missing := set(replaces) - set(matched(replaces, named))):
        raise Failure("not approved: its coins are another session's", hint=f"--replace {min(missing)[:8]} gives it up")
    _confirm(judged.review, yes, fee_sat, as_json, replaces)
    key = unlock(data, passphrase_fd)
    try:
        digest = consent_digest(judged.digest, map(bytes.fromhex, replaces))
        proof = prove_consent(key, judged.proposal.session, digest)
    finally:
        key.wipe()
    body = {"proof": proof.hex(), "replaces": replaces}
    found = client.post(path("v1", "sessions", one["id"], "consent"), body)
    said = describe(found | {"state": "approved", "asked": False})
    show(as_json, found, lambda: say(f"{said}. Follow it: musignet watch {one['id'][:8]}"))


def _confirm(review: Review, yes: bool, fee_sat: int | None, as_json: bool, replaces: Sequence[str]) -> None:
    """Get the person's yes, in the form that the review demands. Raises Failure."""
    if Confirm.TYPE_FEE in review.confirm:
        if fee_sat is None and not yes:
            fee_sat = click.prompt("The fee is unusual. Type it, in satoshi", type=int, err=True)
        if fee_sat != review.fee_sat:
            raise Failure(
                f"not approved: the fee is {review.fee_sat} sat", hint="type that number, or --fee-sat with --yes"
            )
    if yes:
        return
    if as_json:
        raise Failure("not approved: nobody was asked", hint="with --json add --yes, after show --json")
    instead = f" in place of {', '.join(one[:8] for one in replaces)}" if replaces else ""
    if not click.confirm(f"Approve this transaction{instead}?", err=True):
        raise Failure("not approved", hint="to end it for everybody: musignet reject")
