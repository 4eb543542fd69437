"""A node with its wallet key in its own process: `python here.py DATA NAME POLICY`. The rest is `musignet run`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from musignet.app import config
from musignet.app.groups import Groups
from musignet.app.keys import KeysHere
from musignet.app.logs import set_up
from musignet.app.run import serve
from musignet.errors import NetworkError
from musignet.net.folder import DataFolder
from musignet.signing.policy import ask_always
from support.ceremony import account, identity, yes


def main() -> int:
    data, name, policy = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    settings = config.load(data)
    folder = DataFolder.lock(data)
    log = set_up(settings)
    try:
        accounts = {
            one.group.id: account(name, one.group, policy=ask_always if policy == "ask" else yes, verifier=_proved)
            for one in Groups(folder)
        }
        tell = lambda line: print(line, flush=True)  # noqa: E731
        return asyncio.run(serve(folder, settings, identity(name), KeysHere(accounts), tell))
    except NetworkError as error:
        print(f"Error: {error}", flush=True)
        return 1
    finally:
        folder.close()
        log.close()


def _proved(session: bytes, digest: bytes, proof: bytes) -> bool:
    return proof == session + digest


if __name__ == "__main__":
    sys.exit(main())
