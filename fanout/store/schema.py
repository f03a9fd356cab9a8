"""The tables of the embedded store, and why they are cut the way they are.

A batch is in three tables by how often it is written: `batches` (small; at every step), `contents` (rows and
generations; once), `marks` (status and reason; at every intend and settle). So a settle writes few pages, and a claim
scans no blob. Counts are a blob of uint32 beside the batch (`rows.tally`), so that counting an action reads no row.

`batches.stage`: 0 ready · 1 leased · 2 done · 3 held (its action is paused). `due_ms`: ready not before, leased until.
`phases.stop_ms`: from when nothing of the phase may go out, the end or the close; `live`: it may still hold open rows.
The partial indexes hold only what is unfinished, so they stay small while the ledger grows by years.
"""

from __future__ import annotations

from typing import Any, Final

from fanout.errors import Refused

VERSION: Final = 4
"""In `PRAGMA user_version`; an earlier file is brought up to date, a later one refused."""

APPLICATION_ID: Final = 0x66616E6F
"""In `PRAGMA application_id` ("fano"): what `file` and the store tell our ledgers by."""

READY: Final = 0
LEASED: Final = 1
DONE: Final = 2
HELD: Final = 3

_BY_TURN: Final = "CREATE INDEX batches_by_turn ON batches (channel, lane, seq, id, due_ms) WHERE stage < 2"
_TABLES: Final = (
    """CREATE TABLE actions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, reference TEXT NOT NULL, digest BLOB NOT NULL,
        kind TEXT NOT NULL, lane INTEGER NOT NULL, state TEXT NOT NULL, created_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL, snapshot_version INTEGER NOT NULL, body BLOB NOT NULL,
        outcome TEXT, closed_ms INTEGER, result_body BLOB, UNIQUE (tenant, reference))""",
    "CREATE INDEX actions_by_state ON actions (state)",
    """CREATE TABLE phases (
        action INTEGER NOT NULL, phase INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL, texts BLOB NOT NULL, titles BLOB NOT NULL, reference TEXT NOT NULL,
        stop_ms INTEGER NOT NULL, live INTEGER NOT NULL, UNIQUE (action, phase))""",
    "CREATE INDEX phases_by_stop ON phases (stop_ms) WHERE live = 1",
    """CREATE TABLE batches (
        id INTEGER PRIMARY KEY, action INTEGER NOT NULL, phase INTEGER NOT NULL, lane INTEGER NOT NULL,
        channel INTEGER NOT NULL, language TEXT NOT NULL, seq INTEGER NOT NULL, stage INTEGER NOT NULL,
        due_ms INTEGER NOT NULL, token INTEGER NOT NULL, owner TEXT, attempt INTEGER NOT NULL,
        first_ms INTEGER, last_ms INTEGER, tally BLOB NOT NULL)""",
    _BY_TURN,
    "CREATE INDEX batches_by_owner ON batches (owner) WHERE stage = 1",
    "CREATE INDEX batches_by_action ON batches (action, phase, seq, channel)",
    "CREATE TABLE contents (batch INTEGER PRIMARY KEY, rows BLOB NOT NULL, generations BLOB NOT NULL)",
    "CREATE TABLE marks (batch INTEGER PRIMARY KEY, status BLOB NOT NULL, reason BLOB NOT NULL)",
    "CREATE TABLE streams (stream TEXT PRIMARY KEY, last INTEGER NOT NULL)",
    """CREATE TABLE entries (
        stream TEXT NOT NULL, number INTEGER NOT NULL, entry BLOB NOT NULL, UNIQUE (stream, number))""",
    "CREATE TABLE documents (space TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (space, key))",
)
_UPGRADES: Final = {
    2: ("DROP INDEX batches_by_turn", _BY_TURN),
    3: (  # an eleventh state, of which there are none yet
        "UPDATE batches SET tally = CAST(substr(tally, 1, 40) || x'00000000' || substr(tally, 41) AS BLOB)",
    ),
}
"""From a version to the next; earlier ones than these were never released."""


def set_up(db: Any, path: str) -> None:
    """Make the tables of a new file, or bring an earlier one up to date, in the transaction open on connection `db`.

    *Errors*: `Refused("file_version")` if the file is a later one's, or not one of ours.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        statements = [*_TABLES, f"PRAGMA application_id = {APPLICATION_ID}"]
    elif db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,) or (
        version != VERSION and version not in _UPGRADES
    ):
        raise Refused("file_version", path=path, given=version, known=VERSION)
    else:
        statements = [statement for number in range(version, VERSION) for statement in _UPGRADES[number]]
    if statements:
        statements.append(f"PRAGMA user_version = {VERSION}")
    for statement in statements:
        db.execute(statement)
