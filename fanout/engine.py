"""The life of an action: started, watched, closed, its result told. The only module that sees all stages.

The way of `start`: draft (`drafts.py`: check, select, plan) → ledger → boards. All that can be refused is refused
before the ledger is written; what the ledger has acknowledged happens, whatever dies.

Rules:

1. The same reference with the same body is the same action, however often and however concurrently it is sent.
2. Closing takes effect in the ledger first: from that commit on no sender gets another row of the action through.
3. A result goes to exactly those who got the action or may have got it, on the channel they got it by. Senders hold
   thousands of push rows that wait for a quota; these come back within moments of the close, and are waited for. An
   action whose result was recorded but not yet planned when the process died is `closing`; `recover` finishes it.
4. Nothing here blocks the event loop: selection and plan run in a thread (their kernels release the GIL), the ledger
   behind the `Writer`'s group commit.
5. Boards are a neighbour, reached through the `Boards` protocol; what they remember is theirs.

The engine keeps no state of its own beside caches: a second engine on the same store answers the same.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from fanout import call_back, wire
from fanout.drafts import Drafter, check_board_texts, check_end, check_words
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape
from fanout.inbound import receipts
from fanout.plan.policy import told_in
from fanout.posts import NOBODY, Photos, Posts
from fanout.registry.registry import Registry
from fanout.results import forecast, tallies
from fanout.settings import KindSettings, Settings
from fanout.store.protocol import ActionRecord, NewBatch, PhaseRecord, Store
from fanout.store.protocol import Bytes8 as Status
from fanout.store.states import OPEN, State, reached
from fanout.store.writer import Writer
from fanout.waves import WaveKeeper

RESULT_HOURS: Final = 24
"""A result is still worth hearing this long after the close; then it expires unsent."""
COME_BACK_S: Final = 1.0
"""For senders to say which rows of a closed action never went out; what is on the wire by then may be received."""
LOOK_EVERY_S: Final = 0.05


class Boards(Protocol):
    """What the engine asks of the signage service."""

    async def plan(self, action: wire.Action, shape: Shape, kind: KindSettings) -> wire.BoardPlan:
        """Which boards would show the action, and which models cannot; without effect."""

    async def show(
        self,
        action_id: int,
        action: wire.Action,
        shape: Shape,
        lane: int,
        now_ms: int,
        *,
        photo: wire.Photo | None = None,
    ) -> None:
        """Durable when it returns; boards follow."""

    async def update(
        self, action_id: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int
    ) -> None:
        """Put other texts in the place of an action's; it goes on."""

    async def move_end(self, action_id: int, end_ms: int) -> None:
        """Let an action that is on be over at another time. Again: nothing."""

    async def result(self, action_id: int, texts: dict[str, str], now_ms: int) -> None:
        """Take the action down, or put its result in its place for a while."""

    def counts(self, action_id: int) -> wire.BoardCounts: ...

    def showing(self) -> list[int]:
        """Actions that any board still has to show, or may still show."""

    def views(self) -> list[wire.BoardView]: ...

    def view(self, board: str) -> wire.BoardView | None: ...

    def proofs(self, action_id: int) -> list[wire.BoardProof]:
        """Board by board, with the reason of every one that lags."""

    def key(self) -> wire.BoardKey | None:
        """What boards verify documents with; None: documents are not signed."""


