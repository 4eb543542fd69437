"""A person's yes, as a signature that the node cannot make (THREATS.md L1, Z5).

The approver's key is derived from the wallet's passphrase where a person types it. Its public half is with the
keyholder. A proof names what was consented to: one session and digest, or the pinning of one group.
"""

from __future__ import annotations

from typing import Final

from .. import limits
from ..crypto.keys import ApproverKey
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError

__all__ = ["Approver", "prove_consent", "prove_group"]

_consent: Final = TaggedHash("musignet/approver/consent")
_group: Final = TaggedHash("musignet/approver/group")


def prove_consent(key: ApproverKey, session: bytes, digest: bytes) -> bytes:
    """Return the proof that a person saw and wants this: 64 bytes.

    Args: digest - `records.consent_digest` of what their own device recomputed from the signed proposal.
    """
    return key.sign(_consent(session, digest))


def prove_group(key: ApproverKey, group: bytes) -> bytes:
    """Return the proof that a person wants to cosign in the group with this id: 64 bytes."""
    return key.sign(_group(group))


class Approver:
    """The public half. `consented` is a keyholder's `Verifier`.

    Args:   public - 32 bytes, x-only (BIP-340).
    Raises: AuthenticationError when they are no key.
    """

    __slots__ = ("_key", "public")

    def __init__(self, public: bytes) -> None:
        if len(public) != limits.APPROVER_BYTES:
            raise AuthenticationError("not an approver's key", expected=f"{limits.APPROVER_BYTES} bytes")
        self.public: Final = public
        self._key = PublicKey(b"\x02" + public)

    def consented(self, session: bytes, digest: bytes, proof: bytes) -> bool:
        """Return whether a person consented to this session and digest."""
        return self._holds(_consent(session, digest), proof)

    def pinned(self, group: bytes, proof: bytes) -> bool:
        """Return whether a person wants to cosign in this group."""
        return self._holds(_group(group), proof)

    def _holds(self, digest: bytes, proof: bytes) -> bool:
        return len(proof) == limits.SIGNATURE_BYTES and self._key.verify(digest, proof)
