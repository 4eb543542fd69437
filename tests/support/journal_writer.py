"""A process that appends to a journal for ever and prints each id once it is acknowledged: to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from musignet.net.folder import DataFolder
from musignet.net.store import Journal
from support.journals import KINDS, record


def main(folder: str) -> None:
    with Journal.open(DataFolder.lock(Path(folder)), "node", KINDS, checkpoint_bytes=200_000) as journal:
        print("ready", flush=True)
        while True:
            first = journal.last_id + 1
            ids = journal.append([record(first + i) for i in range(1 + first % 3)])
            print(ids[-1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
