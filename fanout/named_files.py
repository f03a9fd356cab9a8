"""Files that settings name, looked for before anything starts: authorities, certificates, keys, accounts.

What uses them is a sender, a process away from whoever wrote the settings; there a file that is missing was a sender
that ends and is started again, for ever, beside an engine that never gets ready. So they are opened here, and all that
cannot be are told at once. Of a provider that is switched off nothing is opened. What is in a key is looked at by
`dispatch.credentials`, which takes half a second to load: senders do not wait for that after a crash. The API's own are
`listening.tls_of`'s.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import get_type_hints

import msgspec

from fanout.errors import Refused
from fanout.settings import AUTHORITY, FILE, Settings


def check_files(settings: Settings) -> None:
    """Blocking. Errors: `Refused("settings_invalid")` with every file that cannot be used, by its key, one a line."""
    problems = [f"{key}: {file!r}: {why}" for key, file, mark in named(settings) if (why := _unread(file, mark))]
    if problems:
        raise Refused("settings_invalid", count=len(problems), problems="\n".join(problems))


def named(section: msgspec.Struct, key: str = "") -> Iterator[tuple[str, str, object]]:
    """(key, file, mark) of every file that is named in what is switched on."""
    if not getattr(section, "enabled", True):
        return
    for name, hint in get_type_hints(type(section), include_extras=True).items():
        value, place = getattr(section, name), f"{key}.{name}".removeprefix(".")
        if isinstance(value, msgspec.Struct):
            yield from named(value, place)
        elif isinstance(value, dict):
            for row, one in value.items():
                if isinstance(one, msgspec.Struct):
                    yield from named(one, f"{place}.{row}")
        elif value:
            marks = [getattr(meta, "extra", None) for meta in getattr(hint, "__metadata__", ())]
            yield from ((place, value, mark) for mark in marks if mark in (AUTHORITY, FILE))


def _unread(file: str, mark: object) -> str:
    try:
        if mark == AUTHORITY:
            ssl.create_default_context(cafile=file)
        else:
            with open(file, "rb") as opened:
                opened.read(1)
    except OSError as error:  # of ssl's, too
        return error.strerror or str(error)
    return ""
