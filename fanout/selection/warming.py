"""Compile every kernel of a selection by asking one of a tiny registry, so that no request waits for a compiler."""

from __future__ import annotations

import numpy as np

from fanout.geo import shapes
from fanout.geo.index import warm as warm_index
from fanout.registry import packed
from fanout.registry.columns import PERSON, Names
from fanout.registry.live import LivePositions
from fanout.registry.view import View, empty_part, make_part
from fanout.selection import preview
from fanout.selection.choose import choose
from fanout.selection.districts import Districts
from fanout.selection.ordering import kernels as ordering
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
    live = LivePositions(1_000).update(np.array([0, 1]), lon[:2], lat[:2], np.array([5, 5]), 5)
    view = View(1, 2, 2, Names(), base, empty_part(np.empty(0, np.uint32)), stale, live)
    ordering.sort_keys(np.array([2, 1], np.uint64), np.empty(2, np.uint64))
    for shape in (shapes.EVERYONE, shapes.Circle(0, 0, 1e3), shapes.corridor([(0, 0), (0, 1)], 1e3)):
        choose(view, Query(shape=shape, exclude=np.array([1], np.uint32)))
        for live_is in ("ignore", "beside", "instead"):
            choose(view, Query(shape=shape, live=live_is, centre=(0.0, 0.0)))
            reached = preview.reach(view, Query(shape=shape, live=live_is))
    preview.reach(view, Query(shape=shapes.Nearest(0, 0, 1)))
    preview.density(reached)
    preview.by_kind(reached)
    square = np.array([[0, 0], [9_000, 0], [9_000, 9_000], [0, 0]], np.int64)
    Districts({"": shapes.polygon([square])}).counts(reached)
