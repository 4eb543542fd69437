"""Descriptors `tr(musig(KEY,...)...)` (BIP-380, 386, 389, 390): what a wallet's addresses are derived from.

    tr(musig(xpub1,xpub2)/<0;1>/*)         the aggregate key is derived (BIP-328)
    tr(musig(xpub1/<0;1>/*,xpub2/<0;1>/*)) each key is derived, then all are aggregated

Only the key path for now: a script tree is refused, and so is everything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from .. import limits
from ..chain import Chain
from ..crypto.keyagg import KeyAggCache
from ..errors import InvalidMessage
from . import taproot, wally
from .bip32 import HARDENED, KeyOrigin, Xpub, aggregate, derive, is_point, synthetic
from .taproot import Tweak

__all__ = ["Aggregated", "Derived", "Descriptor", "KeyExpression", "Participant", "checksum"]

WILDCARD: Final = "*"
PathStep: TypeAlias = int | tuple[int, ...] | str
"""A number, the alternatives of `<0;1>`, or the wildcard."""

# --- BIP-380 checksum -------------------------------------------------------------------------------------------------

_INPUT: Final = (
    "0123456789()[],'/*abcdefgh@:$%{}"
    "IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~"
    "ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
)  # fmt: skip
_OUTPUT: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
_LOW_35: Final = (1 << 35) - 1


def checksum(text: str) -> str:
    """Return the eight characters that follow `#` (BIP-380).

    Raises: InvalidMessage for a character that no descriptor has.
    """
    state, group, inside = 1, 0, 0
    for char in text:
        position = _INPUT.find(char)
        if position < 0:
            raise InvalidMessage("not a descriptor", expected="the characters of BIP-380", got=char)
        state = _step(state, position & 31)
        group, inside = group * 3 + (position >> 5), inside + 1
        if inside == 3:
            state, group, inside = _step(state, group), 0, 0
    if inside:
        state = _step(state, group)
    for _ in range(8):
        state = _step(state, 0)
    state ^= 1
    return "".join(_OUTPUT[(state >> 5 * (7 - place)) & 31] for place in range(8))


def _step(state: int, value: int) -> int:
    top = state >> 35
    state = (state & _LOW_35) << 5 ^ value
    for bit, constant in enumerate(_GENERATOR):
        if top >> bit & 1:
            state ^= constant
    return state


# --- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyExpression:
    """One cosigner's key in a descriptor: an extended key with a path, or a plain point without one."""

    key: Xpub | bytes
    origin: KeyOrigin | None
    path: tuple[PathStep, ...]

    def at(self, branch: int, index: int) -> tuple[bytes, tuple[int, ...]]:
        """Return the point at (branch, index), and the path to it from the key that is written in the descriptor."""
        path = _resolve(self.path, branch, index)
        if isinstance(self.key, bytes):
            return self.key, path
        steps = derive(self.key.point, self.key.chaincode, path)
        return (steps[-1].point if steps else self.key.point), path

    def root(self) -> KeyOrigin:
        """Return its origin: the one that is written, or itself as a master key."""
        if self.origin is not None:
            return self.origin
        point = self.key if isinstance(self.key, bytes) else self.key.point
        return KeyOrigin(wally.hash160(point)[:4], ())

    def __str__(self) -> str:
        key = self.key.hex() if isinstance(self.key, bytes) else str(self.key)
        origin = f"[{self.origin.fingerprint.hex()}{_show(self.origin.path)}]" if self.origin else ""
        return origin + key + _show(self.path)


@dataclass(frozen=True, slots=True)
class Participant:
    """One cosigner's key for one address."""

    pubkey: bytes
    """33 bytes: what is aggregated."""
    member: int
    """Whose it is: the position of the key expression in the descriptor."""
    path: tuple[int, ...]
    """The steps from the key in the descriptor to it."""


class Aggregated(NamedTuple):
    """Participants and what they aggregate to."""

    participants: tuple[Participant, ...]
    """In aggregation order: KeySort (BIP-390)."""
    key: bytes
    """33 bytes, untweaked."""


