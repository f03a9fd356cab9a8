"""What a channel is: two pure functions over columns, `render` and `interpret`, and `fits`.

`render` turns one batch (one message, many addresses) into *requests*, `interpret` turns what came back into
*outcomes*: an `Event` and a `Reason` of the ledger for every row. Between them a lane does the talking. Two shapes:

* `RowChannel` (push): one request a row. `Requests` holds a few templates, which template each row uses, and the
  columns that fill the templates' holes. Nothing in it is a Python object per recipient.
* `CallChannel` (SMS): one request carries many rows and is answered by a status per row.

Rules, checked on every channel by `tests/channels/kit.py`:

1. Pure: no clock, socket or random source; `now_ms` is an argument. No retries, no loops over providers.
2. A row whose address cannot be right (`usable` False) never gets near the wire; it is refused as `TOKEN_INVALID`.
   An address is put into a body or a path only if every byte of it is of the channel's own alphabet, so no quote, line
   break or slash in a token can change a request.
3. Every row gets a definite event. A request that certainly was not taken is `RETRY`; one that may have been taken is
   `TIME_OUT` (unknown), never `RETRY`, because the ledger resends what is `RETRY`.
4. An address is declared dead only on the provider's own word for it, never on a bare status: a wrong base address
   answers 404 to everybody, and that must not empty the registry.
5. Text is never cut. `fits` says why a channel cannot carry a message; the caller refuses the action by that reason.
6. Rows that may be on the phone already (`again`) are rendered quietly: no sound, same collapse id, replaced in place.

Codes of a lane: an HTTP status (100 and up), or one of the negative constants below when there was none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from fanout.store.protocol import Rows
from fanout.store.states import Event, Reason

NOT_SENT: Final = -1  # never left this process: stopped by its deadline, its close or our own end
NO_CONNECTION: Final = -2  # no connection, no TLS: certainly not taken
NO_ANSWER: Final = -3  # sent, at least in part, and no whole answer: may have been taken
GARBAGE: Final = -4  # answered by something that makes no sense: may have been taken

Authorize: TypeAlias = Callable[[str], str]
"""The value of the authorisation header for an origin (`https://host`), good at least until the batch is sent."""

Pieces: TypeAlias = tuple[bytes | int, ...]
"""Constant bytes and holes in turn; a hole is the number of the column that fills it."""


class Column(NamedTuple):
    """Byte strings end to end: row i begins at `offsets[i]` and ends at `offsets[i + 1]`.

    `data` uint8[bytes], `offsets` int64[n + 1].
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def rows(self) -> list[bytes]:
        """The rows as byte strings, for a lane that writes row by row."""
        buffer, ends = self.data.tobytes(), self.offsets.tolist()
        return [buffer[begin:end] for begin, end in pairwise(ends)]

    def take(self, index: NDArray[np.intp]) -> Column:
        """The column of some rows, in the order of `index`."""
        lengths = self.offsets[index + 1] - self.offsets[index]
        offsets = np.zeros(len(index) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], lengths)
        return Column(self.data[np.repeat(self.offsets[index], lengths) + within], offsets)


def column(rows: Sequence[bytes]) -> Column:
    """Pack byte strings."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return Column(np.frombuffer(b"".join(rows), np.uint8), offsets)


class Pace(NamedTuple):
    """How fast a provider takes rows: steadily, and at once after a rest."""

    rate_per_s: float
    burst: float


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is said to one batch: one phase of one action in one language. `lane` 0 is life at risk."""

    action: int
    phase: int
    name: str  # start, update, result
    kind: str
    lane: int
    language: str
    title: str
    text: str
    end_ms: int
    image: str = ""  # where its photo is fetched from outside


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A request with holes. Headers are constant: what differs by row stands in the path or the body."""

    method: str
    url: Pieces
    headers: tuple[str, ...]  # "name: value", as they go on the wire
    body: Pieces


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """One request a row. `which` uint16[n] is the number of each row's template; `usable` bool[n]."""

    templates: tuple[Template, ...]
    columns: tuple[Column, ...]
    which: NDArray[np.uint16]
    usable: NDArray[np.bool_]


AUTHORIZATION: Final = "authorization: "


def origin_of(template: Template) -> str:
    """Where a template's rows go: its address begins with it."""
    begin = template.url[0]
    assert isinstance(begin, bytes), "a template has one origin"
    scheme, _, rest = begin.decode().partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def authorizations(requests: Requests) -> list[tuple[str, str]]:
    """What each template says of who we are, with the origin it says it to."""
    return [
        (origin_of(template), header.removeprefix(AUTHORIZATION))
        for template in requests.templates
        for header in template.headers
        if header.startswith(AUTHORIZATION)
    ]


