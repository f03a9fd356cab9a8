"""The simulators keep the providers' shapes, and count right."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.simulators.kit import Providers, running_providers

FCM = "/v1/projects/p/messages:send"


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("providers")) as running:
        yield running


@pytest.fixture(autouse=True)
def _afresh(providers: Providers) -> None:
    providers.http.delete("/_seen")
    providers.moods()


def fcm(token: str, action: int = 7, phase: int = 0) -> bytes:
    data = {"action": str(action), "phase": str(phase)}
    return json.dumps({"message": {"token": token, "data": data}}).encode()


def apns(action: int = 7, phase: int = 0) -> bytes:
    return json.dumps({"aps": {}, "fanout": {"action": str(action), "phase": str(phase)}}).encode()


def sms(*numbers: str) -> bytes:
    messages = [{"from": "x", "to": [{"number": n}], "reference": f"7-0-{i}"} for i, n in enumerate(numbers)]
    return json.dumps({"messages": {"msg": messages}}).encode()


def test_fcm(providers: Providers) -> None:
    answer = providers.http.post(FCM, content=fcm("abc"))
    assert answer.status_code == 200
    assert answer.json()["name"].startswith("projects/")
    dead = providers.http.post(FCM, content=fcm("dead1"))
    assert (dead.status_code, dead.json()["error"]["details"][0]["errorCode"]) == (404, "UNREGISTERED")
    assert providers.http.post(FCM, content=fcm("bad01")).status_code == 400
    assert providers.http.post(FCM, content=b"{").status_code == 400
    assert providers.seen(7, tokens=1)["channels"]["fcm"]["tokens"] == ["abc"]


def test_apns(providers: Providers) -> None:
    assert providers.http.post("/3/device/00ff", content=apns()).status_code == 200
    dead = providers.http.post("/3/device/dead00", content=apns())
    assert (dead.status_code, dead.json()["reason"]) == (410, "Unregistered")
    assert providers.http.post("/3/device/bad000", content=apns()).json()["reason"] == "BadDeviceToken"
    assert providers.http.post("/3/device/00ff", content=b"nonsense").status_code == 400
    assert providers.seen(7)["total"] == 1


def test_sms_answers_for_each_recipient(providers: Providers) -> None:
    key = {"x-cm-producttoken": "t"}
    answer = providers.http.post("/v1.0/message", content=sms("0031612345678", "0031612345999"), headers=key).json()
    assert [one["status"] for one in answer["messages"]] == ["Accepted", "Rejected"]
    assert providers.http.post("/v1.0/message", content=sms("0031612345678")).status_code == 401
    assert providers.http.post("/v1.0/message", content=sms(*["00316"] * 1_001), headers=key).status_code == 400
    assert providers.seen(7)["channels"]["sms"]["total"] == 1


def test_twice_is_told_from_two_phases(providers: Providers) -> None:
    for token, phase in (("a", 0), ("a", 1), ("b", 0), ("b", 0)):
        providers.http.post(FCM, content=fcm(token, phase=phase))
    seen = providers.seen(7)
    assert (seen["total"], seen["distinct"], seen["doubled"], seen["doubled_count"]) == (4, 3, ["b"], 1)
    assert providers.seen(7, phase=1)["total"] == 1
    assert seen["first_ms"] <= seen["last_ms"]
    assert providers.seen(8)["total"] == 0
    assert providers.http.get("/_actions").json() == ["7"]


@pytest.mark.parametrize(
    ("mood", "codes"),
    [
        ({"storm": 0.5}, [200, 503, 200, 503]),
        ({"broken": 1.0}, [500] * 4),
        ({"redirect": 0.25}, [200, 200, 200, 302]),
        ({"quota_per_s": 0.001}, [429] * 4),
    ],
)
def test_moods_are_repeatable(providers: Providers, mood: dict[str, float], codes: list[int]) -> None:
    providers.moods(fcm=mood)
    answers = [providers.http.post(FCM, content=fcm(f"t{i}")) for i in range(4)]
    assert [answer.status_code for answer in answers] == codes
    assert providers.seen(7)["total"] == codes.count(200)
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code in (429, 503))


def test_a_wrong_mood_is_refused(providers: Providers) -> None:
    assert providers.http.put("/_moods", json={"fcm": {"storm": 2}}).status_code == 422
    assert providers.http.put("/_moods", json={"fax": {}}).status_code == 422


def test_only_its_own_authority_is_trusted(providers: Providers) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(providers.url, verify=ssl.create_default_context(), trust_env=False)


def test_the_certificate_names_the_hosts_it_stands_in_for(providers: Providers) -> None:
    context = ssl.create_default_context(cafile=str(providers.ca))
    with httpx.Client(verify=context, trust_env=False, timeout=60) as client:
        answer = client.get(f"{providers.url}/_actions", extensions={"sni_hostname": "fcm.googleapis.com"})
    assert answer.status_code == 200


def test_files_are_made_once_and_kept(tmp_path: Path, providers: Providers) -> None:
    assert (providers.ca.parent / "key.pem").stat().st_mode & 0o077 == 0


def test_forms_are_known_again_and_marks_still_count(providers: Providers) -> None:
    """The plain way (a form seen before) answers and counts as the reading way does."""
    body = b'{"message":{"token":"%b","data":{"action":"7","phase":"%b"}}}'
    tokens = (b"one", b"two", b"two", b"dead1", b"bad01", b"three")
    codes = [providers.http.post(FCM, content=body % (token, b"0")).status_code for token in tokens]
    assert codes == [200, 200, 200, 404, 400, 200]
    assert providers.http.post(FCM, content=body % (b"one", b"1")).status_code == 200
    codes = [
        providers.http.post(f"/3/device/{token}", content=apns()).status_code
        for token in ("aa", "bb", "dead", "", "aa")
    ]
    assert codes == [200, 200, 410, 400, 200]
    seen = providers.seen(7, tokens=1)["channels"]
    assert (seen["fcm"]["tokens"], seen["fcm"]["total"], seen["fcm"]["doubled"]) == (
        ["one", "three", "two"],
        5,
        ["two"],
    )
    assert (seen["apns"]["total"], seen["apns"]["doubled"]) == (3, ["aa"])
    assert providers.http.get("/_totals").json() == {"fcm": 7, "apns": 5}
    providers.moods(fcm={"storm": 1.0})
    assert providers.http.post(FCM, content=body % (b"one", b"0")).status_code == 503


def test_workers_answer_as_one(tmp_path: Path) -> None:
    with running_providers(tmp_path, workers=2) as providers:
        context = ssl.create_default_context(cafile=str(providers.ca))
        for number in range(24):  # a connection each, so that both workers have some
            with httpx.Client(base_url=providers.url, verify=context, trust_env=False, timeout=60) as client:
                assert client.post(FCM, content=fcm(f"t{number % 23}")).status_code == 200
        seen = providers.seen(7)
        assert (seen["total"], seen["distinct"], seen["doubled"]) == (24, 23, ["t0"])
        assert providers.http.get("/_totals").json() == {"fcm": 24}
        providers.moods(fcm={"broken": 1.0})
        for _ in range(6):
            with httpx.Client(base_url=providers.url, verify=context, trust_env=False, timeout=60) as client:
                assert client.post(FCM, content=fcm("t")).status_code == 500
        providers.http.delete("/_seen")
        assert providers.http.get("/_totals").json() == {}
        assert providers.http.get("/_actions").json() == []
