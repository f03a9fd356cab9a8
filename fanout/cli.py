"""The command line: `fanout …`. Each command is a thin shell over `start`, `client` or a simulator, and loads it when
it runs: after a crash an engine has to stand before anything else.

Every command that talks to a running engine takes `--address` and `--key`, or reads FANOUT_ADDRESS and FANOUT_KEY.
Refusals of the catalogue are printed as one sentence, and the exit status is 1.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec, TypeVar

import trio
import typer
from rich.console import Console
from rich.table import Table

from fanout import holding, logs, wire
from fanout.api.auth import SCOPES, Scope, create_key, list_keys, revoke_key
from fanout.clock import clock_ms
from fanout.errors import Refused
from fanout.settings import load
from fanout.start import lock_folder
from fanout.start import serve as serve_until_told
from fanout.stores import open_store

if TYPE_CHECKING:
    from fanout.client import Client

P = ParamSpec("P")
T = TypeVar("T")

cli = typer.Typer(
    name="fanout",
    help="Fan-out engine for citizen-alert networks: actions in, messages and matrix boards out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
participants_cli = typer.Typer(help="The registry of participants.", no_args_is_help=True)
areas_cli = typer.Typer(help="Named areas: municipalities, regions, countries.", no_args_is_help=True)
keys_cli = typer.Typer(help="Keys of those who may call the API.", no_args_is_help=True)
action_cli = typer.Typer(help="Start, follow and close actions on a running engine.", no_args_is_help=True)
simulate_cli = typer.Typer(help="Stand-ins for the outside world, on loopback.", no_args_is_help=True)
cli.add_typer(participants_cli, name="participants")
cli.add_typer(areas_cli, name="areas")
cli.add_typer(keys_cli, name="key")
cli.add_typer(action_cli, name="action")
cli.add_typer(simulate_cli, name="simulate")

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="A TOML file that overlays config/default.toml.", dir_okay=False)
]
Address = Annotated[str, typer.Option(help="Where the engine listens.", envvar="FANOUT_ADDRESS")]
Key = Annotated[str, typer.Option(help="A key from `fanout key create`.", envvar="FANOUT_KEY")]


KEY_PREFIX_MIN: Final = 8
"""Digits that name one key among all that anybody will make."""

_UNWRITABLE: Final = frozenset(
    getattr(errno, name) for name in ("EACCES", "EDQUOT", "EEXIST", "EISDIR", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
)
"""What a disk or its rights say no with."""


def refusals(command: Callable[P, T]) -> Callable[P, T]:
    """Print a refusal as one sentence and exit with 1; so is a disk that does not take our files."""

    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except OSError as error:
            if error.errno not in _UNWRITABLE or error.filename is None:
                raise
            path = error.filename2 or error.filename
            raise Refused("data_unwritable", path=path, detail=error.strerror) from None

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return asked(*args, **kwargs)
        except Refused as error:
            place = f" ({error.where})" if error.where else ""
            Console(stderr=True).print(
                f"[bold red]{error.code}[/]: {error.message}{place}", highlight=False, soft_wrap=True
            )
            raise typer.Exit(1) from None

    return wrapped


# --- running --------------------------------------------------------------------------------------------------------


@cli.command()
@refusals
def serve(config: Config = None) -> None:
    """Run the engine: API, senders, boards. Ctrl-C or SIGTERM ends it in order."""
    settings = load(config)
    logs.set_up(settings)
    out = Console(stderr=True, highlight=False)

    def on_ready(address: str) -> None:
        out.print(f"ready at [bold]{address}[/], data in {settings.data}, fence {settings.engine.fence}")

    try:
        trio.run(serve_until_told, settings, on_ready)
    except BaseExceptionGroup as group:
        raise _only(group) from None


@cli.command()
@refusals
def demo(
    participants: Annotated[int, typer.Option(min=1_000, help="How many people are registered.")] = 1_600_000,
    boards: Annotated[
        int | None,
        typer.Option(min=10, help="How many matrix boards there are. Default: 10,000, where no mosquitto is 1,000."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same nation.")] = 1,
    fast: Annotated[bool, typer.Option("--fast", help="100,000 participants, and fewer boards.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object with the summary.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep everything running for a look around.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture and the data.")] = Path("out"),
) -> None:
    """The main job on a whole nation: simulators, boards, two local actions and a national one."""
    from fanout.demo.story import Options, run_demo
    from fanout.demo.world import boards_here

    if boards is None:
        boards = boards_here(fast)
    if fast:
        participants = min(participants, 100_000)
    run_demo(Options(participants=participants, boards=boards, seed=seed, json=json, stay=stay, out=out))


# --- participants, areas and keys: on the data folder -----------------------------------------------------------------


@participants_cli.command("import")
@refusals
def participants_import(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or Arrow.")],
    config: Config = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out instead of refusing all.")] = False,
) -> None:
    """Import participants into the data folder, while no engine runs on it.

    One row a participant; columns by name, in any order:

    \b
    id                   required: pseudonymous, unique, of A-Z a-z 0-9 . _ : @ -
    lon lat              required, degrees
    hours                12345 08:00-18:00;67 10:00-12:00 · empty: always
    lon_2 lat_2 hours_2  a second place, and so on to _8
    fcm apns webpush sms voice email whatsapp   the address there; empty: none
    preference           sms,fcm · empty: in the order above
    language timezone age_group                 empty: nl, Europe/Amsterdam, unknown
    kinds tenants        names with commas; empty: all

    A bad row is named with its number and column, and nothing is imported, unless --skip-bad leaves it out.
    While the engine runs, register people through its API instead: PUT /v1/participants.
    """
    from fanout.app import open_registry
    from fanout.registry.importing import import_file

    settings = load(config)
    lock = lock_folder(settings)
    store = open_store(settings)
    holding.look(store, holding.me(settings.data), clock_ms())
    registry = open_registry(settings, store)
    started_s = time.monotonic()
    try:
        report = import_file(registry, file, on_bad="skip" if skip_bad else "refuse")
    finally:
        registry.close()
        store.close_store()
        del lock
    console = Console(highlight=False)
    console.print(f"{report.imported:,} participants imported in {time.monotonic() - started_s:.1f} s")
    for line in report.problems:
        console.print(f"[yellow]left out:[/] {line}")


@areas_cli.command("import")
@refusals
def areas_import(
    file: Annotated[Path, typer.Argument(help="GeoJSON or TopoJSON.")],
    kind: Annotated[str, typer.Option(help="What these are: municipality, province, country, …")],
    name_field: Annotated[str, typer.Option(help="The property that holds the name.")],
    of: Annotated[
        str | None, typer.Option("--object", help="Of TopoJSON: this object only; else all that have names.")
    ] = None,
    config: Config = None,
) -> None:
    """Import named areas; actions can then say {"type": "Named", "kind": …, "name": …}."""
    from fanout.geo.areas import NamedAreas

    settings = load(config)
    areas = NamedAreas.open(settings.data / "areas")
    count = areas.import_file(file, kind=kind, name_field=name_field, of=of)
    Console(highlight=False).print(f"{count:,} areas of kind {kind} imported")


@keys_cli.command("create")
@refusals
def key_create(
    tenant: Annotated[str, typer.Option(help="Whose key: a \\[tenants.NAME] of the settings.")] = "police",
    name: Annotated[str, typer.Option(help="Who holds it; for your own overview.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(SCOPES)}; repeat for several, none: all.")
    ] = None,
    config: Config = None,
) -> None:
    """Make a key and print it, once: it cannot be read back. Works while the engine runs."""
    settings = load(config)
    if tenant not in settings.tenants:
        raise Refused("tenant_unknown", "--tenant", tenant=tenant, known=", ".join(settings.tenants))
    scopes: tuple[Scope, ...] = tuple(known for known in SCOPES if scope is None or known in scope)
    store = open_store(settings)
    try:
        print(create_key(store, tenant, name, scopes, clock_ms()))
    finally:
        store.close_store()


@keys_cli.command("list")
@refusals
def key_list(config: Config = None) -> None:
    """Show the keys there are, without their secrets."""
    store = open_store(load(config))
    table = Table("key", "tenant", "name", "scopes")
    for prefix, record in list_keys(store):
        table.add_row(prefix, record.tenant, record.name, ", ".join(record.scopes))
    store.close_store()
    Console().print(table)


@keys_cli.command("revoke")
@refusals
def key_revoke(
    prefix: Annotated[str, typer.Argument(help="From `fanout key list`, or its first 8 digits.")],
    config: Config = None,
) -> None:
    """Revoke a key; it stops working within five seconds. Ends with 1 when there is no such key."""
    if len(prefix) < KEY_PREFIX_MIN:
        raise typer.BadParameter(f"{prefix!r} may be many keys': {KEY_PREFIX_MIN} digits are needed")
    store = open_store(load(config))
    count = revoke_key(store, prefix)
    store.close_store()
    print(f"{count} revoked")
    raise typer.Exit(0 if count else 1)


# --- actions: on a running engine -------------------------------------------------------------------------------------


@action_cli.command("start")
@refusals
def action_start(
    text: Annotated[str, typer.Argument(help="What people and boards are told.")],
    key: Key,
    lon: Annotated[float, typer.Option(help="Longitude of the centre, degrees.")],
    lat: Annotated[float, typer.Option(help="Latitude of the centre, degrees.")],
    radius: Annotated[float, typer.Option(help="Radius of the circle, metres.")] = 2_000.0,
    kind: Annotated[str, typer.Option(help="A \\[kinds.NAME] of the settings.")] = "missing_child",
    minutes: Annotated[float, typer.Option(help="How long the action runs.")] = 60.0,
    language: Annotated[str, typer.Option(help="Language of the text.")] = "nl",
    reference: Annotated[str, typer.Option(help="Your case number: the same one again is the same action.")] = "",
    speaks: Annotated[list[str] | None, typer.Option(help="Only who has this language; repeat for several.")] = None,
    age_group: Annotated[
        list[str] | None, typer.Option(help="Only unknown, youth, adult or senior; repeat for several.")
    ] = None,
    live: Annotated[str, typer.Option(help="Live positions count beside or instead of places, or: ignore.")] = "beside",
    fresh: Annotated[int, typer.Option(help="Seconds for which a live position counts.")] = 300,
    nearest_to: Annotated[
        list[str] | None,
        typer.Option(help="LON,LAT from where nearest first counts; repeat for a line. Else the circle's centre."),
    ] = None,
    wave: Annotated[int, typer.Option(min=0, help="Tell so many people per free operator at a time; 0: all.")] = 0,
    operators: Annotated[int, typer.Option(min=0, help="With --wave: how many operators are free now.")] = 1,
    follow: Annotated[bool, typer.Option("--follow", help="Show the counts until the action is over.")] = False,
    address: Address = "http://127.0.0.1:8080",
) -> None:
    """Start an action in a circle."""
    now_ms = clock_ms()
    body = {
        "reference": reference or f"cli-{now_ms}",
        "kind": kind,
        "area": wire.Circle(lon=lon, lat=lat, radius_m=radius),
        "texts": {language: text},
        "end_ms": now_ms + int(minutes * 60_000),
        "languages": speaks or None,
        "age_groups": age_group or None,
        "live": {"mode": live, "fresh_s": fresh},
        "centre": _centre(nearest_to or []),
        "waves": wire.Waves(people=wave, free=operators) if wave else None,
    }
    request = wire.decode_json(wire.encode_json(body), wire.ActionRequest)
    with _engine(address, key) as engine:
        accepted = engine.start(request)
        channels = ", ".join(f"{count.people:,} by {count.channel}" for count in accepted.channels)
        print(f"action {accepted.id}: {accepted.people:,} people ({channels}), {accepted.boards.boards:,} boards")
        if follow:
            _follow(engine, accepted.id)


@action_cli.command("follow")
@refusals
def action_follow(action: int, key: Key, address: Address = "http://127.0.0.1:8080") -> None:
    """Show the counts of an action until it is over."""
    with _engine(address, key) as engine:
        _follow(engine, action)


@action_cli.command("update")
@refusals
def action_update(
    action: int,
    text: Annotated[str, typer.Argument(help="The news; must make sense alone.")],
    key: Key,
    language: Annotated[str, typer.Option(help="Language of the text.")] = "nl",
    reference: Annotated[str, typer.Option(help="The same one again is the same update.")] = "",
    address: Address = "http://127.0.0.1:8080",
) -> None:
    """Tell news of an action that goes on to everyone who got it."""
    request = wire.UpdateRequest(reference=reference or f"cli-{clock_ms()}", texts={language: text})
    with _engine(address, key) as engine:
        view = engine.update(action, request)
        print(f"action {action}: the update goes to {view.tallies[-1].selected:,} people")


@action_cli.command("operators")
@refusals
def action_operators(
    action: int,
    free: Annotated[int, typer.Argument(min=0, help="How many operators are free now.")],
    key: Key,
    address: Address = "http://127.0.0.1:8080",
) -> None:
    """Say how many operators are free: lets the next waves of an action go."""
    with _engine(address, key) as engine:
        waves = engine.operators(action, wire.OperatorsRequest(free=free)).waves
        assert waves is not None, "an action without waves is refused"
        print(f"action {action}: {waves.let_go} of {waves.of} waves of {waves.people} people were let go")


@action_cli.command("cancel")
@refusals
def action_cancel(action: int, key: Key, address: Address = "http://127.0.0.1:8080") -> None:
    """Stop an action without a result: what is unsent stays so, boards are cleared."""
    with _engine(address, key) as engine:
        view = engine.cancel(action, wire.ReasonRequest(reference=f"cli-cancel-{action}"))
        print(f"action {action} is {view.state}; {view.tallies[0].cancelled:,} people were not told any more")


@action_cli.command("result")
@refusals
def action_result(
    action: int,
    text: Annotated[str, typer.Argument(help="How it ended; goes to everyone who got the action.")],
    key: Key,
    outcome: Annotated[str, typer.Option(help="direct, indirect or none: did the participants help?")] = "none",
    language: Annotated[str, typer.Option(help="Language of the text.")] = "nl",
    address: Address = "http://127.0.0.1:8080",
) -> None:
    """Close an action and tell its result."""
    body = {"reference": f"cli-result-{action}", "outcome": outcome, "texts": {language: text}}
    request = wire.decode_json(wire.encode_json(body), wire.ResultRequest)
    with _engine(address, key) as engine:
        view = engine.result(action, request)
        print(f"action {action} is {view.state}; the result goes to {view.tallies[-1].selected:,} people")


@simulate_cli.command(
    "providers",
    add_help_option=False,  # its options, and so their help, are the simulators' own
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def simulate_providers(context: typer.Context) -> None:
    """Run the provider simulators; `fanout simulate providers --help` shows their options."""
    # In place of this process: what ends it ends them, and nobody is left behind on their port.
    os.execv(sys.executable, [sys.executable, "-m", "fanout.simulators.providers", *context.args])


# --- inside -----------------------------------------------------------------------------------------------------------


def _centre(spots: list[str]) -> wire.Centre | None:
    """The point or the line of some `LON,LAT`."""
    try:
        line = [tuple(map(float, spot.split(","))) for spot in spots]
        if any(len(position) not in (2, 3) for position in line):
            raise ValueError
    except ValueError:
        raise Refused("field_invalid", "--nearest-to", detail="Each is LON,LAT in degrees, as 6.56,52.99.") from None
    if len(line) > 1:
        return wire.LineString(coordinates=line)
    return wire.Point(coordinates=line[0]) if line else None


def _engine(address: str, key: str) -> Client:
    from fanout.client import Client

    return Client(address, key)


def _follow(engine: Client, action: int) -> None:
    console = Console(highlight=False)
    for view in engine.follow(action):
        for tally in view.tallies:
            console.print(
                f"{view.state:9} {tally.phase:7} {tally.accepted:>9,} of {tally.selected:,} accepted · "
                f"{tally.waiting:,} waiting · {tally.failed:,} failed · {tally.unknown:,} unknown · "
                f"boards {view.boards.shown}/{view.boards.selected}{_ahead(view)}"
            )


def _ahead(view: wire.ActionView) -> str:
    """What is to come: when all are told by the forecast, and the waves."""
    told = ""
    if view.state == "open" and view.tallies[-1].waiting and view.forecast is not None:
        told = " · stands still" if view.forecast.all_s is None else f" · all by {view.forecast.all_s:.0f} s"
    return told + (f" · wave {view.waves.let_go} of {view.waves.of}" if view.waves is not None else "")


def _only(group: BaseExceptionGroup[Any]) -> BaseException:
    """The refusal inside nested groups of one, else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def main() -> None:
    """Entry point of the `fanout` command."""
    cli()


if __name__ == "__main__":
    main()
