"""The contract's text is true: its examples are read by the engine, its diagram and its AsyncAPI file are those of the
code.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fanout.geo import EVERYONE
from signage import asyncapi, shadow, signing
from signage.broker import find_mosquitto
from signage.dialects import native
from signage.layout import model_of
from signage.simulators.display import Mood
from signage.simulators.models import MODELS
from tests.signage.test_service import clock_ms, hour, running, until
from tests.signage.worlds import START_MS, Documents, World, action

FOLDER = Path(asyncapi.__file__).parent
TEXT = (FOLDER / "CONTRACT.md").read_text()
PARTS = dict(re.findall(r"```(\w+ \w+)\n(.*?)```", TEXT, re.DOTALL))
EXAMPLES = dict(re.findall(r"```json (\w+)\n(.*?)```", TEXT, re.DOTALL))


def obeys(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """A JSON Schema checker for what our schemas use."""
    if "$ref" in schema:
        return obeys(value, root["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return any(obeys(value, each, root) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            more = schema.get("additionalProperties")
            return (
                isinstance(value, dict)
                and all(key in value for key in schema.get("required", ()))
                and all(obeys(each, known[key], root) for key, each in value.items() if key in known)
                and all(not isinstance(more, dict) or obeys(v, more, root) for k, v in value.items() if k not in known)
            )
        case "array":
            size_fits = isinstance(value, list) and len(value) <= schema.get("maxItems", 10**9)
            return size_fits and all(obeys(each, schema["items"], root) for each in value)
        case "string" if schema.get("contentEncoding") == "base64":
            return isinstance(value, str | bytes)
        case "string":
            return isinstance(value, str) and len(value) <= schema.get("maxLength", 10**9)
        case "integer" | "number":
            low, high = schema.get("minimum", -(10**30)), schema.get("maximum", 10**30)
            return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
    return False


def read(payload: bytes) -> Any:
    return msgspec.json.decode(payload) if payload[:1] in (b"{", b"[") else msgspec.msgpack.decode(payload)


@pytest.mark.parametrize("name", ["caps", "state", "reported", "ack", "envelope", "area", "media"])
def test_examples_are_read(name: str) -> None:
    payload = EXAMPLES[name].encode()
    match name:
        case "caps":
            assert native.read_caps("utr-cs-a1", payload).characters == 26
        case "state":
            assert native.read_state("utr-cs-a1", payload).state == "ready"
        case "reported":
            assert native.read_reported("utr-cs-a1", payload).shown[0].action == 17
        case "ack":
            assert [ack.what for ack in native.read_acks("utr-cs-a1", payload)] == ["received", "shown"]
        case "media":
            assert msgspec.json.decode(payload, type=native.Media).width_px == 900
        case "area":
            document, _ = native.read_envelope("utr-cs-a1", payload)
            assert (document.board, document.area, document.model) == ("", "led-3x26.utrecht", "led-3x26")
        case _:
            document, _ = native.read_envelope("utr-cs-a1", payload)
            assert document.items[0].pages[0].lines[2] == "Gezien? Bel 112."


@pytest.mark.skipif(not shutil.which("mosquitto_pub") or find_mosquitto() is None, reason="no mosquitto")
async def test_a_stranger_pastes_the_examples_and_is_proven_shown(tmp_path: Path) -> None:
    """What a maker does first: mosquitto_pub and mosquitto_sub against a running engine, and the contract's text."""
    async with running(tmp_path, Documents(), embedded="mosquitto") as signage:
        port = signage.broker_address.rpartition(":")[2]
        topic = "signage/1/boards/utr-cs-a1/"

        async def publish(leaf: str, text: str, *more: str) -> None:
            command = ["mosquitto_pub", "-p", port, "-q", "1", *more, "-t", topic + leaf, "-m", text]
            await trio.run_process(command)

        await publish("caps", EXAMPLES["caps"].replace('"items": 8', '"items": "eight"'), "-r")
        await until(lambda: (page := signage.view("utr-cs-a1")) is not None and "$.items" in page.problems[0], "told")
        assert signage.views() == [], "and is no board"
        await publish("caps", EXAMPLES["caps"], "-r")
        await publish("state", EXAMPLES["state"], "-r")
        await until(lambda: signage.presence()["ready"] == 1, "it is there")
        text = "Vermist: meisje (8), rode jas, blauwe rugzak. Gezien? Bel 112."
        await signage.show(17, action(text, end_ms=hour()), EVERYONE, 0, clock_ms())
        command = ["mosquitto_sub", "-p", port, "-q", "1", "-C", "1", "-W", "20", "-t", topic + "desired"]
        heard = await trio.run_process(command, capture_stdout=True)
        body = msgspec.json.decode(msgspec.json.decode(heard.stdout)["body"])
        assert body["items"][0]["pages"][0]["lines"] == msgspec.json.decode(EXAMPLES["reported"])["lines"]
        version = str(body["version"])
        await publish("ack", EXAMPLES["ack"].replace("1795485600123", version))
        await publish("reported", EXAMPLES["reported"].replace("1795485600123", version), "-r")
        await until(lambda: signage.counts(17).shown == 1, "shown")
        (proof,) = signage.proofs(17)
        assert (proof.reason, proof.received_ms is not None) == ("", True)


