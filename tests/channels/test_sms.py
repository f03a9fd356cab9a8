"""SMS: shape, partial failure, and the rule that nobody is rung twice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fanout.channels.protocol import Answer, Call, column
from fanout.channels.sms import MESSAGES_PER_CALL_MAX, Sms
from fanout.store.states import Event, Reason
from tests.channels.kit import NOW_MS, check_call_channel, message

NUMBERS = [b"+31612345678", b"+15551234567"]


def make(**changes: object) -> Sms:
    options: dict[str, object] = {"url": "https://gw.example", "product_token": "secret", "sender": "Alert"}
    return Sms(**(options | changes))  # type: ignore[arg-type]


def rendered(**changes: object) -> tuple[Call, np.ndarray]:
    rows = np.array([41, 1_599_999], np.uint32)
    return make().render(message(**changes), column(NUMBERS), rows, now_ms=NOW_MS).calls[0], rows


def answered(*statuses: object, code: int = 200) -> list[tuple[int, int]]:
    call, rows = rendered()
    body = json.dumps({"errorCode": 0, "messages": list(statuses)}).encode()
    outcome = make().interpret(call, Answer(code=code, body=body), rows)
    return list(zip(outcome.event.tolist(), outcome.reason.tolist(), strict=True))


def test_kit() -> None:
    check_call_channel(make, NUMBERS)


def test_shape() -> None:
    call, _ = rendered()
    assert call.url == "https://gw.example/v1.0/message"
    assert call.headers["x-cm-producttoken"] == "secret"
    first, second = json.loads(call.body)["messages"]["msg"]
    assert first["to"] == [{"number": "0031612345678"}]
    assert second["to"] == [{"number": "0015551234567"}]
    assert (first["reference"], second["reference"]) == ("7-1-41", "7-1-1599999")
    assert first["body"]["content"] == f"Vermist kind: {message().text}"
    assert first["validity"] == "1h0m"


@pytest.mark.parametrize(
    ("seconds", "validity"),
    [(-5, "0h1m"), (0, "0h1m"), (59, "0h1m"), (61, "0h1m"), (3_599, "0h59m"), (3_600, "1h0m"), (3_660, "1h1m"),
     (48 * 3_600, "48h0m"), (90 * 3_600, "48h0m")],
)  # fmt: skip
def test_validity_is_never_none_and_never_more_than_is_left(seconds: int, validity: str) -> None:
    call, _ = rendered(end_ms=NOW_MS + 1_000 * seconds)
    assert {one["validity"] for one in json.loads(call.body)["messages"]["msg"]} == {validity}


def test_partial_failure_is_a_state_for_each() -> None:
    taken = {"reference": "7-1-41", "status": "Accepted", "messageErrorCode": 0}
    refused = {"reference": "7-1-1599999", "status": "Rejected", "messageErrorCode": 302}
    both = [(Event.ACCEPT, Reason.NONE), (Event.REJECT, Reason.TOKEN_INVALID)]
    assert answered(taken, refused) == both
    assert answered(refused, taken, code=400) == both, "the status counts, not the order or the code"


def test_whom_the_answer_does_not_name_is_unknown() -> None:
    taken = {"reference": "7-1-41", "status": "Accepted", "messageErrorCode": 0}
    assert answered(taken) == [(Event.ACCEPT, Reason.NONE), (Event.TIME_OUT, Reason.GARBAGE)]
    assert answered({"reference": "9-9-77"}) == [(Event.TIME_OUT, Reason.GARBAGE)] * 2


@pytest.mark.parametrize(
    "strange",
    [None, 7, "x", [], {"reference": None}, {"reference": 7}, {"reference": "7-1-41", "status": 5},
     {"reference": "7-1-41", "messageErrorCode": []}, {"reference": "7-1-41"},
     {"reference": "99-3-41", "status": "Accepted"},
     {"reference": "41", "status": "Accepted", "messageErrorCode": 0}],
)  # fmt: skip
def test_a_line_that_is_none_of_ours_takes_nothing_from_the_others(strange: object) -> None:
    taken = {"reference": "7-1-1599999", "status": "Accepted", "messageErrorCode": 0}
    wanted = [(Event.TIME_OUT, Reason.GARBAGE), (Event.ACCEPT, Reason.NONE)]
    assert answered(strange, taken) == wanted
    assert answered(taken, strange) == wanted


def test_an_answer_in_another_case_is_read() -> None:
    """A service that was written anew in another framework begins all names with a large letter."""
    call, rows = rendered()
    lines = [
        {"Reference": f"{call.reference}{rows[0]}", "Status": "Accepted", "MessageErrorCode": 0},
        {"Reference": f"{call.reference}{rows[1]}", "Status": "Rejected", "MessageErrorCode": 303},
    ]
    body = json.dumps({"Details": "", "ErrorCode": 201, "Messages": lines}).encode()
    outcome = make().interpret(call, Answer(code=200, body=body), rows)
    assert outcome.event.tolist() == [Event.ACCEPT, Event.REJECT]
    assert outcome.reason.tolist() == [Reason.NONE, Reason.TOKEN_INVALID]
    refused = make().interpret(call, Answer(code=400, body=b'{"ErrorCode":101,"Messages":[]}'), rows)
    assert refused.reason.tolist() == [Reason.CREDENTIALS] * 2


def test_codes_may_be_spelt_out_or_missing() -> None:
    refused = {"reference": "7-1-41", "status": "Rejected", "messageErrorCode": "302"}
    taken = {"reference": "7-1-1599999", "status": "Accepted", "messageErrorCode": None}
    assert answered(refused, taken) == [(Event.REJECT, Reason.TOKEN_INVALID), (Event.ACCEPT, Reason.NONE)]
    assert answered({"reference": "7-1-41", "status": "Rejected"})[0] == (Event.RETRY, Reason.PROVIDER)


@pytest.mark.parametrize(
    ("code", "word", "meaning"),
    [
        (102, "Rejected", (Event.RETRY, Reason.QUOTA)),  # no balance here, and perhaps at the other supplier
        (777, "Rejected", (Event.RETRY, Reason.PROVIDER)),
        (777, "", (Event.RETRY, Reason.PROVIDER)),
        (777, "Accepted", (Event.TIME_OUT, Reason.GARBAGE)),
        (0, "Queued", (Event.TIME_OUT, Reason.GARBAGE)),  # perhaps taken, so not once more
        (302, "Rejected", (Event.REJECT, Reason.TOKEN_INVALID)),
        (303, "Rejected", (Event.REJECT, Reason.TOKEN_INVALID)),
        (304, "Rejected", (Event.REJECT, Reason.PAYLOAD)),
        (402, "Rejected", (Event.REJECT, Reason.OPTED_OUT)),
        (403, "Rejected", (Event.RETRY, Reason.PROVIDER)),  # by an operator behind this supplier
        (999, "Rejected", (Event.RETRY, Reason.PROVIDER)),
    ],
)
def test_what_was_refused_may_be_taken_elsewhere_and_what_was_perhaps_taken_not(
    code: int, word: str, meaning: tuple[Event, Reason]
) -> None:
    assert answered({"reference": "7-1-41", "status": word, "messageErrorCode": code})[0] == meaning


def test_a_call_refused_without_a_list_is_refused_by_its_error() -> None:
    call, rows = rendered()
    for error, code, event, reason in (
        (103, 400, Event.RETRY, Reason.CREDENTIALS),
        (888, 400, Event.RETRY, Reason.PROVIDER),
        (888, 500, Event.TIME_OUT, Reason.PROVIDER),
    ):
        body = json.dumps({"errorCode": error, "messages": None}).encode()
        outcome = make().interpret(call, Answer(code=code, body=body), rows)
        assert outcome.event.tolist() == [event] * 2
        assert outcome.reason.tolist() == [reason] * 2


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (101, (Event.RETRY, Reason.CREDENTIALS)),
        ("102", (Event.RETRY, Reason.QUOTA)),
        (999, (Event.RETRY, Reason.PROVIDER)),
        (None, None),
    ],
)
def test_errors_of_the_whole_call(error: object, meaning: tuple[Event, Reason] | None) -> None:
    call, rows = rendered()
    outcome = make().interpret(call, Answer(code=400, body=json.dumps({"errorCode": error}).encode()), rows)
    assert (outcome.event[0], outcome.reason[0]) == (meaning or (Event.REJECT, Reason.PAYLOAD))


def test_calls_have_at_most_a_thousand_messages() -> None:
    count = 2 * MESSAGES_PER_CALL_MAX + 1
    numbers = column([b"+316%08d" % i for i in range(count)])
    calls = make().render(message(), numbers, np.arange(count, dtype=np.uint32), now_ms=NOW_MS).calls
    assert [len(call.index) for call in calls] == [MESSAGES_PER_CALL_MAX, MESSAGES_PER_CALL_MAX, 1]


def test_too_long_names_the_reason() -> None:
    assert make(parts_max=1).fits(message(title="", text="x" * 160)) is None
    assert make(parts_max=1).fits(message(title="", text="x" * 161)) == "it takes 2 parts of 1"
    why = make(parts_max=1).fits(message(title="", text="ж" + "x" * 90))
    assert why == "it takes 2 parts of 1, because ж is not in the GSM alphabet"