class Engine:
    """See the module. Made by `app`; every method may be called by many tasks at once."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        registry: Registry,
        boards: Boards,
        areas: NamedAreas,
        clock_ms: Callable[[], int],
        posts: Posts = NOBODY,
        photos: Photos = NOBODY,
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._registry = registry
        self._boards = boards
        self._clock_ms = clock_ms
        self._posts = posts
        self._drafter = Drafter(settings, registry, boards, areas, clock_ms, posts, photos)
        self._blocking = self._drafter.blocking
        self._waves = WaveKeeper(store, writer, clock_ms)

    def __repr__(self) -> str:
        return f"<Engine: {self._registry.view().people} people, channels {', '.join(self._drafter.paces)}>"

    # --- actions ----------------------------------------------------------------------------------------------------

    async def start(self, tenant: str, request: wire.ActionRequest) -> wire.ActionAccepted:
        """Make an action durable and set it going.

        Errors: every refusal of the area, the text, the kind, the times and the tenant's bounds;
        `Refused("reference_conflict")`; `Refused("store_unavailable")`, in which case nothing was started.

        Cancellation: may be cancelled at any time; the action may then have been started or not. Send it again with the
        same reference to find out.
        """
        now_ms = self._clock_ms()
        digest = _digest(request)
        existing = await self._blocking(self._store.action_by_reference, tenant, request.reference)
        if existing is not None:
            return self._accepted_again(existing, digest, request.reference)
        said = call_back.in_action(request)
        draft = await self._drafter.draft(tenant, said)
        record = ActionRecord(
            id=0,
            tenant=tenant,
            reference=request.reference,
            digest=digest,
            kind=request.kind,
            lane=draft.lane,
            state="open",
            created_ms=now_ms,
            end_ms=request.end_ms,
            snapshot_version=draft.version,
            body=wire.encode_msgpack(request),
        )
        phase = _phase(0, "start", now_ms, said.end_ms, said.texts, said.titles)
        stored, new = await self._writer.run(self._store.open_action, record, phase, draft.batches)
        if not new:
            return self._accepted_again(stored, digest, request.reference)
        if request.waves is not None:
            self._waves.add(stored.id, request.waves)
        if draft.boards.boards:
            on_boards = msgspec.structs.replace(said, area=draft.area)
            await self._boards.show(stored.id, on_boards, draft.shape, draft.lane, now_ms, photo=draft.photo)
        if draft.posts:
            await self._posts.start(stored.id, tenant, said, draft.shape, draft.lane)
        return wire.ActionAccepted(
            id=stored.id,
            people=draft.people,
            channels=draft.channels,
            boards=draft.boards,
            seconds_to_all=draft.seconds_to_all,
            snapshot_version=draft.version,
            posts=len(draft.posts),
        )

    async def preview(self, tenant: str, request: wire.PreviewRequest) -> wire.Preview:
        """What `start` would do, without effect. Errors: as `start`."""
        return await self._drafter.preview(tenant, call_back.in_action(request))

    async def view(self, tenant: str, action_id: int) -> wire.ActionView:
        """State and counts of an action. Errors: `Refused("not_found")`, also for another tenant's action."""
        record = await self._record(tenant, action_id)
        asked = _request_of(record).waves
        phases, counts = await self._blocking(self._phases_and_counts, action_id)
        return wire.ActionView(
            id=record.id,
            reference=record.reference,
            kind=record.kind,
            lane=wire.LANES[record.lane],
            state=record.state,
            created_ms=record.created_ms,
            end_ms=record.end_ms,
            outcome=record.outcome,
            tallies=tallies(phases, counts),
            boards=self._boards.counts(action_id),
            forecast=forecast(phases[-1], counts, self._drafter.paces, self._clock_ms()),
            waves=None if asked is None else await self._blocking(self._waves.counts, record, asked),
            posts=await self._blocking(self._posts.views, action_id),
        )

    async def update(self, tenant: str, action_id: int, request: wire.UpdateRequest) -> wire.ActionView:
        """Tell news to everyone who got, or is about to get, an action that goes on, and let it end at another time.

        The same news again changes nothing. People who were not told yet get both messages, in order, and their apps
        show the last. What a provider or a phone has already keeps the end that it came with. Errors:
        `Refused("action_not_open" | "reference_conflict" | "text_missing" | "text_too_long" | "end_in_the_past" |
        "end_too_far")`.
        """
        async with self._waves.turn:
            record = await self._record(tenant, action_id)
            action = _request_of(record)
            request = call_back.in_update(request, action.call_number)
            phases = await self._blocking(self._store.phases, action_id)
            updates = {phase.reference: phase for phase in phases if phase.name == "update"}
            known = updates.get(request.reference)
            if known is None:
                _need_state(record, "open", "paused")
                now_ms = self._clock_ms()
                await self._check_update(record, action, request, now_ms)
                if request.end_ms is not None:
                    record = await self._move_end(record, request.end_ms, now_ms)
            if known is None and request.texts:
                batches = await self._blocking(self._further_batches, record, tuple(request.texts), _told_or_waiting)
                number, end_ms = len(phases), record.end_ms
                phase = _phase(number, "update", now_ms, end_ms, request.texts, action.titles, request.reference)
                # boards first: who dies before the ledger has it is asked again by the caller
                await self._boards.update(record.id, request.texts, request.board_texts, now_ms)
                if not await self._writer.run(_add_phase, self._store, record.id, phase, batches, record.state):
                    _need_state(await self._record(tenant, action_id), record.state)
                await self._posts.tell(record.id, "update", number, request.texts, action.titles, end_ms)
            elif known is not None and known.texts != request.texts:
                raise Refused("reference_conflict", "reference", reference=request.reference)
        return await self.view(tenant, action_id)

    async def operators(self, tenant: str, action_id: int, request: wire.OperatorsRequest) -> wire.ActionView:
        """So many operators are free: lets that many waves of an action go, less those not yet answered.

        Errors: `Refused("action_without_waves")`, `Refused("action_not_open")`.
        """
        record = await self._record(tenant, action_id)
        asked = _request_of(record).waves
        if asked is None:
            raise Refused("action_without_waves", "id")
        _need_state(record, "open", "paused")
        await self._waves.report(record, asked, request.free)
        return await self.view(tenant, action_id)

    async def result(self, tenant: str, action_id: int, request: wire.ResultRequest) -> wire.ActionView:
        """Close an action with its outcome and tell the result. The same request again changes nothing.

        Errors: `Refused("action_not_open")` when it was closed otherwise; `Refused("text_too_long")`.
        """
        record = await self._record(tenant, action_id)
        body = wire.encode_msgpack(request)
        if record.result_body is not None and record.result_body == body:
            return await self.view(tenant, action_id)
        _need_state(record, "open", "paused")
        action = _request_of(record)
        request = call_back.in_result(request, action.call_number)
        self._drafter.check_texts(request.texts, action.titles, self._drafter.open_channels(action))
        for language, text in request.board_texts.items():
            check_words(text, f"board_texts.{language}")
        await self._posts.check(record.id, request.texts, action.titles)
        now_ms = self._clock_ms()
        await self._close(record, "closing", now_ms, outcome=request.outcome, result_body=body)
        await self._finish(record.id, patience_s=COME_BACK_S)
        return await self.view(tenant, action_id)

    async def cancel(self, tenant: str, action_id: int) -> wire.ActionView:
        """Stop an action without a result: unsent rows are cancelled, boards cleared. Idempotent."""
        record = await self._record(tenant, action_id)
        if record.state != "cancelled":
            _need_state(record, "open", "paused")
            now_ms = self._clock_ms()
            await self._close(record, "cancelled", now_ms)
            await self._boards.result(action_id, {}, now_ms)
            await self._posts.over(action_id, "cancelled", now_ms)
        return await self.view(tenant, action_id)

    async def withdraw_posts(self, tenant: str, action_id: int) -> wire.ActionView:
        """Remove what our accounts posted of an action, and post nothing more of it. Idempotent."""
        record = await self._record(tenant, action_id)
        await self._posts.withdraw(record.id)
        return await self.view(tenant, action_id)

    async def pause(self, tenant: str, action_id: int, *, paused: bool) -> wire.ActionView:
        """Hold back what is unsent, or let it go on. Boards keep showing. Idempotent."""
        record = await self._record(tenant, action_id)
        if record.state != ("paused" if paused else "open"):
            _need_state(record, "open" if paused else "paused")
            await self._writer.run(self._store.set_paused, action_id, paused)
        return await self.view(tenant, action_id)

    async def take_receipts(self, provider: str, headers: Mapping[str, str], body: bytes) -> wire.ReceiptsAccepted:
        """Record what a provider says of deliveries. Idempotent; late, doubled and unknown ones do no harm.

        Errors: `Refused("key_invalid")` for a wrong signature, `Refused("not_found")` for a provider that sends none.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        read = receipts.read(provider, lower, body, secret=receipts.secret_of(self._settings.providers, provider))
        changed = await self._writer.share(self._store.apply_receipts, read.receipts) if read.receipts else []
        return wire.ReceiptsAccepted(reports=read.reports, changed=sum(changed), ignored=read.ignored)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def warm(self) -> None:
        """Work out an action for everyone and one for a small circle, without effect: what is lazy is then loaded."""
        await self._blocking(self._drafter.prepare, self._registry.view().base)
        tenant, kind = next(iter(self._settings.tenants)), next(iter(self._settings.kinds))
        areas: tuple[wire.Area, ...] = (wire.Everyone(), wire.Circle(lon=0.0, lat=0.0, radius_m=1_000.0))
        for area in areas:
            action = wire.PreviewRequest(kind=kind, area=area, texts={"en": "Nothing is sent."})
            with contextlib.suppress(Refused):
                await self.preview(tenant, action)

    async def recover(self) -> None:
        """Finish what a dead process left half way. Call once, before the first request is taken."""
        for record in await self._blocking(self._store.actions, ("closing",)):
            await self._finish(record.id)
        now_ms = self._clock_ms()
        live = {record.id: record for record in await self._blocking(self._store.actions, ("open", "paused"))}
        for record in live.values():
            if (waves := _request_of(record).waves) is not None:
                self._waves.add(record.id, waves)
        for record in live.values():
            await self._recover_posts(record)
        showing = set(self._boards.showing())
        for action_id in showing - live.keys():
            await self._boards.result(action_id, {}, now_ms)
        for action_id in showing & live.keys():
            await self._boards.move_end(action_id, live[action_id].end_ms)
        for action_id in live.keys() - showing:
            action = _request_of(live[action_id])
            if action.boards.show:
                try:
                    area, shape = await self._drafter.ground(live[action_id].tenant, action)
                except Refused:  # a named area that was imported anew without it: nobody can say which boards
                    continue
                lane, since_ms = live[action_id].lane, live[action_id].created_ms
                photo = await self._drafter.photo_if_kept(action)
                action = msgspec.structs.replace(action, area=area)
                await self._boards.show(action_id, action, shape, lane, since_ms, photo=photo)

    async def photos(self) -> set[str]:
        """Hashes of the pictures that actions still need."""
        live = await self._blocking(self._store.actions, ("open", "paused", "closing"))
        return {photo for record in live if (photo := _request_of(record).photo) is not None}

    async def keep_up(self) -> None:
        """Close actions whose end has passed, let the next waves go. Call it every second or so."""
        await self._waves.step()
        now_ms = self._clock_ms()
        for record in await self._blocking(self._store.actions, ("open", "paused")):
            if record.end_ms <= now_ms:
                await self._writer.run(_expire, self._store, record.id, now_ms)
                await self._boards.result(record.id, {}, now_ms)
                await self._posts.over(record.id, "expired", now_ms)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _accepted_again(self, record: ActionRecord, digest: bytes, reference: str) -> wire.ActionAccepted:
        if record.digest != digest:
            raise Refused("reference_conflict", "reference", reference=reference)
        counts: dict[str, int] = {}
        for batch in self._store.counts(record.id):
            if batch.phase == 0:
                name = wire.CHANNELS[batch.channel]
                counts[name] = counts.get(name, 0) + sum(batch.states) - batch.states[State.MOVED]
        return wire.ActionAccepted(
            id=record.id,
            people=sum(counts.values()),
            channels=self._drafter.channel_counts(counts),
            boards=wire.BoardPlan(boards=self._boards.counts(record.id).selected),
            seconds_to_all=self._drafter.seconds_to(counts, 1.0),
            snapshot_version=record.snapshot_version,
            repeated=True,
            posts=sum(view.name == "start" for view in self._posts.views(record.id)),
        )

    async def _recover_posts(self, record: ActionRecord) -> None:
        """Let an action be posted whose engine died between the ledger and the poster, and what was told since."""
        action = _request_of(record)
        try:
            _, shape = await self._drafter.ground(record.tenant, action)
            await self._posts.start(record.id, record.tenant, action, shape, record.lane)
        except Refused:  # a named area that was imported anew without it, or an account with a text of its own length
            return
        await self._posts.move_end(record.id, record.end_ms)
        for phase in await self._blocking(self._store.phases, record.id):
            if phase.name == "update":
                await self._posts.tell(record.id, "update", phase.phase, phase.texts, phase.titles, phase.end_ms)

    async def _check_update(
        self, record: ActionRecord, action: wire.ActionRequest, request: wire.UpdateRequest, now_ms: int
    ) -> None:
        if request.end_ms is not None:
            check_end(request.end_ms, now_ms, record.created_ms)
        if request.texts:
            opened = self._drafter.open_channels(action)
            self._drafter.check_texts(request.texts, action.titles, opened, action.photo)
            check_board_texts(request.board_texts, "board_texts")
            await self._posts.check(record.id, request.texts, action.titles)
        elif request.board_texts or request.end_ms is None:
            raise Refused("text_missing", "texts")

    async def _move_end(self, record: ActionRecord, end_ms: int, now_ms: int) -> ActionRecord:
        """The ledger first: what died before boards and posts heard of it, `recover` tells them."""
        if not await self._writer.run(_move_end, self._store, record.id, end_ms, now_ms):
            fresh = await self._record(record.tenant, record.id)
            state = "expired" if fresh.state in ("open", "paused") else fresh.state
            raise Refused("action_not_open", "id", state=state, needed="open or paused")
        await self._boards.move_end(record.id, end_ms)
        await self._posts.move_end(record.id, end_ms)
        return msgspec.structs.replace(record, end_ms=end_ms)

    async def _close(
        self,
        record: ActionRecord,
        state: str,
        now_ms: int,
        *,
        outcome: str | None = None,
        result_body: bytes | None = None,
    ) -> None:
        def close() -> bool:
            return self._store.close(record.id, state=state, now_ms=now_ms, outcome=outcome, result_body=result_body)

        if not await self._writer.run(close):
            _need_state(await self._record(record.tenant, record.id), "open", "paused")

    async def _come_back(self, action_id: int, patience_s: float) -> None:
        """Wait for the rows of a closed action that senders still have."""
        with trio.move_on_after(patience_s):
            while any(  # noqa: ASYNC110 senders are other processes
                one.states[State.INTENDED] for one in await self._blocking(self._store.counts, action_id)
            ):
                await trio.sleep(LOOK_EVERY_S)

    async def _finish(self, action_id: int, *, patience_s: float = 0.0) -> None:
        """Take a closing action off boards and plan its result, by the ledger alone, so that it can be done again.

        Boards and posts hear of it at once, the plan waits `patience_s` at most for rows that senders still have.
        """
        record = await self._blocking(self._store.action, action_id)
        if record is None or record.state != "closing":
            return
        assert record.result_body is not None
        action = _request_of(record)
        said = wire.decode_msgpack(record.result_body, wire.ResultRequest)
        request = call_back.in_result(said, action.call_number)
        now_ms = self._clock_ms()
        number = len(await self._blocking(self._store.phases, action_id))
        titles = action.titles
        phase = _phase(number, "result", now_ms, now_ms + RESULT_HOURS * 3_600_000, request.texts, titles)
        await self._boards.result(action_id, request.board_texts, now_ms)
        await self._posts.tell(action_id, "result", number, request.texts, titles, phase.end_ms)
        await self._posts.over(action_id, "closed", now_ms)
        await self._come_back(action_id, patience_s)
        batches = await self._blocking(self._further_batches, record, tuple(request.texts), reached)
        await self._writer.run(_add_phase, self._store, action_id, phase, batches, "closing", "closed")

    def _further_batches(
        self, record: ActionRecord, offered: tuple[str, ...], who: Callable[[Status], NDArray[np.bool_]]
    ) -> list[NewBatch]:
        """Everyone whose state `who` picks, each once, in the order in which they were told.

        Whom several channels reached gets it by the one that certainly did, the newest first: on both, a fall-back
        from one to the other would ring twice. What still waits for its wave waits here as well, and goes with it.
        """
        asked = _request_of(record).waves
        waiting = asked is not None and record.state in ("open", "paused")
        let_go = self._waves.counts(record, asked).let_go if asked is not None and waiting else None
        views = list(self._store.batches(record.id))
        best = np.zeros(1 + max((int(view.rows.max(initial=0)) for view in views), default=0), np.uint32)
        ranks = [_rank(view.status, who(view.status), view.phase, view.channel) for view in views]
        for view, rank in zip(views, ranks, strict=True):
            best[view.rows] = np.maximum(best[view.rows], rank)
        batches: list[NewBatch] = []
        for view, rank in zip(views, ranks, strict=True):
            hit = (rank > 0) & (rank == best[view.rows])
            if hit.any():
                batches.append(
                    NewBatch(
                        channel=view.channel,
                        language=told_in(view.language, offered),
                        seq=view.seq,
                        rows=view.rows[hit],
                        generations=view.generations[hit],
                        not_before_ms=0 if let_go is None or view.seq < let_go else record.end_ms,
                    )
                )
        return batches

    def _phases_and_counts(self, action_id: int) -> tuple[Any, Any]:
        return self._store.phases(action_id), self._store.counts(action_id)

    async def _record(self, tenant: str, action_id: int) -> ActionRecord:
        record = await self._blocking(self._store.action, action_id)
        if record is None or record.tenant != tenant:
            raise Refused("not_found", "id", what="action")
        return record


def _add_phase(
    store: Store, action_id: int, phase: PhaseRecord, batches: list[NewBatch], before: str, after: str = ""
) -> bool:
    phase = msgspec.structs.replace(phase, action=action_id)
    return store.add_phase(action_id, phase, batches, state=after or before, from_states=(before,))


def _rank(status: Status, hit: NDArray[np.bool_], phase: int, channel: int) -> NDArray[np.uint32]:
    """uint32[n]: how good a batch's channel is for the next message to each of its rows; 0: not at all."""
    certain = np.isin(status, (State.ACCEPTED, State.DELIVERED))
    rank: NDArray[np.uint32] = np.where(hit, 1 + channel + (phase << 8) + (certain.astype(np.uint32) << 24), 0)
    return rank.astype(np.uint32)


