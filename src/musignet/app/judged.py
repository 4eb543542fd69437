"""A session as its reader judges it: from the signed proposal and the group file, believing no summary of the node."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..bitcoin import show
from ..bitcoin.group import Known
from ..bitcoin.review import Review
from ..errors import InvalidMessage, LocalError
from ..signing.groupfile import GroupFile
from ..signing.proposal import Proposal
from ..wire.envelope import Message
from .client import Client, path

__all__ = ["Judged", "judge"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a session would do, by our own reading."""

    group: GroupFile
    proposal: Proposal
    review: Review
    digest: bytes
    """What an approval is for."""

    def facts(self) -> dict[str, Any]:
        """Return the review for a program."""
        review = self.review
        outputs = [
            {
                "address": one.address,
                "script": one.out.script.hex(),
                "amount_sat": one.out.amount_sat,
                "change": one.change is not None,
            }
            for one in review.outputs
        ]
        notices = [{"rule": one.rule.name, "text": one.text, "confirm": one.confirm.value} for one in review.notices]
        return {
            "outputs": outputs,
            "sent_sat": review.sent_sat,
            "fee_sat": review.fee_sat,
            "fee_rate_sat_vb": round(review.fee_rate_sat_vb, 2),
            "notices": notices,
            "digest": self.digest.hex(),
            "lines": list(show.lines(review)),
        }


def judge(client: Client, detail: Mapping[str, Any]) -> Judged:
    """Read a session that the API has shown.

    Raises: LocalError where nothing is written down of it, RuleBroken, InvalidMessage when the node shows one thing
            under the name of another.
    """
    shown = detail["session"]
    if not detail["proposal"]:
        raise LocalError("nothing is written down of this session", hint=shown["error"] or "a rule refused it at once")
    group = GroupFile.parse_untrusted(base64.b64decode(client.get(path("v1", "groups", shown["group"]))["file"]))
    message = Message.from_bytes(base64.b64decode(detail["proposal"])).verify()
    proposal = Proposal.open_untrusted(message, group.group)
    if (proposal.session.hex(), group.group.id.hex()) != (shown["id"], shown["group"]):
        raise InvalidMessage("the node shows another session than the one it names", hint="do not approve anything")
    known = Known().after(detail["last_change"])  # only addresses of the group itself are ever called change
    review = proposal.review(group.group, known, time.time())
    return Judged(group, proposal, review, proposal.digest(group.group, review))
