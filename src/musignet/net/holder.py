"""The node's side of a keyholder in a process of its own: it starts it, talks to it on two pipes, and sees it end.

The wallet's passphrase does not pass through here: the keyholder asks for it itself, at the terminal, or reads it from
a file descriptor that it is given.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from .. import limits
from ..bitcoin.group import Known
from ..chain import Chain
from ..errors import IoError, LocalError, NetworkError
from ..signing import pipe
from ..signing.group import SigningGroup
from ..signing.groupfile import GroupFile
from ..signing.proposal import Proposal
from ..signing.verbs import Approve, Approved, Asked, Refused, Reply, Verb
from ..wire.envelope import VerifiedMessage
from .clock import Clock

__all__ = ["HolderProcess"]

AnswerT = TypeVar("AnswerT")

logger = logging.getLogger(__name__)

_PROGRAM: Final = ("-P", "-m", "musignet.app.keyholder")  # -P: nothing is imported from the folder we happen to be in


class HolderProcess:
    """A keyholder process. Use `start`; then `account`, `pin_group`, and `of` for each group that it signs for.

    Args:
        folder:        the keyholder's own data folder.
        passphrase_fd: where it reads its passphrase from; at the terminal by default.
        insecure_no_passphrase: its files have none.
    """

    def __init__(self, folder: Path, *, passphrase_fd: int | None = None, insecure_no_passphrase: bool = False) -> None:
        self._arguments = [*_PROGRAM, "--data", str(folder)]
        self._fds = () if passphrase_fd is None else (passphrase_fd,)
        if passphrase_fd is not None:
            self._arguments += ["--passphrase-fd", str(passphrase_fd)]
        if insecure_no_passphrase:
            self._arguments.append("--insecure-no-passphrase")
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._wanted: deque[asyncio.Future[Any]] = deque()
        self._seats: dict[bytes, _Seat] = {}
        self._ready: pipe.Ready | None = None
        self._stopping = False
        self._why: NetworkError | None = None

    async def start(self, identity: bytes, chain: Chain) -> None:
        """Start it, and wait until it has its keys: a person may have to type.

        Args:   identity - the node's identity key, 33 bytes, which the wallet key must not be.
        Raises: what the keyholder said: AuthenticationError for a wrong passphrase, IoError for a damaged journal or
                a file that others may read, LocalError; IoError when it ended without a word.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=self._fds,
        )
        self._reader = asyncio.create_task(self._read(asyncio.create_task(_log(self._process))))
        try:
            self._ready = await self._want(pipe.Hello(identity, chain), pipe.Ready)
        except BaseException:
            await self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id. Raises LocalError before `start`."""
        if self._process is None:
            raise LocalError("the keyholder is not started")
        return self._process.pid

    @property
    def ready(self) -> pipe.Ready:
        """What it said when it had its keys: its first account, whether it is insecure, the groups pinned then."""
        if self._ready is None:
            raise LocalError("the keyholder is not started")
        return self._ready

    async def account(self, number: int) -> str:
        """Return the public key of account `number`, with its origin, as it goes into a descriptor."""
        answer = await self._want(pipe.AccountWanted(number), pipe.AccountIs)
        return answer.account

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Return the proof that account `number`'s key is held, for a founding (`possession_statement`). 64 bytes."""
        answer = await self._want(pipe.ProofWanted(number, statement), pipe.ProofIs)
        return answer.proof

    async def pin_group(self, file: GroupFile | bytes, proof: bytes) -> None:
        """Have it cosign in a group from now on. `proof` is `approver.prove_group`. Twice is harmless.

        Raises: AuthenticationError for a proof that does not hold, LocalError when its key is not in the group.
        """
        data = file if isinstance(file, bytes) else file.encode()
        await self._want(pipe.PinWanted(data, proof), pipe.Pinned)

    def of(self, group: SigningGroup, known: Known | None = None) -> Callable[[Callable[[Reply], None]], _Seat]:
        """Return what `NetworkService.cosign_with` takes for a pinned group. `known` is for the reviews shown here."""

        def sit(answer: Callable[[Reply], None]) -> _Seat:
            seat = self._seats[group.id] = _Seat(self, group, known or Known(), answer)
            return seat

        return sit

    async def gone(self) -> NetworkError:
        """Return once it has ended though nobody asked for that: why, as far as it is known."""
        assert self._reader is not None
        await asyncio.wait([self._reader])
        if self._stopping:
            await asyncio.Event().wait()
        return self._why or IoError("the keyholder is gone", hint="start the node again; at most an attempt is lost")

    async def stop(self) -> None:
        """Have it forget its secrets and end. Twice is harmless."""
        self._stopping = True
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        patience_s = limits.HOLDER_ASKING_STOP_S if self._ready is None else limits.HOLDER_STOP_S
        for harder in (self._process.terminate, self._process.kill):
            try:
                await asyncio.wait_for(self._process.wait(), patience_s)
                break
            except TimeoutError:
                with suppress(ProcessLookupError):  # it ended just now
                    harder()
        await self._process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    def send(self, request: pipe.Request, group: bytes = pipe.NO_GROUP) -> None:
        """Write a request. Raises IoError when the keyholder is gone."""
        process, reader = self._process, self._reader
        if process is None or process.stdin is None or reader is None or reader.done() or self._stopping:
            raise IoError("the keyholder is gone", hint="start the node again")
        process.stdin.write(pipe.frame(request, group))

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _want(self, request: pipe.Request, kind: type[AnswerT]) -> AnswerT:
        self.send(request)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._wanted.append(future)
        answer = await future
        if not isinstance(answer, kind):
            raise IoError("the keyholder answered something else", got=type(answer).__name__)
        return answer

    async def _read(self, log: asyncio.Task[None]) -> None:
        """Take answers until it ends, and all of its log is written."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        frames = pipe.Frames()
        try:
            while data := await process.stdout.read(limits.PIPE_CHUNK_BYTES):
                for body in frames.feed_untrusted(data):
                    self._answered(*pipe.read_answer_untrusted(body))
        except NetworkError as error:
            self._why = error
            process.kill()
        await log
        gone = self._why or IoError("the keyholder is gone", hint="the lines before this one say why")
        for future in self._wanted:
            if not future.done():
                future.set_exception(gone)
        self._wanted.clear()

    def _answered(self, group: bytes, answer: pipe.Answer) -> None:
        if isinstance(answer, pipe.Failed | pipe.Ready | pipe.AccountIs | pipe.Pinned | pipe.ProofIs):
            self._settle(answer)
            return
        seat = self._seats.get(group)
        if seat is not None:
            seat.answered(answer)

    def _settle(self, answer: pipe.Answer) -> None:
        error = pipe.error_of(answer.kind, answer.text) if isinstance(answer, pipe.Failed) else None
        if not self._wanted:
            self._why = error or self._why  # its last word
            return
        future = self._wanted.popleft()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)


async def _log(process: asyncio.subprocess.Process) -> None:
    """Write what it says on standard error to the node's log: a node in the background has no terminal."""
    assert process.stderr is not None
    while data := await process.stderr.read(limits.PIPE_CHUNK_BYTES):
        for line in data.decode("utf-8", "replace").splitlines():
            logger.warning("%s", line)


