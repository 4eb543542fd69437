"""The floods as a table: a row for each, a column for each figure, what misses its aim marked."""

from __future__ import annotations

from typing import Any

from .plan import AIMS, Aim

__all__ = ["markdown", "table"]

_NEVER = 1e6
"""Milliseconds from which on something did not happen at all."""


def table(results: dict[str, Any]) -> str:
    """Return the table for a terminal."""
    lines = ["", f"{'':50}" + "".join(f"{aim.title:>28}" for aim in AIMS), f"{'aim':50}" + _aims()]
    for flood in results["floods"].values():
        lines.append(f"{flood['title']:50}" + "".join(f"{_cell(aim, flood[aim.key]):>28}" for aim in AIMS))
    return "\n".join(lines) + f"\n\n* misses its aim. {results['flood_s']:g} s each; {results['seconds']} s in all"


def markdown(results: dict[str, Any]) -> list[str]:
    """Return the lines of the section of RESULTS.md that are this table."""
    lines = [
        f"`{results['command']}`: {results['flood_s']:g} s each, against a fresh node with one processor of its own; "
        "attackers, its cosigner and an honest peer share the others. **Bold**: the aim is not reached.",
        "",
        "| flood | " + " | ".join(aim.title for aim in AIMS) + " |",
        "| --- |" + " --- |" * len(AIMS),
        "| *aim* | " + " | ".join(aim.said for aim in AIMS) + " |",
    ]
    for flood in results["floods"].values():
        cells = (_cell(aim, flood[aim.key], "**{}**") for aim in AIMS)
        overridden = ", ".join(f"{name}={value}" for name, value in flood["limits"].items())
        title = flood["title"] + (f" (`Limits({overridden})`)" if overridden else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _aims() -> str:
    return "".join(f"{aim.said:>28}" for aim in AIMS)


def _cell(aim: Aim, value: float, missed: str = "{} *") -> str:
    shown = "never" if value >= _NEVER else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
    return shown if aim.most is None or value <= aim.most else missed.format(shown)
