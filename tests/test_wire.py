"""What crosses a border is decoded by many threads; the first of them have to come through it too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fanout
from fanout import wire
from fanout.errors import Refused

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
    process = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=240, check=False)
    assert (process.returncode, process.stdout) == (0, "a\n"), process.stderr


def test_no_pattern_lets_a_line_break_in_at_the_end() -> None:
    """`$` does: a language of "nl\\n" was registered, and with it every action there was an internal error."""
    sources = Path(str(fanout.__file__)).parent.rglob("*.py")
    patterns = [found for source in sources for found in re.findall(r'pattern=r"([^"]*)"', source.read_text())]
    assert len(patterns) > 10
    loose = [pattern for pattern in patterns if not pattern.endswith((r"$(?!\n)", r"\Z"))]
    assert not loose


@pytest.mark.parametrize(
    ("where", "old", "new"),
    [
        ("id", "somebody", "somebody\n"),
        ("language", "nl-BE", "nl-BE\n"),
        ("places[0].hours[0].days", "123", "123\n"),
        ("places[0].hours[0].start", "09:00", "09:00\n"),
        ("places[0].hours[0].start", "09:00", "0\u0669:00"),
        ("places[0].hours[0].end", "24:00", "24:00\n"),
    ],
)
def test_a_participant_with_a_line_break_in_it(where: str, old: str, new: str) -> None:
    good = {
        "participants": [
            {
                "id": "somebody",
                "language": "nl-BE",
                "places": [{"lon": 5.0, "lat": 52.0, "hours": [{"days": "123", "start": "09:00", "end": "24:00"}]}],
                "addresses": [],
            }
        ]
    }
    body = wire.encode_json(good)
    assert len(wire.decode_json(body, wire.ParticipantsRequest).participants) == 1
    with pytest.raises(Refused) as refused:
        wire.decode_json(body.replace(wire.encode_json(old), wire.encode_json(new)), wire.ParticipantsRequest)
    assert (refused.value.code, refused.value.where) == ("field_invalid", f"participants[0].{where}")


def test_a_pattern_is_told_as_everybody_knows_it() -> None:
    with pytest.raises(Refused) as refused:
        wire.decode_json(b'{"id": "a b", "places": [], "addresses": []}', wire.Participant)
    assert refused.value.message == "Expected `str` matching regex '^[A-Za-z0-9._:@-]+$'."
