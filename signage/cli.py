"""`signage simulate` plays boards, `check` reads a list of them, `preview` draws a text as boards will show it, `key`
prints the public key that boards hold.
"""

from __future__ import annotations

import base64
import enum
import gc
import logging
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

if TYPE_CHECKING:
    from PIL.Image import Image

app = typer.Typer(
    help="Boards at stops: play them, and see what they will show.", no_args_is_help=True, add_completion=False
)


class KeyForm(enum.StrEnum):
    """What `key` prints."""

    all = "all"
    id = "id"
    base64 = "base64"
    pem = "pem"


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


@app.callback()
def _commands() -> None:
    """Boards at stops: play them, and see what they will show."""


@app.command()
def simulate(
    broker: Annotated[str, typer.Option(help="mqtt://host:port of the broker")] = "mqtt://127.0.0.1:1883",
    boards: Annotated[int, typer.Option(min=1, help="Boards to make up, when no file is given")] = 100,
    boards_file: Annotated[
        Path | None, typer.Option(help="CSV or JSON of boards: id,lon,lat,place,model,areas")
    ] = None,
    areas: Annotated[bool, typer.Option("--areas", help="Made-up boards listen to area topics too")] = False,
    passengers: Annotated[int, typer.Option("--t047", min=0, help="Displays of RTIG T047 beside them")] = 0,
    connections: Annotated[int, typer.Option(min=0, help="Connections that carry them; 0: one for ten boards")] = 0,
    moods: Annotated[str, typer.Option(help="Shares, as flapping=0.05,mute=0.01; see --list-moods")] = "",
    film: Annotated[Path | None, typer.Option(help="File (JSON lines) of what each board really showed when")] = None,
    mqtt5: Annotated[bool, typer.Option(help="Speak MQTT 5 instead of 3.1.1")] = False,
    seed: Annotated[int, typer.Option(help="For positions and moods")] = 0,
    list_moods: Annotated[bool, typer.Option("--list-moods", help="Name the moods and the models, and end")] = False,
) -> None:
    """Play boards that announce themselves at a broker, show what they are told, and report it. Ends with Ctrl-C."""
    from signage.simulators.display import MOODS
    from signage.simulators.fleet import (
        Fleet,
        address_of,
        make_displays,
        make_passengers,
        parse_moods,
        read_boards,
        spread_boards,
    )
    from signage.simulators.models import MODELS

    if list_moods:
        typer.echo(f"moods:  {', '.join(MOODS)}\nmodels: {', '.join(MODELS)}")
        return
    try:
        placed = read_boards(boards_file) if boards_file is not None else spread_boards(boards, seed, areas=areas)
        shares = parse_moods(moods)
        address_of(broker)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    count = connections or max(1, len(placed) // 10)
    groups = make_displays(placed, count, shares, seed) + make_passengers(passengers, seed, shares)
    fleet = Fleet(groups, broker, _clock_ms, film=film, version=5 if mqtt5 else 4, seed=seed)
    beside = f", {passengers} displays of RTIG T047" if passengers else ""
    typer.echo(f"{len(placed)} boards behind {count} connections{beside} at {broker}")
    gc.freeze()  # boards stay: the collector need not walk thousands of them in the middle of a measurement
    gc.set_threshold(100_000, 50, 100)  # nor every few hundred objects what they were told: its count alone frees it
    trio.run(_until_signal, fleet.run)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="CSV, JSON or Parquet of boards, as the setting signage.lists takes it")],
) -> None:
    """Read a list of boards as the engine will, and name every row that is wrong. Ends with 1 when one is."""
    from fanout.errors import Refused
    from signage.lists import read_list

    try:
        boards, problems = read_list(file)
    except Refused as refused:
        raise typer.BadParameter(refused.message) from None
    for problem in problems:
        typer.secho(problem, fg="red")
    native = sum(board.dialect == "native" for board in boards)
    unable = sum(not board.capable for board in boards)
    placed = sum(board.caps.lon is not None for board in boards)
    typer.echo(
        f"{len(boards)} boards: {native} native, {len(boards) - native} of RTIG T047; {placed} with a position; "
        f"{unable} of which the list does not say what they can show; {len(problems)} rows passed over"
    )
    raise typer.Exit(code=1 if problems else 0)


