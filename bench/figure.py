"""One number of a measure, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """One number of a measure. `aim` bounds our ratio to the floor, `aim_value` the number itself."""

    title: str
    unit: str
    higher_is_better: bool = False
    aim: float | None = None
    aim_value: float | None = None
    aim_said: str = ""
