"""A node with its wallet key in its own process: `python here.py DATA NAME [uvloop]`. The rest is `musignet run`.

Where there is an approver it asks them about everything; otherwise it signs what breaks no rule."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from musignet.app import config
from musignet.app.groups import Groups
from musignet.app.keys import KeysHere
from musignet.app.logs import set_up
from musignet.app.places import APPROVER_FILE
from musignet.app.run import serve
from musignet.errors import NetworkError
from musignet.net.approver import load_approver
from musignet.net.folder import DataFolder
from musignet.signing.policy import ask_always
from support.ceremony import account, identity


def main() -> int:
    data, name = Path(sys.argv[1]), sys.argv[2]
    settings = config.load(data)
    folder = DataFolder.lock(data)
    log = set_up(settings)
    try:
        approver = data / APPROVER_FILE
        consented = load_approver(approver).approver().consented if approver.exists() else None
        accounts = {
            one.group.id: account(name, one.group, policy=ask_always, verifier=consented)
            if consented
            else account(name, one.group)
            for one in Groups(folder)
        }
        tell = lambda line: print(line, flush=True)  # noqa: E731
        if "uvloop" not in sys.argv[3:]:
            return asyncio.run(serve(folder, settings, identity(name), KeysHere(accounts), tell))
        import uvloop

        return uvloop.run(serve(folder, settings, identity(name), KeysHere(accounts), tell))
    except NetworkError as error:
        print(f"Error: {error}", flush=True)
        return 1
    finally:
        folder.close()
        log.close()


if __name__ == "__main__":
    sys.exit(main())
