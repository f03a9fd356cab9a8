"""The poster: one task an account that posts what its threads want next, and remembers what came of it.

Why not the ledger's batches: a post is for nobody in particular, so it must not be in the counts of people; it has an
id that replies and deletions need, and outlives its action until it is removed. So a thread is a document of the store
(space `posts`), moved by the ledger's own table of states (`threads.py`), and everything that counts people stays
as it is. And why in the engine's process: an action makes one post an account, and one process is one owner, so no
leases are needed. Two engines on one store would need them; boards have the same owner for the same reason.

Rules:

1. Intent before the wire, result after: a document says `INTENDED` before the call that is seen is made. The ledger is
   asked before it, and once more after it, whether the action still goes on; a result needs it closed.
2. One call at a time an account, of the most urgent lane first; accounts do not wait for each other.
3. Quota, breaker, pauses and what a provider asks for are those of `dispatch`. A 429 does not count as an attempt.
4. A picture goes up before the intent, since that shows nothing to anybody, and in pieces, between which others post
   (`pictures.py`). One that the network refuses, or that takes too long, is left out, and the text goes alone; so does
   a text whose post with the picture was refused for what is in it, or failed to the last attempt.
5. Threads with nothing left to do are put together into one document per action (space `posted`).
6. What the disk does not take is not done: a post is not made without its intent. What came of one is kept until the
   disk takes it. A stop waits for the call on the wire.
7. Networks are spoken to over HTTP/1.1. Posts are hours apart, and httpx does not look whether an idle connection of
   HTTP/2 still stands: a post into one that the network has closed is lost without an answer, and unknown for ever.

The engine is the caller: `start`, `tell`, `over`, `withdraw` are durable when they return, and doing one of them again
changes nothing, so that a recovery may repeat them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
import trio

from fanout import wire
from fanout.channels.posts import Post, Posted, said
from fanout.channels.protocol import NO_ANSWER, NO_CONNECTION, NOT_SENT, Answer, Call
from fanout.dispatch.breaker import Is
from fanout.dispatch.calls import Caller, HttpCaller
from fanout.dispatch.retry import ASKED_S_MAX, pause_s
from fanout.dispatch.retry_after import seconds_of
from fanout.errors import Refused
from fanout.geo.areas import NamedAreas, Shape
from fanout.plan.policy import told_in
from fanout.settings import Settings
from fanout.social import threads
from fanout.social.accounts import Account, open_account
from fanout.social.pictures import Key as PictureKey
from fanout.social.pictures import Pictures, Progress
from fanout.social.threads import Removal, Say, Step, Thread, Unsay
from fanout.store.protocol import Store
from fanout.store.states import Event, Reason
from fanout.store.writer import Writer

log = logging.getLogger("fanout.social")

LIVE: Final = "posts"
DONE: Final = "posted"
LOOK_S: Final = 1.0  # how often, at most, a task looks at the clock: one that jumps costs no more than this
GOES_OUT: Final = {"start": ("open",), "update": ("open",), "result": ("closing", "closed")}
OVER: Final = {"expired": Event.END, "closed": Event.CLOSE, "cancelled": Event.CLOSE}
"""States of an action that is over, with the event for what was unsent. `closing` goes on to `closed` by itself."""

_THREAD: Final = msgspec.msgpack.Decoder(Thread)
_THREADS: Final = msgspec.msgpack.Decoder(list[Thread])
Key = tuple[int, str]


class Poster:
    """Made by `open_poster`; methods may be called by many tasks of the same trio run."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        areas: NamedAreas,
        picture: Callable[[str], bytes],
        clock_ms: Callable[[], int],
        accounts: Mapping[str, Account],
    ) -> None:
        self._dispatch = settings.dispatch
        self._remove_after_ms = int(settings.social.remove_after_h * 3_600_000)
        self._store, self._writer, self._areas = store, writer, areas
        self._picture, self._clock_ms = picture, clock_ms
        self._accounts = accounts
        self._threads: dict[Key, Thread] = {}
        self._bells = {name: trio.Event() for name in accounts}
        self._held_until_s: dict[Key, float] = {}
        self._pictures = Pictures(settings.dispatch)
        self._archiving = trio.Lock()

    def __repr__(self) -> str:
        return f"<Poster: {len(self._accounts)} accounts, {len(self._threads)} threads>"

    # --- what the engine asks -----------------------------------------------------------------------------------------

    async def plan(self, tenant: str, action: wire.Action, shape: Shape) -> list[wire.PostPlan]:
        """What each account would post; without effect. Errors: `Refused("text_too_long")` naming the account."""
        if not self._accounts or (action.channels is not None and "social" not in action.channels):
            return []
        plans = []
        for account in await trio.to_thread.run_sync(self._telling, tenant, action, shape):
            language, text = self._text(account, action.texts, action.titles)
            why = account.channel.fits(text, picture=bool(action.photo))
            if why is not None:
                channel = f"{account.channel.network} ({account.name})"
                raise Refused("text_too_long", f"texts.{language}", channel=channel, detail=why)
            plans.append(
                wire.PostPlan(account=account.name, network=account.channel.network, language=language, text=text)
            )
        return plans

    async def check(self, action_id: int, texts: Mapping[str, str], titles: Mapping[str, str]) -> None:
        """Whether news fits every account that tells this action. Errors: as `plan`."""
        for account in self._accounts.values():
            if (action_id, account.name) in self._threads:
                language, text = self._text(account, texts, titles)
                if (why := account.channel.fits(text, picture=False)) is not None:
                    channel = f"{account.channel.network} ({account.name})"
                    raise Refused("text_too_long", f"texts.{language}", channel=channel, detail=why)

    async def start(self, action_id: int, tenant: str, action: wire.Action, shape: Shape, lane: int) -> None:
        """Let every account that tells the action post it."""
        if self._clock_ms() >= action.end_ms:
            return
        for plan in await self.plan(tenant, action, shape):
            key = action_id, plan.account
            if key in self._threads:
                continue
            title = action.titles.get(plan.language, "")
            step = Step(name="start", phase=0, text=plan.text, end_ms=action.end_ms, photo=action.photo or "")
            await self._keep(
                Thread(
                    action=action_id,
                    account=plan.account,
                    network=plan.network,
                    language=plan.language,
                    lane=lane,
                    alt=title or action.texts[plan.language],
                    steps=(step,),
                )
            )

    async def tell(
        self, action_id: int, name: str, phase: int, texts: Mapping[str, str], titles: Mapping[str, str], end_ms: int
    ) -> None:
        """Let news (`update`) or the `result` follow, as replies."""
        for thread in self._of(action_id):
            account = self._accounts.get(thread.account)
            if account is not None:
                _, text = self._text(account, texts, titles)
                step = Step(name=name, phase=phase, text=text, end_ms=end_ms)
                await self._keep(threads.told(self._threads[action_id, thread.account], step))

    async def move_end(self, action_id: int, end_ms: int) -> None:
        """The action ends at another time: what never went may go until then."""
        for thread in self._of(action_id):
            await self._keep(threads.until(self._threads[action_id, thread.account], end_ms))

    async def over(self, action_id: int, state: str, now_ms: int) -> None:
        """The action is `closed`, `cancelled` or `expired`: what is unsent stops, and posts go in their time."""
        remove_ms: int | None = now_ms + self._remove_after_ms if self._remove_after_ms else None
        if state == "cancelled":
            remove_ms = now_ms
        for thread in self._of(action_id):
            current = self._threads[action_id, thread.account]
            await self._keep(threads.ended(current, OVER[state], remove_ms))

    async def withdraw(self, action_id: int) -> None:
        """Remove every post of an action, also of one that was over long ago; nothing more is posted of it."""
        async with self._archiving:
            raw = await trio.to_thread.run_sync(self._store.get, DONE, str(action_id))
            archived = [] if raw is None else _THREADS.decode(raw)
            for thread in archived:
                self._threads.setdefault((action_id, thread.account), thread)
        for thread in self._of(action_id):
            await self._keep(threads.withdrawn(self._threads[action_id, thread.account], self._clock_ms()))

    def views(self, action_id: int) -> list[wire.PostView]:
        """Every post of an action. Blocking."""
        found = self._of(action_id)
        if not found and (raw := self._store.get(DONE, str(action_id))) is not None:
            found = _THREADS.decode(raw)
        return [_view(thread, step) for thread in found for step in thread.steps]

    def pictures(self) -> set[str]:
        """Hashes of the pictures that posts still need."""
        return {step.photo for thread in self._threads.values() for step in thread.steps if step.photo}

    # --- upkeep -------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what an engine before this one left, and settle what died with it. Call once, before anything else."""
        found = await trio.to_thread.run_sync(self._store.scan, LIVE)
        for _, raw in found:
            thread = _THREAD.decode(raw)
            account = self._accounts.get(thread.account)
            known = account is not None and account.channel.same_key_s > 0
            record = await trio.to_thread.run_sync(self._store.action, thread.action)
            after = threads.crashed(thread, same_key=known)
            if record is not None and record.state in OVER and after.over is None:
                now_ms = self._clock_ms()
                remove_ms: int | None = now_ms + self._remove_after_ms if self._remove_after_ms else None
                after = threads.ended(after, OVER[record.state], now_ms if record.state == "cancelled" else remove_ms)
            self._threads[thread.action, thread.account] = thread
            await self._keep(after)

    async def serve(self) -> None:
        """Post until cancelled."""
        async with trio.open_nursery() as nursery:
            for account in self._accounts.values():
                nursery.start_soon(self._serve, account)
            nursery.start_soon(self._archive)

    async def _archive(self) -> None:
        while True:
            async with self._archiving:
                for action in {action for action, _ in self._threads}:
                    try:
                        await self._put_away(action)
                    except Refused as error:
                        log.warning("posts that are done cannot be put away: %s", error.message)
            await trio.sleep(LOOK_S)

    async def _put_away(self, action: int) -> None:
        whole = self._of(action)
        if not all(map(threads.finished, whole)):
            return
        record = await trio.to_thread.run_sync(self._store.action, action)
        if record is not None and record.state not in OVER:
            return  # withdrawn while it goes on: a recovery must find that it was told
        keys = [(_name(thread), None) for thread in whole]
        await self._writer.run(partial(self._store.put, DONE, [(str(action), msgspec.msgpack.encode(whole))]))
        await self._writer.run(partial(self._store.put, LIVE, keys))
        for thread in whole:
            del self._threads[action, thread.account]
            self._held_until_s.pop((action, thread.account), None)
            self._pictures.forget(action, thread.account)

    async def _serve(self, account: Account) -> None:
        while True:
            bell = self._bells[account.name] = trio.Event()
            try:
                if await self._step(account):
                    continue
            except Refused as error:
                log.warning("%s posts nothing: %s", account.name, error.message)
            with trio.move_on_after(LOOK_S):
                await bell.wait()

    async def _step(self, account: Account) -> bool:
        """Do what is most urgent; False if there is nothing to do now."""
        found = await self._look(account)
        if found is None:
            return False
        thread, want = found
        if isinstance(want, Say):
            await self._say(account, thread, want)
        else:
            await self._unsay(account, thread, want)
        return True

    async def _look(self, account: Account) -> tuple[Thread, Say | Unsay] | None:
        """What the account shall do now: the most urgent lane first, posts before removals, the oldest action first."""
        now_ms = self._clock_ms()
        wants: list[tuple[bool, int, int, Thread, Say | Unsay]] = []
        now_s = trio.current_time()
        for key in [key for key in self._threads if key[1] == account.name]:
            thread = self._threads.get(key)
            if thread is None or self._held_until_s.get(key, now_s) > now_s:
                continue
            current = threads.by_the_clock(thread, now_ms, account.channel.same_key_s)
            if current is not thread:
                await self._keep(current)
            want = threads.following(current, now_ms)
            if isinstance(want, Say | Unsay) and self._threads.get(key) is current:
                wants.append((isinstance(want, Unsay), current.lane, current.action, current, want))
        if not wants or not account.breaker.allows(now_s) or not account.bucket.available(now_s, urgent=True):
            return None
        *_, chosen, want = min(wants, key=lambda item: item[:3])
        return chosen, want

    # --- posting ------------------------------------------------------------------------------------------------------

    async def _say(self, account: Account, thread: Thread, want: Say) -> None:
        step = thread.steps[want.at]
        if not await self._may_go(thread, step):  # paused, or closed a moment ago: whoever did it will say so
            self._held_until_s[thread.action, thread.account] = trio.current_time() + LOOK_S
            return
        post = Post(
            # the end is in it, because another ledger has an action of this number, too
            key=f"fanout-{thread.action}-{step.phase}-{step.end_ms}-{thread.account}",
            text=step.text,
            language=thread.language,
            reply_to=want.reply_to,
            picture=await self._file(step.photo),
            alt=thread.alt,
        )
        progress = Progress(None, why=Reason.PAYLOAD) if step.photo else Progress(None)  # the file is gone
        if post.picture:
            key = thread.action, thread.account, step.phase
            progress = await self._pictures.next(account, key, post, now_ms=self._clock_ms())
        if progress.hold_s is not None:
            self._held_until_s[thread.action, thread.account] = trio.current_time() + progress.hold_s
            return
        if progress.why is not Reason.NONE:
            post = msgspec.structs.replace(post, picture=b"")
        account.bucket.take(1)
        with trio.move_on_after(2 * self._dispatch.request_timeout_s, shield=True):
            await self._post(account, thread, want.at, post, progress)

    async def _post(self, account: Account, thread: Thread, at: int, post: Post, progress: Progress) -> None:
        """From the intent to the answer, both durable."""
        key, step = (thread.action, thread.account), thread.steps[at]
        if self._threads[key].steps[at] != step:  # over, or withdrawn, while the picture went up
            return
        call = account.channel.render(post, progress.media, now_ms=self._clock_ms())
        await self._keep(threads.intended(self._threads[key], at, self._clock_ms()))
        answer = await self._call(account, call) if await self._may_go(thread, step) else Answer(code=NOT_SENT)
        outcome = account.channel.interpret(answer)
        spent = step.attempt + 1 >= self._dispatch.attempts_max
        if post.picture:
            outcome, spent = self._without_picture((*key, step.phase), outcome, spent)
        await self._keep_for_certain(
            threads.answered(
                self._threads[key],
                at,
                outcome,
                now_ms=self._clock_ms(),
                same_key_s=account.channel.same_key_s,
                last_attempt=spent and answer.code != NOT_SENT and outcome.reason is not Reason.QUOTA,
                due_ms=self._due_ms(thread, step.attempt, seconds_of(answer, self._clock_ms())),
                pictured=bool(post.picture),
                unpictured=progress.why,
            )
        )

    def _without_picture(self, picture: PictureKey, outcome: Posted, spent: bool) -> tuple[Posted, bool]:
        """What a post with a picture came to: where the picture may be why it was not taken, it goes again without."""
        self._pictures.spent(picture)
        refused = outcome.event is Event.REJECT and outcome.reason is Reason.PAYLOAD
        failed = outcome.event is Event.RETRY and spent and outcome.reason is not Reason.QUOTA
        if not refused and not failed:
            return outcome, spent
        self._pictures.given_up(picture, outcome.reason)
        return Posted(Event.RETRY, outcome.reason), False

    async def _unsay(self, account: Account, thread: Thread, want: Unsay) -> None:
        call = account.channel.withdraw(thread.steps[want.at].post, now_ms=self._clock_ms())
        account.bucket.take(1)
        answer = await self._call(account, call)
        event, reason = account.channel.withdrawn(answer)
        if event is Event.REJECT:
            log.warning("%s keeps a post of action %d: %s", account.name, thread.action, reason.name.lower())
        attempt = thread.remove_attempt
        await self._keep(
            threads.removed(
                self._threads[thread.action, thread.account],
                want.at,
                event,
                due_ms=self._due_ms(thread, attempt, seconds_of(answer, self._clock_ms())),
                last_attempt=attempt + 1 >= self._dispatch.attempts_max and reason is not Reason.QUOTA,
            )
        )

    async def _call(self, account: Account, call: Call) -> Answer:
        if account.breaker.state is Is.HALF_OPEN:
            account.breaker.probe()
        answer = await account.caller.call(call)
        bad = answer.code in (NO_CONNECTION, NO_ANSWER) or answer.code >= 500
        account.breaker.answered(int(not bad), int(bad), trio.current_time())
        if (asked_s := seconds_of(answer, self._clock_ms())) > 0:
            account.bucket.shut(trio.current_time() + min(asked_s, ASKED_S_MAX))
        return answer

    async def _file(self, photo: str) -> bytes:
        if not photo:
            return b""
        try:
            return await trio.to_thread.run_sync(self._picture, photo)
        except Refused:
            log.warning("the picture of a post is gone; the text goes alone")
            return b""

    # --- remembering --------------------------------------------------------------------------------------------------

    async def _may_go(self, thread: Thread, step: Step) -> bool:
        record = await trio.to_thread.run_sync(self._store.action, thread.action)
        on_time = self._clock_ms() < step.end_ms
        return on_time and record is not None and record.state in GOES_OUT[step.name]

    async def _keep(self, thread: Thread) -> None:
        """Make a thread durable as it is now. *Errors*: the store's; then it is as it was before."""
        key = thread.action, thread.account
        before = self._threads.get(key)
        if before == thread:
            return
        self._threads[key] = thread
        try:
            await self._write(thread)
        except Refused:
            if self._threads.get(key) is thread:
                self._threads.pop(key)
                if before is not None:
                    self._threads[key] = before
            raise

    async def _keep_for_certain(self, thread: Thread) -> None:
        """Make durable what has happened, however often it takes."""
        key = thread.action, thread.account
        self._threads[key] = thread
        while True:
            try:
                return await self._write(self._threads[key])
            except Refused as error:
                log.warning("what came of a post of action %d is not written yet: %s", thread.action, error.message)
                await trio.sleep(LOOK_S)

    async def _write(self, thread: Thread) -> None:
        await self._writer.run(partial(self._store.put, LIVE, [(_name(thread), msgspec.msgpack.encode(thread))]))
        if (bell := self._bells.get(thread.account)) is not None:
            bell.set()

    # --- small questions ----------------------------------------------------------------------------------------------

    def _of(self, action_id: int) -> list[Thread]:
        return [thread for (action, _), thread in sorted(self._threads.items()) if action == action_id]

    def _telling(self, tenant: str, action: wire.Action, shape: Shape) -> list[Account]:
        return [one for one in self._accounts.values() if one.tells(tenant, action, shape, self._areas)]

    def _text(self, account: Account, texts: Mapping[str, str], titles: Mapping[str, str]) -> tuple[str, str]:
        language = told_in(account.settings.language, tuple(texts))
        return language, said(titles.get(language, ""), texts[language])

    def _due_ms(self, thread: Thread, attempt: int, asked_s: float) -> int:
        wait_s = pause_s(
            thread.action,
            attempt + 1,
            first_s=self._dispatch.pause_first_s,
            most_s=self._dispatch.pause_most_s,
            asked_s=asked_s,
        )
        return self._clock_ms() + int(1_000 * wait_s)


