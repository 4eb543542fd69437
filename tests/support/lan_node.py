"""One cosigner on a `LossyLan`, with the bounds that everybody has. Reports and takes orders as `killed_node`.

python -m support.lan_node NAME FOLDER PORT HOST...
"""

from __future__ import annotations

import asyncio
import sys

from musignet.limits import Limits
from support.killed_node import main

if __name__ == "__main__":
    name, path, port, *hosts = sys.argv[1:]
    asyncio.run(main(name, path, [int(port)] * len(hosts), hosts, Limits()))
