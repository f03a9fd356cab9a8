"""The native contract as an AsyncAPI 3 document, made from the very structs that are sent and read.

`signage/asyncapi.json` is its text, kept beside the contract for outsiders' tools; a test holds that it is this one
and that everything that goes over the wire in a run obeys it. `python -m signage.asyncapi` prints it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from signage.dialects import native

_BOARD: Final = {"board": {"description": "Id of the board: 1 to 64 printable characters without / + #"}}
_AREA: Final = {"area": {"description": "A name that boards list in caps.areas: 1 to 64 characters without / + #"}}

# leaf, who sends, retained, payload, what it is
_CHANNELS: Final[tuple[tuple[str, str, str, bool, Any, str], ...]] = (
    ("caps", "signage/1/boards/{board}/caps", "board", True, native.Caps, "Birth document: what the board is"),
    ("state", "signage/1/boards/{board}/state", "board", True, native.State, "Presence; also the will"),
    ("desired", "signage/1/boards/{board}/desired", "engine", True, native.Envelope, "The whole desired document"),
    ("reported", "signage/1/boards/{board}/reported", "board", True, native.Reported, "What is shown, read back"),
    ("ack", "signage/1/boards/{board}/ack", "board", False, list[native.Ack], "What became of items"),
    (
        "area",
        "signage/1/areas/{area}/desired",
        "engine",
        True,
        native.Envelope,
        "One document for all boards that listen there",
    ),
)


def document() -> dict[str, Any]:
    """The document, as builtins."""
    kinds = [kind for *_, kind, _ in _CHANNELS] + [native.Document]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for (leaf, address, sender, retained, _, what), schema in zip(_CHANNELS, schemas[:-1], strict=True):
        message = {
            "summary": what,
            "contentType": "application/msgpack",
            "description": "MessagePack, or JSON for boards whose caps say form = json.",
            "payload": schema,
            "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
        }
        channels[leaf] = {
            "address": address,
            "messages": {leaf: message},
            "parameters": _AREA if leaf == "area" else _BOARD,
        }
        operations[f"{sender}-{leaf}"] = {
            "action": "send" if sender == "engine" else "receive",
            "channel": {"$ref": f"#/channels/{leaf}"},
            "summary": what,
            "bindings": {"mqtt": {"qos": 1, "retain": retained, "bindingVersion": "0.2.0"}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Boards, native contract",
            "version": "1.0.0",
            "description": "Seen from the engine: it receives what boards send. signage/CONTRACT.md has the rules.",
        },
        "defaultContentType": "application/msgpack",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": components},
    }


def text() -> str:
    """The document as it stands in the file."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
