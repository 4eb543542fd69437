"""A chat in one screen: the library as a program uses it.

    python examples/chat.py alice 8001
    python examples/chat.py bob   8002

Each prints its key; paste the other's key when asked. `musignet chat` is the same for people.
"""

import asyncio
import sys

from musignet import Message, MessageHandler, MessageType, NetworkError, NetworkService, Peer, PeerInfo

handler = MessageHandler()


@handler.on(MessageType.CHAT)
async def show(message: Message, peer: Peer) -> None:
    """Print a line. `ascii` keeps whatever a peer sends from moving the cursor."""
    print(f"<{peer.info.id}> {ascii(message.payload.decode('utf-8', 'replace'))[1:-1]}")


async def main(name: str, port: int) -> None:
    """Ask for the other's key, then send every line that is typed."""
    other, other_port = ("bob", 8002) if name == "alice" else ("alice", 8001)
    async with NetworkService(name, name, "127.0.0.1", port, handler=handler) as network:
        print("my key:", network.pubkey_hex)
        key = (await asyncio.to_thread(input, f"{other}'s key: ")).strip()
        peer = PeerInfo(id=other, host="127.0.0.1", port=other_port, pubkey_hex=key)
        print("waiting for", other)
        await network.connect_to_peer(peer, persist=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                await network.send_message_to(other, Message(MessageType.CHAT, name, line.strip().encode()))
            except NetworkError as error:
                print(error)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