class _Seat:
    """The keyholder of one group, as the node sees it: a `cosigner.Holder`."""

    def __init__(
        self, process: HolderProcess, group: SigningGroup, known: Known, answer: Callable[[Reply], None]
    ) -> None:
        self._process = process
        self._group = group
        self._known = known
        self._answer = answer
        self._now = Clock().now
        self._proposals: dict[bytes, VerifiedMessage] = {}

    def ask(self, verb: Verb) -> None:
        """Pass on a verb. Raises IoError when the keyholder is gone."""
        self._process.send(verb, self._group.id)
        if isinstance(verb, Approve):
            self._proposals[verb.session] = verb.proposal

    def close(self) -> None:
        """Answers go nowhere any more."""
        self._answer = _nowhere

    def answered(self, answer: pipe.Answer) -> None:
        """Take an answer of the keyholder, and give the node its own form of it."""
        if isinstance(answer, pipe.PersonAsked):
            self._answer(self._asked(answer))
        elif isinstance(answer, pipe.VerbRefused):
            self._proposals.pop(answer.session, None)
            verb = pipe.REQUESTS[answer.verb] if answer.verb < len(pipe.REQUESTS) else Approve
            self._answer(Refused(answer.session, verb, pipe.error_of(answer.kind, answer.text)))
        elif isinstance(answer, Reply):
            if isinstance(answer, Approved):
                self._proposals.pop(answer.session, None)
            self._answer(answer)

    def _asked(self, answer: pipe.PersonAsked) -> Reply:
        """The review is our own, of the same proposal: it is for showing, the keyholder goes by its own."""
        message = self._proposals.pop(answer.session, None)
        try:
            if message is None:
                raise LocalError("the keyholder asks about a session that it was not asked about")
            review = Proposal.open_untrusted(message, self._group).review(self._group, self._known, self._now())
        except NetworkError as error:
            return Refused(answer.session, Approve, error.with_traceback(None))
        return Asked(answer.session, answer.digest, review, answer.replaces)


def _nowhere(_: Reply) -> None:
    return None
