"""`check_dialect(make)`: what must hold in every dialect, on displays that follow it. `make(n)` gives a world with n
of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.signage.worlds import START_MS, World, action, shown

HOUR_MS = 3_600_000
Make = Callable[[int], World]


def check_dialect(make: Make) -> None:
    for check in (
        shows_and_takes_down,
        replaces_a_text,
        shows_a_result_for_a_while,
        keeps_the_end,
        lets_emergencies_win_alone,
        reaches_exactly_the_chosen,
        brings_back_what_is_valid,
        goes_on_after_a_restart,
        survives_a_broker_that_forgets,
        tidies_up,
    ):
        check(make)


def settle(world: World) -> None:
    """Time enough for every proof."""
    world.pass_time(30)


def shows_and_takes_down(make: Make) -> None:
    world = make(4)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    assert [shown(display) for display in world.displays] == [[(1, "start")]] * 4
    assert world.core.counts(1).shown == 4
    world.end(1)
    assert [shown(display) for display in world.displays] == [[]] * 4, "take-down is at once"
    settle(world)
    assert world.core.counts(1).cleared == 4
    assert world.core.showing() == []


def replaces_a_text(make: Make) -> None:
    world = make(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    world.update(1, "Nieuw signalement: blauwe jas en zwarte pet. Bel 112.")
    assert world.core.counts(1).updated == 0 or world.core.counts(1).updated == 3
    settle(world)
    assert all([number for number, _ in shown(display)] == [1] for display in world.displays)
    assert world.core.counts(1).updated == 3
    world.end(1)
    assert [shown(display) for display in world.displays] == [[]] * 3


def shows_a_result_for_a_while(make: Make) -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    settle(world)
    world.end(1, {"nl": "Het kind is gevonden. Dank u wel."})
    assert [shown(display) for display in world.displays] == [[(1, "result")]] * 2
    settle(world)
    assert world.core.counts(1).cleared == 2
    world.pass_time(world.settings.result_show_s + 2, 10)
    assert [shown(display) for display in world.displays] == [[]] * 2


def keeps_the_end(make: Make) -> None:
    world = make(2)
    world.show(1, action(end_ms=START_MS + 60_000))
    settle(world)
    world.pass_time(31)
    assert [shown(display) for display in world.displays] == [[]] * 2
    settle(world)
    assert world.core.counts(1).cleared == 2


def lets_emergencies_win_alone(make: Make) -> None:
    world = make(2)
    world.show(1, action("Uitkijken naar vrouw, 84 jaar.", end_ms=START_MS + HOUR_MS), lane=1)
    settle(world)
    world.show(2, action("Vermist: jongen, 6 jaar.", end_ms=START_MS + HOUR_MS), lane=0)
    world.pass_time(1)
    world.show(3, action("Vermist: meisje, 8 jaar.", end_ms=START_MS + HOUR_MS), lane=0)
    settle(world)
    for display in world.displays:
        assert shown(display) == [(2, "start"), (3, "start")]
    world.end(2)
    world.end(3)
    settle(world)
    for display in world.displays:
        assert shown(display) == [(1, "start")]
    assert world.core.counts(1).shown == 2


def reaches_exactly_the_chosen(make: Make) -> None:
    world = make(6)
    ids = [display.id for display in world.displays]
    for number, chosen in enumerate(({ids[0]}, set(ids[:3]), {ids[1], ids[4]}, set(ids)), start=1):
        world.show(number, action(f"Bericht nummer {number} van deze dag.", end_ms=START_MS + HOUR_MS), boards=chosen)
        settle(world)
        for display in world.displays:
            assert ((number, "start") in shown(display)) == (display.id in chosen), (number, display.id)
        world.end(number)
        settle(world)
        assert all(shown(display) == [] for display in world.displays)


def brings_back_what_is_valid(make: Make) -> None:
    world = make(3)
    gone = world.displays[0]
    world.leave(gone)
    world.show(1, action("Vermist: jongen, 6 jaar.", end_ms=START_MS + HOUR_MS))
    world.show(2, action("Vermist: meisje, 8 jaar.", end_ms=START_MS + HOUR_MS))
    settle(world)
    world.end(1)
    settle(world)
    assert world.core.counts(2).laggards == [gone.id]
    world.join(gone)
    settle(world)
    assert shown(gone) == [(2, "start")]
    assert world.core.counts(2).shown == 3
    assert world.core.counts(1).cleared == 3


def goes_on_after_a_restart(make: Make) -> None:
    world = make(3)
    world.show(1, action("Vermist: jongen, 6 jaar.", end_ms=START_MS + HOUR_MS))
    world.show(2, action("Vermist: meisje, 8 jaar.", end_ms=START_MS + HOUR_MS))
    settle(world)
    world.engine_cut()
    world.core.end(1, {}, world.now_ms, "closed")
    world.save()
    world.restart_engine()
    settle(world)
    assert [shown(display) for display in world.displays] == [[(2, "start")]] * 3
    assert world.core.counts(1).cleared == 3
    assert world.core.counts(2).shown == 3


def survives_a_broker_that_forgets(make: Make) -> None:
    world = make(3)
    world.show(1, action(end_ms=START_MS + HOUR_MS))
    world.engine_cut()
    world.show(2, action("Vermist: meisje, 8 jaar.", end_ms=START_MS + HOUR_MS))
    world.end(1)
    world.engine_back(broker_forgot=True)
    settle(world)
    assert [shown(display) for display in world.displays] == [[(2, "start")]] * 3


def tidies_up(make: Make) -> None:
    world = make(3)
    before = set(world.retained)
    world.show(1, action(end_ms=START_MS + 60_000))
    world.pass_time(60 + world.settings.grace_s + 60, 5)
    left = {topic for topic in set(world.retained) - before if not topic.endswith(("reported", "state"))}
    assert left == set()
