"""Print docs/states.md: the state diagrams, drawn from the tables that the code runs. `make diagrams` writes it."""

from __future__ import annotations

from collections.abc import Iterator

from musignet.signing.states import TRANSITIONS, Role, State

_HEAD = """\
# States of a ceremony

Made by `make diagrams` from the tables in `src/musignet/signing/states.py`; a test fails when the two differ.
What a table does not list is refused.
"""


def _name(state: State) -> str:
    return state.name.lower()


def _lines(role: Role) -> Iterator[str]:
    table = TRANSITIONS[role]
    yield f"\n## {role.value.capitalize()}\n"
    yield "```mermaid"
    yield "stateDiagram-v2"
    reached = {to for ways in table.values() for to in ways.values()}
    known = dict.fromkeys([*table, *sorted(reached, key=_name)])
    yield from (f'    state "{state.value}" as {_name(state)}' for state in known)
    yield f"    [*] --> {_name(next(iter(table)))}"
    for state, ways in table.items():
        yield from (f"    {_name(state)} --> {_name(to)}: {event.value}" for event, to in ways.items())
    yield from (f"    {_name(state)} --> [*]" for state in known if not table.get(state))
    yield "```"


def page() -> str:
    """Return the whole page."""
    return _HEAD + "\n".join(line for role in TRANSITIONS for line in _lines(role)) + "\n"


if __name__ == "__main__":
    print(page(), end="")
