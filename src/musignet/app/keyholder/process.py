"""The loop of the keyholder's process: one request after the other from standard input, answers to standard output.

It ends when standard input ends, which is when the node ends, and on SIGTERM: it forgets every secret and exits with 0.
SIGINT is the node's, but at the prompt: Ctrl-C reaches both, and the node closes the pipe when it is done. A journal
that fails ends it with 1; whatever was acknowledged is on disk, and the next start goes on from there.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from ... import limits
from ...bitcoin.walletkey import WalletKey
from ...chain import Chain
from ...errors import LocalError, NetworkError
from ...net.folder import DataFolder
from ...net.keystore import load_wallet_key
from ...signing import pipe
from ...signing.verbs import Asked, Refused, Reply, Verb
from ...text import safe
from ..passphrase_fd import from_fd
from ..tries import until_it_opens
from .vault import WALLET_KEY, Vault

__all__ = ["run"]

logger = logging.getLogger(__name__)

_INSECURE: Final = "INSECURE: the wallet key of this node is not encrypted, whoever has its files has the coins"
_TERMINAL: Final = "/dev/tty"


class _Stopped(BaseException):
    """SIGTERM came."""


class _Ended(Exception):
    """Standard input ended: the node is gone."""


def run(arguments: Sequence[str]) -> int:
    """Run until the node is gone. Returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="keyholder: %(message)s", stream=sys.stderr)
    wire = _Wire()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _Process(options, wire).run()
    except _Stopped:
        return 0
    except NetworkError as error:
        if not wire.last_word(error):
            logger.error("%s", error)
        return 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("musignet.app.keyholder", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="The keyholder's own folder.")
    parser.add_argument("--passphrase-fd", type=int, metavar="N", help="Read the passphrase from file descriptor N.")
    parser.add_argument("--insecure-no-passphrase", action="store_true", help="For tests; said at each start.")
    return parser.parse_args(arguments)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _opened(options: argparse.Namespace, path: Path) -> tuple[WalletKey, str | None]:
    """Return the wallet key and its passphrase. Asks where a person is, never the node."""
    if options.insecure_no_passphrase:
        logger.warning(_INSECURE)
        return load_wallet_key(path, None), None

    def opens(passphrase: str) -> tuple[WalletKey, str]:
        return load_wallet_key(path, passphrase), passphrase

    if options.passphrase_fd is not None:
        return opens(from_fd(options.passphrase_fd))
    return until_it_opens(partial(_ask, options.data.parent), opens, _tell)


def _ask(node: Path) -> str:
    """Ask at the terminal. There alone, Ctrl-C is for this process, too: the node says that it ends."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))  # without it getpass would read the node's pipe
        return getpass.getpass(f"Passphrase of the wallet in {safe(node, 200)}: ")
    except (OSError, EOFError):
        hint = "type it at the terminal, or musignet run --wallet-passphrase-fd N"
        raise LocalError("no passphrase for the wallet", hint=hint) from None
    except KeyboardInterrupt:
        raise _Stopped from None
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(wrong: str) -> None:
    with suppress(OSError), open(_TERMINAL, "w", encoding="utf-8") as terminal:
        terminal.write(f"{wrong}\n")


class _Wire:
    """The two pipes. Nothing else can write to the answers: standard output is standard error from here on."""

    def __init__(self) -> None:
        self._in = os.dup(0)
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._frames = pipe.Frames()

    def receive(self, wait_s: float | None) -> list[bytes]:
        """Return the frames that came within `wait_s`. Raises _Ended at the end."""
        if not select.select([self._in], [], [], wait_s)[0]:
            return []
        data = os.read(self._in, limits.PIPE_CHUNK_BYTES)
        if not data:
            raise _Ended
        return self._frames.feed_untrusted(data)

    def send(self, answer: pipe.Answer, group: bytes = pipe.NO_GROUP) -> None:
        """Write an answer. Raises _Ended when the node is gone."""
        data = memoryview(pipe.frame(answer, group))
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except BrokenPipeError:
            raise _Ended from None

    def last_word(self, error: NetworkError) -> bool:
        """Say why this process ends. Returns whether anybody still listens."""
        try:
            self.send(pipe.failed(error))
        except _Ended:
            return False
        return True


class _Process:
    def __init__(self, options: argparse.Namespace, wire: _Wire) -> None:
        self._wire = wire
        self._chain = Chain.MAINNET
        self._folder = DataFolder.lock(options.data)
        wallet, passphrase = _opened(options, self._folder.path / WALLET_KEY)
        with suppress(PermissionError):  # it leads a session already: there is no terminal to leave
            os.setsid()  # a terminal that closes ends the node, or does not; the node ends this
        self._vault = Vault(self._folder, wallet, passphrase, self._answered)

    def run(self) -> int:
        """Serve until the node is gone. Secrets are forgotten however it ends."""
        try:
            while True:
                for body in self._wire.receive(self._wait_s()):
                    self._handle(body)
                for custody in self._vault:
                    custody.wake()
        except _Ended:
            return 0
        finally:
            self._vault.close()
            self._folder.close()

    def _wait_s(self) -> float | None:
        return min((wait for one in self._vault if (wait := one.wait_s()) is not None), default=None)

    def _handle(self, body: bytes) -> None:
        """Do one thing. A frame that cannot be read or a journal that fails ends this process, a refusal does not."""
        group, request = pipe.read_request_untrusted(body)
        if isinstance(request, Verb):
            self._ask(group, request)
            return
        try:
            self._wire.send(*self._do(request))
        except NetworkError as error:
            self._wire.send(pipe.failed(error))

    def _do(
        self, request: pipe.Hello | pipe.AccountWanted | pipe.ProofWanted | pipe.PinWanted
    ) -> tuple[pipe.Answer, bytes]:
        if isinstance(request, pipe.Hello):
            if request.chain not in Chain._value2member_map_:
                raise LocalError("no such network", got=request.chain)
            self._chain = Chain(request.chain)
            self._vault.require_other_than(request.identity)
            account = self._vault.account(0, self._chain)
            return pipe.Ready(account, self._vault.insecure, self._vault.groups), pipe.NO_GROUP
        if isinstance(request, pipe.AccountWanted):
            return pipe.AccountIs(self._vault.account(request.number, self._chain)), pipe.NO_GROUP
        if isinstance(request, pipe.ProofWanted):
            proof = self._vault.prove(request.number, self._chain, request.statement)
            return pipe.ProofIs(proof), pipe.NO_GROUP
        return pipe.Pinned(), self._vault.pin(request.file, request.proof)

    def _ask(self, group: bytes, verb: Verb) -> None:
        try:
            custody = self._vault.get(group)
        except LocalError as error:
            self._answered(group, Refused(verb.session, type(verb), error))
            return
        custody.ask(verb)

    def _answered(self, group: bytes, reply: Reply) -> None:
        if isinstance(reply, Asked):
            self._wire.send(pipe.PersonAsked(reply.session, reply.digest, reply.replaces), group)
        elif isinstance(reply, Refused):
            number = pipe.REQUESTS.index(reply.verb)
            self._wire.send(pipe.VerbRefused(reply.session, number, *pipe.described(reply.error)), group)
        else:
            self._wire.send(reply, group)
