"""The rough port: every fault by mood, at run time and by option, and nothing is seen that was not taken."""

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

from fanout.channels.protocol import NO_ANSWER, Requests, Template, column
from tests.dispatch.test_frame_lane import running, send
from tests.simulators.kit import Providers, running_providers

FCM = "/v1/projects/p/messages:send"
ROWS = 200


@pytest.fixture(scope="module")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Providers, Providers]]:
    """The providers on their two ports: the smooth one and the rough one."""
    with running_providers(tmp_path_factory.mktemp("rough"), rough=True) as smooth:
        assert smooth.rough is not None
        yield smooth, smooth.rough


@pytest.fixture
def ports(simulators: tuple[Providers, Providers]) -> tuple[Providers, Providers]:
    for one in simulators:
        one.http.delete("/_seen")
        one.moods()
    return simulators


def tokens(url: str) -> Requests:
    """FCM messages to `ROWS` tokens."""
    before, after = b'{"message":{"token":"', b'","data":{"action":"7","phase":"0"}}}'
    template = Template(method="POST", url=(f"{url}{FCM}".encode(),), headers=("x-a: b",), body=(before, 0, after))
    names = column([b"t%d" % row for row in range(ROWS)])
    return Requests(
        templates=(template,), columns=(names,), which=np.zeros(ROWS, np.uint16), usable=np.ones(ROWS, np.bool_)
    )


async def sent(rough: Providers, *, timeout_s: float = 2.0) -> tuple[list[int], set[str], int]:
    """The rows' codes; which tokens the providers have seen; how many they saw twice."""
    async with running(rough.url, rough.ca, timeout_s=timeout_s) as lane:
        codes = (await send(lane, tokens(rough.url))).codes.tolist()
    seen = rough.seen(7, tokens=1)
    found = seen["channels"].get("fcm", {"tokens": []})["tokens"]
    return codes, set(found), seen["doubled_count"]


@pytest.mark.parametrize("mood", [{"goaway": 0.04}, {"shed": 0.2}, {"streams": 1}, {}, {"goaway": 0.02, "shed": 0.1}])
async def test_what_was_certainly_not_taken_goes_again_and_arrives_once(
    ports: tuple[Providers, Providers], mood: dict[str, float]
) -> None:
    smooth, rough = ports
    smooth.moods(fcm=mood)
    codes, seen, doubled = await sent(rough, timeout_s=25.0)  # every one of them is answered, on a busy machine too
    assert codes == [200] * ROWS
    assert (len(seen), doubled) == (ROWS, 0)


@pytest.mark.parametrize("mood", ["reset", "drop", "half", "endless"])
async def test_what_was_taken_and_not_answered_is_unknown(ports: tuple[Providers, Providers], mood: str) -> None:
    smooth, rough = ports
    rough.moods(fcm={mood: 0.02})
    assert smooth.http.get("/_moods").json()["fcm"][mood] == 0.02, "set on either port"
    codes, seen, doubled = await sent(rough)
    told = {f"t{row}" for row, code in enumerate(codes) if code == 200}
    assert told < seen
    assert doubled == 0
    assert set(codes) - {200} <= {NO_ANSWER, -4}
    assert len(told) < ROWS


async def test_the_answers_of_the_first_port_are_those_of_the_second(ports: tuple[Providers, Providers]) -> None:
    _, rough = ports
    rough.moods(fcm={"quota_per_s": 5.0, "goaway": 0.01})
    codes, seen, _ = await sent(rough, timeout_s=25.0)
    assert set(codes) == {200, 429}
    assert len(seen) == codes.count(200)


def test_streams_are_few_once_the_channel_is_known_and_many_again(ports: tuple[Providers, Providers]) -> None:
    _, rough = ports
    limits: list[int] = []
    context = ssl.create_default_context(cafile=str(rough.ca))
    context.set_alpn_protocols(["h2"])
    port = int(rough.url.rpartition(":")[2])
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
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
def test_calls_over_http_1(ports: tuple[Providers, Providers], mood: str, taken: int) -> None:
    _, rough = ports
    body = {"messages": {"msg": [{"to": [{"number": "0031612345678"}], "reference": "7-0-1"}]}}
    headers = {"x-cm-producttoken": "first"}
    context = ssl.create_default_context(cafile=str(rough.ca))
    with httpx.Client(base_url=rough.url, verify=context, trust_env=False) as client:
        assert client.post("/v1.0/message", json=body, headers=headers).json()["errorCode"] == 0
        rough.moods(sms={mood: 1.0})
        with pytest.raises(httpx.TransportError):
            client.post("/v1.0/message", json=body, headers=headers)
        second = client.post("/v1.0/message", json=body, headers={"x-cm-producttoken": "second"})
        assert second.status_code == 200, "the second supplier has a mood of its own"
    assert rough.seen(7)["total"] == 2 + taken


def test_without_the_rough_port_such_moods_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fanout.simulators.providers", "--folder", str(tmp_path), "--port", "1"]
    for given in ('{"fcm":{"goaway":0.1}}', '{"fcm":{"storm":2}}', "{", "@/nowhere"):
        done = subprocess.run([*command, "--moods", given], capture_output=True, text=True, check=False)
        assert done.returncode == 2, given


def test_moods_by_option(tmp_path: Path) -> None:
    file = tmp_path / "moods.json"
    file.write_text(json.dumps({"fcm": {"broken": 1.0}}))
    with running_providers(tmp_path / "made", moods=f"@{file}", workers=2) as providers:
        assert providers.http.post(FCM, content=b'{"message":{"token":"a"}}').status_code == 500
        answer = providers.http.put("/_moods", json={"fcm": {"reset": 0.5}})
        assert answer.status_code == 422
        assert "--rough-port" in answer.json()["message"]
    with running_providers(tmp_path / "made", moods='{"apns":{"goaway":1.0,"streams":1}}', rough=True) as providers:
        assert providers.http.get("/_moods").json()["apns"]["streams"] == 1


def test_it_does_not_outlive_the_simulators(tmp_path: Path) -> None:
    with running_providers(tmp_path, rough=True) as providers:
        assert providers.rough is not None
        port = int(providers.rough.url.rpartition(":")[2])
    for _ in range(1_000):
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
    pytest.fail("the rough port is still there")


def test_the_fastest_way_is_not_lost_to_moods_of_the_other_port(ports: tuple[Providers, Providers]) -> None:
    """Answers of the plain way on the smooth port: the same while only the rough port misbehaves."""
    smooth, _ = ports
    smooth.moods(fcm={"reset": 1.0, "streams": 1})
    body = b'{"message":{"token":"%b","data":{"action":"7","phase":"0"}}}'
    assert [smooth.http.post(FCM, content=body % name).status_code for name in (b"a", b"b", b"dead")] == [200, 200, 404]
