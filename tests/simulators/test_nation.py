"""The made-up nation: the same for a seed, in the import format, with addresses in the providers' forms."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fanout.registry import addresses
from fanout.simulators import nation


def test_the_same_seed_makes_the_same_nation() -> None:
    assert nation.spread(2_000, 4).equals(nation.spread(2_000, 4))
    assert not nation.spread(2_000, 4).equals(nation.spread(2_000, 5))


@pytest.mark.parametrize("every_channel", [False, True])
def test_addresses_have_the_providers_forms_and_are_unique(every_channel: bool) -> None:
    table = nation.spread(30_000, 1, every_channel=every_channel, dead=0.02, wrong=0.01)
    share = {name: 1 - table[name].null_count / 30_000 for name in table.column_names}
    assert share["fcm"] == pytest.approx(0.6, abs=0.02)
    assert share["apns"] == pytest.approx(0.3, abs=0.02)
    forms = {
        "fcm": r"[A-Za-z0-9_-]{22}:APA91b[A-Za-z0-9_-]{134}",
        "apns": r"[0-9a-f]{64}",
        "sms": r"\+316[0-9]{8}",
        "voice": r"\+316[0-9]{8}",
        "webpush": r"\{.*\}",
    }
    given = [name for name in forms if name in table.column_names]
    assert len(given) == (5 if every_channel else 3)
    for name in given:
        values = [value for value in table[name].to_pylist() if value is not None]
        assert len(set(values)) == len(values)
        assert all(re.fullmatch(forms[name], value) for value in values)
        assert all(addresses.good(name, value) for value in values[:200])
    fcm = [value for value in table["fcm"].to_pylist() if value]
    assert sum(value.startswith("dead") for value in fcm) / len(fcm) == pytest.approx(0.02, abs=0.005)
    assert sum(value.startswith("bad0") for value in fcm) / len(fcm) == pytest.approx(0.01, abs=0.005)
    sms = [value for value in table["sms"].to_pylist() if value]
    assert sum(value.endswith("999") for value in sms) / len(sms) == pytest.approx(0.02, abs=0.01)


def test_everybody_can_be_reached_and_lives_in_the_country() -> None:
    table = nation.spread(5_000, 2)
    reached = np.zeros(5_000, np.bool_)
    for name in ("fcm", "apns", "sms"):
        reached |= table[name].is_valid().to_numpy()
    assert reached.all()
    assert 3.0 < table["lon"].to_numpy().min() < table["lon"].to_numpy().max() < 7.5
    assert len(set(table["id"].to_pylist())) == 5_000


def test_stops_are_labelled_synthetic() -> None:
    stops = nation.boards(300, 1)
    assert stops.column_names == ["id", "lon", "lat", "place"]
    assert all(name.startswith("synthetic-") for name in stops["id"].to_pylist())