def authorized(requests: Requests, authorize: Authorize) -> Requests:
    """The same requests with the authorisation of now, for rows that waited longer than the one they were made with."""
    templates = [
        msgspec.structs.replace(
            template,
            headers=tuple(
                AUTHORIZATION + authorize(origin_of(template)) if header.startswith(AUTHORIZATION) else header
                for header in template.headers
            ),
        )
        for template in requests.templates
    ]
    return msgspec.structs.replace(requests, templates=tuple(templates))


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request for many rows. `index` intp[k] are its rows in the batch, in the order of the request.

    `reference`: what the references of its messages begin with, for an answer that names them.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    index: NDArray[np.intp]
    reference: str = ""


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of a batch. `usable` bool[n]: rows that are in one of them."""

    calls: tuple[Call, ...]
    usable: NDArray[np.bool_]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one call; `code` as for lanes."""

    code: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Outcome(NamedTuple):
    """What it means for the ledger: `event` uint8[n] (`Event`), `reason` uint8[n] (`Reason`)."""

    event: NDArray[np.uint8]
    reason: NDArray[np.uint8]


class TextChannel(Protocol):
    """What every channel can say of a text."""

    name: str
    number: int

    def fits(self, message: Message) -> str | None:
        """None, or why this channel cannot carry the message, as a clause: `the payload has 5,012 bytes of 4,096`."""


class RowChannel(TextChannel, Protocol):
    """One request a row."""

    def render(
        self, message: Message, addresses: Column, again: NDArray[np.bool_], *, now_ms: int, authorize: Authorize
    ) -> Requests: ...

    def interpret(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Outcome:
        """`codes` int16[n]; `bodies` by row, of those answers that were no plain success."""

    def dead_since_ms(self, codes: NDArray[np.int16], bodies: Mapping[int, bytes]) -> Mapping[int, int]:
        """Of rows whose address is dead: since when (epoch milliseconds), where the provider says so."""


class CallChannel(TextChannel, Protocol):
    """One request for many rows, or single calls for channels that are too slow to need more."""

    def render(self, message: Message, addresses: Column, rows: Rows, *, now_ms: int) -> Calls:
        """`rows` uint32[n]: the registry's rows; they go into the references that receipts bring back."""

    def interpret(self, call: Call, answer: Answer, rows: Rows) -> Outcome:
        """Outcome of the call's rows, in the order of `call.index`; `rows` uint32[k] are theirs."""


# --- addresses ------------------------------------------------------------------------------------------------------


def alphabet(characters: bytes) -> NDArray[np.bool_]:
    """bool[256]: which bytes an address may have."""
    table = np.zeros(256, np.bool_)
    table[np.frombuffer(characters, np.uint8)] = True
    return table


def well_formed(addresses: Column, letters: NDArray[np.bool_], *, least: int, most: int) -> NDArray[np.bool_]:
    """bool[n]: rows whose length is in range and whose bytes are all in the alphabet."""
    lengths = np.diff(addresses.offsets)
    result: NDArray[np.bool_] = (lengths >= least) & (lengths <= most)
    strange = np.flatnonzero(~letters[addresses.data])  # hardly any: what is done for each byte is kept short
    result[np.searchsorted(addresses.offsets, strange, side="right") - 1] = False
    return result


# --- meanings -------------------------------------------------------------------------------------------------------

CODE_MIN: Final = -4
CODE_MAX: Final = 599

Meaning: TypeAlias = tuple[Event, Reason]

_COMMON: Final[dict[int, Meaning]] = {
    NOT_SENT: (Event.RETRY, Reason.NONE),
    NO_CONNECTION: (Event.RETRY, Reason.NETWORK),
    NO_ANSWER: (Event.TIME_OUT, Reason.TIME_OUT),
    GARBAGE: (Event.TIME_OUT, Reason.GARBAGE),
    401: (Event.RETRY, Reason.CREDENTIALS),  # the next attempt has a fresh token
    403: (Event.REJECT, Reason.CREDENTIALS),
    413: (Event.REJECT, Reason.PAYLOAD),
    429: (Event.RETRY, Reason.QUOTA),
    503: (Event.RETRY, Reason.PROVIDER),  # says of itself that it did nothing
}


def meanings(particular: Mapping[int, Meaning]) -> NDArray[np.uint8]:
    """uint8[CODE_MAX - CODE_MIN + 1, 2]: (event, reason) of every code; row `code - CODE_MIN`.

    What neither the law common to all providers nor `particular` names: 2xx is taken; a redirect or another 4xx is
    refused, as garbage, for an API does not redirect; another 5xx is unknown, for it may have done its work first.
    """
    table = np.empty((CODE_MAX - CODE_MIN + 1, 2), np.uint8)
    for code in range(CODE_MIN, CODE_MAX + 1):
        if 200 <= code < 300:
            meaning = (Event.ACCEPT, Reason.NONE)
        elif code >= 500:
            meaning = (Event.TIME_OUT, Reason.PROVIDER)
        else:
            meaning = (Event.REJECT, Reason.GARBAGE)
        table[code - CODE_MIN] = particular.get(code) or _COMMON.get(code) or meaning
    table.setflags(write=False)
    return table


def look_up(table: NDArray[np.uint8], codes: NDArray[np.int16]) -> Outcome:
    """Outcomes of codes by a table of `meanings`; codes outside it are garbage."""
    known = np.where((codes < CODE_MIN) | (codes > CODE_MAX), GARBAGE, codes) - CODE_MIN
    return Outcome(table[known, 0], table[known, 1])


def deadline_s(end_ms: int, now_ms: int, *, most_s: int) -> int:
    """Whole seconds a provider may keep trying: up to the end, never beyond it, at most what it allows."""
    return max(0, min((end_ms - now_ms) // 1000, most_s))
