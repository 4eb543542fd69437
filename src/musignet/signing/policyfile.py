"""The policy file of one group: what this device signs by itself, what it asks a person about, what it refuses.

It is TOML and strict: a text that cannot be understood whole is no policy, and without a policy nothing is signed. The
file is read when the keyholder starts and, to be stricter, for each transaction. `TEMPLATE` explains every key.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from .. import limits
from ..bitcoin.address import script_of
from ..bitcoin.review import Review
from ..chain import Chain
from ..errors import LocalError
from .policy import Answer, Ask, Day, No, Yes

__all__ = ["TEMPLATE", "PolicyError", "Rules"]

TEMPLATE: Final = """\
# What this device does when a transaction of this group is proposed. An unknown key, or a value that cannot be
# understood, means that nothing is signed. What allows less holds for the next transaction; what allows more, and
# nonces_wait_h, only once the keyholder was started again. Amounts are whole satoshi.

# "ask": a person says yes to each transaction. "auto": what keeps every limit below is signed without a person, what
# does not is handled as `beyond` says. "never": nothing is signed. What the review itself wants a person for (a high
# fee, a far lock time) is asked in every mode.
mode = "ask"

# What happens to a transaction that breaks a limit: "ask" a person, or "refuse" it whatever a person says.
beyond = "ask"

# The most that one transaction may pay to others. All outputs count that are not change of this wallet.
# max_amount_sat = 1_000_000

# The same, fees included, for all transactions that were approved here within 24 hours, this one among them. An
# approval that was revoked, or expired, before anything was signed does not count.
# max_amount_per_day_sat = 5_000_000

# The only addresses that may be paid, change apart.
# allowed_addresses = ["bc1q...", "bc1p..."]

# The most that one transaction may pay the miners, in all and for each virtual byte.
# max_fee_sat = 50_000
# max_fee_rate_sat_vb = 100

# The most that all of them may pay the miners within 24 hours. With "auto" it is 1_000_000 unless said otherwise: a
# cosigner could have the wallet pay itself again and again.
# max_fee_per_day_sat = 200_000

# How many hours secret nonces may wait, in memory, for a cosigner whose part is carried by file, stick or QR code; 24
# at most. Without it they wait 120 seconds, which is right for every cosigner that is connected.
# nonces_wait_h = 6
"""

_Satoshi = Annotated[int, Meta(ge=0, le=limits.MONEY_MAX_SAT)]
_Address = Annotated[str, Meta(max_length=limits.BITCOIN_ADDRESS_MAX_CHARS)]


class PolicyError(LocalError):
    """A policy file that cannot be understood. Nothing is signed under it."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Literal["ask", "auto", "never"]
    beyond: Literal["ask", "refuse"] = "ask"
    max_amount_sat: _Satoshi | None = None
    max_amount_per_day_sat: _Satoshi | None = None
    allowed_addresses: Annotated[tuple[_Address, ...], Meta(max_length=limits.POLICY_ADDRESSES_MAX)] | None = None
    max_fee_sat: _Satoshi | None = None
    max_fee_rate_sat_vb: _Satoshi | None = None
    max_fee_per_day_sat: _Satoshi | None = None
    nonces_wait_h: Annotated[int, Meta(ge=1, le=int(limits.NONCE_TTL_MAX_S // 3600))] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy that was understood."""

    file: _File
    allowed: frozenset[bytes] | None
    """The scripts that may be paid; None for all."""

    @classmethod
    def parse_untrusted(cls, data: bytes, chain: Chain) -> Rules:
        """Return the rules in the bytes of a policy file.

        Raises: PolicyError naming the line or the key that cannot be understood.
        """
        file = _read_untrusted(data)
        if file.mode == "auto" and file.max_amount_per_day_sat is None and file.allowed_addresses is None:
            raise PolicyError(
                "a policy that signs anything", expected="max_amount_per_day_sat or allowed_addresses, with auto"
            )
        if file.allowed_addresses is None:
            return cls(file, None)
        try:
            return cls(file, frozenset(script_of(address, chain) for address in file.allowed_addresses))
        except LocalError as error:
            raise PolicyError(f"not a policy: allowed_addresses: {error}") from None

    @property
    def nonce_ttl_s(self) -> float:
        """How long secret nonces may wait, in memory, for the others'."""
        hours = self.file.nonces_wait_h
        return limits.NONCE_TTL_S if hours is None else hours * 3600.0

    def judge(self, review: Review, day: Day) -> Answer:
        """Return what to do about a transaction. Args: day - without this one."""
        if self.file.mode == "never":
            return No("this group is set to sign nothing")
        broken = self._broken(review, day)
        if broken is not None:
            return No(broken) if self.file.beyond == "refuse" else Ask()
        return Yes() if self.file.mode == "auto" else Ask()

    @property
    def _fee_per_day_sat(self) -> int | None:
        most = self.file.max_fee_per_day_sat
        return limits.FEE_CAP_SAT if most is None and self.file.mode == "auto" else most

    def _broken(self, review: Review, day: Day) -> str | None:
        """Return the first limit that it breaks, in words."""
        file = self.file
        bounds = (
            ("the amount", review.sent_sat, file.max_amount_sat),
            ("the amount of 24 hours", day.sat + review.sent_sat + review.fee_sat, file.max_amount_per_day_sat),
            ("the fee", review.fee_sat, file.max_fee_sat),
            ("the fees of 24 hours", day.fee_sat + review.fee_sat, self._fee_per_day_sat),
        )
        for name, value, most in bounds:
            if most is not None and value > most:
                return f"{name} would be {value} sat, more than {most} sat"
        if file.max_fee_rate_sat_vb is not None and review.fee_sat > file.max_fee_rate_sat_vb * review.vbytes:
            return f"the fee rate would be more than {file.max_fee_rate_sat_vb} sat/vB"
        if self.allowed is not None and not self._pays_only_allowed(review):
            return "it pays an address that is not on the list"
        return None

    def _pays_only_allowed(self, review: Review) -> bool:
        assert self.allowed is not None
        return all(one.out.script in self.allowed for one in review.outputs if one.change is None)


def _read_untrusted(data: bytes) -> _File:
    if len(data) > limits.POLICY_FILE_MAX_BYTES:
        raise PolicyError("not a policy", expected=f"at most {limits.POLICY_FILE_MAX_BYTES} bytes", got=len(data))
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), _File, strict=True)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"not a policy: {error}") from None
