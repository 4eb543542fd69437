"""The OpenAPI document, made from the table of routes: it cannot say anything else than what is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec

from .route import Endpoint, Problem

__all__ = ["describe"]

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"{(\w+)}")


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the document."""
    kinds = [one for endpoint in endpoints for one in (endpoint.body, endpoint.answer) if one is not None]
    schemas, components = msgspec.json.schema_components([Problem, *kinds], ref_template=_REF)
    by_kind = dict(zip(map(repr, [Problem, *kinds]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MuSigNet", "version": version("musignet")},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    kind = "text/event-stream" if endpoint.stream else "application/json"
    answer = schemas.get(repr(endpoint.answer), {"type": "null"})
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()} {endpoint.path[4:]}").strip("_"),
        "summary": endpoint.summary,
        "description": f"Needs the capability `{endpoint.needs.value}`.",
        "parameters": _parameters(endpoint),
        "responses": {
            "200": {"description": "Done", "content": {kind: {"schema": answer}}},
            "default": {
                "description": "Refused or failed",
                "content": {"application/json": {"schema": schemas[repr(Problem)]}},
            },
        },
    }
    if endpoint.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[repr(endpoint.body)]}},
        }
    return found


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string"}
    names = _PARAMETER.findall(endpoint.path)
    path = [{"name": name, "in": "path", "required": True, "schema": text} for name in names]
    query = [
        {"name": name, "in": "query", "description": note, "schema": text} for name, note in endpoint.query.items()
    ]
    return path + query
