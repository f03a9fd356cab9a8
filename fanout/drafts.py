"""An action worked out and not yet done: checked, selected, planned. `start` stores a draft, `preview` shows one.

All that can be refused is refused here, before anything is written: kind and rights, times, texts, area. Both callers
run the same checks, so what a preview shows is what a start does.

Rules:

1. Selecting and planning run in a thread, in one step on one view of the registry; their kernels release the GIL.
2. A preview sorts nobody and cuts no batches: it counts in one unsorted pass, since it is called while a shape is being
   dragged over a map.
3. Nothing here remembers anything but caches that could be made again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

import numpy as np
import trio

from fanout import limits, wire
from fanout.channels import catalogue as channels
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape, shape_of
from fanout.plan.batches import Cutting, cut
from fanout.plan.eta import seconds_for, seconds_to_share
from fanout.plan.policy import NO_CHANNEL, first_choice, mask_of, told_in
from fanout.posts import Photos, PostPlanner
from fanout.registry.registry import Registry
from fanout.registry.view import View
from fanout.selection.choose import choose
from fanout.selection.drawn import drawn
from fanout.selection.preview import Districts, by_kind, density, reach
from fanout.selection.query import Query
from fanout.settings import KindSettings, Settings, TenantSettings
from fanout.store.protocol import NewBatch

Arguments = TypeVarTuple("Arguments")
Answer = TypeVar("Answer")

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
    """What passed. `area`, `shape`: the ground; `query`: the people."""

    kind: KindSettings
    area: wire.Area
    shape: Shape
    opened: list[str]
    query: Query
    offered: tuple[str, ...]
    rights: TenantSettings
    photo: wire.Photo | None


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
        self._settings = settings
        self._registry = registry
        self._boards = boards
        self._areas = areas
        self._clock_ms = clock_ms
        self._posts = posts
        self._photos = photos
        self._threads = trio.CapacityLimiter(4)
        self._districts: tuple[int, Districts] | None = None

    async def draft(self, tenant: str, action: wire.Action) -> Draft:
        """Errors: every refusal of the kind, the tenant's rights, the times, the texts and the area."""
        _check_times(action.end_ms, self._clock_ms())
        view = self._registry.view()
        checked = await self._check(tenant, action, view)
        asked = action.waves
        cutting = None if asked is None else Cutting(asked.people, asked.free, action.end_ms)
        people, batches, version = await self.blocking(_select_and_plan, view, checked.query, checked.offered, cutting)
        _check_people(people, checked.rights)
        boards = await self._plan_boards(action, checked)
        posts = await self._posts.plan(tenant, action, checked.shape)
        if not people and not boards.boards and not posts:
            raise Refused("selection_empty", "area")
        counts: dict[str, int] = {}
        for batch in batches:
            name = wire.CHANNELS[batch.channel]
            counts[name] = counts.get(name, 0) + len(batch.rows)
        return Draft(
            area=checked.area,
            shape=checked.shape,
            lane=wire.LANES.index(action.lane or checked.kind.lane),
            people=people,
            batches=batches,
            version=version,
            photo=checked.photo,
            boards=boards,
            posts=posts,
            channels=self.channel_counts(counts),
            seconds_to_all=self.seconds_to(counts, 1.0),
        )

    async def preview(self, tenant: str, request: wire.PreviewRequest) -> wire.Preview:
        """Errors: as `draft`; an end is not needed."""
        if request.end_ms:
            _check_times(request.end_ms, self._clock_ms())
        view = self._registry.view()
        checked = await self._check(tenant, request, view)
        count = await self.blocking(_count, view, checked, self._districts_now, request.grid)
        _check_people(count.people, checked.rights)
        people = {name: number for name, number in count.channels.items() if number}
        renderings = channels.renderings(request, list(people))
        parts_of = {(item.channel, item.language): item.parts for item in renderings}
        parts = sum(number * parts_of.get(("sms", language), 0) for language, number in count.sms_languages.items())
        return wire.Preview(
            people=count.people,
            channels=self.channel_counts(people),
            boards=await self._plan_boards(request, checked),
            seconds_to_half=self.seconds_to(people, 0.5),
            seconds_to_most=self.seconds_to(people, 0.9),
            seconds_to_all=self.seconds_to(people, 1.0),
            renderings=renderings,
            sms_parts=parts,
            sms_cost=round(parts * self._settings.providers.sms.price_per_part, 2),
            districts=count.districts,
            density=count.density,
            snapshot_version=view.version,
            posts=await self._posts.plan(tenant, request, checked.shape),
        )

    def check_texts(
        self, texts: dict[str, str], titles: dict[str, str], opened: Sequence[str], photo: str | None = None
    ) -> None:
        """Errors: `Refused("text_control_character" | "text_too_long")`, naming language and channel."""
        image = self._settings.media.link(photo)
        for name, words, allowed in (("texts", texts, "\n\t"), ("titles", titles, "")):
            for language, text in words.items():
                bad = next((i for i, char in enumerate(text) if char < " " and char not in allowed), None)
                if bad is not None:
                    raise Refused("text_control_character", f"{name}.{language}", character=text[bad], position=bad)
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
        opened = self.open_channels(action)
        area, shape, _ = await self.blocking(self._aim, tenant, action, opened, self._registry.view())
        return area, shape

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

    async def _check(self, tenant: str, action: wire.Action, view: View) -> _Checked:
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
        photo = None if action.photo is None else await self.blocking(self._photos.photo, action.photo)
        area, shape, query = await self.blocking(self._aim, tenant, action, opened, view)
        size_km2 = query.shape.area_km2
        if rights.area_km2_max and size_km2 > rights.area_km2_max:
            raise Refused("area_too_large", "area", area_km2=size_km2, limit_km2=rights.area_km2_max)
        return _Checked(kind, area, shape, opened, query, tuple(action.texts), rights, photo)

    def _aim(
        self, tenant: str, action: wire.Action, opened: Sequence[str], view: View
    ) -> tuple[wire.Area, Shape, Query]:
        """The ground of an action, as an area and as a shape, and whom it is to reach. Blocking."""
        shape = shape_of(action.area, self._areas)
        query = Query(shape=shape, kind=action.kind, at_ms=self._clock_ms(), channels=mask_of(opened), tenant=tenant)
        area = drawn(view, query, action.area)
        if area is not action.area:
            shape = shape_of(area, self._areas)
            if not isinstance(action.area, wire.Nearest):
                query = replace(query, shape=shape)
        return area, shape, query

    async def _plan_boards(self, action: wire.Action, checked: _Checked) -> wire.BoardPlan:
        if not action.boards.show:
            return wire.BoardPlan()
        return await self._boards.plan(action, checked.shape, checked.kind)

    def _districts_now(self) -> Districts:
        """The districts that are loaded; made again when areas of the kind were imported. Called in a thread."""
        loaded = self._areas.kinds().get(DISTRICTS, 0)
        if self._districts is None or self._districts[0] != loaded:
            self._districts = loaded, Districts.of(self._areas, DISTRICTS)
        return self._districts[1]


