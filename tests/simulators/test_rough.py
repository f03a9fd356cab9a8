"""Moods that break connections, at run time and by option; nothing is seen that was not taken."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import numpy as np
import pytest

from fanout.channels.protocol import GARBAGE, NO_ANSWER, Requests, Template, column
from tests.dispatch.test_frame_lane import running, send
from tests.simulators.kit import PATIENCE_S, Providers, running_providers

FCM = "/v1/projects/p/messages:send"
ROWS = 200


@pytest.fixture(scope="module")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    with running_providers(tmp_path_factory.mktemp("rough")) as running:
        yield running


@pytest.fixture
def rough(simulators: Providers) -> Providers:
    simulators.moods()
    simulators.http.delete("/_seen")
    return simulators


def tokens(url: str) -> Requests:
    """FCM messages to `ROWS` tokens."""
    before, after = b'{"message":{"token":"', b'","data":{"action":"7","phase":"0"}}}'
    template = Template(method="POST", url=(f"{url}{FCM}".encode(),), headers=("x-a: b",), body=(before, 0, after))
    names = column([b"t%d" % row for row in range(ROWS)])
    return Requests(
        templates=(template,), columns=(names,), which=np.zeros(ROWS, np.uint16), usable=np.ones(ROWS, np.bool_)
    )


async def sent(rough: Providers, *, timeout_s: float = 4.0) -> tuple[list[int], set[str], int]:
    """The rows' codes; which tokens the providers have seen; how many they saw twice."""
    async with running(rough.url, rough.ca, timeout_s=timeout_s) as lane:
        codes = (await send(lane, tokens(rough.url))).codes.tolist()
    seen = rough.seen(7, tokens=1)
    found = seen["channels"].get("fcm", {"tokens": []})["tokens"]
    return codes, set(found), seen["doubled_count"]


@pytest.mark.parametrize("mood", [{"goaway": 0.04}, {"shed": 0.2}, {"streams": 1}, {}, {"goaway": 0.02, "shed": 0.1}])
async def test_what_was_certainly_not_taken_goes_again_and_arrives_once(
    rough: Providers, mood: dict[str, float]
) -> None:
    rough.moods(fcm=mood)
    codes, seen, doubled = await sent(
        rough, timeout_s=PATIENCE_S
    )  # every one of them is answered, on a busy machine too
    assert codes == [200] * ROWS
    assert (len(seen), doubled) == (ROWS, 0)


@pytest.mark.parametrize("mood", ["reset", "drop", "half", "endless"])
async def test_what_was_taken_and_not_answered_is_unknown(rough: Providers, mood: str) -> None:
    rough.moods(fcm={mood: 0.02})
    codes, seen, doubled = await sent(rough)
    told = {f"t{row}" for row, code in enumerate(codes) if code == 200}
    assert told < seen
    assert doubled == 0
    assert set(codes) - {200} <= {NO_ANSWER, GARBAGE}
    assert len(told) < ROWS


async def test_other_moods_hold_beside(rough: Providers) -> None:
    rough.moods(fcm={"quota_per_s": 5.0, "goaway": 0.01})
    codes, seen, _ = await sent(rough, timeout_s=PATIENCE_S)
    assert set(codes) == {200, 429}
    assert len(seen) == codes.count(200)


def test_streams_are_few_once_the_channel_is_known_and_many_again(rough: Providers) -> None:
    limits: list[int] = []
    context = ssl.create_default_context(cafile=str(rough.ca))
    context.set_alpn_protocols(["h2"])
    port = int(rough.url.rpartition(":")[2])
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as stream,
    ):
        http.initiate_connection()
        for streams in (1, 0, 7):
            rough.moods(apns={"streams": streams})
            number = http.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/3/device/aa")]
            http.send_headers(number, head)
            http.send_data(number, b'{"aps":{},"fanout":{"action":"7"}}', end_stream=True)
            stream.sendall(http.data_to_send())
            answered = False
            while not answered:
                for event in http.receive_data(stream.recv(65_536)):
                    answered = answered or isinstance(event, h2.events.StreamEnded)
                    if isinstance(event, h2.events.RemoteSettingsChanged):
                        changed = event.changed_settings.get(h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS)
                        limits += [] if changed is None else [changed.new_value]
                stream.sendall(http.data_to_send())
    assert limits == [1_000, 1, 1_000, 7]
    assert rough.seen(7)["total"] == 3


@pytest.mark.parametrize(
    ("mood", "taken"),
    [("goaway", 0), ("shed", 0), ("reset", 1), ("drop", 1), ("half", 1)],
)
def test_calls_over_http_1(rough: Providers, mood: str, taken: int) -> None:
    body = {"messages": {"msg": [{"to": [{"number": "0031612345678"}], "reference": "7-0-1"}]}}
    headers = {"x-cm-producttoken": "first"}
    context = ssl.create_default_context(cafile=str(rough.ca))
    with httpx.Client(base_url=rough.url, verify=context, trust_env=False, timeout=60) as client:
        assert client.post("/v1.0/message", json=body, headers=headers).json()["errorCode"] == 0
        rough.moods(sms={mood: 1.0})
        with pytest.raises(httpx.TransportError):
            client.post("/v1.0/message", json=body, headers=headers)
        second = client.post("/v1.0/message", json=body, headers={"x-cm-producttoken": "second"})
        assert second.status_code == 200, "the second supplier has a mood of its own"
    assert rough.seen(7)["total"] == 2 + taken


def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fanout.simulators.providers", "--folder", str(tmp_path), "--port", "1"]
    for given in ('{"fcm":{"storm":2}}', "{", "@/nowhere"):
        done = subprocess.run([*command, "--moods", given], capture_output=True, text=True, check=False)
        assert done.returncode == 2, given


def test_moods_by_option(tmp_path: Path) -> None:
    file = tmp_path / "moods.json"
    file.write_text(json.dumps({"fcm": {"broken": 1.0}, "apns": {"goaway": 1.0, "streams": 1}}))
    with running_providers(tmp_path / "made", moods=f"@{file}", workers=2) as providers:
        assert providers.http.post(FCM, content=b'{"message":{"token":"a"}}').status_code == 500
        assert providers.http.get("/_moods").json()["apns"]["streams"] == 1


def test_who_had_few_streams_has_many_again(rough: Providers) -> None:
    """Also where all that comes is plain, and nobody but the kernel looks at it."""
    rough.moods(fcm={"streams": 1})
    context = ssl.create_default_context(cafile=str(rough.ca))
    body = b'{"message":{"token":"%b","data":{"action":"7","phase":"0"}}}'
    with httpx.Client(base_url=rough.url, verify=context, trust_env=False, timeout=60, http2=True) as client:
        assert client.post(FCM, content=body % b"a").status_code == 200
        rough.moods()
        assert [client.post(FCM, content=body % name).status_code for name in (b"b", b"c")] == [200, 200]
    assert rough.seen(7)["total"] == 3


def test_a_channels_moods_are_its_own(rough: Providers) -> None:
    rough.moods(fcm={"reset": 1.0}, apns={"goaway": 1.0})
    body = {"messages": {"msg": [{"to": [{"number": "0031612345678"}], "reference": "7-0-1"}]}}
    answer = rough.http.post("/v1.0/message", json=body, headers={"x-cm-producttoken": "first"})
    assert answer.status_code == 200
    with pytest.raises(httpx.TransportError):
        rough.http.post(FCM, content=b'{"message":{"token":"a","data":{"action":"7","phase":"0"}}}')
    assert rough.seen(7, tokens=1)["channels"]["fcm"]["tokens"] == ["a"]
