"""Keyholders' folders, and groups whose keys are in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import Group
from musignet.bitcoin.walletkey import WalletKey
from musignet.chain import Chain
from musignet.net.approver import load_approver, make_approver
from musignet.net.keyfile import LEAST_COST
from musignet.net.keystore import save_wallet_key
from musignet.signing.approver import prove_consent, prove_group
from musignet.signing.group import Member, SigningGroup
from musignet.signing.groupfile import GroupFile
from support.ceremony import identity
from support.keys import secret

__all__ = ["AUTO", "consent", "group_file", "make_vault", "pin_proof", "set_policy", "wallet"]

AUTO = 'mode = "auto"\nmax_amount_per_day_sat = 2_100_000_000_000_000\n'


def wallet(name: str) -> WalletKey:
    return WalletKey.from_seed(secret(f"wallet {name}"))


def group_file(names: Sequence[str], tail: str = "/<0;1>/*") -> GroupFile:
    accounts = {name: wallet(name).account(0, Chain.REGTEST) for name in names}
    text = f"tr(musig({','.join(str(one) for one in accounts.values())}){tail})"
    members = [Member(identity(name).pubkey, str(one.xpub)) for name, one in accounts.items()]
    group = SigningGroup(Group(Descriptor.parse_untrusted(text), Chain.REGTEST), members)
    return GroupFile("savings", group, {identity(name).pubkey: name for name in names})


def make_vault(folder: Path, name: str, passphrase: str | None = None) -> Path:
    """Make a keyholder's folder with its wallet key and its approver."""
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        one.chmod(0o700)
    insecure = passphrase is None
    save_wallet_key(wallet(name), folder / "wallet.key", passphrase, insecure_no_passphrase=insecure, cost=LEAST_COST)
    make_approver(folder / "approver.json", passphrase, LEAST_COST)
    return folder


def pin_proof(folder: Path, group: bytes, passphrase: str | None = None) -> bytes:
    return prove_group(load_approver(folder / "approver.json").unlock(passphrase), group)


def consent(folder: Path, session: bytes, digest: bytes, passphrase: str | None = None) -> bytes:
    return prove_consent(load_approver(folder / "approver.json").unlock(passphrase), session, digest)


def set_policy(folder: Path, group: bytes, text: str) -> None:
    """Write the policy of a group, as a person does before the keyholder starts."""
    (folder / "policy").mkdir(mode=0o700, exist_ok=True)
    path = folder / "policy" / f"{group.hex()}.toml"
    path.write_text(text)
    path.chmod(0o600)