@app.command()
def key(
    file: Annotated[
        Path | None, typer.Argument(help="The private key (PEM); none: signage.signing_key of the settings")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The engine's settings (TOML)")] = None,
    new: Annotated[bool, typer.Option("--new", help="Make the private key when there is none yet")] = False,
    form: Annotated[KeyForm, typer.Option(help="Print one thing only")] = KeyForm.all,
) -> None:
    """Print the public key that boards verify documents with: its id, its 32 bytes in base64, and the same as PEM."""
    from fanout import settings
    from fanout.errors import Refused
    from signage.signing import load_signer, public_pem

    try:
        named = settings.load(config).signage.signing_key if file is None else ""
    except Refused as refused:
        raise typer.BadParameter(refused.message) from None
    path = file or (Path(named) if named else None)
    if path is None:
        raise typer.BadParameter("signage.signing_key is empty, so documents are not signed; name a file")
    if not path.exists() and not new:
        raise typer.BadParameter(f"there is no {path}; --new makes it, and so does the engine when it starts")
    try:
        signer = load_signer(path)
    except (OSError, ValueError, TypeError) as error:
        raise typer.BadParameter(f"{path}: {error}") from None
    words = {
        KeyForm.id: signer.key_id,
        KeyForm.base64: base64.b64encode(signer.public).decode(),
        KeyForm.pem: public_pem(signer.public).rstrip(),
    }
    typer.echo("\n".join(words.values()) if form is KeyForm.all else words[form])


@app.command()
def preview(
    text: Annotated[str, typer.Argument(help="The text, in the main language")],
    english: Annotated[str, typer.Option(help="The same in English, to page after it")] = "",
    short: Annotated[
        list[str] | None, typer.Option(help="A short form of the text; may be given several times")
    ] = None,
    language: Annotated[str, typer.Option(help="The main language: its hyphenation is used")] = "nl",
    model: Annotated[list[str] | None, typer.Option(help="A model of `simulate --list-moods`; none: all")] = None,
    png: Annotated[Path | None, typer.Option(help="Folder for a picture of each model, lamps and all")] = None,
    photo: Annotated[Path | None, typer.Option(help="A picture that boards with pictures show beside the text")] = None,
) -> None:
    """Show a text as each model of board will, or say why it cannot. Ends with 1 when a model cannot."""
    from signage import draw, layout, pictures
    from signage.showing import forms_of
    from signage.simulators.models import MODELS, PASSENGER_MODELS

    models = {**MODELS, **PASSENGER_MODELS}
    unknown = [name for name in model or () if name not in models]
    if unknown:
        raise typer.BadParameter(f"no model {unknown[0]!r}; there are {', '.join(models)}")
    texts = {language: text} | ({"en": english} if english else {})
    forms = forms_of(texts, {language: list(short or [])})
    image = _open_photo(photo)
    refused = False
    for name in model or list(models):
        one = layout.model_of(models[name])
        try:
            size = image.size if image is not None and one.media else None
            laid, beside, box = pictures.lay_out_beside(forms, one, layout.Pace(), size)
        except layout.Unfit as unfit:
            refused = True
            typer.secho(f"{name}: cannot show it: {unfit}", fg="red")
            continue
        without = f", picture {beside.width} x {beside.height}" if beside is not None else ""
        without += f", without {', '.join(laid.left_out)}" if laid.left_out else ""
        font = f", font {laid.font}" if laid.font else ""
        typer.echo(
            f"{name}: {laid.behaviour}, {len(laid.pages)} page(s){font}, form {laid.form + 1} of {len(forms)}{without}"
        )
        if name in PASSENGER_MODELS:
            typer.echo("  RTIG T047: it is sent the text and breaks the lines itself; these are the engine's")
        pages = [draw.page_dots(page, one, laid.font, box or ()) for page in laid.pages]
        for page, dots in zip(laid.pages, pages, strict=True):
            typer.secho(draw.braille(dots), fg="yellow")
            typer.echo(f"  {page.language}, {page.seconds:g} s")
        if png is not None:
            png.mkdir(parents=True, exist_ok=True)
            draw.picture(pages, png / f"{name}.png", image, beside or ())
    raise typer.Exit(code=1 if refused else 0)


def _open_photo(path: Path | None) -> Image | None:
    from PIL import Image, UnidentifiedImageError

    if path is None:
        return None
    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError) as error:
        raise typer.BadParameter(f"{path} is no picture: {error}") from None


async def _until_signal(run: object) -> None:
    assert callable(run)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(run)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app()


if __name__ == "__main__":
    main()
