"""Topics of RTIG T047: exactly the chosen displays, by as few topics as a search through all sets can find."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from signage.dialects.cover import EXACT_MAX, Addresses, Levels, cover

place = st.tuples(st.sampled_from(["L", "M", "null"]), st.sampled_from("cd"), st.sampled_from("st"))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Addresses], list[Addresses]]:
    """Displays with one to three places each, and which of them are chosen."""
    count = draw(st.integers(1, 7))
    everyone = []
    for number in range(count):
        places = draw(st.lists(place, min_size=1, max_size=3, unique=True))
        everyone.append(tuple((*each, "v", str(number)) for each in places))
    chosen = draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
    return everyone, chosen


def reached(levels: Levels, everyone: list[Addresses]) -> set[Addresses]:
    """By the standard's letter: a display hears each level of each of its places."""
    return {one for one in everyone if any(address[: len(levels)] == levels for address in one)}


def all_topics(everyone: list[Addresses]) -> set[Levels]:
    return {address[:depth] for one in everyone for address in one for depth in range(1, 6)}


def fewest(everyone: list[Addresses], chosen: list[Addresses]) -> int:
    """Brute force: the size of the smallest set of topics that reaches the chosen and nobody else."""
    wanted = set(chosen)
    pure = {
        frozenset(reached(levels, everyone))
        for levels in all_topics(everyone)
        if "null" not in levels[:4] or len(levels) == 5
    }
    pure = {each for each in pure if each <= wanted}
    useful = [each for each in pure if not any(each < other for other in pure)]
    for size in range(1, len(chosen) + 1):
        if any(set().union(*few) == wanted for few in itertools.combinations(useful, size)):
            return size
    raise AssertionError("each display has a topic of its own")


@given(worlds())
@examples(max_examples=600)
def test_a_cover_is_exact_and_as_small_as_can_be(world: tuple[list[Addresses], list[Addresses]]) -> None:
    everyone, chosen = world
    found = cover(chosen, everyone)
    assert set().union(*(reached(levels, everyone) for levels in found)) == set(chosen)
    assert len(found) == fewest(everyone, chosen)


@given(worlds())
def test_displays_at_one_place_are_reached_once(world: tuple[list[Addresses], list[Addresses]]) -> None:
    everyone = [one[:1] for one in world[0]]
    chosen = [one[:1] for one in world[1]]
    found = cover(chosen, everyone)
    assert sum(len(reached(levels, everyone)) for levels in found) == len(set(chosen))


def test_an_unknown_place_is_never_addressed_as_a_whole() -> None:
    lost: list[Addresses] = [(("null", "null", "null", "v", number),) for number in "12"]
    assert cover(lost, lost) == [one[0] for one in lost]


def test_more_places_than_can_be_searched_are_still_reached_exactly() -> None:
    everyone: list[Addresses] = [
        tuple((f"L{(number * step) % 40}", "c", "s", "v", str(number)) for step in (1, 3, 7)) for number in range(80)
    ]
    found = cover(everyone, everyone)
    assert len({levels for levels in found if len(levels) == 1}) > EXACT_MAX
    assert set().union(*(reached(levels, everyone) for levels in found)) == set(everyone)
