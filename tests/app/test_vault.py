"""What the keyholder has: whom it believes a group, and who it says it is in one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from musignet.app.keyholder.vault import WALLET_KEY, Vault
from musignet.bitcoin.bip32 import Xpub
from musignet.bitcoin.descriptor import Descriptor, KeyExpression
from musignet.bitcoin.group import Group
from musignet.bitcoin.walletkey import WalletKey
from musignet.chain import Chain
from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, InvalidMessage, IoError, LocalError, NetworkError
from musignet.net.approver import load_approver, make_approver
from musignet.net.folder import DataFolder
from musignet.net.keyfile import LEAST_COST
from musignet.net.keystore import load_wallet_key
from musignet.signing.founding_records import possession_digest
from musignet.signing.group import Member, SigningGroup
from musignet.signing.groupfile import GroupFile
from musignet.signing.policyfile import PolicyError
from musignet.signing.records import TransactionProposal, encode, session_id
from musignet.signing.verbs import Approve, Approved, Asked, Refused, Reply, Wipe
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony import identity, say
from support.vaults import AUTO, consent, group_file, make_vault, pin_proof, set_policy, wallet
from support.wallet import outpoint, psbt, replace_tx, spend

FILE = group_file(("alice", "bob"))
GROUP = FILE.group
ID = GROUP.id


class Open:
    """A vault that is open, and what it said."""

    def __init__(self, path: Path, passphrase: str | None = None) -> None:
        self.said: list[tuple[bytes, Reply]] = []
        self.path = path
        self.folder = DataFolder.lock(path)
        try:
            key = load_wallet_key(path / WALLET_KEY, passphrase)
            self.vault = Vault(self.folder, key, passphrase, lambda group, reply: self.said.append((group, reply)))
        except NetworkError:
            self.folder.close()
            raise

    def close(self) -> None:
        self.vault.close()
        self.folder.close()

    def pin(self, file: GroupFile = FILE) -> bytes:
        return self.vault.pin(file.encode(), pin_proof(self.path, file.group.id))

    def approve(self, verb: Approve) -> Reply:
        self.vault.get(ID).ask(verb)
        return self.said[-1][1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_vault(tmp_path / "keyholder", "alice")


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    one = Open(path)
    yield one
    one.close()


def proposal(number: int) -> VerifiedMessage:
    """Return a proposal of bob's that spends a coin of its own: 600,000 sat and a fee of 2,000 sat."""
    tx, spent = spend(GROUP.wallet, coins=[(0, 0)])
    tx = replace_tx(tx, inputs=tuple(type(one)(outpoint(number), one.sequence) for one in tx.inputs))
    made = psbt(GROUP.wallet, tx, spent).serialize()
    record = TransactionProposal(ID, bytes((number,)) * 32, int((time.time() + 3600) * 1000), made, "")
    session = session_id(identity("bob").pubkey, record)
    return say("bob", MessageType.TRANSACTION_PROPOSAL, session, encode(record), GROUP)


# --- pinning ----------------------------------------------------------------------------------------------------------


def test_a_group_is_pinned_once_and_there_after_a_restart(opened: Open, path: Path) -> None:
    assert opened.pin() == opened.pin() == ID
    assert opened.vault.groups == (ID,)
    opened.close()
    again = Open(path)
    assert again.vault.groups == (ID,)
    assert again.vault.get(ID).keyholder.account.identity == identity("alice").pubkey
    again.close()


def test_a_crash_between_the_files_of_a_pin_leaves_it_to_be_done_again(opened: Open, path: Path) -> None:
    opened.pin()
    opened.close()
    (path / "groups" / f"{ID.hex()}.json").unlink()
    again = Open(path)
    assert again.vault.groups == ()
    again.pin()
    assert again.vault.groups == (ID,)
    again.close()


def test_the_policy_that_is_there_stays(path: Path) -> None:
    set_policy(path, ID, 'mode = "never"')
    one = Open(path)
    one.pin()
    refused = one.approve(Approve(proposal(1)))
    assert isinstance(refused, Refused)
    assert "sign nothing" in str(refused.error)
    one.close()


def test_a_policy_that_is_not_understood_pins_nothing(path: Path) -> None:
    set_policy(path, ID, 'mode = "sure"')
    one = Open(path)
    with pytest.raises(PolicyError, match=rf"{ID.hex()}.toml.*mode.*nothing is signed until it is mended"):
        one.pin()
    assert one.vault.groups == ()
    one.close()


def rewritten(text: str, keys: dict[str, str] | None = None) -> GroupFile:
    """Return a group of this descriptor, alice's key hers by her identity, the others' bob's."""
    descriptor = Descriptor.parse_untrusted(text)
    names = keys or {str(wallet("alice").account(0, Chain.REGTEST).xpub): "alice"}
    members = [Member(identity(names.get(str(one.key), "bob")).pubkey, str(one.key)) for one in descriptor.members]
    group = SigningGroup(Group(descriptor, Chain.REGTEST), members)
    return GroupFile("other", group, {one: f"member {at}" for at, one in enumerate(group.identities)})


