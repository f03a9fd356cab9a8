"""One engine a ledger: who comes second is refused, whoever was killed has it back at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trio
import trio.testing

from fanout import holding
from fanout.errors import Refused


class Documents:
    """A ledger's documents, in memory."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], bytes] = {}

    def put(self, space: str, values: Iterable[tuple[str, bytes | None]]) -> None:
        for key, value in values:
            if value is None:
                self.held.pop((space, key), None)
            else:
                self.held[space, key] = value

    def get(self, space: str, key: str) -> bytes | None:
        return self.held.get((space, key))

    def scan(self, space: str) -> list[tuple[str, bytes]]:
        return [(key, value) for (of, key), value in self.held.items() if of == space]


async def soon(holds: Callable[[], bool]) -> None:
    """Threads are not waited for by a clock that jumps."""
    for _ in range(10_000):
        if holds():
            return
        await trio.sleep(holding.SAY_EVERY_S / 10)
        await trio.to_thread.run_sync(time.sleep, 0.001)
    raise AssertionError("it never came to that")


def engine(folder: Path) -> holding.Holder:
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return holding.me(folder)


def test_the_second_is_refused_until_the_first_is_silent_or_gone(tmp_path: Path) -> None:
    documents, first, second = Documents(), engine(tmp_path / "a"), engine(tmp_path / "b")
    hold_ms = int(1000 * holding.HOLD_S)
    assert first.identity != second.identity
    holding.say(documents, first, 1_000)
    with pytest.raises(Refused) as caught:
        holding.say(documents, second, 2_000)
    assert caught.value.code == "store_in_use"
    assert str(tmp_path / "a") in caught.value.message
    assert holding.look(documents, engine(tmp_path / "a"), 2_000), "killed and started again: at once"
    holding.say(documents, second, 1_000 + hold_ms)
    with pytest.raises(Refused, match="store_in_use"):
        holding.say(documents, first, 1_000 + hold_ms)
    holding.leave(documents, second)
    holding.say(documents, first, 1_000 + hold_ms)
    holding.leave(documents, second)
    with pytest.raises(Refused, match="store_in_use"):
        holding.look(documents, second, 1_000 + hold_ms)


def test_a_clock_that_was_a_day_ahead_keeps_nobody_out(tmp_path: Path) -> None:
    documents = Documents()
    holding.say(documents, engine(tmp_path / "a"), 86_400_000)
    holding.say(documents, engine(tmp_path / "b"), 1_000)


async def test_who_finds_another_there_ends(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """It had said nothing for too long: a machine that slept, a Redis that was away for it alone."""
    documents, now_ms = Documents(), 1_000
    engine(tmp_path / "a")
    with pytest.RaisesGroup(Refused):
        async with holding.holding(documents, tmp_path / "a", lambda: now_ms):
            now_ms += int(1000 * holding.HOLD_S)
            holding.say(documents, engine(tmp_path / "b"), now_ms)
            await trio.sleep_forever()  # with no deadline of its own: the clock would jump to it beside a thread
    assert holding.look(documents, engine(tmp_path / "b"), now_ms), "and takes nothing from the other"


async def test_of_two_that_come_together_one_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, other = Documents(), engine(tmp_path / "b")
    engine(tmp_path / "a")
    say = holding.say

    def both(*given: object) -> None:
        say(*given)  # type: ignore[arg-type]
        documents.put(holding.SPACE, [(holding.KEY, None)])
        say(documents, other, 1_000)

    monkeypatch.setattr(holding, "say", both)
    with pytest.raises(Refused, match="store_in_use"):
        async with holding.holding(documents, tmp_path / "a", lambda: 1_000):
            raise AssertionError("it is the other's")


async def test_a_ledger_that_does_not_answer_ends_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        refused.append(1)
        raise Refused("store_unavailable", detail="away")

    documents, now_ms = Documents(), 1_000
    refused: list[int] = []
    engine(tmp_path / "a")
    async with holding.holding(documents, tmp_path / "a", lambda: now_ms):
        with monkeypatch.context() as away:
            away.setattr(documents, "put", refuse)
            await soon(lambda: len(refused) > 2)
        now_ms += int(1000 * holding.HOLD_S)
        held = b'"until_ms":%d' % (now_ms + 1000 * holding.HOLD_S)
        await soon(lambda: held in documents.held[holding.SPACE, holding.KEY])
        with pytest.raises(Refused, match="store_in_use"):
            holding.look(documents, engine(tmp_path / "b"), now_ms)
    holding.say(documents, engine(tmp_path / "b"), now_ms)
