"""A node with a real wallet key in its own process: `python wallet_here.py DATA`. The rest is `musignet run`.

The data folder is one that `musignet init --insecure-no-passphrase` made.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from musignet.app import config
from musignet.app.logs import set_up
from musignet.app.places import APPROVER_FILE, WALLET_FILE
from musignet.app.run import open_identity, serve
from musignet.bitcoin.bip32 import HARDENED
from musignet.bitcoin.walletkey import WalletKey
from musignet.errors import AuthenticationError, LocalError, NetworkError
from musignet.net.approver import load_approver
from musignet.net.folder import DataFolder
from musignet.net.keystore import load_wallet_key
from musignet.net.service import NetworkService
from musignet.signing.founding_records import prove_possession
from musignet.signing.groupfile import GroupFile
from musignet.signing.keyholder import Account
from musignet.signing.policy import ask_always


class WalletHere:
    """A `WalletKeys` over the wallet key of a data folder."""

    insecure = True

    def __init__(self, data: Path, settings: config.Config, identity: bytes) -> None:
        self._data, self._chain, self._identity = data, settings.network, identity
        self._wallet: WalletKey = load_wallet_key(data / WALLET_FILE, None)
        self._approver = load_approver(data / APPROVER_FILE).approver()
        self._groups = data / "keyholder" / "groups"
        self._groups.mkdir(exist_ok=True)

    async def start(self) -> None:
        """It is open already."""

    async def account(self, number: int) -> str:
        return str(self._wallet.account(number, self._chain))

    async def prove(self, number: int, statement: bytes) -> bytes:
        return prove_possession(self._wallet.account(number, self._chain).key, statement)

    async def check(self, group: bytes, proof: bytes) -> None:
        if not self._approver.pinned(group, proof):
            raise AuthenticationError("no proof that a person wants this group")

    async def pin(self, data: bytes, proof: bytes) -> None:
        file = GroupFile.parse_untrusted(data)
        await self.check(file.group.id, proof)
        self._account(file)
        (self._groups / file.group.id.hex()).write_bytes(data)

    def cosign(self, network: NetworkService, group: bytes) -> None:
        path = self._groups / group.hex()
        if not path.exists():
            raise LocalError("this group is not pinned at the keyholder")
        network.cosign(self._account(GroupFile.parse_untrusted(path.read_bytes())))

    def _account(self, file: GroupFile) -> Account:
        member = file.group.wallet.descriptor.members[file.group.positions[self._identity]]
        assert member.origin is not None
        account = self._wallet.account(member.origin.path[-1] - HARDENED, self._chain)
        if account.xpub != member.key:
            raise LocalError("this wallet has no key in that group", hint="is this the right seed?")
        return Account(
            group=file.group, identity=self._identity, key=account.key, policy=ask_always,
            verifier=self._approver.consented,
        )  # fmt: skip

    async def gone(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self._wallet.wipe()


def main() -> int:
    data = Path(sys.argv[1])
    settings = config.load(data)
    folder = DataFolder.lock(data)
    log = set_up(settings)
    try:
        identity, _ = open_identity(data, lambda: "")
        keys = WalletHere(data, settings, identity.pubkey)
        tell = lambda line: print(line, flush=True)  # noqa: E731
        return asyncio.run(serve(folder, settings, identity, keys, tell))
    except NetworkError as error:
        print(f"Error: {error}", flush=True)
        return 1
    finally:
        folder.close()
        log.close()


if __name__ == "__main__":
    sys.exit(main())
