"""The OpenAPI 3.1 document, made from the table of calls and the structs of `fanout.wire`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from fanout import wire
from fanout.api import bodies
from fanout.api.routes import Row
from fanout.errors import CATALOGUE

_TEMPLATE = "#/components/schemas/{name}"


def document(rows: Sequence[Row], version: str) -> dict[str, Any]:
    """The whole document as plain JSON values."""
    kinds = [kind for row in rows for kind in (row.takes, row.answers) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, wire.ErrorBody], ref_template=_TEMPLATE)
    schema_of = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        takes = next(schema_of) if row.takes is not None else None
        answers = next(schema_of) if row.answers is not None else None
        path = re.sub(r"{(\w+):\w+}", r"{\1}", row.path)
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, takes, answers)
    components["ErrorBody"]["properties"]["code"]["enum"] = sorted(CATALOGUE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fanout",
            "version": version,
            "summary": "Start, follow and close citizen-alert actions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {"Error": {"description": "An error of the catalogue.", "content": _content(next(schema_of))}},
        },
    }


def _operation(row: Row, takes: Any, answers: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.summary,
        "operationId": row.handler.__name__,
        "responses": {
            str(row.status): {"description": "Done.", "content": _content(answers)}
            if answers is not None
            else {"description": row.summary, "content": {row.media: {}}},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    parameters = re.findall(r"{(\w+)(?::(\w+))?}", row.path)
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind == "int" else "string"}}
            for name, kind in parameters
        ]
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(takes)}
    return operation


def _content(schema: Any) -> dict[str, Any]:
    return {bodies.JSON: {"schema": schema}, bodies.MSGPACK: {"schema": schema}}