@dataclass(frozen=True, slots=True)
class Derived:
    """Everything about one address of a descriptor."""

    branch: int
    index: int
    participants: tuple[Participant, ...]
    """In aggregation order: KeySort (BIP-390)."""
    aggregate: bytes
    """33 bytes, untweaked: what BIP-373 files participants under."""
    path: tuple[int, ...]
    """The steps of BIP-328 from the aggregate key to the internal key."""
    internal: bytes
    """33 bytes."""
    output: bytes
    """33 bytes with parity: the final signing key, by which BIP-373 files nonces and partial signatures."""
    tweaks: tuple[Tweak, ...]
    """What turns `aggregate` into `output`, in order."""

    @property
    def script(self) -> bytes:
        """The scriptPubKey, 34 bytes."""
        return taproot.output_script(self.output)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A parsed `tr(musig(...)...)`. `str` gives it back in the one spelling of this library, with its checksum."""

    members: tuple[KeyExpression, ...]
    path: tuple[PathStep, ...]
    """The steps behind `musig(...)`, taken from the aggregate key."""

    @classmethod
    def parse_untrusted(cls, text: str) -> Descriptor:
        """Return the descriptor in `text`; a checksum is checked where there is one.

        Raises: InvalidMessage saying what is refused and why: scripts, private keys, hardened steps, other kinds.
        """
        if len(text) > limits.DESCRIPTOR_MAX_CHARS:
            raise InvalidMessage(
                "the descriptor is too long", expected=f"at most {limits.DESCRIPTOR_MAX_CHARS} characters"
            )
        body, mark, given = text.partition("#")
        right = checksum(body)
        if mark and given != right:
            raise InvalidMessage("the descriptor has a wrong checksum", expected=f"#{right}", got=f"#{given}")
        keys, path = _split(body)
        descriptor = cls(tuple(_key_expression(key) for key in keys), _path(path))
        descriptor._check()
        return descriptor

    def _check(self) -> None:
        """BIP-389 and BIP-390: what may follow what."""
        paths = (self.path, *(member.path for member in self.members))
        widths = {len(step) for path in paths for step in path if isinstance(step, tuple)}
        if len(widths) > 1:
            raise InvalidMessage("multipath steps of different widths", expected="one width, such as <0;1>")
        for member in self.members:
            if isinstance(member.key, bytes) and (member.path or self.path):
                raise InvalidMessage("a path needs extended keys", expected="xpub or tpub", got=str(member))
            if self.path and not all(isinstance(step, int) for step in member.path):
                raise InvalidMessage("keys with /* or <;> below a musig() that has a path itself", got=str(member))

    @property
    def branches(self) -> int:
        """How many alternatives `<0;1>` gives: 2 for receiving and change, 1 where there is none."""
        widths = [len(step) for path in self._paths() for step in path if isinstance(step, tuple)]
        return widths[0] if widths else 1

    @property
    def ranged(self) -> bool:
        """Whether it has a wildcard: an address for every index rather than one."""
        return any(WILDCARD in path for path in self._paths())

    def _paths(self) -> tuple[tuple[PathStep, ...], ...]:
        return (self.path, *(member.path for member in self.members))

    def aggregated(self, branch: int, index: int, cache: KeyAggCache | None = None) -> Aggregated:
        """Return the participants at (branch, index) in aggregation order, and their aggregate.

        It is the same everywhere for a descriptor with a `path`: aggregate once, and give it to `derive`.
        """
        points = [member.at(branch, index) for member in self.members]
        participants = sorted(
            (Participant(point, member, path) for member, (point, path) in enumerate(points)),
            key=lambda one: (one.pubkey, one.member),
        )
        return Aggregated(tuple(participants), aggregate(tuple(one.pubkey for one in participants), cache))

    def derive(self, branch: int, index: int, aggregated: Aggregated | None = None) -> Derived:
        """Return the address at `branch` (0 where there is no `<0;1>`) and `index` (0 where there is no `*`).

        Raises: InvalidMessage for a hardened index, or a child that does not exist.
        """
        participants, key = aggregated or self.aggregated(branch, index)
        path = _resolve(self.path, branch, index)
        steps = derive(key, synthetic(key, Chain.MAINNET).chaincode, path)
        internal = steps[-1].point if steps else key
        tap, output = taproot.output_key(internal[1:])
        tweaks = (*(Tweak(step.tweak, xonly=False) for step in steps), tap)
        return Derived(branch, index, participants, key, path, internal, output, tweaks)

    def locate(self, path: tuple[int, ...]) -> tuple[int, int] | None:
        """Return the (branch, index) that a path ends in, or None where it is no path of this descriptor.

        A hint, whoever wrote it: derive there and compare.
        """
        for pattern in {self.path} if self.path else {member.path for member in self.members}:
            tail = path[len(path) - len(pattern) :] if len(pattern) <= len(path) else ()
            found = _match(pattern, tail) if len(tail) == len(pattern) else None
            if found is not None:
                return found
        return None

    def canonical(self) -> str:
        """Return the text that is equal for equal wallets: keys sorted, origins left out, with its checksum.

        The order of keys means nothing (BIP-390), and origins say nothing about addresses.
        """
        keys = sorted(str(KeyExpression(member.key, None, member.path)) for member in self.members)
        return self._text(keys)

    def __str__(self) -> str:
        return self._text([str(member) for member in self.members])

    def _text(self, keys: list[str]) -> str:
        body = f"tr(musig({','.join(keys)}){_show(self.path)})"
        return f"{body}#{checksum(body)}"


def _resolve(path: tuple[PathStep, ...], branch: int, index: int) -> tuple[int, ...]:
    return tuple(step[branch] if isinstance(step, tuple) else index if isinstance(step, str) else step for step in path)


def _match(pattern: tuple[PathStep, ...], path: tuple[int, ...]) -> tuple[int, int] | None:
    branch = index = 0
    for step, number in zip(pattern, path, strict=True):
        if isinstance(step, tuple) and number in step:
            branch = step.index(number)
        elif isinstance(step, str) and number < HARDENED:
            index = number
        elif step != number:
            return None
    return branch, index


def _show(path: tuple[PathStep, ...]) -> str:
    return "".join(f"/{_show_step(step)}" for step in path)


def _show_step(step: PathStep) -> str:
    if isinstance(step, tuple):
        return f"<{';'.join(map(str, step))}>"
    if isinstance(step, int) and step >= HARDENED:
        return f"{step - HARDENED}h"
    return str(step)


# --- grammar ----------------------------------------------------------------------------------------------------------

_MUSIG: Final = re.compile(r"tr\(musig\(([^()]*)\)([^(),]*)(?:,(.*))?\)", re.ASCII)
_KEY: Final = re.compile(r"(?:\[([0-9a-fA-F]{8})((?:/[^/\[\]]+)*)\])?([0-9A-Za-z]+)((?:/[^/]+)*)", re.ASCII)
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,9})([h']?)", re.ASCII)
_MULTIPATH: Final = re.compile(r"<([0-9;]+)>", re.ASCII)
_POINT: Final = re.compile(r"0[23][0-9a-fA-F]{64}", re.ASCII)
_WIF: Final = re.compile(r"[5KLc9][1-9A-HJ-NP-Za-km-z]{50,51}", re.ASCII)


def _split(body: str) -> tuple[list[str], str]:
    """Return the texts of the keys, and of the path behind `musig(...)`."""
    match = _MUSIG.fullmatch(body)
    if match is None:
        raise InvalidMessage(
            "not a descriptor of a MuSig2 wallet",
            expected="tr(musig(xpub,xpub)/<0;1>/*) or tr(musig(xpub/<0;1>/*,xpub/<0;1>/*))",
            got=body[:10],
            hint="rawtr(), wsh() and other kinds cannot be cosigned here",
        )
    keys, path, tree = match.groups()
    if tree is not None:
        raise InvalidMessage(
            "a descriptor with a script tree",
            expected="tr(musig(...)...) with a key path only",
            got=tree[:10],
            hint="script paths are not supported yet",
        )
    listed = keys.split(",")
    if len(listed) > limits.GROUP_KEYS_MAX:
        raise InvalidMessage("too many keys in musig()", expected=f"at most {limits.GROUP_KEYS_MAX}", got=len(listed))
    return listed, path


def _key_expression(text: str) -> KeyExpression:
    match = _KEY.fullmatch(text)
    if match is None:
        raise InvalidMessage("not a key", expected="an extended public key or 33 bytes in hex", got=text[:10])
    fingerprint, origin_path, key, path = match.groups()
    origin = KeyOrigin(bytes.fromhex(fingerprint), _origin_path(origin_path)) if fingerprint else None
    return KeyExpression(_key(key), origin, _path(path))


def _key(text: str) -> Xpub | bytes:
    if _WIF.fullmatch(text):
        raise InvalidMessage("a private key where a public one belongs", hint="move its funds: it was shown")
    if _POINT.fullmatch(text):
        point = bytes.fromhex(text)
        if not is_point(point):
            raise InvalidMessage("not a point of the curve", got=text)
        return point
    return Xpub.parse_untrusted(text)


def _origin_path(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split("/")[1:])


def _number(text: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or (number := int(match[1])) >= HARDENED:
        raise InvalidMessage("not a step of a path", expected="0 to 2147483647, h or ' for hardened", got=text[:20])
    return number + (HARDENED if match[2] else 0)


def _path(text: str) -> tuple[PathStep, ...]:
    """Parse `/0/<0;1>/*`. BIP-389: one multipath at most; BIP-380: the wildcard comes last."""
    if text and not text.startswith("/"):
        raise InvalidMessage("not a path", expected="/ between steps", got=text[:20])
    path = tuple(_path_step(part) for part in text.split("/")[1:])
    if WILDCARD in path[:-1] or sum(isinstance(step, tuple) for step in path) > 1:
        raise InvalidMessage("not a path", expected="at most one <0;1>, and * only at the end", got=text[:40])
    return path


def _path_step(text: str) -> PathStep:
    if text == WILDCARD:
        return WILDCARD
    match = _MULTIPATH.fullmatch(text)
    if match is None:
        return _unhardened(text)
    steps = tuple(_unhardened(part) for part in match[1].split(";"))
    if len(steps) < 2 or len(set(steps)) != len(steps):
        raise InvalidMessage("not a multipath step", expected="different numbers, such as <0;1>", got=text[:40])
    return steps


def _unhardened(text: str) -> int:
    number = 0 if text in ("*h", "*'") else _number(text)
    if number >= HARDENED or text in ("*h", "*'"):
        raise InvalidMessage(
            "a hardened step below a public key", expected="unhardened steps", got=text[:20],
            hint="derive the account key first and write its xpub",
        )  # fmt: skip
    return number
