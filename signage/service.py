"""Boards for the engine: an action goes in, boards show it, and what they confirm comes out. The trio shell of
`reconcile`.

    async with open_signage(settings.signage, store, clock_ms, folder=folder, kinds=settings.kinds) as signage:
        plan = await signage.plan(action, shape, kind)          # without effect; models that cannot show it are named
        await signage.show(action_id, action, shape, lane, now_ms)   # durable when it returns; boards follow
        await signage.result(action_id, texts, now_ms)          # the result in its place for a while; {}: down at once
        signage.counts(action_id)

Rules:

1. What an action shall show is durable before `show` and `result` return; publishing goes on in the background,
   whether or not a broker is there. Without one, actions are accepted, and boards catch up when it comes back.
2. After a restart everything is taken from memory and published again; boards ignore what they have. Reports are
   retained at the broker and come in by themselves.
3. No brokers in the settings: one is started as a child process, on loopback, in the folder. `broker_address` tells
   where.
4. Memory is handed in (`Memory`, the document part of a store); it blocks, so it is called in a thread, a batch a call.
"""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import trio

from fanout import wire
from fanout.errors import Refused
from fanout.geo import shapes
from fanout.geo.gate import shape_of
from fanout.settings import KindSettings, SignageSettings
from signage import layout, reconcile
from signage.boards import Board
from signage.broker import open_broker
from signage.dialects import native, rtig_t047
from signage.dialects.native import Target
from signage.layout import Model, Unfit
from signage.lists import read_list
from signage.mqtt import Link, LinkOptions, Statistics
from signage.reconcile import Reconciler
from signage.showing import Record, forms_of, priority_of, remembered, target_of
from signage.signing import Signer, load_signer, public_pem
from signage.views import explained, page_of, view_of

_log = logging.getLogger(__name__)

TICK_S: Final = 0.5
LISTS_EVERY_TICKS: Final = 20


class Memory(Protocol):
    """Where signage remembers: small values by (space, key). Calls block; a writing one is durable when it returns."""

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None: ...

    def scan(self, space: str) -> list[tuple[str, bytes]]: ...


