"""`musignet`: the command line. Each command is imported when it is used, so that `--help` is quick."""

from __future__ import annotations

from typing import Final

import click

from .lazy import LazyGroup, Place

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "init": Place("init", "Make the data folder: configuration, identity, wallet key."),
    "run": Place("run", "Run this node until it is told to stop."),
    "stop": Place("run", "Stop the running node."),
    "status": Place("status", "Show what the running node is doing."),
    "invite": Place("pairing", "Invite somebody: one word for them, then six words to compare."),
    "join": Place("pairing", "Answer an invite: then six words to compare."),
    "discover": Place("discover", "Show live which nodes are on the local network."),
    "doctor": Place("doctor", "Test whether peers can find and reach this node, and say what blocks."),
    "peers": Place("peers", "List the peers of this node, and why one is not let in."),
    "rename": Place("peers", "Give a peer another label."),
    "forget": Place("peers", "Hang up on a peer and take it out of the book."),
    "group": Place("group", "Make, list and show the wallets that this node shares."),
    "propose": Place("spend", "Ask a group to sign a PSBT."),
    "sessions": Place("sessions", "List signing sessions, the newest first."),
    "show": Place("sessions", "Show what a session would do: every output, the fee, every warning."),
    "approve": Place("approve", "Approve a session, after its review."),
    "reject": Place("spend", "Say no to a session."),
    "cancel": Place("spend", "Leave a session."),
    "export": Place("spend", "Write a session's transaction, PSBT or proof of a fault to standard output."),
    "import": Place("spend", "Bring a PSBT back from the signer that has this node's key."),
    "outbox": Place("outbox", "Write what waits for a peer that no link reaches, sealed."),
    "inbox": Place("inbox", "Read what a peer has sealed for this node."),
    "broadcast": Place("chain", "Pass on the finished transaction of a session."),
    "watch": Place("watch", "Show live how sessions go, and who is waited for."),
    "blame": Place("blame", "Check who is proved to have broken a ceremony."),
    "chat": Place("chat", "Talk to other nodes over encrypted links, every line signed."),
    "relay": Place("relay", "Keep a relay, where cosigners reach each other and leave messages for who is away."),
    "regtest": Place("regtest", "Keep a chain to play on, with coins that are worth nothing."),
    "demo": Place("demo", "Cosign a transaction: nodes in processes of their own, on a chain of their own."),
}
"""Every command, in the order in which they are listed. Groups of commands (`group`) have a table of their own."""

_EPILOG = """\b
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no node is running,
4 nothing came in time, 130 interrupted, 143 by SIGTERM,
129 by a closed terminal.
Completion: eval "$(_MUSIGNET_COMPLETE=bash_source musignet)"
in ~/.bashrc; zsh_source and fish_source for other shells.
"""


@click.group(cls=LazyGroup, places=COMMANDS, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="musignet")
@click.option("-v", "--verbose", is_flag=True, help="Log what the command does, to standard error.")
@click.pass_context
def main(context: click.Context, verbose: bool) -> None:
    """MuSigNet: the cosigners of one Bitcoin wallet find each other, connect, and sign together."""
    context.obj = verbose