ALICE, BOB = (wallet(name).account(0, Chain.REGTEST) for name in ("alice", "bob"))
TAIL = ")/<0;1>/*)"


@pytest.mark.parametrize(
    "text",
    [
        f"tr(musig({ALICE.xpub},{BOB}{TAIL}",  # no origin
        f"tr(musig([73c5da0a/87h/1h/0h]{ALICE.xpub},{BOB}{TAIL}",  # another's origin
        f"tr(musig({str(ALICE).replace('/0h]', '/1h]')},{BOB}{TAIL}",  # another account's
        f"tr(musig({str(ALICE).replace('87h/1h', '86h/1h')},{BOB}{TAIL}",  # another purpose
        f"tr(musig({str(ALICE).replace('/0h]', '/0]')},{BOB}{TAIL}",  # not hardened
        f"tr(musig({str(ALICE).replace('/0h]', '/0h/0h]')},{BOB}{TAIL}",  # deeper
    ],
)
def test_a_key_that_is_not_shown_to_be_ours_is_not_signed_with(opened: Open, text: str) -> None:
    with pytest.raises(LocalError, match="this wallet's place in the group: expected one key of it, with its origin"):
        opened.pin(rewritten(text))
    assert opened.vault.groups == ()


def test_a_chain_code_that_is_not_ours_is_noticed(opened: Open) -> None:
    xpub = ALICE.xpub
    other = Xpub(xpub.version, xpub.point, bytes(32), xpub.depth, xpub.parent, xpub.number)
    text = f"tr(musig({KeyExpression(other, ALICE.origin, ())},{BOB}{TAIL}"
    with pytest.raises(LocalError, match="this wallet's place in the group"):
        opened.pin(rewritten(text, {str(other): "alice"}))


def test_one_seed_on_two_devices_is_refused(opened: Open) -> None:
    second = wallet("alice").account(1, Chain.REGTEST)
    file = rewritten(f"tr(musig({ALICE},{second}{TAIL}")
    with pytest.raises(LocalError, match="got 2"):
        opened.pin(file)


def test_the_key_of_the_wallet_is_not_the_node(opened: Open) -> None:
    members = [Member(wallet("alice").public, str(ALICE.xpub)), Member(identity("bob").pubkey, str(BOB.xpub))]
    descriptor = Descriptor.parse_untrusted(f"tr(musig({ALICE},{BOB}{TAIL}")
    group = SigningGroup(Group(descriptor, Chain.REGTEST), members)
    file = GroupFile("same", group, {one: f"m {at}" for at, one in enumerate(group.identities)})
    with pytest.raises(InvalidMessage, match="one secret for the wallet and the node"):
        opened.pin(file)
    with pytest.raises(InvalidMessage):
        opened.vault.require_other_than(wallet("alice").public)
    opened.vault.require_other_than(identity("alice").pubkey)


def test_a_group_that_nobody_pinned_signs_nothing(opened: Open) -> None:
    with pytest.raises(LocalError, match="not pinned at the keyholder"):
        opened.vault.get(ID)
    with pytest.raises(AuthenticationError, match="no proof that a person wants this group"):
        opened.vault.pin(FILE.encode(), identity("alice").sign(ID))


def test_a_group_that_was_put_into_the_folder_is_not_believed(opened: Open, path: Path) -> None:
    opened.pin()
    opened.close()
    file = group_file(("alice", "mallory"))
    for suffix in ("json", "proof"):
        data = file.encode() if suffix == "json" else (path / "groups" / f"{ID.hex()}.proof").read_bytes()
        new = path / "groups" / f"{file.group.id.hex()}.{suffix}"
        new.write_bytes(data)
        new.chmod(0o600)
    with pytest.raises(AuthenticationError, match="no proof that a person wants this group"):
        Open(path)


def test_whatever_is_damaged_is_not_signed_with(opened: Open, path: Path) -> None:
    opened.pin()
    opened.close()
    name = ID.hex()
    group, proof, policy = path / f"groups/{name}.json", path / f"groups/{name}.proof", path / f"policy/{name}.toml"
    for file, damaged, said in (
        (group, b"{}", "not a group file"),
        (group, group_file(("alice", "carol")).encode(), "group file"),
        (proof, b"00" * 64, "no proof that a person wants this group"),
        (proof, b"xx", "damaged proof"),
        (proof, b"\xff", "damaged proof"),
        (policy, b'mode = "auto"', "signs anything"),
        (path / "approver.json", b"{}", "not an approver file"),
    ):
        whole = file.read_bytes()
        file.write_bytes(damaged)
        with pytest.raises(NetworkError, match=said):
            Open(path)
        file.write_bytes(whole)
    os.rename(policy, path / "away")
    with pytest.raises(IoError, match="No such file"):
        Open(path)
    os.rename(path / "away", policy)
    again = Open(path)
    assert len(list(again.vault)) == len(again.vault.groups) == 1
    again.close()


