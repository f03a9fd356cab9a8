"""Every bound of the engine, with its unit in its name and its reason beside it.

Nothing in the engine grows without a limit written here. What an operator may want to change is a setting
(`config/default.toml`); what would break a promise or a data format if changed is a constant here.
"""

from __future__ import annotations

from typing import Final

# --- requests -------------------------------------------------------------------------------------------------------
BODY_BYTES_MAX: Final = 16 * 1024 * 1024  # a batch of 20,000 participants with two tokens each is 8 MB
BODY_S_MAX: Final = 30.0  # for all of it to arrive: whoever sends half of one holds one of the places in the API
NUMBER_MAX: Final = 2**63 - 1  # ids and times, as ledgers and msgpack hold them
RECEIPTS_BODY_BYTES_MAX: Final = 4 * 1024 * 1024  # at the API, before a signature is known: Meta sends 3 MB at most
REQUEST_HEAD_BYTES_MAX: Final = 16 * 1024  # at the door of receipts: suppliers send 300 bytes, gateways add as much
RECEIPTS_BYTES_MAX: Final = 1024 * 1024  # one request there, head and framing too: 5,000 receipts, and anybody may send
RECEIPTS_CONNECTIONS_MAX: Final = 512  # each may hold as much; a supplier keeps some ten open
RECEIPTS_OWED_MAX: Final = 16  # requests of one connection that wait for their commit before more of it is read
REFERENCE_CHARS_MAX: Final = 128  # a caller's idempotency key: a UUID, a case number
PARTICIPANTS_PER_REQUEST_MAX: Final = 20_000  # one request is one commit and ~0.2 s of one core
POSITIONS_PER_REQUEST_MAX: Final = 20_000
TEXT_CHARS_MAX: Final = 2_000  # no channel but e-mail carries more; boards far less
LANGUAGES_MAX: Final = 16

# --- areas ----------------------------------------------------------------------------------------------------------
VERTICES_MAX: Final = 10_000  # the finest Dutch municipality has 1,500; validity is O(n log n) in GEOS
AREA_DEPTH_MAX: Final = 8  # union of intersection of …; deeper is a mistake or an attack
AREA_PARTS_MAX: Final = 1_000  # each is a query of its own; whether 1,000 circles leave ground takes GEOS half a second
CORRIDOR_VERTICES_MAX: Final = 1_000  # each arc is a query of its own, and each person's distance is to all of them
CENTRE_VERTICES_MAX: Final = 1_000  # of a line that orders people: as a corridor's
RADIUS_M_MAX: Final = 20_037_508.0  # half the equator: a circle of this radius is the whole world

# --- participants ---------------------------------------------------------------------------------------------------
PARTICIPANT_ID_CHARS_MAX: Final = 64  # pseudonymous; a UUID has 36
PLACES_PER_PARTICIPANT_MAX: Final = 8
ADDRESSES_PER_PARTICIPANT_MAX: Final = 8
ADDRESS_CHARS_MAX: Final = 4_096  # a Web Push subscription is about 350, an FCM token 163
KINDS_MAX: Final = 32  # one bit each in a uint32 column
TENANTS_MAX: Final = 32  # one bit each in a uint32 column
LIVE_FRESH_S_MAX: Final = 86_400  # of a live position that may count; `registry.position_ttl_s` ends them sooner
DELTA_ROWS_MAX: Final = 16_384  # people changed since the base was made: each change copies them, ~10 ms of one core
PARTICIPANTS_MAX: Final = 2**31  # rows are uint32; half of it leaves room for sentinels

# --- the ledger -----------------------------------------------------------------------------------------------------
BATCH_ROWS_MAX: Final = 2_048  # the window of unknowns after a crash, and what a closing action must wait for
BATCH_ROWS_FIRST: Final = 64  # the first batches are small, so that the first message does not wait for a big one
WAVES_MAX: Final = 10_000  # of one action; each is a batch or more; who needs more shall take larger ones
SMS_BATCH_ROWS_MAX: Final = 500  # rows of a batch that rings twice: smaller, as they become unknown, not resent
BATCH_S: Final = (
    1.0  # of its provider's quota in a batch that rings twice: what a crash leaves unknown, a turn's length
)
BATCH_ROWS_LEAST: Final = 8  # however slow the provider: each batch costs the ledger some commits
ACTION_HOURS_MAX: Final = 72
STORE_WAIT_S_MAX: Final = (
    10.0  # a writer waits this long for its turn; the longest commit, a national close, takes 0.1 s
)
STORE_CALLS_QUEUED_MAX: Final = 1_024  # calls waiting for a commit in one process; more must wait to be queued
STORE_CALLS_PER_COMMIT_MAX: Final = 64  # so that one commit does not hold up the senders' for long
RECEIPTS_PER_COMMIT_MAX: Final = 512  # or one body's, if it has more; they cost by the batches they meet, ~5 ms in all
RECEIPT_DIRECTORIES_MAX: Final = 8  # actions and channels whose rows are kept sorted for receipts, 16 bytes a row

# --- the wire -------------------------------------------------------------------------------------------------------
ANSWER_BYTES_MAX: Final = 64 * 1024  # of one push: a refusal has 500 bytes; an endless answer is cut off here

# --- pictures and posts ----------------------------------------------------------------------------------------------
PICTURE_BYTES_MAX: Final = 12 * 1024 * 1024  # what a phone's camera makes; below BODY_BYTES_MAX
PICTURE_PIXELS_MAX: Final = 64_000_000  # unpacked 192 MB at worst; cameras of phones reach 50 million
PICTURE_BYTES_KEPT_MAX: Final = 1_000_000  # FCM shows pictures up to 1 MB, APNs extensions have seconds to fetch one
PICTURES_AT_ONCE: Final = 2  # unpacked in one process at any time
ACCOUNTS_MAX: Final = 500  # at social networks: one a municipality, and some

# --- boards ---------------------------------------------------------------------------------------------------------
BOARD_ITEMS_MAX: Final = 8  # items in one desired document
BOARD_DOCUMENT_BYTES_MAX: Final = 64 * 1024  # a birth document or report above this is refused unread
BOARD_ID_CHARS_MAX: Final = 64
BOARD_CLOCK_OFFSET_MS_MAX: Final = 5_000  # above this ops is told; boards keep an end by their own clock
BOARDS_MAX: Final = 1_000_000  # one object each, about 2 kB; the largest country has a tenth of it
