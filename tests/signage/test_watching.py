"""What snapshots in a row prove of one display: seen, not seen, gone."""

from __future__ import annotations

from signage.dialects.native import Item, Page, Shown, Stage, Target
from signage.watching import GONE_SNAPSHOTS, Watch

NOW = 1_900_000_000_000
LONG = "Vermist in Assen: {}, zes jaar oud, met een gele regenjas en blauwe laarzen aan. Gezien? Bel direct 112."
OWN = ["12 Centraal     3 min", "4 Zernike      11 min", ""]


def item(action: int, *, priority: int = 0, target: Target = "full", stage: Stage = "start", pages: int = 2) -> Item:
    return Item(
        action=action,
        stage=stage,
        priority=priority,
        target=target,
        pages=[Page(lines=["x"], seconds=4.0)] * pages,
        start_ms=0,
        end_ms=NOW + 3_600_000,
        received_ms=NOW + action,
    )


def wanted(watch: Watch, **texts: str) -> dict[str, Item]:
    items = {name: item(at) for at, name in enumerate(texts, start=1)}
    watch.want({name: (items[name], {"nl": text}) for name, text in texts.items()})
    return items


def test_a_page_beside_departures_is_seen() -> None:
    watch = Watch()
    (only,) = wanted(watch, a=LONG.format("jongen")).values()
    assert watch.look(OWN, [only], NOW).strangers == []
    assert watch.seen == set()
    watch.look(["regenjas en blauwe laarzen", "aan. Gezien? Bel direct", "12 Centraal     3 min"], [only], NOW)
    assert watch.seen == {"a"}


def test_a_page_of_two_messages_proves_neither_and_their_own_pages_prove_each() -> None:
    watch = Watch()
    items = list(wanted(watch, a=LONG.format("jongen"), b=LONG.format("meisje")).values())
    watch.look(["en blauwe laarzen aan.", "Gezien? Bel direct 112."], items, NOW)
    assert watch.seen == set()
    watch.look(["Vermist in Assen: jongen,", "zes jaar oud, met een gele"], items, NOW)
    assert watch.seen == {"a"}


def test_two_messages_of_one_text_are_seen_together() -> None:
    watch = Watch()
    items = list(wanted(watch, a="Vermist: jongen, 6 jaar.", b="Vermist: jongen, 6 jaar.").values())
    watch.look(["Vermist: jongen, 6 jaar."], items, NOW)
    assert watch.seen == {"a", "b"}


def test_an_overline_and_a_bottom_line_are_seen_in_one_snapshot() -> None:
    watch = Watch()
    items = list(wanted(watch, a=LONG.format("jongen"), b="Brug dicht tot 18 uur, omrijden via de ring.").values())
    watch.look(["Vermist in Assen: jongen,", "zes jaar oud, met een gele", "18 uur, omrijden via de ri"], items, NOW)
    assert watch.seen == {"a", "b"}


def test_a_page_that_the_replaced_text_has_too_proves_no_update() -> None:
    watch = Watch()
    wanted(watch, a=LONG.format("jongen"))
    shared = ["en blauwe laarzen aan.", "Gezien? Bel direct 112."]
    items = list(wanted(watch, a=LONG.format("meisje")).values())
    watch.look(["Vermist in Assen: jongen,", "zes jaar oud, met een gele"], items, NOW)
    watch.look(shared, items, NOW)
    assert watch.seen == set(), "it may well show the old text"
    watch.look(["Vermist in Assen: meisje,", "zes jaar oud, met een gele"], items, NOW)
    assert watch.seen == {"a"}


def test_the_replaced_text_is_never_told_as_shown() -> None:
    watch = Watch()
    wanted(watch, a=LONG.format("jongen"))
    items = list(wanted(watch, a=LONG.format("meisje")).values())
    for _ in range(10):
        look = watch.look(["Vermist in Assen: jongen,", "zes jaar oud, met een gele"], items, NOW)
        assert (look.strangers, watch.seen) == ([], set())