class _Count(NamedTuple):
    people: int
    channels: dict[str, int]
    sms_languages: dict[str, int]
    districts: dict[str, int]
    density: wire.Density | None


def _count(view: View, checked: _Checked, districts_now: Callable[[], Districts], grid: int) -> _Count:
    reached = reach(view, checked.query)
    kinds, people = by_kind(reached)
    chosen = first_choice(kinds["preference"].astype(np.uint32), checked.query.channels)
    offered = checked.offered
    counts = np.zeros((256, len(offered)), np.int64)
    np.add.at(counts, (chosen, _told(view, offered)[kinds["language"]]), people)
    sms = wire.CHANNELS.index("sms")
    drawn = None
    if grid:
        cells = density(reached, columns=grid, rows=grid)
        drawn = wire.Density(
            west=cells.west, south=cells.south, east=cells.east, north=cells.north, people=cells.people.tolist()
        )
    return _Count(
        people=len(reached),
        channels={name: int(counts[number].sum()) for number, name in enumerate(wire.CHANNELS)},
        sms_languages={language: int(counts[sms, number]) for number, language in enumerate(offered)},
        districts=districts_now().counts(view, reached),
        density=drawn,
    )


def _select_and_plan(
    view: View, query: Query, offered: tuple[str, ...], waves: Cutting | None
) -> tuple[int, list[NewBatch], int]:
    selection = choose(view, query)
    rows = selection.rows
    if waves is not None and len(rows) > limits.WAVES_MAX * waves.people:
        count = -(-len(rows) // waves.people)
        raise Refused(
            "waves_too_many", "waves.people", people=len(rows), size=waves.people, waves=count, limit=limits.WAVES_MAX
        )
    chosen = first_choice(view.take("preference", rows), query.channels)
    assert not (chosen == NO_CHANNEL).any(), "the selection lets only those through who have an open channel"
    languages = _told(view, offered)[view.take("language", rows)]
    batches = cut(rows, view.take("generation", rows), chosen, languages, offered, waves)
    return len(rows), batches, selection.version


def _told(view: View, offered: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """uint8[languages of the view]: the number of the offered language that each is told in."""
    return np.array([offered.index(told_in(wanted, offered)) for wanted in view.languages], np.uint8)


def _check_people(people: int, rights: TenantSettings) -> None:
    if rights.people_max and people > rights.people_max:
        raise Refused("selection_too_large", "area", people=people, limit=rights.people_max)


def _check_times(end_ms: int, now_ms: int) -> None:
    if end_ms <= now_ms:
        raise Refused("end_in_the_past", "end_ms")
    if end_ms > now_ms + limits.ACTION_HOURS_MAX * 3_600_000:
        raise Refused("end_too_far", "end_ms", limit_h=limits.ACTION_HOURS_MAX)
