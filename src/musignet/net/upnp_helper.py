"""One conversation with a router over UPnP, in a process of its own: `upnp_helper.py look|map|unmap ...`.

It reads XML that anybody on the local network may have sent, with a C library that has no deadline: its caller gives it
one, and kills it. It imports nothing of MuSigNet and knows no key. The answer is one JSON object on standard output;
what the router refuses ends in a traceback, whose last line says why.
"""

from __future__ import annotations

import json
import sys

import miniupnpc

_LISTEN_MS = 1000
"""What routers have to answer each of the four ways to ask who is there."""
_NAME = "MuSigNet"


def main(verb: str, *arguments: str) -> None:
    router = miniupnpc.UPnP()
    router.discoverdelay = _LISTEN_MS
    if not router.discover():
        raise SystemExit("no router on this network speaks UPnP")
    url = router.selectigd()
    answer: dict[str, object] = {"router": url, "host": router.externalipaddress()}
    if verb == "map":
        local, external, lease_s = map(int, arguments)
        router.addportmapping(external, "TCP", router.lanaddr, local, _NAME, "", lease_s)
        answer |= {"port": external, "lease_s": lease_s}
    elif verb == "unmap":
        router.deleteportmapping(int(arguments[0]), "TCP")
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