def test_gone_is_proven_by_snapshots_in_a_row() -> None:
    watch = Watch()
    (only,) = wanted(watch, a="Vermist: jongen, 6 jaar.").values()
    wanted(watch)
    clears = []
    for lines in (OWN, ["Vermist: jongen, 6 jaar."], OWN, OWN):
        look = watch.look(lines, [], NOW)
        clears.append(look.clear)
        assert look.strangers == ([] if lines is OWN else [Shown(action=only.action)])
    assert clears == [False] * 3 + [True]
    assert GONE_SNAPSHOTS == 2


def test_one_that_alternates_with_another_is_not_gone_when_the_other_is_seen() -> None:
    watch = Watch()
    items = wanted(watch, a=LONG.format("jongen"), b="Brug dicht tot 18 uur, omrijden.")
    wanted(watch, b="Brug dicht tot 18 uur, omrijden.")
    clears = [watch.look(["Brug dicht tot 18 uur,", "omrijden."], [items["b"]], NOW).clear for _ in range(4)]
    assert clears == [False, False, False, True], "two in a row, and as many as it has pages"


def test_it_is_gone_at_once_when_something_is_seen_that_it_would_not_leave_room() -> None:
    watch = Watch()
    watch.want({"a": (item(1), {"nl": LONG.format("jongen")})})
    result = item(1, priority=20, stage="result")
    watch.want({"r": (result, {"nl": "De jongen is gevonden. Dank u wel."})})
    assert not watch.look(OWN, [result], NOW).clear
    assert watch.look(["De jongen is gevonden.", "Dank u wel."], [result], NOW).clear


def test_a_message_that_was_taken_down_keeps_its_lines_from_proving_another() -> None:
    watch = Watch()
    wanted(watch, a=LONG.format("jongen"))
    (new,) = wanted(watch, b=LONG.format("jongen") + " ").values()
    page = ["en blauwe laarzen aan.", "Gezien? Bel direct 112."]
    seen = []
    for _ in range(5):
        watch.look(page, [new], NOW)
        seen.append("b" in watch.seen)
    assert not seen[0]
    assert seen[-1], "the same text under another id: it is the new one once the old one must be gone"


def test_what_nobody_knows_it_was_told_must_be_gone_too() -> None:
    watch = Watch()
    wanted(watch)
    watch.drop("a", Shown(action=1), ["Vermist: jongen, 6 jaar.", "Jongen vermist"])
    assert not watch.look(["Vermist: jongen, 6 jaar."], [], NOW).clear
    assert not watch.look(OWN, [], NOW).clear
    assert watch.look(OWN, [], NOW).clear


def test_of_two_that_alternate_the_one_not_in_sight_stays_in_doubt() -> None:
    watch = Watch()
    wanted(watch, a=LONG.format("jongen"), b="Brug dicht tot 18 uur, omrijden.")
    wanted(watch)
    look = watch.look(["Brug dicht tot 18 uur,", "omrijden."], [], NOW)
    assert look.strangers == [Shown(action=2)]
    assert sorted(each.action for each in look.doubtful) == [1, 2]


def test_what_was_seen_before_it_was_away_is_to_be_seen_again() -> None:
    watch = Watch()
    items = list(wanted(watch, a="Vermist: jongen, 6 jaar.").values())
    watch.look(["Vermist: jongen, 6 jaar."], items, NOW)
    assert watch.seen == {"a"}
    watch.anew()
    watch.look(OWN, items, NOW)
    assert watch.seen == set()


def test_a_short_page_of_what_must_be_gone_is_suspicious_when_it_is_all_there_is() -> None:
    watch = Watch()
    wanted(watch, a="Kijk uit naar een kind in Assen")
    wanted(watch)
    for _ in range(5):
        assert not watch.look(["kind in", "Assen"], [], NOW).clear
