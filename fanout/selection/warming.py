"""Compile every kernel of a selection by asking one of a tiny registry, so that no request waits for a compiler."""

from __future__ import annotations

import numpy as np

from fanout.geo import shapes
from fanout.geo.index import warm as warm_index
from fanout.registry import packed
from fanout.registry.columns import PERSON, Names
from fanout.registry.view import View, empty_part, make_part
from fanout.selection.choose import choose
from fanout.selection.query import Query


def warm() -> None:
    """Compile (or load from the cache) all of `fanout.geo` and of this package."""
    warm_index()
    people = np.zeros(2, PERSON)
    people["channels"] = people["kinds"] = people["tenants"] = 1
    person = np.array([0, 0, 1], np.uint32)
    lon, lat = np.array([0, 5_000, 9_000], np.int32), np.zeros(3, np.int32)
    base = make_part(None, people, packed.of_texts(["a", "b"]), person, lon, lat, np.zeros(3, np.uint16))
    stale = np.zeros(2, np.uint8)
    stale.setflags(write=False)
    view = View(1, 2, 2, Names(), base, empty_part(np.empty(0, np.uint32)), stale)
    for shape in (shapes.EVERYONE, shapes.Circle(0, 0, 1e3), shapes.corridor([(0, 0), (0, 1)], 1e3)):
        choose(view, Query(shape=shape, exclude=np.array([1], np.uint32)))
