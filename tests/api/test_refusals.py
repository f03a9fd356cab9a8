"""Bad input: each gets one clear error of the catalogue with its place, and nothing is half done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from fanout import limits
from fanout.errors import CATALOGUE
from tests.api.conftest import Running

SOON_MS = int(time.time() * 1000) + 3_600_000


def action(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "reference": "bad",
        "kind": "missing_child",
        "area": {"type": "Circle", "lon": 5.0, "lat": 52.0, "radius_m": 2_000.0},
        "texts": {"nl": "Vermist."},
        "end_ms": SOON_MS,
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not None}


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {running.key}"}
    with httpx.Client(base_url=running.address, headers=headers, trust_env=False, timeout=60) as client:
        yield client


SQUARE = [[5.0, 52.0], [5.1, 52.0], [5.1, 52.1], [5.0, 52.1], [5.0, 52.0]]
BOW = [[5.0, 52.0], [5.1, 52.1], [5.1, 52.0], [5.0, 52.1], [5.0, 52.0]]

CIRCLE = {"type": "Circle", "lon": 5.0, "lat": 52.0, "radius_m": 1.0}
LINE = [[5.0, 52.0], [5.1, 52.0], [5.0, 52.0]]
NORTH = [[5.0, 99.0], *SQUARE[1:-1], [5.0, 99.0]]

REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("field not known", action(colour="red"), "field_invalid", "colour"),
    ("field not known, deeper", action(waves={"people": 1, "free": 1, "size": 2}), "field_invalid", "waves.size"),
    ("field missing", action(texts=None), "field_invalid", "texts"),
    ("a name that is none", action(texts={"NL": "x"}), "field_invalid", "texts"),
    ("type wrong", action(area={**CIRCLE, "lon": "5"}), "field_invalid", "area.lon"),
    ("area type wrong", action(area={"type": "Square"}), "field_invalid", "area"),
    ("nobody there", action(area={**CIRCLE, "lon": -30.0}), "selection_empty", "area"),
    ("crossing", action(area=polygon(BOW)), "area_self_crossing", "area.coordinates[0]"),
    ("open ring", action(area=polygon(SQUARE[:-1])), "area_ring_not_closed", "area.coordinates[0]"),
    ("two points", action(area=polygon(LINE)), "area_ring_too_short", "area.coordinates[0]"),
    ("no ring", action(area=polygon()), "area_empty", "area"),
    ("longitude", action(area={**CIRCLE, "lon": 200.0}), "area_coordinate_range", "area"),
    ("latitude", action(area=polygon(NORTH)), "area_coordinate_range", "area.coordinates[0][0]"),
    ("radius", action(area={**CIRCLE, "radius_m": 0.0}), "area_radius_range", "area"),
    ("end past", action(end_ms=1_000), "end_in_the_past", "end_ms"),
    ("end before all time", action(end_ms=-1), "field_invalid", "end_ms"),
    ("end beyond numbers", action(end_ms=2**64 - 1), "field_invalid", "end_ms"),
    ("end far", action(end_ms=SOON_MS + 10**10), "end_too_far", "end_ms"),
    ("kind", action(kind="party"), "kind_unknown", "kind"),
    ("text long", action(texts={"nl": "x" * 2_001}), "field_invalid", "texts"),
    ("text for no sms", action(texts={"nl": "x" * 1_900}, channels=["sms"]), "text_too_long", "texts.nl"),
    ("text control", action(texts={"nl": "a\x00b"}), "text_control_character", "texts.nl"),
    ("text control of the second set", action(texts={"nl": "a\x85b"}), "text_control_character", "texts.nl"),
    ("text nobody sees", action(texts={"nl": " \u200d\n\u202e"}), "text_missing", "texts.nl"),
    ("text blank", action(texts={"nl": "Vermist.", "en": " \n\u00a0"}), "text_missing", "texts.en"),
    ("title blank", action(titles={"nl": " "}), "text_missing", "titles.nl"),
    ("board text blank", action(boards={"texts": {"nl": ["Kind vermist", " "]}}), "text_missing", "boards.texts.nl[1]"),
    ("board text esc", action(boards={"texts": {"nl": ["a\x1bb"]}}), "text_control_character", "boards.texts.nl[0]"),
    ("no texts", action(texts={}), "field_invalid", "texts"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "where"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_bad_action_is_refused_with_its_place(
    http: httpx.Client, form: str, body: dict[str, Any], code: str, where: str
) -> None:
    encode: Any = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
    decode: Any = msgspec.json.decode if form == "json" else msgspec.msgpack.decode
    answer = http.post("/v1/actions", content=encode(body), headers={"Content-Type": f"application/{form}"})
    error = decode(answer.content)
    assert (error["code"], answer.status_code) == (code, CATALOGUE[code].status), error
    assert error["where"].startswith(where), error
    assert error["message"]


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b"\xc1", {"Content-Type": "application/msgpack"}, "body_malformed"),
        (b"\x85\xa1", {"Content-Type": "application/msgpack"}, "body_malformed"),
        (b"", {"Content-Type": "application/msgpack"}, "body_malformed"),
        (b"{", {"Content-Type": "application/json"}, "body_malformed"),
        (b"\xff\xfe", {"Content-Type": "application/json"}, "body_malformed"),
        (b'{"area":' + b'{"type":"Difference","of":' * 99_999, {"Content-Type": "application/json"}, "body_malformed"),
        (b"[]", {"Content-Type": "application/json"}, "field_invalid"),
        (b"{}", {"Content-Type": "text/xml"}, "media_type_unknown"),
        (b"x" * (16 * 1024 * 1024 + 1), {"Content-Type": "application/msgpack"}, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused(http: httpx.Client, content: bytes, headers: dict[str, str], code: str) -> None:
    answer = http.post("/v1/actions", content=content, headers={**headers, "Accept": "application/json"})
    assert (answer.json()["code"], answer.status_code) == (code, CATALOGUE[code].status)


def test_news_and_results_have_words_too(http: httpx.Client) -> None:
    started = http.post("/v1/actions", json=action(reference="words", area={**CIRCLE, "radius_m": 30_000.0})).json()
    update, result = f"/v1/actions/{started['id']}/update", f"/v1/actions/{started['id']}/result"
    news: dict[str, Any] = {"reference": "words-2", "texts": {"nl": "Rode jas."}}
    end = news | {"outcome": "none"}
    for path, body, where in (
        (update, news | {"texts": {"nl": " "}}, "texts.nl"),
        (update, news | {"board_texts": {"nl": ["Rode jas", " "]}}, "board_texts.nl[1]"),
        (result, end | {"texts": {"nl": "\n"}}, "texts.nl"),
        (result, end | {"board_texts": {"nl": " "}}, "board_texts.nl"),
    ):
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (422, "text_missing", where)
    assert len(http.get(f"/v1/actions/{started['id']}").json()["tallies"]) == 1, "nothing was told"


def test_receipts_of_whom_nobody_knows_are_bounded(http: httpx.Client) -> None:
    body = bytes(limits.RECEIPTS_BODY_BYTES_MAX)
    assert http.post("/v1/receipts/sms", content=body).json()["code"] == "key_invalid"
    answer = http.post("/v1/receipts/sms", content=body + b"x")
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_receipts_of_nobody_we_know(http: httpx.Client) -> None:
    answer = http.post("/v1/receipts/nobody", content=b"{}")
    assert (answer.status_code, answer.json()["where"]) == (404, "provider")


def test_a_number_beyond_all_numbers(http: httpx.Client) -> None:
    body = msgspec.json.encode(action()).replace(b"%d" % SOON_MS, b"%d" % 2**70)
    answer = http.post("/v1/actions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.json()["code"], answer.json()["where"]) == ("field_invalid", "end_ms")


def test_a_body_of_another_shape_says_that_it_is_the_body(http: httpx.Client) -> None:
    answer = http.post("/v1/actions", content=b"[]", headers={"Content-Type": "application/json"})
    assert (answer.json()["code"], answer.json()["where"]) == ("field_invalid", "body")
    answer = http.post(
        "/v1/actions",
        content=b"\x81\x01\x02",
        headers={"Content-Type": "application/msgpack", "Accept": "application/json"},
    )
    assert (answer.json()["code"], answer.json()["where"]) == ("field_invalid", "body")


IDS = ["9223372036854775807", "9223372036854775808", "9" * 40]


@pytest.mark.parametrize("number", IDS, ids=["largest", "too large", "huge"])
def test_no_action_has_a_number_so_large(http: httpx.Client, number: str) -> None:
    reason, free = {"reference": "r"}, {"free": 1}
    for answer in (
        http.get(f"/v1/actions/{number}"),
        http.get(f"/v1/actions/{number}/boards"),
        http.get(f"/v1/actions/{number}/events"),
        http.post(f"/v1/actions/{number}/cancel", json=reason),
        http.post(f"/v1/actions/{number}/operators", json=free),
        http.delete(f"/v1/actions/{number}/posts"),
    ):
        assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (404, "not_found", "id")


@pytest.mark.parametrize("path", ["/v1/actions/1", "/v1/actions", "/v1/boards", "/v1/nothing", "/anything"])
@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer fk_wrong", "Basic fk_x", "Bearer \u00e9".encode()])
def test_without_a_valid_key_there_is_401_and_no_hint(running: Running, path: str, key: str | bytes | None) -> None:
    headers = {} if key is None else {"Authorization": key}
    answer = httpx.get(running.address + path, headers=headers, trust_env=False, timeout=60)
    assert answer.status_code == 401
    assert answer.json() == {"code": "key_invalid", "message": CATALOGUE["key_invalid"].sentence, "where": ""}


def test_a_key_may_do_what_its_scopes_say(running: Running) -> None:
    headers = {"Authorization": f"Bearer {running.registrar_key}"}
    answer = httpx.get(running.address + "/v1/actions/1", headers=headers, trust_env=False, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")


def test_addresses_and_methods_that_are_not_there(http: httpx.Client) -> None:
    assert http.get("/v1/actions/999999").json()["code"] == "not_found"
    assert http.get("/v1/nothing").json()["code"] == "not_found"
    assert http.delete("/v1/actions").json()["code"] == "method_not_allowed"
    assert http.get("/v1/boards/none").json()["code"] == "not_found"
    assert http.get("/v1/keys/boards").json()["where"] == "signage.signing_key", "documents are not signed here"


def test_a_method_that_is_not_taken_is_answered_with_those_that_are(http: httpx.Client) -> None:
    for path, allowed in (("/v1/actions", "POST"), ("/v1/boards", "GET, HEAD"), ("/healthz", "GET, HEAD")):
        answer = http.request("OPTIONS", path)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), path
        assert answer.headers["Allow"] == allowed


def test_what_can_be_read_can_be_asked_for_without_its_body(http: httpx.Client) -> None:
    for path in ("/v1/boards", "/v1/boards/none", "/healthz", "/v1/media/none"):
        asked, read = http.head(path), http.get(path)
        assert (asked.status_code, asked.content) == (read.status_code, b"")
        assert asked.headers["content-type"] == read.headers["content-type"]


def test_refused_actions_left_nothing_behind(http: httpx.Client) -> None:
    good = http.post("/v1/actions", json=action(reference="bad", area={**CIRCLE, "radius_m": 30_000.0}))
    assert good.status_code == 201, good.json()
    assert not good.json()["repeated"]


@pytest.mark.parametrize(
    ("participant", "code"),
    [
        ({"id": "a b"}, "field_invalid"),
        ({"id": "a", "places": [], "addresses": []}, "field_invalid"),
        ({"id": "a", "places": [{"lon": 181.0, "lat": 0.0}], "addresses": []}, "field_invalid"),
        (
            {"id": "a", "places": [{"lon": 5.0, "lat": 52.0}], "addresses": [], "timezone": "Mars/Olympus"},
            "field_invalid",
        ),
        (
            {"id": "a", "places": [{"lon": 5.0, "lat": 52.0}], "addresses": [{"channel": "sms", "value": "12"}]},
            "field_invalid",
        ),
    ],
)
def test_one_bad_participant_refuses_the_batch(http: httpx.Client, participant: dict[str, Any], code: str) -> None:
    good = {"id": "never", "places": [{"lon": 170.0, "lat": 10.0}], "addresses": []}
    answer = http.put("/v1/participants", json={"participants": [good, participant]})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.json()
    assert "participants[1]" in answer.json()["where"]
    assert http.delete("/v1/participants/never").status_code == 404, "nothing of the batch was kept"


def test_openapi_describes_every_call(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/actions/{id}/result" in document["paths"]
    text = str(document)
    for name in ("ActionRequest", "Circle", "MultiPolygon", "ErrorBody"):
        assert name in document["components"]["schemas"], name
        assert f"#/components/schemas/{name}" in text


def test_ops_pages_need_no_key(running: Running) -> None:
    with httpx.Client(base_url=running.address, trust_env=False, timeout=60) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json() == {"status": "ready"}
        metrics = client.get("/metrics").text
    assert "fanout_participants" in metrics
    assert "fanout_boards" in metrics
