"""What crosses a border is decoded by many threads; the first of them have to come through it too."""

from __future__ import annotations

import subprocess
import sys

import pytest

RACE = """
import sys, threading, time
from fanout import wire

sys.setswitchinterval(1e-5)
parts = [{"type": "Circle", "lon": 1.0, "lat": 2.0, "radius_m": 3.0}, {"type": "Everyone"}]
area = {"type": "Union", "of": parts}
body = wire.encode_msgpack({"reference": "a", "kind": "k", "area": area, "texts": {"nl": "x"}, "end_ms": 1})
threads = [threading.Thread(target=wire.decode_msgpack, args=(body, wire.ActionRequest)) for _ in range(40)]
for thread in threads:
    thread.start()
    time.sleep(0.0003)
for thread in threads:
    thread.join()
print(wire.decode_msgpack(body, wire.ActionRequest).reference)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_decode_a_first_body_at_once_do_not_crash(attempt: int) -> None:
    process = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout) == (0, "a\n"), process.stderr
