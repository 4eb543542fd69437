"""`python -m bench.cli_node DATA`: `musignet run` with the wallet key in its own process, for `bench.cli`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from musignet.app import config
from musignet.app.groups import Groups
from musignet.app.keys import KeysHere
from musignet.app.run import serve
from musignet.crypto.keys import SigningKey
from musignet.net.folder import DataFolder
from musignet.net.keystore import load_identity
from musignet.signing.keyholder import Account


def main(data: Path) -> int:
    """Run until SIGTERM."""
    folder = DataFolder.lock(data)
    identity = load_identity(data / "identity.key", None)
    key = SigningKey.from_secret((data / "secret").read_bytes())
    accounts = {one.group.id: Account(group=one.group, identity=identity.pubkey, key=key) for one in Groups(folder)}
    tell = lambda line: print(line, flush=True)  # noqa: E731
    return asyncio.run(serve(folder, config.load(data), identity, KeysHere(accounts), tell))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
