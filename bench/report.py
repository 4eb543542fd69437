"""Results as a table for the terminal, and as the Markdown of bench/RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .flood.table import markdown as flood_table
from .stats import ratios, spread

__all__ = ["markdown", "table"]


class Row(NamedTuple):
    """One contestant's figure. `ratio` is None where there is no floor; `met` where there is no aim."""

    title: str
    unit: str
    contestant: str
    value: dict[str, float]
    ratio: dict[str, float] | None
    aim: str
    met: bool | None


def rows(results: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of a result, figure by figure."""
    for measure in results["measures"].values():
        for name, figure in measure["figures"].items():
            for contestant, samples in measure["samples"].items():
                if name in samples:
                    title = results["titles"][contestant]
                    yield _row(
                        name,
                        figure,
                        contestant,
                        title,
                        samples[name],
                        measure["samples"].get(measure.get("floor", "floor")),
                    )


def _row(name: str, figure: dict[str, Any], contestant: str, title: str, values: list[float], floor: Any) -> Row:
    value = spread(values)
    ratio = None if floor is None else ratios(values, floor[name])
    is_ours = contestant in ("ours", "imports")
    met: bool | None = None
    if is_ours and figure["aim_value"] is not None:
        met = value["median"] <= figure["aim_value"]
    elif is_ours and figure["aim"] is not None and ratio is not None:
        reached = ratio["median"]
        met = reached >= figure["aim"] if figure["higher_is_better"] else reached <= figure["aim"]
    aim = figure["aim_said"] if is_ours else ""
    return Row(figure["title"], figure["unit"], title, value, ratio, aim, met)


def table(results: dict[str, Any]) -> str:
    """Return the table for a terminal."""
    lines, title = [""], ""
    for row in rows(results):
        if row.title != title:
            title = row.title
            lines.append(f"\n{title}, {row.unit}" if row.unit else f"\n{title}")
        ratio = f"{row.ratio['median']:6.2f}x" if row.ratio else " " * 7
        lines.append(
            f"  {row.contestant:36}{_number(row.value['median']):>10} {ratio}   {row.aim:28}{_met(row)}".rstrip()
        )
    if results["quick"]:
        lines.append("\n--quick: this shows that it runs, not how fast.")
    return "\n".join(lines) + f"\n\n{results['rounds']} rounds in {results['seconds']} s"


def markdown(all_results: Sequence[dict[str, Any]], preface: str = "") -> str:
    """Return the whole of RESULTS.md: what a person wrote about the figures, then each result, the machine named."""
    head = ["# Results", "", "Written by `python -m bench report`; what is compared and how stands in README.md.", ""]
    parts = [preface.strip(), ""] if preface else []
    return "\n".join([*head, *parts, "\n".join(_section(results) for results in all_results)])


def _section(results: dict[str, Any]) -> str:
    machine = results["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    head = [
        f"## {results['case'].capitalize()}",
        "",
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, "
        f"{machine['python']}; {libraries}. Revision {machine['revision']}. "
        f"Load average before the run: {machine['load_before']}.",
        "",
    ]
    lines = flood_table(results) if results["case"] == "flood" else _compared(results)
    return "\n".join([*head, *lines]) + "\n"


def _compared(results: dict[str, Any]) -> list[str]:
    overridden = ", ".join(f"{name}={value}" for name, value in results.get("limits", {}).items())
    lines = [
        f"`{results['command']}`: medians of {results['rounds']} alternating rounds, least and greatest in brackets; "
        "ratios to the floor are taken round by round."
        + (f" Ours runs with `Limits({overridden})`." if overridden else ""),
        "",
        "| figure | who | median (min to max) | ratio to the floor | aim | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    title = ""
    for row in rows(results):
        shown = "" if row.title == title else f"{row.title}, {row.unit}"
        title = row.title
        ratio = f"{row.ratio['median']:.2f} ({row.ratio['min']:.2f} to {row.ratio['max']:.2f})" if row.ratio else ""
        value = f"{_number(row.value['median'])} ({_number(row.value['min'])} to {_number(row.value['max'])})"
        lines.append(f"| {shown} | {row.contestant} | {value} | {ratio} | {row.aim} | {_met(row)} |")
    return lines


def _met(row: Row) -> str:
    return "" if row.met is None else "reached" if row.met else "not reached"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.0f}" if value >= 100 else f"{value:.2f}"