def _told_or_waiting(status: Status) -> NDArray[np.bool_]:
    """Who got a message, may have got it, or is about to."""
    return reached(status) | np.isin(status, OPEN)


def _move_end(store: Store, action_id: int, end_ms: int, now_ms: int) -> bool:
    return store.move_end(action_id, end_ms=end_ms, now_ms=now_ms)


def _expire(store: Store, action_id: int, now_ms: int) -> bool:
    return store.close(action_id, state="expired", now_ms=now_ms)


def _phase(
    number: int,
    name: str,
    now_ms: int,
    end_ms: int,
    texts: dict[str, str],
    titles: dict[str, str],
    reference: str = "",
) -> PhaseRecord:
    return PhaseRecord(
        action=0,
        phase=number,
        name=name,
        created_ms=now_ms,
        end_ms=end_ms,
        texts=texts,
        titles=titles,
        reference=reference,
    )


def _need_state(record: ActionRecord, *needed: str) -> None:
    if record.state not in needed:
        raise Refused("action_not_open", "id", state=record.state, needed=" or ".join(needed))


def _request_of(record: ActionRecord) -> wire.ActionRequest:
    """What was asked, with its number in its words, and the end that it has by now."""
    request: wire.ActionRequest = wire.decode_msgpack(record.body, wire.ActionRequest)
    return msgspec.structs.replace(call_back.in_action(request), end_ms=record.end_ms)


def _digest(request: wire.ActionRequest) -> bytes:
    return hashlib.sha256(wire.encode_msgpack(request)).digest()