class Signage:
    """See the module. Made by `open_signage`; methods may be called by many tasks of the same trio run."""

    def __init__(
        self,
        settings: SignageSettings,
        memory: Memory,
        clock_ms: Callable[[], int],
        core: Reconciler,
        link: Link,
        kinds: Mapping[str, KindSettings] | None,
        broker_address: str,
        signer: Signer | None,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._clock_ms = clock_ms
        self._core = core
        self._link = link
        self._kinds = kinds
        self._signer = signer
        self._writing = trio.Lock()
        self._lists: dict[str, int | None] = {}  # when each list that was taken was written, in ns
        self.broker_address = broker_address

    def __repr__(self) -> str:
        boards, actions = len(self._core.boards), len(self._core.showing())
        return f"<Signage: {boards} boards, {actions} actions, {self._link.statistics()}>"

    def on_change(self, changed: Callable[[int], None]) -> None:
        """`changed(action)` is called whenever a board of the action confirms something. It must not block."""
        self._core.changed = changed

    def statistics(self) -> Statistics:
        """What the connection to the broker did so far."""
        return self._link.statistics()

    # --- what the engine asks -----------------------------------------------------------------------------------------

    async def plan(self, action: wire.Action, shape: shapes.Shape, kind: KindSettings) -> wire.BoardPlan:
        """Boards that would show the action, and the models that cannot, with the reason. Without effect."""
        if not kind.boards:
            return wire.BoardPlan(reason=f"actions of kind {action.kind!r} may not be shown on public boards")
        if not action.boards.show:
            return wire.BoardPlan(reason="boards were not asked for")
        _, plan = self._choose(action, shape, self._target(wire.LANES.index(action.lane or kind.lane)))
        await trio.lowlevel.checkpoint()
        return plan

    async def show(
        self,
        action_id: int,
        action: wire.Action,
        shape: shapes.Shape,
        lane: int,
        now_ms: int,
        *,
        photo: wire.Photo | None = None,
    ) -> None:
        """Put an action on the boards of its area that can show it, its photo on those that take pictures. Again:
        nothing.

        *Cancellation*: may be cancelled; the action may then be on boards or not. *Errors*: what the memory raises, and
        then nothing was published.
        """
        if self._core.has(action_id) or not action.boards.show:
            return
        kind = self._kinds.get(action.kind) if self._kinds is not None else None
        if kind is not None and not kind.boards:
            return
        target = self._target(lane)
        chosen, _ = self._choose(action, shape, target)
        record = Record(
            action=action_id,
            request=remembered(action),
            priority=priority_of(lane, self._settings.rank_search, self._settings.rank_information),
            start_ms=now_ms,
            end_ms=action.end_ms,
            boards=[board.id for board in chosen],
            photo=photo,
            target=target,
        )
        await self._write({reconcile.ACTIONS: [(str(action_id), reconcile.encode_record(record))]})
        if not self._core.has(action_id):
            self._core.add(record, shape)

    async def update(
        self, action_id: int, texts: dict[str, str], board_texts: dict[str, list[str]], now_ms: int
    ) -> None:
        """Replace the texts of an action on the boards that have it; end and rank stay. Unknown or over: nothing.

        A board that cannot show the new text takes the old one down, and its page says why: what was replaced is wrong
        by now, and nothing is ever cut. Changed first and made durable after, as with `result`.
        """
        self._core.update(action_id, texts, board_texts, now_ms)
        await self._flush()

    async def move_end(self, action_id: int, end_ms: int) -> None:
        """Let an action be over at another time; boards get documents with it. Unknown, over, or again: nothing.

        Changed first and made durable after, as with `result`.
        """
        self._core.move_end(action_id, end_ms)
        await self._flush()

    async def result(self, action_id: int, texts: dict[str, str], now_ms: int) -> None:
        """Take an action down: its result in its place for a while, or nothing. Again, or unknown: nothing.

        Taken down first and made durable after, since an engine that dies between the two is asked again by its caller.
        """
        self._core.end(action_id, texts, now_ms, "closed")
        await self._flush()

    def counts(self, action_id: int) -> wire.BoardCounts:
        """Chosen, confirmed shown, confirmed gone; laggards by name."""
        return self._core.counts(action_id)

    def proof(self, action_id: int) -> list[wire.BoardProof]:
        """Board by board: published, received, shown, ended. Nothing once every board is done with it."""
        proof = self._core.proof(action_id)
        return proof.rows() if proof is not None else []

    def proofs(self, action_id: int) -> list[wire.BoardProof]:
        """The same, with the reason of every board that lags."""
        proof, showing = self._core.proof(action_id), self._core.showings.get(action_id)
        if proof is None or showing is None:
            return []
        boards = self._core.retired | {board.id: board for board in self._core.boards}
        return explained(proof, showing.record, boards, self._clock_ms())

    def showing(self) -> list[int]:
        """Every action that is not yet confirmed gone from all its boards."""
        return self._core.showing()

    def presence(self) -> Counter[str]:
        """How many boards are ready, sleeping, lost, or not yet heard of."""
        return Counter(board.presence for board in self._core.boards)

    def views(self) -> list[wire.BoardView]:
        now_ms = self._clock_ms()
        return [view_of(board, now_ms) for board in self._core.boards]

    def view(self, board: str) -> wire.BoardView | None:
        """The page of one board; also of one that was retired since the start, as `retired`, and of somebody whose
        birth document cannot be read, as `unknown`, with the reason.
        """
        found, why = self._core.boards.get(board), self._core.why_unknown(board)
        if found is None and why:
            return wire.BoardView(id=board, dialect=native.DIALECT, model="", state="unknown", problems=[why])
        found = found or self._core.retired.get(board)
        return page_of(found, self._clock_ms()) if found is not None else None

    def key(self) -> wire.BoardKey | None:
        """What boards verify documents with; None: they are not signed."""
        signer = self._signer
        if signer is None:
            return None
        public = base64.b64encode(signer.public).decode()
        return wire.BoardKey(id=signer.key_id, public=public, pem=public_pem(signer.public))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _target(self, lane: int) -> Target:
        return target_of(lane, self._settings.target_search, self._settings.target_information)

    def _choose(self, action: wire.Action, shape: shapes.Shape, target: Target) -> tuple[list[Board], wire.BoardPlan]:
        """The boards of the area whose model can show the text, and the plan that says so."""
        forms = forms_of(action.texts, action.boards.texts)
        by_model: dict[Model, list[Board]] = {}
        for board in self._core.boards.within(shape, action.boards.margin_m):
            by_model.setdefault(board.model, []).append(board)
        chosen: list[Board] = []
        unfit: Counter[tuple[str, str]] = (
            Counter()
        )  # boards by the name of their model, which several may have, and why
        partial: Counter[tuple[str, str]] = Counter()
        for model, boards in by_model.items():
            try:
                laid = layout.lay_out(forms, layout.reduced(model, target), self._core.pace)
            except Unfit as error:
                unfit[model.name, layout.refusal(error, target)] += len(boards)
                continue
            chosen.extend(boards)
            if laid.left_out:
                partial[model.name, f"no room for {', '.join(laid.left_out)} beside {laid.languages[0]}"] += len(boards)
        return chosen, wire.BoardPlan(boards=len(chosen), unfit=_counted(unfit), partial=_counted(partial))

    async def _write(self, spaces: dict[str, list[tuple[str, bytes | None]]]) -> None:
        """Make durable, in the order of the calls; a write that was begun is finished."""
        if not spaces:
            return
        async with self._writing:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_put_all, self._memory, spaces)

    async def _flush(self) -> None:
        await self._write(self._core.drain())

    async def run_ticks(self) -> None:
        """Everything time does, and what was learnt made durable."""
        ticks = 0
        while True:
            self._core.tick(self._clock_ms())
            try:
                await self._flush()
            except Refused as refused:
                _log.error("boards: %s", refused.message)
            ticks += 1
            if ticks % LISTS_EVERY_TICKS == 0:
                await self.read_lists()
            await trio.sleep(TICK_S)

    async def read_lists(self) -> None:
        """Take the boards of the lists in the settings, of every list that has changed since. What is wrong in one is
        logged, row by row, and passed over.
        """
        for name in self._settings.lists:
            path = Path(name)
            try:
                written_ns = (await trio.Path(path).stat()).st_mtime_ns
                if self._lists.get(name) == written_ns:
                    continue
                self._lists[name] = written_ns
                boards, problems = await trio.to_thread.run_sync(read_list, path)
            except OSError as error:
                if self._lists.pop(name, 0) is not None:
                    _log.error("the list of boards %s cannot be read: %s", name, error)
                self._lists[name] = None
                continue
            except Refused as refused:
                _log.error("the list of boards %s: %s", name, refused.message)
                continue
            for problem in problems:
                _log.warning("the list of boards %s: %s", name, problem)
            self._core.enlist(boards)
            _log.info("the list of boards %s: %d boards, %d rows passed over", name, len(boards), len(problems))

    async def restore(self) -> None:
        """Take up what was remembered."""
        kept = await trio.to_thread.run_sync(lambda: [self._memory.scan(space) for space in reconcile.SPACES])
        caps, displays, actions, proofs, counts = kept
        self._core.restore(caps, displays, actions, proofs, counts, _shape_of)


