"""BIP-327 signing, the secret half: nonces that are made once, used once, and never seen.

    slot: empty --generate--> ready --partial_sign--> spent

There is no way back, and an error is a way forward: whatever fails, the slot is spent. A slot that is spent stays so;
the next attempt has a `SecretNonces` of its own (THREATS.md "Nonce reuse").
"""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn

from ..errors import LocalError
from ..limits import SLOTS_MAX
from . import backend, musig_backend
from .keyagg import KeyAgg
from .keys import SigningKey
from .musig2 import PublicNonce, SigningSession
from .secret import SecretBuffer

__all__ = ["NonceSpentError", "SecretNonces", "SelfCheckError", "WrongKeyError", "WrongSessionError"]

_RANDOM_BYTES: Final = 32
_STRIDE: Final = musig_backend.SECRET_NONCE_BYTES + _RANDOM_BYTES
_NEXT_ATTEMPT: Final = "nothing was signed; the next attempt has fresh nonces"


class NonceSpentError(LocalError):
    """The slot holds no secret nonce: never made, used, wiped, or left behind by a fork. Nothing was signed."""


class WrongKeyError(LocalError):
    """The key is none of the aggregate's, or not the one the nonce was made for. Nothing was signed."""


class WrongSessionError(LocalError):
    """The session is for another message or another aggregate key than the nonce was made for. Nothing was signed."""


class SelfCheckError(LocalError):
    """Our own partial signature did not verify and was thrown away: a fault of memory, processor or library.

    It blames no peer. A wrong signature may leak the key (BIP-327 "Signing"), so it must not leave.
    """


class _Made(NamedTuple):
    """What a nonce was made for, and its public half."""

    key: bytes
    output: bytes
    message: bytes
    nonce: PublicNonce


class SecretNonces:
    """The secret nonces of one attempt: one slot for each input and key, in one piece of protected memory.

    They cannot be copied, pickled, printed or read. They are wiped one by one as they are used, all by `wipe`, when
    the object dies, and at exit; in a forked child they are zero. A slot can be taken from any number of threads, and
    exactly one gets it. Generating and wiping belong to one thread.
    """

    __slots__ = ("_empty", "_memory", "_ready", "slots")

    def __init__(self, slots: int) -> None:
        """Make room for `slots` nonces, numbered from 0. Raises LocalError for less than 1 or more than `SLOTS_MAX`."""
        if not 1 <= slots <= SLOTS_MAX:
            raise LocalError("cannot make that many nonces at once", expected=f"1 to {SLOTS_MAX}", got=slots)
        self.slots: Final = slots
        self._memory = SecretBuffer(slots * _STRIDE)
        self._empty = set(range(slots))
        self._ready: dict[int, _Made] = {}

    def generate(
        self, slot: int, random: bytes, *, key: SigningKey, keyagg: KeyAgg, message: bytes, extra: bytes
    ) -> PublicNonce:
        """Fill an empty slot and return its public nonce: BIP-327 "Nonce Generation", with every optional input.

        Args:
            random:  32 fresh bytes from the operating system, for this call alone. Drop them afterwards.
            key:     who will sign; one of `keyagg`'s.
            keyagg:  with all its tweaks.
            message: the 32-byte digest that will be signed.
            extra:   32 bytes that never repeat, should `random` ever do: a digest of session, boot epoch, attempt,
                     time and slot (THREATS.md K8).
        Raises: WrongKeyError; LocalError when the slot is not empty, a length is wrong, `random` is all zero, or the
                key was wiped. The slot is spent then, too.
        """
        try:
            self._empty.remove(slot)
        except KeyError:
            raise LocalError("that slot is not empty", expected=f"0 to {self.slots - 1}, each once", got=slot) from None
        if key.public not in keyagg:
            raise WrongKeyError(f"{key!r} is none of the keys of {keyagg!r}")
        if len(random) != _RANDOM_BYTES or not any(random):
            raise LocalError("that is not randomness", expected="32 random bytes", hint="do not go on with this source")
        nonce = self._generate(slot, random, key, keyagg, message, extra)
        self._ready[slot] = _Made(key.pubkey, keyagg.output.compressed, message, nonce)
        return nonce

    def _generate(
        self, slot: int, random: bytes, key: SigningKey, keyagg: KeyAgg, message: bytes, extra: bytes
    ) -> PublicNonce:
        at = slot * _STRIDE
        random_at = at + musig_backend.SECRET_NONCE_BYTES
        self._memory.load(random, random_at)
        try:
            handle = musig_backend.nonce_gen(
                musig_backend.secret_nonce_at(self._memory.view, at),
                self._memory.view + random_at,
                key.secret.view,
                key.public.point,
                message,
                keyagg.context,
                extra,
            )
        except backend.BackendError as error:
            self._erase(slot)
            raise LocalError(f"cannot make a nonce for {key!r}: {error}") from None
        return PublicNonce(musig_backend.nonce_serialize(handle), handle)

    def partial_sign(self, slot: int, key: SigningKey, session: SigningSession) -> bytes:
        """Sign with the nonce of `slot`, which is spent by the call, also by one that fails: BIP-327 "Signing".

        Returns: 32 bytes, which verified under our own public nonce. Store them before they are sent (THREATS.md K3).
        Raises:  NonceSpentError, WrongKeyError, WrongSessionError, SelfCheckError; nothing was signed then.
        """
        made = self._ready.pop(slot, None)  # one atomic step, before anything that can fail
        if made is None:
            raise NonceSpentError(f"slot {slot} holds no secret nonce", hint=_NEXT_ATTEMPT)
        try:
            return self._partial_sign(slot, made, key, session)
        finally:
            self._erase(slot)

    def _partial_sign(self, slot: int, made: _Made, key: SigningKey, session: SigningSession) -> bytes:
        _require_made_for(made, key, session)
        context, values = session.keyagg.context, session.values
        nonce = musig_backend.secret_nonce_at(self._memory.view, slot * _STRIDE)
        try:
            partial = musig_backend.partial_sign(nonce, key.pair, context, values)
        except backend.BackendError as error:
            raise NonceSpentError(
                f"the nonce or the key was wiped, or left behind by a fork: {error}", hint=_NEXT_ATTEMPT
            ) from None
        if not musig_backend.partial_verify(partial, made.nonce.handle, key.public.point, context, values):
            raise SelfCheckError("our own partial signature does not verify", hint=_NEXT_ATTEMPT)
        return musig_backend.partial_serialize(partial)

    def _erase(self, slot: int) -> None:
        backend.secret_zero(self._memory.view + slot * _STRIDE, _STRIDE)

    def wipe(self) -> None:
        """Forget all nonces now and for good. Nothing can be generated or signed here any more."""
        self._empty.clear()
        self._ready.clear()
        self._memory.wipe()

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("secret nonces cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return f"<SecretNonces: {self.slots} slots>"


def _require_made_for(made: _Made, key: SigningKey, session: SigningSession) -> None:
    """Refuse a key or a session that the nonce was not made for: it was not for this that it was approved."""
    if key.pubkey != made.key:
        raise WrongKeyError("the nonce was made for another key", hint=_NEXT_ATTEMPT)
    if key.public not in session.keyagg:  # libsecp256k1 does not look
        raise WrongKeyError(f"{key!r} is none of the keys of {session.keyagg!r}", hint=_NEXT_ATTEMPT)
    if session.message != made.message:
        raise WrongSessionError("the nonce was made for another message", hint=_NEXT_ATTEMPT)
    if session.keyagg.output.compressed != made.output:
        raise WrongSessionError("the nonce was made for another aggregate key", hint=_NEXT_ATTEMPT)
