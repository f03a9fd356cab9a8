"""Who answers like a push provider, and who only answers."""

from __future__ import annotations

import json

import pytest

from fanout.channels.greetings import GREETED, apns_question, doubt, fcm_question
from fanout.channels.protocol import GARBAGE, NO_ANSWER, NO_CONNECTION, Answer
from tests.channels.kit import NONSENSE

HTML = {"content-type": "text/html"}


def fcm(code: int, status: str) -> Answer:
    return Answer(code=code, body=json.dumps({"error": {"code": code, "status": status, "details": []}}).encode())


def apns(code: int, reason: str) -> Answer:
    return Answer(code=code, body=json.dumps({"reason": reason}).encode())


def test_questions_deliver_nothing() -> None:
    one = fcm_question("https://fcm.example/", "p1", lambda origin: f"Bearer {origin}")
    assert (one.method, one.url) == ("POST", "https://fcm.example/v1/projects/p1/messages:send")
    assert json.loads(one.body) == {"validate_only": True, "message": {}}
    assert one.headers["authorization"] == "Bearer https://fcm.example"
    other = apns_question("https://apns.example", lambda origin: "bearer x")
    assert (other.method, other.body) == ("GET", b"")
    assert other.url.startswith("https://apns.example/3/device/")


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("fcm", fcm(400, "INVALID_ARGUMENT"), None),
        ("fcm", fcm(429, "RESOURCE_EXHAUSTED"), None),
        ("fcm", fcm(503, "UNAVAILABLE"), None),
        ("fcm", fcm(401, "UNAUTHENTICATED"), "credentials"),
        ("fcm", fcm(403, "PERMISSION_DENIED"), "credentials"),
        ("fcm", fcm(404, "NOT_FOUND"), "project"),
        ("fcm", apns(400, "BadDeviceToken"), "is the address right"),
        ("apns", apns(405, "MethodNotAllowed"), None),
        ("apns", apns(403, "InvalidProviderToken"), "credentials"),
        ("apns", apns(200, "Taken"), "must refuse"),
        ("apns", fcm(405, "X"), "is the address right"),
        ("apns", Answer(code=405), "is the address right"),
    ],
)
def test_doubts(name: str, answer: Answer, why: str | None) -> None:
    found = doubt(name, answer)
    assert found is None if why is None else found is not None and why in found


@pytest.mark.parametrize("name", GREETED)
def test_a_page_that_answers_200_to_anything_is_no_provider(name: str) -> None:
    found = doubt(name, Answer(code=200, headers=HTML, body=b"<html>Welcome to our network</html>"))
    assert found is not None
    assert "text/html" in found
    for body in NONSENSE:
        assert doubt(name, Answer(code=200, body=body)) is not None
    for code in (NO_CONNECTION, NO_ANSWER, GARBAGE):
        assert doubt(name, Answer(code=code)) is not None
