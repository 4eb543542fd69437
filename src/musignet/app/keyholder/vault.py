"""What the keyholder has: the wallet key, its approver, and the groups that a person pinned, each with its policy.

    wallet.key   approver.json   groups/<group id>.json   groups/<group id>.proof   policy/<group id>.toml
    keyholder-<16 digits of it>.db   lock

A group is believed for its proof, which is checked at each start: putting a file here is not enough to be signed with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ... import limits
from ...bitcoin.bip32 import HARDENED, Xpub
from ...bitcoin.descriptor import KeyExpression
from ...bitcoin.review import Review
from ...bitcoin.walletkey import WalletAccount, WalletKey
from ...chain import Chain
from ...errors import AuthenticationError, IoError, LocalError, NetworkError
from ...net.approver import load_approver
from ...net.custody import Custody
from ...net.folder import DataFolder
from ...net.keyfile import Passphrase
from ...net.privatefile import opened, write_whole
from ...signing.founding_records import prove_possession
from ...signing.group import SigningGroup
from ...signing.groupfile import GroupFile
from ...signing.keyholder import Account
from ...signing.policy import Answer, Day, No, stricter
from ...signing.policyfile import TEMPLATE, PolicyError, Rules
from ...signing.verbs import Reply

__all__ = ["WALLET_KEY", "Vault"]

logger = logging.getLogger(__name__)

WALLET_KEY: Final = "wallet.key"
_PURPOSE_STEPS: Final = 3
_PROOF_CHARS: Final = 2 * limits.SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class _Place:
    """Our own place in a group."""

    identity: bytes
    account: WalletAccount


class Vault:
    """See the module.

    Args:
        folder:     the keyholder's own folder, locked by this process.
        wallet:     the key of `WALLET_KEY` there, opened. It is wiped when this is closed, or cannot be made.
        passphrase: the wallet's; None where it has none.
        answer:     takes what a group's keyholder says.

    Raises: AuthenticationError for an approver or a proof that is not the passphrase's; IoError, SerializationError,
            PolicyError for a file that is damaged, not private or not understood. Nothing is signed then.
    """

    def __init__(
        self,
        folder: DataFolder,
        wallet: WalletKey,
        passphrase: Passphrase | None,
        answer: Callable[[bytes, Reply], None],
    ) -> None:
        self.insecure = passphrase is None
        self._folder = folder
        self._answer = answer
        self._wallet = wallet
        self._groups: dict[bytes, Custody] = {}
        try:
            folder.check_private()
            file = load_approver(folder.path / "approver.json")
            file.unlock(passphrase).wipe()  # nobody put another one in its place
            self._approver = file.approver()
            for name in ("groups", "policy"):
                (folder.path / name).mkdir(mode=0o700, exist_ok=True)
            for path in sorted((folder.path / "groups").glob("*.json")):
                self._open(path)
        except BaseException:
            self.close()
            raise

    @property
    def groups(self) -> tuple[bytes, ...]:
        """The ids of the pinned groups."""
        return tuple(self._groups)

    def __iter__(self) -> Iterator[Custody]:
        return iter(tuple(self._groups.values()))

    def get(self, group: bytes) -> Custody:
        """Return the keyholder of a group. Raises LocalError when it is not pinned."""
        found = self._groups.get(group)
        if found is None:
            raise LocalError("this group is not pinned at the keyholder", got=f"group {group.hex()[:16]}")
        return found

    def require_other_than(self, identity: bytes) -> None:
        """Raise InvalidMessage when the wallet key is the node's own key (THREATS.md A4)."""
        self._wallet.require_other_than(identity)

    def account(self, number: int, chain: Chain) -> str:
        """Return the public key of an account, with its origin. Raises LocalError."""
        account = self._wallet.account(number, chain)
        account.key.wipe()
        return str(account)

    def prove(self, number: int, chain: Chain, statement: bytes) -> bytes:
        """Return the proof that this account's key is held here, for a founding. Raises LocalError."""
        account = self._wallet.account(number, chain)
        try:
            return prove_possession(account.key, statement)
        finally:
            account.key.wipe()

    def pin(self, data: bytes, proof: bytes) -> bytes:
        """Cosign in a group from now on. Returns its id when all is on disk; a second time changes nothing.

        Raises: AuthenticationError for a proof that does not hold; what `GroupFile.parse_untrusted` raises; LocalError
                when the wallet has no key in the group, or two; IoError.
        """
        group = GroupFile.parse_untrusted(data).group
        self._require_proof(group.id, proof)
        if group.id not in self._groups:
            place = self._place(group)
            name = group.id.hex()
            if not (self._folder.path / "policy" / f"{name}.toml").exists():
                self._write("policy", f"{name}.toml", TEMPLATE.encode())
            self._write("groups", f"{name}.proof", proof.hex().encode())
            self._write("groups", f"{name}.json", data)
            self._begin(group, place)
        return group.id

    def close(self) -> None:
        """Forget every secret. Twice is harmless."""
        for custody in self._groups.values():
            custody.close()
        self._groups.clear()
        self._wallet.wipe()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        group = GroupFile.parse_untrusted(self._read("groups", path.name, limits.GROUP_FILE_MAX_BYTES)).group
        if path.stem != group.id.hex():
            raise IoError(f"group file {path}", expected=f"the name {group.id.hex()}.json", got=path.name)
        proof = self._read("groups", f"{path.stem}.proof", _PROOF_CHARS)
        try:
            self._require_proof(group.id, bytes.fromhex(proof.decode("ascii")))
        except ValueError:
            raise IoError(f"damaged proof of group {path.stem}", hint="pin the group again") from None
        self._begin(group, self._place(group))

    def _require_proof(self, group: bytes, proof: bytes) -> None:
        if not self._approver.pinned(group, proof):
            raise AuthenticationError(
                "no proof that a person wants this group", got=f"group {group.hex()[:16]}", hint="confirm it again"
            )

    def _place(self, group: SigningGroup) -> _Place:
        """Find our own key by its origin, and derive it: nobody else says who we are in a group."""
        found = []
        for member in group.members:
            written = group.wallet.descriptor.members[group.positions[member.identity]]
            account = self._own(written, group.wallet.chain)
            if account is not None:
                found.append(_Place(member.identity, account))
        if len(found) != 1:
            raise LocalError(
                "this wallet's place in the group", expected="one key of it, with its origin", got=len(found),
                hint="is it the seed of this device? is one seed on two devices?",
            )  # fmt: skip
        self._wallet.require_other_than(found[0].identity)
        return found[0]

    def _own(self, written: KeyExpression, chain: Chain) -> WalletAccount | None:
        if not isinstance(written.key, Xpub) or written.origin is None or len(written.origin.path) != _PURPOSE_STEPS:
            return None
        account = self._wallet.account(written.origin.path[-1] & (HARDENED - 1), chain)
        if (account.xpub.point, account.origin) == (written.key.point, written.origin):
            if account.xpub.chaincode == written.key.chaincode:
                return account
        account.key.wipe()
        return None

    def _begin(self, group: SigningGroup, place: _Place) -> None:
        rules = self._rules(group)

        def policy(review: Review) -> Answer:
            day = custody.keyholder.day()
            return stricter(rules.judge(review, day), self._judge_now(group, review, day))

        account = Account(
            group=group,
            identity=place.identity,
            key=place.account.key,
            policy=policy,
            verifier=self._approver.consented,
            nonce_ttl_s=rules.nonce_ttl_s,
        )
        custody = Custody(account, self._folder, lambda reply: self._answer(group.id, reply))
        self._groups[group.id] = custody

    def _judge_now(self, group: SigningGroup, review: Review, day: Day) -> Answer:
        """Return what the file says now: what it allows beyond the one of the start is for the next start."""
        try:
            return self._rules(group).judge(review, day)
        except NetworkError as error:  # the other cosigners hear the reason, and not where our files are
            logger.error("%s", error)
            return No("its file cannot be understood now")

    def _rules(self, group: SigningGroup) -> Rules:
        name = f"{group.id.hex()}.toml"
        data = self._read("policy", name, limits.POLICY_FILE_MAX_BYTES)
        try:
            return Rules.parse_untrusted(data, group.wallet.chain)
        except PolicyError as error:
            path = self._folder.path / "policy" / name
            raise PolicyError(f"{path}: {error}", hint="nothing is signed until it is mended") from None

    def _read(self, folder: str, name: str, most: int) -> bytes:
        path = self._folder.path / folder / name
        with opened(path.parent, "file", path) as private:
            return private.read(name, most)

    def _write(self, folder: str, name: str, data: bytes) -> None:
        """Put a file in place, whole. Raises IoError."""
        write_whole(self._folder.path / folder / name, "file", data, overwrite=True)
