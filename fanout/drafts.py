"""An action worked out and not yet done: checked, selected, planned. `start` stores a draft, `preview` shows one.

All that can be refused is refused here, before anything is written: kind and rights, times, texts, area. Both callers
run the same checks, so what a preview shows is what a start does.

Rules:

1. Aiming, selecting and planning run in a thread, in one step on one view of the registry; their kernels release the
   GIL. Whoever is found for a preview is found by the same query for a start.
2. How much ground a tenant may address is asked of the area as it is drawn, where nobody is selected yet but for the
   people nearest to a point, who are what draws it.
3. A preview sorts nobody and cuts no batches: it counts in one unsorted pass, since it is called while a shape is being
   dragged over a map.
4. Nothing here remembers anything but caches that could be made again: which district each place of the registry's
   base is in, found for the next base before it is in force.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar, TypeVarTuple

import numpy as np
import trio

from fanout import limits, wire
from fanout.channels import catalogue as channels
from fanout.errors import Refused
from fanout.geo import shapes
from fanout.geo.areas import NamedAreas, Shape, shape_of
from fanout.plan.batches import Cutting, cut, sizes
from fanout.plan.eta import seconds_for, seconds_to_share
from fanout.plan.policy import NO_CHANNEL, first_choice, mask_of, told_in
from fanout.posts import Photos, PostPlanner
from fanout.registry.registry import Registry
from fanout.registry.view import Part, View
from fanout.selection.choose import Selection, choose
from fanout.selection.districts import Districts
from fanout.selection.drawn import circle_of, drawn
from fanout.selection.preview import Reached, by_kind, density, reach
from fanout.selection.query import Query, Spot
from fanout.settings import KindSettings, Settings, TenantSettings
from fanout.store.protocol import NewBatch

Arguments = TypeVarTuple("Arguments")
Answer = TypeVar("Answer")
People = TypeVar("People", Selection, Reached)

DISTRICTS = "municipality"
"""The kind of named areas by which a preview counts people, when areas of it are loaded."""


class BoardPlanner(Protocol):
    """What a draft asks of the signage service."""

    async def plan(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        """Which boards would show the action, and which models cannot; without effect."""


class Draft(NamedTuple):
    """An action ready for the ledger. `version`: of the registry's view it was selected on.

    `area`, `shape`: the ground it is for, as boards want it (see `selection.drawn`).
    """

    area: wire.Area
    shape: Shape
    lane: int
    people: int
    batches: list[NewBatch]
    version: int
    photo: wire.Photo | None
    boards: wire.BoardPlan
    posts: list[wire.PostPlan]
    channels: list[wire.ChannelCount]
    seconds_to_all: float


class _Checked(NamedTuple):
    """What passed of an action, but for its area."""

    kind: KindSettings
    opened: list[str]
    offered: tuple[str, ...]
    rights: TenantSettings
    photo: wire.Photo | None


class _Aimed(NamedTuple, Generic[People]):
    """`area`, `shape`: the ground; `people`: who is on it."""

    area: wire.Area
    shape: Shape
    people: People


class Drafter:
    """Works out actions. Every method may be called by many tasks at once."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        boards: BoardPlanner,
        areas: NamedAreas,
        clock_ms: Callable[[], int],
        posts: PostPlanner,
        photos: Photos,
    ) -> None:
        self.paces = channels.paces(settings)
        self._sizes = sizes(self.paces)
        self._settings = settings
        self._registry = registry
        self._boards = boards
        self._areas = areas
        self._clock_ms = clock_ms
        self._posts = posts
        self._photos = photos
        self._threads = trio.CapacityLimiter(4)
        self._districts: tuple[int, Districts] | None = None
        registry.before_swap(self.prepare)

    async def draft(self, tenant: str, action: wire.Action) -> Draft:
        """Errors: every refusal of the kind, the tenant's rights, the times, the texts and the area."""
        check_end(action.end_ms, self._clock_ms())
        view = self._registry.view()
        checked = await self._check(tenant, action)
        aimed, batches = await self.blocking(self._select_and_plan, tenant, action, checked, view)
        people = len(aimed.people)
        boards = await self._plan_boards(action, aimed.shape, checked.kind)
        posts = await self._posts.plan(tenant, action, aimed.shape)
        if not people and not boards.boards and not posts:
            raise Refused("selection_empty", "area")
        counts: dict[str, int] = {}
        for batch in batches:
            name = wire.CHANNELS[batch.channel]
            counts[name] = counts.get(name, 0) + len(batch.rows)
        return Draft(
            area=aimed.area,
            shape=aimed.shape,
            lane=wire.LANES.index(action.lane or checked.kind.lane),
            people=people,
            batches=batches,
            version=aimed.people.version,
            photo=checked.photo,
            boards=boards,
            posts=posts,
            channels=self.channel_counts(counts),
            seconds_to_all=self.seconds_to(counts, 1.0),
        )

    async def preview(self, tenant: str, request: wire.PreviewRequest) -> wire.Preview:
        """Errors: as `draft`; an end is not needed."""
        if request.end_ms:
            check_end(request.end_ms, self._clock_ms())
        view = self._registry.view()
        checked = await self._check(tenant, request)
        count = await self.blocking(self._count, tenant, request, checked, view)
        people = {name: number for name, number in count.channels.items() if number}
        renderings = channels.renderings(request, list(people))
        parts_of = {(item.channel, item.language): item.parts for item in renderings}
        parts = sum(number * parts_of.get(("sms", language), 0) for language, number in count.sms_languages.items())
        return wire.Preview(
            people=count.people,
            channels=self.channel_counts(people),
            boards=await self._plan_boards(request, count.shape, checked.kind),
            seconds_to_half=self.seconds_to(people, 0.5),
            seconds_to_most=self.seconds_to(people, 0.9),
            seconds_to_all=self.seconds_to(people, 1.0),
            renderings=renderings,
            sms_parts=parts,
            sms_cost=round(parts * self._settings.providers.sms.price_per_part, 2),
            districts=count.districts,
            density=count.density,
            snapshot_version=view.version,
            posts=await self._posts.plan(tenant, request, count.shape),
        )

    def check_texts(
        self, texts: dict[str, str], titles: dict[str, str], opened: Sequence[str], photo: str | None = None
    ) -> None:
        """Errors: `Refused("text_missing" | "text_control_character" | "text_too_long")`, naming where."""
        image = self._settings.media.link(photo)
        for name, words, allowed in (("texts", texts, "\n\t"), ("titles", titles, "")):
            for language, text in words.items():
                check_words(text, f"{name}.{language}", allowed)
        for name in opened:
            for language, text in texts.items():
                why = channels.unfit(name, text, titles.get(language, ""), image)
                if why is not None:
                    raise Refused("text_too_long", f"texts.{language}", channel=name, detail=why)

    def open_channels(self, action: wire.Action) -> list[str]:
        """Channels that are switched on and that the operator wants."""
        return [name for name in self.paces if action.channels is None or name in action.channels]

    def channel_counts(self, people: dict[str, int]) -> list[wire.ChannelCount]:
        """People by channel, with the seconds each channel's quota takes for them."""
        return [
            wire.ChannelCount(channel=name, people=count, seconds=round(seconds_for(count, self.paces[name]), 3))
            for name, count in sorted(people.items())
        ]

    def seconds_to(self, people: dict[str, int], share: float) -> float:
        """Seconds until a share of them is handed over, by the providers' quotas."""
        return round(seconds_to_share(people, self.paces, share), 3)

    async def ground(self, tenant: str, action: wire.Action) -> tuple[wire.Area, Shape]:
        """Where boards show an action that was accepted, as an area and as a shape. Errors: those of the area."""
        aim = partial(self._aim, tenant, action, self.open_channels(action), self._registry.view())
        aimed = await self.blocking(aim, reach if isinstance(action.area, wire.Nearest) else _nobody)
        return aimed.area, aimed.shape

    async def photo_if_kept(self, action: wire.Action) -> wire.Photo | None:
        """The photo of an action that was accepted; None when it has none, or it is gone."""
        if action.photo is not None:
            with contextlib.suppress(Refused):
                return await self.blocking(self._photos.photo, action.photo)
        return None

    async def blocking(self, call: Callable[[*Arguments], Answer], *args: *Arguments) -> Answer:
        """Run a blocking call in a thread; a few at once, so that cores are not fought over."""
        return await trio.to_thread.run_sync(call, *args, limiter=self._threads)

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _check(self, tenant: str, action: wire.Action) -> _Checked:
        kind = self._settings.kinds.get(action.kind)
        if kind is None:
            raise Refused("kind_unknown", "kind", kind=action.kind, known=", ".join(self._settings.kinds))
        rights = self._settings.tenants.get(tenant)
        if rights is None or (rights.kinds and action.kind not in rights.kinds):
            raise Refused("not_permitted", "kind")
        opened = self.open_channels(action)
        if not opened and "social" not in (action.channels or ()):
            raise Refused("text_unfit", "channels", detail="none of the channels asked for is switched on")
        self.check_texts(action.texts, action.titles, opened, action.photo)
        check_board_texts(action.boards.texts, "boards.texts")
        photo = None if action.photo is None else await self.blocking(self._photos.photo, action.photo)
        return _Checked(kind, opened, tuple(action.texts), rights, photo)

    def _aim(
        self,
        tenant: str,
        action: wire.Action,
        opened: Sequence[str],
        view: View,
        find: Callable[[View, Query], People],
        area_km2_max: float = 0.0,
    ) -> _Aimed[People]:
        """The ground of an action and whom it is to reach: `find` is called once, unless the ground is refused."""
        query = self._query(tenant, action, opened)
        shape = query.shape
        if isinstance(action.area, wire.Nearest):
            people = find(view, query)
            area: wire.Area = circle_of(action.area, people.furthest_m)
            shape = shape_of(area)
            _check_ground(shape, area_km2_max)
            return _Aimed(area, shape, people)
        area = drawn(view, query, action.area)
        if area is not action.area:
            shape = shape_of(area, self._areas)
        _check_ground(shape, area_km2_max)
        return _Aimed(area, shape, find(view, replace(query, shape=shape)))

    def _query(self, tenant: str, action: wire.Action, opened: Sequence[str]) -> Query:
        return Query(
            shape=shape_of(action.area, self._areas),
            kind=action.kind,
            at_ms=self._clock_ms(),
            channels=mask_of(opened),
            tenant=tenant,
            languages=None if action.languages is None else tuple(action.languages),
            age_groups=None if action.age_groups is None else tuple(action.age_groups),
            centre=_centre_of(action.centre),
            live=action.live.mode,
            live_fresh_ms=action.live.fresh_s * 1000,
        )

    def _select_and_plan(
        self, tenant: str, action: wire.Action, checked: _Checked, view: View
    ) -> tuple[_Aimed[Selection], list[NewBatch]]:
        asked, offered = action.waves, checked.offered
        aimed = self._aim(tenant, action, checked.opened, view, choose, checked.rights.area_km2_max)
        rows = aimed.people.rows
        _check_people(len(rows), checked.rights)
        if asked is not None and len(rows) > limits.WAVES_MAX * asked.people:
            waves = -(-len(rows) // asked.people)
            raise Refused("waves_too_many", "waves.people", people=len(rows), size=asked.people, waves=waves,
                          limit=limits.WAVES_MAX)  # fmt: skip
        chosen = first_choice(view.take("preference", rows), mask_of(checked.opened))
        assert not (chosen == NO_CHANNEL).any(), "the selection lets only those through who have an open channel"
        languages = _told(view, offered)[view.take("language", rows)]
        cutting = None if asked is None else Cutting(asked.people, asked.free, action.end_ms)
        return aimed, cut(rows, view.take("generation", rows), chosen, languages, offered, self._sizes, cutting)

    def _count(self, tenant: str, request: wire.PreviewRequest, checked: _Checked, view: View) -> _Count:
        aimed = self._aim(tenant, request, checked.opened, view, reach, checked.rights.area_km2_max)
        reached, offered = aimed.people, checked.offered
        _check_people(len(reached), checked.rights)
        kinds, people = by_kind(reached)
        chosen = first_choice(kinds["preference"].astype(np.uint32), mask_of(checked.opened))
        counts = np.zeros((256, len(offered)), np.int64)
        np.add.at(counts, (chosen, _told(view, offered)[kinds["language"]]), people)
        sms = wire.CHANNELS.index("sms")
        return _Count(
            shape=aimed.shape,
            people=len(reached),
            channels={name: int(counts[number].sum()) for number, name in enumerate(wire.CHANNELS)},
            sms_languages={language: int(counts[sms, number]) for number, language in enumerate(offered)},
            districts=self._districts_now().counts(reached),
            density=_density(reached, request.grid),
        )

    async def _plan_boards(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        if not action.boards.show:
            return wire.BoardPlan()
        return await self._boards.plan(action, shape, kind)

    def prepare(self, base: Part) -> None:
        """Find the districts of a base's places, so that no preview waits for it. Blocking."""
        self._districts_now().prepare(base.index)

    def _districts_now(self) -> Districts:
        """The districts that are loaded; made again when areas of the kind were imported. Called in a thread."""
        loaded = self._areas.kinds().get(DISTRICTS, 0)
        if self._districts is None or self._districts[0] != loaded:
            self._districts = loaded, Districts.of(self._areas, DISTRICTS)
        return self._districts[1]


class _Count(NamedTuple):
    shape: Shape
    people: int
    channels: dict[str, int]
    sms_languages: dict[str, int]
    districts: dict[str, int]
    density: wire.Density | None


def _nobody(view: View, query: Query) -> Selection:
    """Finds nobody: for those who want to know the ground only."""
    return Selection(np.empty(0, np.uint32), np.empty(0, np.float32), view.version)


def _centre_of(centre: wire.Centre | None) -> Spot | tuple[Spot, ...] | None:
    """From where distances count. Errors: `Refused("area_coordinate_range" | "area_coordinate_not_finite")`."""
    match centre:
        case wire.Point(coordinates=(lon, lat, *_)):
            shapes.fixed_point(lon, lat, "centre.coordinates")
            return lon, lat
        case wire.LineString(coordinates=line):
            for at, (lon, lat, *_) in enumerate(line):
                shapes.fixed_point(lon, lat, f"centre.coordinates[{at}]")
            return tuple((lon, lat) for lon, lat, *_ in line)
    return None


def _density(reached: Reached, grid: int) -> wire.Density | None:
    if not grid:
        return None
    cells = density(reached, columns=grid, rows=grid)
    return wire.Density(
        west=cells.west, south=cells.south, east=cells.east, north=cells.north, people=cells.people.tolist()
    )


def _told(view: View, offered: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """uint8[languages of the view]: the number of the offered language that each is told in."""
    return np.array([offered.index(told_in(wanted, offered)) for wanted in view.languages], np.uint8)


def _check_ground(shape: Shape, area_km2_max: float) -> None:
    if area_km2_max and shape.area_km2 > area_km2_max:
        raise Refused("area_too_large", "area", area_km2=shape.area_km2, limit_km2=area_km2_max)


def _check_people(people: int, rights: TenantSettings) -> None:
    if rights.people_max and people > rights.people_max:
        raise Refused("selection_too_large", "area", people=people, limit=rights.people_max)


def check_words(text: str, where: str, allowed: str = "\n\t") -> None:
    """Errors: `Refused("text_missing" | "text_control_character")`; `allowed`: control characters that may be in it."""
    kinds = [unicodedata.category(char) for char in text]
    bad = next((i for i, kind in enumerate(kinds) if kind == "Cc" and text[i] not in allowed), None)
    if bad is not None:
        raise Refused("text_control_character", where, character=text[bad], position=bad)
    if all(kind[0] in "CZ" for kind in kinds):  # blanks, and what joins or turns letters that are not there
        raise Refused("text_missing", where)


def check_board_texts(texts: dict[str, list[str]], where: str) -> None:
    """Short forms for boards, by language. Errors: as `check_words`."""
    for language, forms in texts.items():
        for number, text in enumerate(forms):
            check_words(text, f"{where}.{language}[{number}]")


def check_end(end_ms: int, now_ms: int, created_ms: int | None = None) -> None:
    """Whether an action, one of `created_ms` or a new one, may end then. Errors: `Refused("end_in_the_past" |
    "end_too_far")`."""
    if end_ms <= now_ms:
        raise Refused("end_in_the_past", "end_ms")
    since_ms = now_ms if created_ms is None else created_ms
    if end_ms > since_ms + limits.ACTION_HOURS_MAX * 3_600_000:
        raise Refused("end_too_far", "end_ms", limit_h=limits.ACTION_HOURS_MAX)
