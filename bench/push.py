"""Push: requests a second to one TLS sink, by our two lanes, by the peers of `push_peers.py`, and by h2load.

The sink is the provider simulator on a core of its own, so what is compared is the client. Every system sends what it
would send in service: a body or a path of its own per device, and reads each answer's status. `fanout` is the lane that
writes frames, `fanout libcurl` the one that leaves it to libcurl.

`cpu_us` is the sending process's processor time per request: on a machine where sink and sender share two cores it says
more than the rate, which is the sink's as soon as a client is faster. The rates of a run are comparable, since all run
one after the other against the same sink.
"""

from __future__ import annotations

import os
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import trio

from bench import push_peers
from bench.harness import Options, Row, note
from bench.push_peers import CONNECTIONS, STREAMS
from fanout.channels import ece
from fanout.channels.apns import Apns
from fanout.channels.fcm import Fcm
from fanout.channels.jwt import base64url, point
from fanout.channels.kernels import AUTH_BYTES
from fanout.channels.protocol import Message, Requests, column
from fanout.channels.webpush import WebPush
from fanout.dispatch.bucket import Bucket
from fanout.dispatch.curl_lane import CurlLane
from fanout.dispatch.frame_lane import FrameLane
from fanout.dispatch.lanes import RunningLane
from fanout.limits import BATCH_ROWS_MAX

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
                assert process.poll() is None, "the sink did not start"
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


def lane(kind: str, url: str, ca: Path) -> RunningLane:
    """One of our lanes, as a sender has it, without a quota."""
    common: dict[str, Any] = {
        "ca": str(ca),
        "connections": CONNECTIONS,
        "streams": STREAMS,
        "timeout_s": 30.0,
        "reserve": 0.0,
        "bucket": Bucket(rate_per_s=1e9, burst=1e9, reserve=0.0, now_s=trio.current_time()),
        "clock_ms": lambda: time.time_ns() // 1_000_000,
    }
    return FrameLane(url=url, **common) if kind == "frames" else CurlLane(**common)


async def lane_sends(kind: str, requests: Requests, url: str, ca: Path) -> int:
    """Our lane: all rows in batches, as senders hand them over; returns how many were taken."""
    rows = len(requests.which)
    taken = 0
    async with trio.open_nursery() as nursery:
        bulk = lane(kind, url, ca)
        await nursery.start(bulk.run)

        async def batch(start: int) -> None:
            nonlocal taken
            index = np.arange(start, min(rows, start + BATCH_ROWS_MAX))
            sent = await bulk.send(requests, index, lane=1, action=1, may_go=lambda: True)
            taken += int(((sent.codes >= 200) & (sent.codes < 300)).sum())

        async with trio.open_nursery() as batches:
            for start in range(0, rows, BATCH_ROWS_MAX):
                batches.start_soon(batch, start)
        bulk.close()
    return taken


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


def subscriptions(rows: int) -> list[ece.Subscriber]:
    """Browsers, each with keys of its own."""
    return [ece.Subscriber(point(ece.new_key()), os.urandom(AUTH_BYTES)) for _ in range(rows)]


def encryptions(ours: int, theirs: int) -> Iterator[Row]:
    """Web Push, everything up to the lane: subscriptions read, each with its key pair and its body, in batches as
    senders have them. Beside it what `cryptography` takes for the bodies alone, one after another. Goal: 5,000 a second
    and core (`rate_per_core_s`)."""
    browsers = subscriptions(ours)
    addresses = [
        f'{{"endpoint":"https://push.example/{n}","keys":{{"p256dh":"{base64url(key)}","auth":"{base64url(auth)}"}}}}'
        for n, (key, auth) in enumerate(browsers)
    ]
    batches = [
        column([address.encode() for address in addresses[at : at + BATCH_ROWS_MAX]])
        for at in range(0, ours, BATCH_ROWS_MAX)
    ]
    channel = WebPush(hosts=["push.example"])

    def render() -> int:
        sealed = 0
        for batch in batches:
            again = np.zeros(len(batch.offsets) - 1, np.bool_)
            requests = channel.render(MESSAGE, batch, again, now_ms=0, authorize=lambda _: "vapid")
            sealed += int(requests.usable.sum())
        return sealed

    def one_by_one() -> int:
        plain = bytes(300)
        return sum(bool(ece.encrypt(plain, to, salt=os.urandom(16), ours=ece.new_key())) for to in browsers[:theirs])

    ece.warm()
    row = measured("webpush encryption", "fanout", ours, render, ours)
    peer = measured("webpush encryption", "cryptography", theirs, one_by_one, theirs)
    yield row | {
        "x_cryptography": round(row["rate_per_core_s"] / peer["rate_per_core_s"], 1),
        "by": ece.batch_library(),
    }
    yield peer


def compared(name: str, make: Callable[[str, int], Requests], url: str, ca: Path, ours: int, theirs: int) -> list[Row]:
    """All systems with one provider's messages, in turn."""
    few, many = make(url, theirs), make(url, ours)
    rows = []
    for system, kind in (("fanout", "frames"), ("fanout libcurl", "libcurl")):
        trio.run(lane_sends, kind, few, url, ca)  # caches and code are warm
        rows.append(measured(name, system, ours, partial(trio.run, lane_sends, kind, many, url, ca), ours))
    rows.append(measured(name, "httpx", theirs, partial(trio.run, push_peers.httpx_sends, few, ca), theirs))
    payload = {"aps": {"alert": MESSAGE.text}, "fanout": {"action": "1", "phase": "0"}}
    special: dict[str, tuple[str, Callable[[], int]]] = {
        "fcm": ("aiohttp", partial(push_peers.aiohttp_sends, few, ca)),
        "apns": ("aioapns", partial(push_peers.aioapns_sends, few, ca, url=url, payload=payload)),
    }
    system, send = special[name]
    try:
        rows.append(measured(name, system, theirs, send, theirs))
    except ImportError:
        note(f"push: {system} is not installed (make bench does)")
    note(f"push: {name}, h2load")
    ceiling = push_peers.h2load(many, ours)
    if ceiling is None:
        note("push: h2load is not installed (Debian nghttp2-client)")
    for row in rows[1:]:
        rows[0][f"x_{row['system'].replace(' ', '_')}"] = round(rows[0]["rate_per_s"] / row["rate_per_s"], 1)
    if ceiling is not None:
        rows[0]["x_h2load"] = round(rows[0]["rate_per_s"] / ceiling, 2)
        rows.append({"case": name, "system": "h2load", "rows": ours, "rate_per_s": round(ceiling)})
    return rows


def run(options: Options) -> Iterator[Row]:
    """All systems, one after another, against one sink."""
    ours, theirs = (60_000, 2_000) if options.quick else (400_000, 10_000)
    cores = sorted(os.sched_getaffinity(0))
    with sink(cores) as (url, ca):
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores[1:2]))
        try:
            for name, make in (("fcm", fcm), ("apns", apns)):
                yield from compared(name, make, url, ca, ours, theirs)
            yield from encryptions(*((10_000, 2_000) if options.quick else (40_000, 5_000)))
        finally:
            os.sched_setaffinity(0, set(cores))
