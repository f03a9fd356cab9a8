"""The one catalogue of errors a caller can meet: code, HTTP status, sentence.

Rules:

1. A code is stable for ever; a sentence may be reworded. Outsiders branch on the code, people read the sentence.
2. `Refused` is the caller's mistake or a state the caller must know of. Our own bugs are `assert`; what the outside
   world does to a delivery is an `Outcome`; what happens to one row of many is a status in an array.
3. `where` names the place in the caller's input, in the caller's words: `area.coordinates[0][17]`,
   `column "lon", row 812`.
4. Sentences are templates: every `{hole}` is filled by a keyword of `Refused`. A missing keyword is our bug.

Why not one exception class per error: the catalogue is read by outsiders (it is printed into the API's README), and a
table with one row an error is what they want to read.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One row of the catalogue: HTTP status and the sentence's template."""

    status: int
    sentence: str


CATALOGUE: Final[dict[str, Entry]] = {
    # --- the request ------------------------------------------------------------------------------------------------
    "request_malformed": Entry(400, "The request is not valid HTTP: {detail}."),
    "body_malformed": Entry(400, "The body is not valid {format}: {detail}."),
    "body_too_large": Entry(413, "The body has more than {limit} bytes."),
    "head_too_large": Entry(431, "The head of the request has more than {limit} bytes."),
    "body_too_slow": Entry(408, "The body did not arrive whole within {limit_s} s."),
    "media_type_unknown": Entry(415, "Send application/msgpack or application/json, not {given!r}."),
    "field_invalid": Entry(422, "{detail}"),
    "key_invalid": Entry(401, "A valid key is needed."),
    "not_permitted": Entry(403, "This key may not do that."),
    "not_found": Entry(404, "There is no such {what}."),
    "method_not_allowed": Entry(405, "This address does not take {method}."),
    "reference_conflict": Entry(409, "Reference {reference!r} was used before with another body."),
    "too_many_requests": Entry(429, "Too many requests at once; try again in {retry_s} s."),
    # --- the area ---------------------------------------------------------------------------------------------------
    "area_coordinate_range": Entry(422, "Longitude is -180 to 180, latitude -90 to 90; given {lon!r}, {lat!r}."),
    "area_coordinate_not_finite": Entry(422, "A coordinate is not a finite number."),
    "area_radius_range": Entry(422, "A radius is more than 0 and at most {limit_m} m; given {radius_m!r}."),
    "area_ring_not_closed": Entry(422, "The ring's last point is not its first."),
    "area_ring_too_short": Entry(422, "A ring has at least three distinct points; this one has {points}."),
    "area_self_crossing": Entry(422, "The boundary crosses itself near {lon:.6f}, {lat:.6f}: {edges}."),
    "area_hole_outside": Entry(422, "The hole is not inside its outer ring."),
    "area_holes_nested": Entry(422, "The hole lies inside another hole."),
    "area_parts_overlap": Entry(422, "Two parts of the area overlap near {lon:.6f}, {lat:.6f}."),
    "area_too_many_vertices": Entry(422, "An area has at most {limit} vertices; this one has {vertices}."),
    "area_unreadable": Entry(422, "The area cannot be read: {detail}."),
    "area_empty": Entry(422, "The area is empty."),
    "area_empty_result": Entry(422, "Nothing is left: the parts have no ground in common, or all of it is taken away."),
    "area_too_large": Entry(403, "The area has {area_km2:.0f} km2; this key may address at most {limit_km2:.0f} km2."),
    "area_outside_competence": Entry(403, "The area reaches outside the area of competence of this key."),
    "area_unknown": Entry(404, "No area {kind!r} named {name!r} is loaded."),
    "areas_unreadable": Entry(422, "The file cannot be read as GeoJSON or TopoJSON: {detail}."),
    "area_too_deep": Entry(422, "Areas may be nested {limit} deep."),
    "area_too_many_parts": Entry(422, "An area is made of at most {limit} areas."),
    "area_line_ambiguous": Entry(
        422, "This point and the one before are opposite on the globe: no one line joins them."
    ),
    "area_kind_invalid": Entry(
        422, "A kind of area is 1 to 40 letters, digits, blanks, _ or -, a letter or digit first; given {kind!r}."
    ),
    "places_malformed": Entry(422, "Longitudes and latitudes are two flat columns of one length; given {detail}."),
    # --- the action -------------------------------------------------------------------------------------------------
    "kind_unknown": Entry(422, "No kind of action is called {kind!r}; known are {known}."),
    "tenant_unknown": Entry(422, "No tenant is called {tenant!r}; known are {known}."),
    "end_before_start": Entry(422, "The action ends before it starts."),
    "end_in_the_past": Entry(422, "The action has ended already."),
    "end_too_far": Entry(422, "An action lasts at most {limit_h} hours."),
    "text_missing": Entry(422, "The action has no text."),
    "text_too_long": Entry(422, "Channel {channel} cannot carry this text: {detail}."),
    "text_unfit": Entry(422, "No channel can carry this text: {detail}."),
    "text_control_character": Entry(422, "The text has the control character {character!r} at position {position}."),
    "picture_too_large": Entry(413, "The picture is too large: {detail}."),
    "picture_unreadable": Entry(422, "The file cannot be read as a JPEG, PNG or WebP picture: {detail}."),
    "action_not_open": Entry(409, "The action is {state}; this needs it to be {needed}."),
    "waves_too_many": Entry(
        422, "{people} people in waves of {size} are {waves} waves; an action has at most {limit}. Take larger waves."
    ),
    "action_without_waves": Entry(409, "The action was not started in waves; it is told to all at once."),
    "selection_empty": Entry(422, "The action would reach nobody: no participant and no board that can show it."),
    "selection_too_large": Entry(403, "The area selects {people} people; this key may address at most {limit}."),
    # --- participants -----------------------------------------------------------------------------------------------
    "import_unreadable": Entry(422, "The file cannot be read as {format}: {detail}."),
    "import_column_missing": Entry(422, "The file has no column {column!r}; it has {present}."),
    "import_column_type": Entry(422, "Column {column!r} has type {given}; {wanted} is needed."),
    "import_rows_bad": Entry(422, "{bad} of {rows} rows are bad; the first: {first}. Nothing was imported."),
    "batch_too_large": Entry(422, "A batch has at most {limit} rows; this one has {rows}."),
    "registry_full": Entry(507, "The registry holds at most {limit} participants."),
    "registry_locked": Entry(409, "Another process is writing this registry; stop it or import through its API."),
    # --- files of our own --------------------------------------------------------------------------------------------
    "file_magic": Entry(500, "{path} is not a {what} file."),
    "file_version": Entry(500, "{path} has format version {given}; this program reads {known}."),
    "file_dtype": Entry(500, "{path} holds {given}; {wanted} was expected."),
    "file_count": Entry(500, "{path} ends early: {given} of {wanted} bytes."),
    "file_checksum": Entry(500, "{path} is damaged: its checksum does not agree."),
    "file_contradictory": Entry(500, "{path} contradicts itself: {detail}."),
    # --- boards -----------------------------------------------------------------------------------------------------
    "board_text_unfit": Entry(422, "Boards of model {model} cannot show this text: {detail}."),
    "board_document_invalid": Entry(422, "Board {board} sent an invalid {what}: {detail}."),
    # --- the world around --------------------------------------------------------------------------------------------
    "settings_invalid": Entry(500, "The settings cannot be used; to be mended: {count}.\n{problems}"),
    "fence": Entry(500, 'fence = "loopback" forbids {setting} = {address!r}: only loopback addresses may be used.'),
    "plain_http": Entry(
        500,
        "{setting} = {address!r} is reached from elsewhere, and nothing encrypts it: set api.tls_certificate and "
        "api.tls_key, or api.tls_by_proxy = true if a proxy before it does.",
    ),
    "media_unwritable": Entry(507, "The picture cannot be kept: {detail}."),
    "store_unavailable": Entry(503, "The ledger cannot be written: {detail}."),
    "broker_unavailable": Entry(503, "No MQTT broker answers at {address}: {detail}."),
    "port_in_use": Entry(500, "Cannot listen on {address}: {detail}."),
    "data_in_use": Entry(409, "Another engine runs on the folder {folder}; stop it, or set engine.data elsewhere."),
    "store_in_use": Entry(
        409,
        "The engine on the folder {folder} of {host} has this ledger; stop it first, or wait {hold_s} s if it is dead.",
    ),
    "data_unwritable": Entry(507, "{path} cannot be written: {detail}; see to the folder, its rights and the disk."),
    "engine_unreachable": Entry(503, "No engine answers at {address}: {detail}."),
    "not_ready": Entry(503, "The engine is starting: {detail}."),
    "internal": Entry(500, "Something went wrong here; it was logged as {incident}."),
}


_HEADERS: Final = {"key_invalid": {"WWW-Authenticate": "Bearer"}, "too_many_requests": {"Retry-After": "1"}}


class Refused(Exception):
    """A refusal of the catalogue.

    Attributes: `code` (key of `CATALOGUE`), `where` (place in the caller's input, may be empty), `message`, `status`.
    """

    def __init__(self, code: str, where: str = "", **holes: object) -> None:
        entry = CATALOGUE[code]
        self.code = code
        self.where = where
        self.status = entry.status
        self.message = entry.sentence.format(**holes)
        super().__init__(f"{code}: {self.message}" + (f" ({where})" if where else ""))

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP says of it beside the status."""
        return _HEADERS.get(self.code, {})

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (self.code, self.where, self.message)


def rebuild(code: str, where: str, message: str) -> Refused:
    """A refusal whose sentence was written in another process."""
    refused = Refused.__new__(Refused)
    refused.code, refused.where, refused.message, refused.status = code, where, message, CATALOGUE[code].status
    Exception.__init__(refused, f"{code}: {message}" + (f" ({where})" if where else ""))
    return refused
