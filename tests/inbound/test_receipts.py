"""Receipts: signed, doubled, late, strange; and what they do to the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.errors import Refused
from fanout.inbound.receipts import Read, read, sign
from fanout.store.sqlite_store import SqliteStore
from fanout.store.states import Reason, State
from fanout.wire import CHANNELS
from tests.dispatch.kit import SMS, clock_ms, reasons, start

SECRET = "secret"


def take(provider: str, body: object, *, header: str = "x-signature-256") -> Read:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(provider, {header: sign(data, SECRET)}, data, secret=SECRET)


def cm(*reports: tuple[str, int]) -> dict[str, object]:
    return {"messages": {"msg": [{"reference": r, "status": {"code": code}} for r, code in reports]}}


def rows(found: Read) -> dict[tuple[int, int, int], dict[int, bool]]:
    return {
        (one.action, one.phase, one.channel): dict(zip(one.rows.tolist(), one.delivered.tolist(), strict=True))
        for one in found.receipts
    }


def test_cm() -> None:
    found = take("sms", cm(("7-0-41", 2), ("7-0-42", 3), ("8-1-41", 1), ("7-0-43", 0), ("other", 2), ("7-0-41", 3)))
    assert rows(found) == {(7, 0, SMS): {41: True, 42: False}, (8, 1, SMS): {41: False}}
    assert (found.reports, found.ignored) == (6, 2)
    one = take("sms", {"messages": {"msg": {"reference": "7-0-1", "status": {"code": 2}}}})
    assert rows(one) == {(7, 0, SMS): {1: True}}


def test_the_second_supplier_signs_with_its_own_secret() -> None:
    body = json.dumps(cm(("7-0-41", 2))).encode()
    assert rows(read("sms_second", {"x-signature-256": sign(body, "own")}, body, secret="own")) == {
        (7, 0, SMS): {41: True}
    }
    with pytest.raises(Refused, match="key_invalid"):
        read("sms_second", {"x-signature-256": sign(body, SECRET)}, body, secret="own")


def test_codes_may_be_spelt_out() -> None:
    reports = [("7-0-1", "2"), ("7-0-2", "3"), ("7-0-3", "0"), ("7-0-4", "²"), ("7-0-5", "-2"), ("7-0-6", "")]
    whole = {"messages": {"msg": [{"reference": r, "status": {"code": code}} for r, code in reports]}}
    found = take("sms", whole)
    assert rows(found) == {(7, 0, SMS): {1: True, 2: False}}
    assert (found.reports, found.ignored) == (6, 4)


VOICE_FAILED = {"events": [{"reference": "7-0-1", "status": "failed"}, {"reference": "7-0-2", "status": "no-answer"}]}
BROKEN: list[object] = [None, 7, "x", [], {"reference": None}, {"reference": 7}, {"status": None}, {"status": []}]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_entry_that_makes_no_sense_takes_nothing_from_the_others(broken: object) -> None:
    good: object = {"reference": "7-0-1", "status": {"code": 2}}
    found = take("sms", {"messages": {"msg": [good, broken]}})
    assert (rows(found), found.reports, found.ignored) == ({(7, 0, SMS): {1: True}}, 2, 1)
    found = take("voice", {"events": [broken, {"reference": "7-0-1", "status": "answered"}]})
    assert (rows(found), found.reports, found.ignored) == ({(7, 0, CHANNELS.index("voice")): {1: True}}, 2, 1)
    seen = {"status": "read", "biz_opaque_callback_data": "7-0-1"}
    entry = {"changes": [{"value": {"statuses": [broken, seen]}}, {"value": None}]}
    found = take("whatsapp", {"entry": [entry]}, header="x-hub-signature-256")
    assert (rows(found), found.reports, found.ignored) == ({(7, 0, CHANNELS.index("whatsapp")): {1: True}}, 2, 1)


def test_whatsapp_and_voice() -> None:
    statuses = [{"status": s, "biz_opaque_callback_data": f"7-0-{i}"} for i, s in enumerate(["read", "sent", "failed"])]
    found = take(
        "whatsapp", {"entry": [{"changes": [{"value": {"statuses": statuses}}]}]}, header="x-hub-signature-256"
    )
    assert rows(found) == {(7, 0, CHANNELS.index("whatsapp")): {0: True, 2: False}}
    calls = {"events": [{"reference": "7-0-1", "status": "answered"}, {"reference": "7-0-2", "status": "busy"}]}
    assert rows(take("voice", calls)) == {(7, 0, CHANNELS.index("voice")): {1: True, 2: False}}


@pytest.mark.parametrize(
    ("errors", "certain"),
    [
        ([{"code": 131026, "title": "Message undeliverable"}], True),
        ([{"code": "131026"}], True),
        ([{"code": 131000}, {"code": 131050}], True),
        ([{"code": 131000}], False),
        ([{"code": 9}], False),
        ([{}], False),
        ([], False),
        ("131026", False),
        (None, False),
    ],
)
def test_only_what_meta_never_sent_has_bounced(errors: object, certain: bool) -> None:
    statuses: list[dict[str, object]] = [
        {"status": "failed", "biz_opaque_callback_data": "7-0-1", "errors": errors},
        {"status": "failed", "biz_opaque_callback_data": "7-0-2"},
        {"status": "delivered", "biz_opaque_callback_data": "7-0-3", "errors": errors},
        {"status": "failed", "biz_opaque_callback_data": "7-0-3", "errors": errors},
    ]
    body = {"entry": [{"changes": [{"value": {"statuses": statuses}}]}]}
    (found,) = take("whatsapp", body, header="x-hub-signature-256").receipts
    assert (found.rows.tolist(), found.delivered.tolist()) == ([1, 2, 3], [False, False, True])
    assert (found.bounced.tolist() if found.bounced is not None else [False] * 3) == [certain, False, False]


def test_sms_and_calls_that_failed_may_have_been_noticed() -> None:
    for found in (take("sms", cm(("7-0-1", 1), ("7-0-2", 3))), take("voice", VOICE_FAILED)):
        (one,) = found.receipts
        assert not one.delivered.any()
        assert one.bounced is None


@pytest.mark.parametrize(
    ("result", "delivered"),
    [
        ({"code": 10, "description": "Finished successfully", "sip-disconnect-code": "BYE"}, {1: True}),
        ({"code": 9, "description": "Cancelled"}, {1: False}),
        ({"code": "12"}, {1: False}),
        ({"code": 77}, None),
        (None, None),
    ],
)
def test_the_end_of_a_call_as_it_is_called_back(result: object, delivered: dict[int, bool] | None) -> None:
    end = {"type": "notification-finished", "call-id": "c", "instruction-id": "7-0-1", "result": result}
    found = take("voice", end)
    assert rows(found) == ({} if delivered is None else {(7, 0, CHANNELS.index("voice")): delivered})
    assert (found.reports, found.ignored) == (1, int(delivered is None))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"x"', b"", b'{"instruction-id":7}', b'{"events":7}'])
def test_no_end_of_a_call_at_all(body: bytes) -> None:
    with pytest.raises(Refused, match="body_malformed"):
        take("voice", body)


@pytest.mark.parametrize("signature", ["", "sha256=", "sha256=" + "0" * 64, sign(b"other", SECRET), sign(b"{}", "x")])
def test_an_unsigned_body_is_not_read(signature: str) -> None:
    with pytest.raises(Refused, match="key_invalid"):
        read("sms", {"x-signature-256": signature}, b"{}", secret=SECRET)


def test_without_a_secret_nothing_is_believed() -> None:
    with pytest.raises(Refused, match="key_invalid"):
        read("sms", {"x-signature-256": sign(b"{}", "")}, b"{}", secret="")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"messages":{"msg":7}}'])
def test_no_receipt_at_all(body: bytes) -> None:
    with pytest.raises(Refused, match="body_malformed"):
        take("sms", body)


def test_who_sends_no_receipts() -> None:
    with pytest.raises(Refused, match="not_found"):
        take("fcm", {})


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(-5, 5)), max_size=20))
def test_strange_references_are_ignored(reports: list[tuple[str, int]]) -> None:
    found = take("sms", cm(*reports))
    assert found.ignored + sum(len(one.rows) for one in found.receipts) <= found.reports
    assert take("sms", cm(("4-0-99999999999", 2), ("-1-0-1", 2), ("1-0-١", 2))).ignored == 3


def test_receipts_settle_rows_in_any_order_and_twice(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "ledger.db")
    action = start(store, {SMS: [41, 42, 43]})
    (lease,) = store.claim("one", channels=(SMS,), lanes=(1,), now_ms=clock_ms(), lease_ms=1_000, most=1)
    assert store.intend(lease, np.arange(3), now_ms=clock_ms())

    def apply(*reports: tuple[str, int]) -> int:
        return sum(store.apply_receipts(take("sms", cm(*reports)).receipts))

    assert apply((f"{action}-0-41", 2)) == 1, "before the provider's own answer is recorded"
    unknown = np.full(3, State.UNKNOWN, np.uint8)
    why = np.full(3, Reason.TIME_OUT, np.uint8)
    store.settle(lease, status=unknown, reason=why, first_ms=None, last_ms=None, done=True)
    assert apply((f"{action}-0-42", 3), (f"{action}-0-999", 2), ("12345-0-41", 2)) == 1
    assert apply((f"{action}-0-41", 3), (f"{action}-0-42", 2)) == 1, "nothing un-delivers; late news is good news"
    assert apply((f"{action}-0-41", 2), (f"{action}-0-42", 2)) == 0
    assert {row: state for row, (state, _) in reasons(store, action).items()} == {
        41: State.DELIVERED,
        42: State.DELIVERED,
        43: State.UNKNOWN,
    }
    store.close_store()