@asynccontextmanager
async def open_poster(
    settings: Settings,
    store: Store,
    writer: Writer,
    areas: NamedAreas,
    picture: Callable[[str], bytes],
    clock_ms: Callable[[], int],
    *,
    callers: Callable[[str], Caller] | None = None,
) -> AsyncIterator[Poster]:
    """A poster that posts until the block ends. `picture(hash)` gives a file; `callers(ca)` another way to the wire.

    Errors: `Refused("settings_invalid" | "area_unknown")` for an account that cannot be.
    """
    made: dict[str, Caller] = {}

    def caller(ca: str) -> Caller:
        if ca not in made:
            timeout_s = settings.dispatch.request_timeout_s
            made[ca] = callers(ca) if callers else HttpCaller(ca=ca, timeout_s=timeout_s, connections=16, http2=False)
        return made[ca]

    accounts = {name: open_account(name, section, areas, caller) for name, section in settings.social.accounts.items()}
    poster = Poster(settings, store, writer, areas, picture, clock_ms, accounts)
    try:
        await poster.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poster.serve)
            yield poster
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for way in made.values():
                await way.aclose()


def _name(thread: Thread) -> str:
    return f"{thread.action}/{thread.account}"


def _view(thread: Thread, step: Step) -> wire.PostView:
    words = {Removal.KEPT: "", Removal.DUE: "due", Removal.REMOVED: "removed", Removal.REFUSED: "refused"}
    return wire.PostView(
        account=thread.account,
        network=thread.network,
        name=step.name,
        state=step.state.name.lower(),
        reason="" if step.reason is Reason.NONE else step.reason.name.lower(),
        url=step.url,
        at_ms=step.at_ms,
        photo=step.pictured,
        photo_reason="" if step.unpictured is Reason.NONE else step.unpictured.name.lower(),
        removal=words[step.removal],
    )