@pytest.mark.parametrize("name", ["groups", "policy"])
def test_files_of_groups_that_others_may_write_are_refused(opened: Open, path: Path, name: str) -> None:
    opened.pin()
    opened.close()
    (file,) = (path / name).glob("*.json" if name == "groups" else "*.toml")
    file.chmod(0o666)
    with pytest.raises(IoError, match="mode 600"):
        Open(path)


def test_an_approver_that_somebody_put_there_is_noticed(tmp_path: Path) -> None:
    path = make_vault(tmp_path / "k", "alice", "pass")
    os.unlink(path / "approver.json")
    make_approver(path / "approver.json", "mallory's", LEAST_COST)
    with pytest.raises(AuthenticationError, match="altered approver file"):
        Open(path, "pass")


# --- accounts and secrets ---------------------------------------------------------------------------------------------


def test_accounts_are_told(opened: Open) -> None:
    assert opened.vault.account(5, Chain.MAINNET) == str(wallet("alice").account(5, Chain.MAINNET))
    assert opened.vault.insecure
    proof = opened.vault.prove(5, Chain.REGTEST, bytes(32))
    point = wallet("alice").account(5, Chain.REGTEST).xpub.point
    assert PublicKey(point).verify(possession_digest(bytes(32)), proof)


def test_nothing_is_left_after_it_is_closed(opened: Open) -> None:
    opened.pin()
    opened.vault.close()
    opened.vault.close()
    assert opened.vault.groups == ()
    with pytest.raises(LocalError, match="it was wiped"):
        opened.vault.account(0, Chain.REGTEST)


def test_a_passphrase_is_needed_for_both_files(tmp_path: Path) -> None:
    path = make_vault(tmp_path / "k", "alice", "pass")
    with pytest.raises(AuthenticationError, match="wrong passphrase"):
        Open(path, "word")
    one = Open(path, "pass")
    assert not one.vault.insecure
    assert load_approver(path / "approver.json").unlock("pass").pubkey
    assert WalletKey.from_seed(bytes(16)).public != wallet("alice").public
    one.close()


# --- the policy and its day -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "answer", "words"), [
    ('mode = "never"', Refused, "set to sign nothing"),
    ('mode = "ask"', Asked, ""),
    ('mode = "auto"', Refused, "cannot be understood now"),
    ('mode = "sure"', Refused, "cannot be understood now"),
    (None, Refused, "cannot be understood now"),
])  # fmt: skip
def test_a_stricter_policy_holds_at_once(path: Path, changed: str | None, answer: type, words: str) -> None:
    """Also a file that is not understood: then nothing is signed, with or without a restart."""
    set_policy(path, ID, AUTO)
    one = Open(path)
    one.pin()
    assert isinstance(one.approve(Approve(proposal(1))), Approved)
    if changed is None:
        (path / "policy" / f"{ID.hex()}.toml").unlink()
    else:
        set_policy(path, ID, changed)
    said = one.approve(Approve(proposal(2)))
    assert isinstance(said, answer)
    assert words in str(getattr(said, "error", ""))
    assert str(path) not in str(said), "the other cosigners hear it"
    one.close()


@pytest.mark.parametrize("before", ['mode = "never"', 'mode = "ask"'])
def test_a_policy_that_allows_more_needs_the_restart_that_needs_the_passphrase(path: Path, before: str) -> None:
    """A program of the same user can write the file, and must not approve by it."""
    set_policy(path, ID, before)
    one = Open(path)
    one.pin()
    set_policy(path, ID, AUTO)
    assert not isinstance(one.approve(Approve(proposal(1))), Approved)
    one.close()
    one = Open(path)
    assert isinstance(one.approve(Approve(proposal(1))), Approved)
    one.close()


def test_a_day_is_counted_over_sessions_and_restarts(path: Path) -> None:
    set_policy(path, ID, f'mode = "auto"\nmax_amount_per_day_sat = {2 * 602_000}')
    one = Open(path)
    one.pin()
    assert isinstance(one.approve(Approve(proposal(1))), Approved)
    one.close()
    one = Open(path)
    second = proposal(2)
    assert isinstance(one.approve(Approve(second)), Approved)
    third = proposal(3)
    asked = one.approve(Approve(third))
    assert isinstance(asked, Asked), "the limit is reached: a person is asked"
    one.vault.get(ID).ask(Wipe(second.session))
    assert isinstance(one.approve(Approve(third)), Approved), "what was revoked before it was signed does not count"
    fourth = proposal(4)
    asked = one.approve(Approve(fourth))
    assert isinstance(asked, Asked)
    proof = consent(path, fourth.session, asked.digest)
    assert isinstance(one.approve(Approve(fourth, proof)), Approved), "a person may go beyond it"
    one.close()
