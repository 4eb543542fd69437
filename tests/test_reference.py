"""The reference names everything that can be used: what each public class has, message types, events, metrics."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import musignet
from musignet import Limits, MessageType, Transport
from musignet.app.api.table import ENDPOINTS
from musignet.node.effects import News
from musignet.signing.effects import News as SigningNews

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
API = (ROOT / "docs" / "api.md").read_text("utf-8")

SECTIONS = dict(re.findall(r"^### `(\w+)`\s*\n(.*?)(?=^##|\Z)", REFERENCE, re.MULTILINE | re.DOTALL))
CLASSES = [name for name in musignet.__all__ if inspect.isclass(getattr(musignet, name))]


def members(kind: type) -> set[str]:
    """Return what a class of ours and its bases have: methods, properties, attributes with a type."""
    ours = [one for one in kind.__mro__ if one.__module__.startswith("musignet")]
    named = {name for one in ours for name in (*vars(one), *inspect.get_annotations(one))}
    return {name for name in named if not name.startswith("_")}


def explained(kind: type) -> str:
    """Return the sections of a class, of its public bases, and for a carrier that of the protocol."""
    names = [one.__name__ for one in kind.__mro__]
    if issubclass(kind, musignet.TcpTransport | musignet.TlsTransport | musignet.MemoryTransport):
        names += ["TcpTransport", Transport.__name__]
    return "".join(SECTIONS.get(name, "") for name in names)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != Limits.__name__])
def test_what_a_class_has_is_in_the_reference(name: str) -> None:
    kind = getattr(musignet, name)
    code = " ".join(re.findall(r"`([^`]+)`", explained(kind)))
    assert [one for one in sorted(members(kind)) if not re.search(rf"\b{one}\b", code)] == []


def test_every_message_type_is_in_the_reference_and_no_other() -> None:
    assert set(re.findall(r"`([A-Z_]+)`", SECTIONS["MessageType"])) == set(MessageType.__members__)


def test_every_event_of_a_service_is_in_the_reference() -> None:
    told = {one.__name__ for one in News.__args__} - {"MessageArrived"}  # that one goes to the handler
    assert told <= set(SECTIONS)
    assert {one.__name__ for one in SigningNews.__args__} <= set(re.findall(r"`(\w+)`", SECTIONS["SessionNews"]))


def test_every_event_of_the_api_is_on_its_page_and_in_its_document() -> None:
    told = {"missed"}
    for path in (ROOT / "src" / "musignet" / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("events.publish"):
                told.add(ast.literal_eval(node.args[0]))
    (summary,) = (one.summary for one in ENDPOINTS if one.path == "/v1/events")
    assert set(re.findall(r"`(\w+)`", summary)) == told
    section = API[API.index("## Events") : API.index("## Metrics")]
    assert told <= set(re.findall(r"`(\w+)`[:,]", section))


def test_every_metric_is_on_the_page_with_its_label_and_its_meaning() -> None:
    pytest.importorskip("prometheus_client")
    from musignet.app.metrics import NAMES

    rows = [
        f"| `{name}` | {f'`{label}`: ' + ', '.join(values) if label else ''} | {note} |"
        for name, (note, label, values) in NAMES.items()
    ]
    assert [line for line in API.splitlines() if line.startswith("| `musignet_")] == rows