def test_a_bottom_line_below_departures_is_read_as_the_text_says() -> None:
    report = native.read_reported("utr-cs-a1", EXAMPLES["beside"].encode())
    page = native.Page(lines=["Brand: ramen dicht houden."], seconds=4.0)
    item = native.Item(
        action=18, stage="start", priority=60, target="bottom line", pages=[page], start_ms=0, end_ms=2**62
    )
    model = model_of(native.read_caps("utr-cs-a1", EXAMPLES["caps"].encode()))
    assert shadow.compare(report.version, [item], report, START_MS, model) is shadow.Event.AGREES
    other = msgspec.structs.replace(report, lines=report.lines[::-1])
    assert shadow.compare(report.version, [item], other, START_MS, model) is shadow.Event.DIFFERS


def test_a_maker_verifies_the_signed_example_with_the_code_as_it_stands() -> None:
    space: dict[str, Any] = {}
    exec(PARTS["python verify"], space)  # noqa: S102
    payload, public = EXAMPLES["signed"].encode(), base64.b64decode(PARTS["text public"])
    identifier = signing.key_id(public)
    assert f"the key `{identifier}`" in TEXT
    document = space["verified"](payload, {identifier: public})
    assert (document["board"], document["items"]) == ("utr-cs-a1", [])
    assert native.read_envelope("utr-cs-a1", payload)[0].version == document["version"]
    with pytest.raises(ValueError, match="checksum"):
        space["verified"](payload.replace(b"utr-cs-a1", b"utr-cs-a2"), {identifier: public})
    envelope = msgspec.json.decode(payload)
    envelope["body"] = envelope["body"].replace("utr-cs-a1", "utr-cs-a2")
    envelope["sha256"] = hashlib.sha256(envelope["body"].encode()).hexdigest()
    with pytest.raises(InvalidSignature):
        space["verified"](msgspec.json.encode(envelope), {identifier: public})
    with pytest.raises(KeyError):
        space["verified"](payload, {})


def test_the_public_key_of_the_example_is_the_same_in_both_forms() -> None:
    key = load_pem_public_key(PARTS["text pem"].encode())
    assert isinstance(key, Ed25519PublicKey)
    assert base64.b64encode(key.public_bytes_raw()).decode() == PARTS["text public"].strip()


def test_the_diagram_is_the_table() -> None:
    assert shadow.diagram() in TEXT


def test_every_field_that_goes_out_is_explained() -> None:
    for kind in (native.Document, native.Item, native.Page, native.Media, native.Envelope):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.name}`" in TEXT or f'"{field.name}"' in TEXT, (kind, field.name)


def test_the_asyncapi_file_is_made_of_the_code() -> None:
    assert (FOLDER / "asyncapi.json").read_text() == asyncapi.text()


def test_what_is_sent_obeys_the_asyncapi_document() -> None:
    root = asyncapi.document()
    moods: list[Mood] = ["well", "faulty", "slow", "amnesia", "clock", "well", "well", "well"]
    world = World(moods, areas=[["all.led"]] + [[]] * 6 + [["all.led"]])
    assert {display.caps.model for display in world.displays} == set(MODELS)
    world.show(1, action(end_ms=START_MS + 60_000))
    world.show(2, action(end_ms=START_MS + 60_000), lane=1)
    world.end(2, {"nl": "Gevonden."})
    world.pass_time(10)
    seen = set()
    for topic, payload in world.retained.items():
        leaf = topic.rsplit("/", 1)[1]
        if not payload or payload.startswith((b"\xff", b"{{")):
            continue
        seen.add("area" if "/areas/" in topic else leaf)
        value = read(payload)
        channel = root["channels"]["area" if "/areas/" in topic else leaf]
        (message,) = channel["messages"].values()
        assert obeys(value, message["payload"], root), (topic, value)
        if leaf == "desired":
            body = value["body"] if isinstance(value["body"], bytes) else value["body"].encode()
            assert obeys(read(body), root["components"]["schemas"]["Document"], root)
    assert seen == {"caps", "state", "desired", "reported", "area"}
    acks = world.displays[0].receive("signage/1/boards/b0/desired", b"\x80", world.now_ms)
    assert obeys(read(acks[0].payload), root["channels"]["ack"]["messages"]["ack"]["payload"], root)


def test_the_checker_refuses() -> None:
    root = asyncapi.document()
    schema = root["channels"]["caps"]["messages"]["caps"]["payload"]
    assert obeys({"board": "b", "model": "m"}, schema, root)
    assert not obeys({"board": "b"}, schema, root)
    assert not obeys({"board": "b", "model": "m", "lines": -1}, schema, root)
    assert not obeys({"board": "b", "model": "m", "kind": "hologram"}, schema, root)
