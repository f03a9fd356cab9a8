"""Push: requests a second to one TLS sink, by our lane, by httpx, by aioapns where it is installed, and by h2load.

The sink is the provider simulator on a core of its own, so what is compared is the client. Every system sends what it
would send in service: a body or a path of its own per device, and reads each answer's status. `h2load` (C, one thread,
one constant request) is the ceiling that HTTP/2 over TLS has here, not a competitor: it renders nothing and keeps no
answer apart from another.

`cpu_us` is this process's processor time per request: on a shared machine it says more than the rate. The rates of a
run are comparable, since all run one after the other against the same sink.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import trio

from bench.harness import Options, Row, note
from fanout.channels import ece
from fanout.channels.apns import Apns
from fanout.channels.fcm import Fcm
from fanout.channels.jwt import base64url, point
from fanout.channels.protocol import Message, Requests, column
from fanout.channels.webpush import WebPush
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.curl_lane import CurlLane

CONNECTIONS, STREAMS = 4, 128
MESSAGE = Message(
    action=1,
    phase=0,
    name="start",
    kind="missing_child",
    lane=0,
    language="nl",
    title="Vermist kind",
    text="Assen: meisje van 8 jaar, blauwe jas, rode fiets. Gezien? Bel 0800-0011.",
    end_ms=4_000_000_000_000,
)


@contextmanager
def sink(cores: list[int]) -> Iterator[tuple[str, Path]]:
    """The simulator on its own core; yields its address and its authority."""
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        port = 18_443
        command = [sys.executable, "-m", "fanout.simulators.providers", "--port", str(port), "--folder", folder]
        process = subprocess.Popen(command)
        try:
            if len(cores) > 1:
                os.sched_setaffinity(process.pid, {cores[0]})
            ca = Path(folder) / "ca.pem"
            url = f"https://127.0.0.1:{port}"
            while True:
                with suppress(OSError, httpx.HTTPError):
                    context = ssl.create_default_context(cafile=str(ca))
                    if httpx.get(f"{url}/_actions", verify=context, trust_env=False).status_code == 200:
                        break
                time.sleep(0.05)
            yield url, ca
        finally:
            process.terminate()
            process.wait(10)


def fcm(url: str, rows: int) -> Requests:
    """FCM: the token in the body."""
    tokens = column([b"%022d:APA91b%0134d" % (row, row) for row in range(rows)])
    return Fcm(url=url, project="bench").render(
        MESSAGE, tokens, np.zeros(rows, np.bool_), now_ms=0, authorize=lambda _: "Bearer x"
    )


def apns(url: str, rows: int) -> Requests:
    """APNs: the token in the path."""
    tokens = column([b"%064x" % row for row in range(rows)])
    return Apns(url=url, topic="bench").render(
        MESSAGE, tokens, np.zeros(rows, np.bool_), now_ms=0, authorize=lambda _: "bearer x"
    )


async def lane_sends(requests: Requests, ca: Path) -> int:
    """Our lane: all rows in batches, as senders hand them over; returns how many were taken."""
    rows = len(requests.which)
    taken = 0
    async with trio.open_nursery() as nursery:
        lane = CurlLane(
            ca=str(ca),
            connections=CONNECTIONS,
            streams=STREAMS,
            timeout_s=30.0,
            reserve=0.0,
            bucket=Bucket(rate_per_s=1e9, burst=1e9, reserve=0.0, now_s=trio.current_time()),
            clock_ms=lambda: time.time_ns() // 1_000_000,
        )
        await nursery.start(lane.run)

        async def batch(start: int) -> None:
            nonlocal taken
            index = np.arange(start, min(rows, start + 2_048))
            sent = await lane.send(requests, index, lane=1, action=1, may_go=lambda: True)
            taken += int(((sent.codes >= 200) & (sent.codes < 300)).sum())

        async with trio.open_nursery() as batches:
            for start in range(0, rows, 2_048):
                batches.start_soon(batch, start)
        lane.close()
    return taken


async def httpx_sends(requests: Requests, ca: Path) -> int:
    """httpx over HTTP/2, as many at once as one connection takes."""
    template = requests.templates[0]
    tokens = requests.columns[0].rows()
    headers = dict(header.split(": ", 1) for header in template.headers)
    taken = 0
    async with httpx.AsyncClient(
        http2=True, verify=ssl.create_default_context(cafile=str(ca)), trust_env=False, timeout=60
    ) as client:
        free = trio.CapacityLimiter(100)

        async def one(token: bytes) -> None:
            nonlocal taken
            fill = [
                b"".join(p if isinstance(p, bytes) else token for p in side) for side in (template.url, template.body)
            ]
            async with free:
                answer = await client.post(fill[0].decode(), content=fill[1], headers=headers)
            taken += answer.status_code == 200

        async with trio.open_nursery() as nursery:
            for token in tokens:
                nursery.start_soon(one, token)
    return taken


def aioapns_sends(url: str, ca: Path, rows: int) -> int:
    """aioapns, which speaks APNs only. Errors: `ImportError` where it is not installed."""
    from aioapns import APNs, NotificationRequest  # type: ignore[import-not-found]

    async def send() -> int:
        client = APNs(client_cert=str(ca), use_sandbox=False, max_connections=CONNECTIONS)
        client.pool.server, client.pool.port = "127.0.0.1", int(url.rpartition(":")[2])
        payload = {"aps": {"alert": MESSAGE.text}, "fanout": {"action": "1", "phase": "0"}}
        sent = [
            client.send_notification(NotificationRequest(device_token=f"{row:064x}", message=payload))
            for row in range(rows)
        ]
        return sum(answer.is_successful for answer in await asyncio.gather(*sent))

    return asyncio.run(send())


def h2load(url: str, requests: Requests, rows: int) -> float | None:
    """Requests a second of h2load, or None if it is not on this machine."""
    program = shutil.which("h2load")
    if program is None:
        return None
    template = requests.templates[0]
    token = requests.columns[0].rows()[0]
    fill = [b"".join(p if isinstance(p, bytes) else token for p in side) for side in (template.url, template.body)]
    with tempfile.NamedTemporaryFile() as body:
        body.write(fill[1])
        body.flush()
        headers = [part for header in template.headers for part in ("-H", header)]
        command = [program, f"-n{rows}", f"-c{CONNECTIONS}", f"-m{STREAMS}", "-t1", "-d", body.name, *headers]
        printed = subprocess.run([*command, fill[0].decode()], capture_output=True, text=True, check=True).stdout
    line = next(line for line in printed.splitlines() if line.startswith("finished in"))
    return float(line.split(", ")[1].split()[0])


def measured(case: str, system: str, rows: int, send: Callable[[], int], expected: int) -> Row:
    """Send, and say how fast and how dear."""
    note(f"push: {case}, {system}")
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    taken = send()
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    assert taken == expected, f"{system}: {taken} of {expected} were taken"
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "case": case,
        "system": system,
        "rows": rows,
        "rate_per_s": round(rows / seconds),
        "cpu_us": round(1e6 * cpu_s / rows, 1),
        "rate_per_core_s": round(rows / cpu_s),
    }


def encryptions(rows: int) -> Row:
    """Web Push: rendering, nearly all of which is P-256."""
    browser = base64url(point(ece.new_key()))
    address = f'{{"endpoint":"https://push.example/x","keys":{{"p256dh":"{browser}","auth":"AAAAAAAAAAAAAAAAAAAAAA"}}}}'
    addresses = column([address.encode()] * rows)
    channel = WebPush(hosts=["push.example"])

    def render() -> int:
        requests = channel.render(MESSAGE, addresses, np.zeros(rows, np.bool_), now_ms=0, authorize=lambda _: "vapid")
        return int(requests.usable.sum())

    return measured("webpush encryption", "fanout", rows, render, rows)


def run(options: Options) -> Iterator[Row]:
    """All systems, one after another, against one sink."""
    ours, theirs = (60_000, 2_000) if options.quick else (400_000, 10_000)
    cores = sorted(os.sched_getaffinity(0))
    with sink(cores) as (url, ca):
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:2]))
        try:
            for name, make in (("fcm", fcm), ("apns", apns)):
                trio.run(lane_sends, make(url, 5_000), ca)  # connections, caches and code are warm
                requests = make(url, ours)
                mine = measured(name, "fanout", ours, lambda r=requests: trio.run(lane_sends, r, ca), ours)  # type: ignore[misc]
                few = make(url, theirs)
                peer = measured(name, "httpx", theirs, lambda r=few: trio.run(httpx_sends, r, ca), theirs)  # type: ignore[misc]
                note(f"push: {name}, h2load")
                ceiling = h2load(url, requests, ours)
                mine["x_httpx"] = round(mine["rate_per_s"] / peer["rate_per_s"], 1)
                if ceiling is None:
                    note("push: h2load is not installed (Debian nghttp2-client)")
                else:
                    mine["x_h2load"] = round(mine["rate_per_s"] / ceiling, 2)
                    yield {"case": name, "system": "h2load", "rows": ours, "rate_per_s": round(ceiling)}
                yield mine
                yield peer
            try:
                yield measured("apns", "aioapns", theirs, lambda: aioapns_sends(url, ca, theirs), theirs)
            except ImportError:
                note("push: aioapns is not installed")
            yield encryptions(2_000 if options.quick else 20_000)
        finally:
            os.sched_setaffinity(0, set(cores))