def _counted(boards: Counter[tuple[str, str]]) -> list[wire.UnfitBoards]:
    return [wire.UnfitBoards(model=model, boards=count, why=why) for (model, why), count in boards.items()]


def _put_all(memory: Memory, spaces: dict[str, list[tuple[str, bytes | None]]]) -> None:
    for space, values in spaces.items():
        memory.put(space, values)


def _shape_of(record: Record) -> shapes.Shape | None:
    """The area of a remembered action, for boards that appear later; None for areas that only the engine can name."""
    try:
        return shape_of(record.request.area)
    except Refused:
        return None


def link_options(settings: SignageSettings, brokers: list[str], protocol: str) -> LinkOptions:
    return LinkOptions(
        brokers=brokers,
        client_id=settings.client_id,
        subscriptions=native.SUBSCRIPTIONS + rtig_t047.SUBSCRIPTIONS,
        username=settings.username,
        password=settings.password,
        ca_file=settings.ca,
        cert_file=settings.certificate,
        key_file=settings.key,
        protocol=protocol,
        window=settings.window,
        keepalive_s=settings.keepalive_s,
    )


def _signer(settings: SignageSettings) -> Signer | None:
    return load_signer(Path(settings.signing_key)) if settings.signing_key else None


@asynccontextmanager
async def open_signage(
    settings: SignageSettings,
    memory: Memory,
    clock_ms: Callable[[], int],
    *,
    folder: Path,
    kinds: Mapping[str, KindSettings] | None = None,
) -> AsyncIterator[Signage]:
    """The running service. `kinds` lets `show` hold the policy by itself; `folder` is for a broker of our own.

    *Errors*: `Refused("broker_unavailable")` when that broker cannot start; a broker elsewhere may be away.
    """
    async with AsyncExitStack() as stack:
        brokers: list[str] = list(settings.brokers)
        protocol: str = settings.protocol
        if not brokers:
            own = await stack.enter_async_context(
                open_broker(folder, port=settings.embedded_port, kind=settings.embedded)
            )
            brokers, protocol = [own.address], own.protocol if protocol == "auto" else protocol
        signer = await trio.to_thread.run_sync(_signer, settings)
        core = Reconciler(
            settings,
            clock_ms,
            key=signer.key_id if signer is not None else "",
            sign=signer.sign if signer is not None else None,
        )
        link = Link(link_options(settings, brokers, protocol), core)
        core.on_work(link.kick)
        signage = Signage(settings, memory, clock_ms, core, link, kinds, brokers[0], signer)
        await trio.to_thread.run_sync(layout.warm)
        await signage.read_lists()
        await signage.restore()
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(link.run)
        nursery.start_soon(signage.run_ticks)
        try:
            yield signage
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await signage._flush()
