"""Providers that answer like the real ones, over HTTP/2 and TLS on one port: push, SMS, voice, WhatsApp, and the token
endpoint of Google.

    python -m fanout.simulators.providers --port 8443 --folder certificates

makes an authority and a certificate in the folder (`tls.py`), so that clients verify TLS as they do in production.
Paths, bodies, statuses and limits are the providers' own (FCM HTTP v1, APNs, RFC 8030, CM.com, WhatsApp Cloud); any
host name will do. How they behave is a matter of the address and of the mood:

* The two suppliers of SMS are told apart by their product tokens: the second one's ends with `second`.
* Push tokens that start with `dead` are gone (404 UNREGISTERED, 410 Unregistered), with `bad0` are malformed
  (400), with `510e` are slow. Numbers that end in 999 are refused, within a call whose others are taken.
* `GET /_seen?action=7[&phase=0][&tokens=1]`: what was delivered. `GET /_actions`, `DELETE /_seen`.
* `GET /_moods`, `PUT /_moods`: behaviour per channel (`moods.py`), at run time; `--moods` sets the first. `GET
  /_totals`: requests per channel.
* Moods also break connections: GOAWAY, streams refused or reset, fewer streams, half answers (`rough.py`).
* X, Mastodon and Telegram are in `social.py`; `GET /_posts` tells what was posted, replied and removed.
* `GET /_seen?action=7` and the other questions count over all workers (`siblings.py`), whichever of them is asked.

The simulators share the machine with what is measured, so pushes that are like one before but for their token are
answered by `http2/kernels.py`, in obedient moods, and only counted here. All else goes through `fcm`, `apns` and the
others, which read the request as the provider would.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

import msgspec
import typer

from fanout import memory
from fanout.simulators import rough, social, tls
from fanout.simulators.credentials import Issuer, write_keys
from fanout.simulators.http2 import kernels
from fanout.simulators.http2.blocks.writing import block_of
from fanout.simulators.http2.connection import Request
from fanout.simulators.http2.known import Known
from fanout.simulators.http2.server import Server, listening, run_workers, tls_context
from fanout.simulators.moods import CHANNELS, MOODS_FILE, Dice, Mood, Moods, write_moods
from fanout.simulators.receipts import PostOffice
from fanout.simulators.replies import (
    APNS_TAKEN,
    FCM_TAKEN,
    JSON,
    NONE,
    Reply,
    apns_error,
    fcm_error,
    reference_of,
    refusal,
)
from fanout.simulators.seen import Part, Seen, answer
from fanout.simulators.shapes import APNS, FCM, ONE, SMS
from fanout.simulators.siblings import Siblings

MESSAGES_PER_CALL_MAX: Final = 1_000
PAYLOAD_BYTES_MAX: Final = 4_096


_TOPIC: Final = re.compile(r"a([0-9]{1,16})p([0-9]{1,4})")
_MOODS: Final = msgspec.json.Decoder(Moods)
_FCM_QUESTION: Final = b'{"validate_only":true'
_FCM_HEAD: Final = b'{"message":{"token":"'
_DEVICE: Final = "/3/device/"


class Order(msgspec.Struct):
    """What workers ask each other: one question or order of `/_...`."""

    method: str
    path: str
    action: str = ""
    moods: Moods | None = None


_ORDER: Final = msgspec.msgpack.Decoder(Order)
_PARTS: Final = msgspec.msgpack.Decoder(list[Part])
_TOTALS: Final = msgspec.msgpack.Decoder(dict[str, int])
_ACTIONS: Final = msgspec.msgpack.Decoder(list[str])
_POSTS: Final = msgspec.msgpack.Decoder(social.Part)


class Providers:
    """The application: one object a worker."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.seen = Seen()
        self.moods = Moods()
        self.totals: Counter[str] = Counter()
        fcm, apns = block_of(*FCM_TAKEN[:2], len(FCM_TAKEN[2])), block_of(*APNS_TAKEN[:2], 0)
        self.known = Known((fcm + FCM_TAKEN[2], len(FCM_TAKEN[2]), apns), self._count)
        self._dice = {name: Dice() for name in CHANNELS}
        self._rough_dice = {name: Dice() for name in CHANNELS}
        self._issuer = Issuer(folder)
        self._siblings = Siblings(folder / "workers", self._obey, count=workers)
        self._networks = social.Networks(number=os.getpid() % 1_000 if workers > 1 else 0, alone=workers == 1)
        self._post = PostOffice()
        self._moods_file = folder / MOODS_FILE
        self._questions: set[asyncio.Task[None]] = set()
        self._obedient = True
        if self._moods_file.exists():
            self._be(_MOODS.decode(self._moods_file.read_bytes()))

    async def listen(self) -> None:
        """Answer the other workers."""
        await self._siblings.listen()

    def _count(self, channel: str, count: int) -> None:
        self.totals[channel] += count

    def asked(self, request: Request, reply_to: rough.Reply) -> None:
        """Any request, read and answered as its provider does, now or later, or not at all."""
        respond: rough.Respond | None = reply_to
        if not self._obedient and (channel := rough.channel_of(request.path, request.headers)) is not None:
            respond = rough.struck(self.moods, self._rough_dice, channel, reply_to)
        if respond is not None:
            self._take(request, respond)

    def _take(self, request: Request, respond: rough.Respond) -> None:
        method, path, body = request.method, request.path, request.body
        if (network := social.network_of(path)) is not None:
            mood = getattr(self.moods, network)
            reply = self._networks.answer(method, path, request.query, request.headers, body, mood)
        elif method == "POST":
            if path.startswith(_DEVICE):
                reply = self._stranger(request, "apns") or self.apns(path[10:].encode(), body)
                if asked := request.headers.get("apns-id"):
                    reply = reply[0], [*reply[1], ("apns-id", asked)], reply[2]
            elif path.endswith("/messages:send"):
                reply = self._stranger(request, "fcm") or self.fcm(body)
            elif path.startswith("/push/"):
                reply = self.webpush(path[6:].encode(), body, request.headers)
            elif path == "/v1.0/message":
                reply = self.sms(body, request.headers.get("x-cm-producttoken") or "")
            elif path == "/voiceapi/v2/Notification":
                reply = self.one_number("voice", body)
            elif path.endswith("/messages"):
                reply = self.one_number("whatsapp", body)
            elif path == "/token":
                reply = self.token(body)
            else:
                reply = 404, NONE, b""
        elif path.startswith(_DEVICE):
            reply = apns_error(405, "MethodNotAllowed")
        else:
            question = asyncio.get_running_loop().create_task(self._question(request, respond))
            self._questions.add(question)
            question.add_done_callback(self._questions.discard)
            return
        if reply[0] >= 0:
            respond(*reply)
        elif reply[0] != -1:  # -1 is never, the others are late
            asyncio.get_running_loop().call_later((-reply[0] - 1) / 1000, respond, 200, reply[1], reply[2])

    async def _question(self, request: Request, respond: rough.Respond) -> None:
        """A question of a test or a load run; it may take as long as other workers do."""
        try:
            respond(*await self._ask(request.method, request.path, request.query, request.body))
        except (OSError, EOFError, TimeoutError) as error:
            respond(500, JSON, msgspec.json.encode({"message": f"another worker does not answer: {error!r}"}))

    # --- push -----------------------------------------------------------------------------------------------------

    def fcm(self, body: bytes) -> Reply:
        """One message of FCM HTTP v1; a question (`validate_only`) is none."""
        self.totals["fcm"] += not body.startswith(_FCM_QUESTION)
        try:
            message = FCM.decode(body).message
            phase = int(message.data.phase)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return fcm_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received.", "message")
        if len(body) > PAYLOAD_BYTES_MAX + len(message.token):
            return fcm_error(400, "INVALID_ARGUMENT", "Android message is too big", "message.android")
        token = message.token.encode()
        record = self.seen.record(message.data.action, "fcm", phase)
        if body.startswith(_FCM_HEAD + token + b'"'):
            self.known.keep_form(kernels.FCM, body[len(_FCM_HEAD) + len(token) :], "fcm", record)
        mark = token[:4]
        if mark == b"dead":
            return fcm_error(404, "UNREGISTERED", "Requested entity was not found.", "")
        if mark == b"bad0" or not token:
            return fcm_error(400, "INVALID_ARGUMENT", "The registration token is not valid.", "message.token")
        reply = FCM_TAKEN
        if not self._obedient or mark == b"510e":
            reply, taken = self._moody("fcm", self.moods.fcm, mark == b"510e", reply)
            if not taken:
                return reply
        record.add(token)
        return reply

    def apns(self, token: bytes, body: bytes) -> Reply:
        """One notification of APNs."""
        self.totals["apns"] += 1
        try:
            read = APNS.decode(body).fanout
            record = self.seen.record(read.action, "apns", int(read.phase))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return apns_error(400, "PayloadEmpty" if not body else "BadMessageId")
        if len(body) > PAYLOAD_BYTES_MAX:
            return apns_error(413, "PayloadTooLarge")
        self.known.keep_form(kernels.APNS, body, "apns", record)
        mark = token[:4]
        if mark == b"dead":
            return apns_error(410, "Unregistered")
        if mark == b"bad0" or not token:
            return apns_error(400, "BadDeviceToken")
        reply: Reply = APNS_TAKEN
        if not self._obedient or mark == b"510e":
            reply, taken = self._moody("apns", self.moods.apns, mark == b"510e", reply)
            if not taken:
                return reply
        record.add(token)
        return reply

    def webpush(self, token: bytes, body: bytes, headers: Any) -> Reply:
        """One sealed message; action and phase stand in its topic, the body is for the browser alone."""
        self.totals["webpush"] += 1
        topic = _TOPIC.fullmatch(headers.get("topic") or "")
        sealed = len(body) > 86 and body[20] == 65 and body[21] == 4 and headers.get("content-encoding") == "aes128gcm"
        if topic is None or not sealed or not (headers.get("ttl") or "").isdigit():
            return 400, NONE, b""
        if not (headers.get("authorization") or "").startswith("vapid t="):
            return 401, NONE, b""
        if len(body) > PAYLOAD_BYTES_MAX:
            return 413, NONE, b""
        mark = token[:4]
        if mark == b"dead":
            return 410, NONE, b""
        reply: Reply = (201, [("location", f"/m/{token.decode()}")], b"")
        if not self._obedient or mark == b"510e":
            reply, taken = self._moody("webpush", self.moods.webpush, mark == b"510e", reply)
            if not taken:
                return reply
        self.seen.record(topic[1], "webpush", int(topic[2])).add(token)
        return reply

    def _moody(self, channel: str, mood: Mood, slow: bool, reply: Reply) -> tuple[Reply, bool]:
        """What a mood makes of a delivery: the reply, and whether it was delivered all the same."""
        dice = self._dice[channel]
        asked = [*JSON, ("retry-after", str(mood.retry_after_s))]
        if mood.quota_per_s and dice.over(mood.quota_per_s / self._siblings.count, time.monotonic()):
            return (429, asked, refusal(channel, 429, "QUOTA_EXCEEDED", "TooManyRequests")), False
        if dice.hit("storm", mood.storm):
            return (503, asked, refusal(channel, 503, "UNAVAILABLE", "ServiceUnavailable")), False
        if dice.hit("broken", mood.broken):
            return (500, JSON, refusal(channel, 500, "INTERNAL", "InternalServerError")), False
        if dice.hit("redirect", mood.redirect):
            return (302, [("location", "https://example.invalid/")], b""), False
        if not channel.startswith("sms") and dice.hit("refuse", mood.refuse):
            gone = (404, "UNREGISTERED") if channel == "fcm" else (410, "Unregistered")
            return (gone[0], JSON, refusal(channel, gone[0], gone[1], gone[1])), False
        if dice.hit("garbage", mood.garbage):
            return (200, JSON, b"\x00\xff not json {"), True
        if dice.hit("hang", mood.hang):
            return (-1, NONE, b""), True
        if slow or dice.hit("slow", mood.slow):
            return (-mood.slow_ms - 1, reply[1], reply[2]), True
        return reply, True

    # --- SMS ------------------------------------------------------------------------------------------------------

    def sms(self, body: bytes, product_token: str) -> Reply:
        """One call with up to 1,000 messages; a status for each recipient."""
        supplier: Literal["sms", "sms_second"] = "sms_second" if product_token.endswith("second") else "sms"
        self.totals[supplier] += 1
        if not product_token:
            return 401, JSON, b'{"details":"Authentication failed","errorCode":101,"messages":[]}'
        try:
            messages = SMS.decode(body).messages.msg
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 400, JSON, b'{"details":"Malformed","errorCode":202,"messages":[]}'
        if len(messages) > MESSAGES_PER_CALL_MAX:
            return 400, JSON, b'{"details":"Too many messages","errorCode":202,"messages":[]}'
        mood, dice = getattr(self.moods, supplier), self._dice[supplier]
        reply: Reply = (200, JSON, b"")
        taken = True
        if not self._obedient:
            reply, taken = self._moody(supplier, mood, False, reply)
        if not taken:
            return reply
        statuses, refused, references = [], 0, []
        for message in messages:
            action, phase = reference_of(message.reference)
            for to in message.to:
                bad = to.number.endswith("999") or not to.number.isdigit() or dice.hit("partial", mood.refuse)
                refused += bad
                if not bad:
                    references.append(message.reference)
                    self.seen.record(action, "sms", phase).add(to.number.encode())
                statuses.append(
                    {
                        "to": to.number,
                        "status": "Rejected" if bad else "Accepted",
                        "reference": message.reference,
                        "parts": 1,
                        "messageDetails": "Invalid recipient" if bad else None,
                        "messageErrorCode": 302 if bad else 0,
                    }
                )
        self._post.add(supplier, references)
        if reply[2]:  # the mood's nonsense
            return reply
        whole = {
            "details": f"Created {len(statuses) - refused} message(s)",
            "errorCode": 201 if refused else 0,
            "messages": statuses,
        }
        status = reply[0] if reply[0] < 0 else (400 if refused == len(statuses) else 200)
        return status, JSON, msgspec.json.encode(whole)

    def one_number(self, channel: str, body: bytes) -> Reply:
        """One call, or one WhatsApp message."""
        self.totals[channel] += 1
        try:
            asked = ONE.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 400, JSON, b"{}"
        number, (action, phase) = (
            asked.callee or asked.to,
            reference_of(asked.reference or asked.biz_opaque_callback_data),
        )
        if number.endswith("999") or not number.isdigit():
            unknown = (422, b'{"success":false}') if channel == "voice" else (400, b'{"error":{"code":131026}}')
            return unknown[0], JSON, unknown[1]
        reply: Reply = (200, JSON, b'{"call-id":"simulated","success":true,"messages":[{"id":"wamid.simulated"}]}')
        if not self._obedient:
            mood = self.moods.voice if channel == "voice" else self.moods.whatsapp
            reply, taken = self._moody(channel, mood, False, reply)
            if not taken:
                return reply
        self.seen.record(action, channel, phase).add(number.encode())
        if channel == "voice":
            self._post.add("voice", [asked.reference])
        return reply

    # --- credentials ----------------------------------------------------------------------------------------------

    def token(self, body: bytes) -> Reply:
        """Google's token endpoint: an access token for a signed assertion."""
        self.totals["token"] += 1
        asked = parse_qs(body.decode("latin-1"))
        life_s = self.moods.token_life_s
        granted = None
        if asked.get("grant_type") == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]:
            granted = self._issuer.grant(asked.get("assertion", [""])[0], life_s, time.time())
        if granted is None:
            return 400, JSON, b'{"error":"invalid_grant"}'
        return 200, JSON, msgspec.json.encode({"access_token": granted, "expires_in": life_s, "token_type": "Bearer"})

    def _stranger(self, request: Request, channel: str) -> Reply | None:
        """The refusal of a request that does not say who it is from, in the mood `strict`."""
        if not self.moods.strict:
            return None
        shown = request.headers.get("authorization") or ""
        if channel == "fcm":
            known = self._issuer.bearer(shown, time.time())
            return None if known else fcm_error(401, "THIRD_PARTY_AUTH_ERROR", "Request had invalid credentials.", "")
        why = self._issuer.provider_token(shown, time.time())
        return None if why is None else apns_error(403, why)

    # --- questions ------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, query: str, body: bytes) -> Reply:
        """The questions and orders of tests and load runs, asked of all workers."""
        asked = parse_qs(query)
        order = Order(method, path, asked.get("action", [""])[0])
        match method, path:
            case "GET", "/_seen":
                phase = asked.get("phase", [""])[0]
                parts = [part for each in await self._all(order) for part in _PARTS.decode(each)]
                counted = answer(
                    order.action,
                    parts,
                    phase=int(phase) if phase.isdigit() else None,
                    tokens=asked.get("tokens") == ["1"],
                )
                return 200, JSON, msgspec.json.encode(counted)
            case "GET", "/_posts":
                posts = [_POSTS.decode(each) for each in await self._all(order)]
                return 200, JSON, msgspec.json.encode(social.together(posts))
            case "GET", "/_actions":
                actions = {action for each in await self._all(order) for action in _ACTIONS.decode(each)}
                return 200, JSON, msgspec.json.encode(sorted(actions))
            case "GET", "/_totals":
                totals: Counter[str] = Counter()
                for each in await self._all(order):
                    totals.update(_TOTALS.decode(each))
                return 200, JSON, msgspec.json.encode(dict(totals))
            case "GET", "/_moods":
                return 200, JSON, msgspec.json.encode(self.moods)
            case "PUT", "/_moods":
                try:
                    order.moods = _MOODS.decode(body)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    return 422, JSON, msgspec.json.encode({"message": str(error)})
                write_moods(self._moods_file, order.moods)
                await self._all(order)
                return 204, NONE, b""
            case "DELETE", "/_seen":
                await self._all(order)
                return 204, NONE, b""
        return 404, NONE, b""

    def _be(self, moods: Moods) -> None:
        """Behave like this from now on."""
        self.moods, self._post.mood = moods, moods.receipts
        self._obedient = moods == Moods(receipts=moods.receipts, strict=moods.strict, token_life_s=moods.token_life_s)
        self.known.plain = self._obedient and not moods.strict
        if self._obedient:  # nobody would tell those that had fewer
            for connection in self.known.connections:
                connection.allow(0)

    async def _all(self, order: Order) -> list[bytes]:
        return await self._siblings.ask_all(msgspec.msgpack.encode(order))

    def _obey(self, raw: bytes) -> bytes:
        """This worker's part of an order."""
        order = _ORDER.decode(raw)
        told: object = None
        match order.method, order.path:
            case "GET", "/_seen":
                told = self.seen.part(order.action)
            case "GET", "/_posts":
                told = self._networks.part()
            case "GET", "/_actions":
                told = self.seen.actions()
            case "GET", "/_totals":
                told = dict(self.totals + self._networks.totals)
            case "DELETE", _:
                self.seen.clear()
                self.known.forget_forms()
                self.totals.clear()
                self._networks.clear()
                self._networks.totals.clear()
            case "PUT", _ if order.moods is not None:
                self._be(order.moods)
        return msgspec.msgpack.encode(told)


def work(
    folder: Path, files: tls.Files, *, port: int, streams: int, workers: int,
    until: Callable[[asyncio.Event], None],
) -> None:  # fmt: skip
    """One worker, until the event that `until` is told of."""

    async def serve() -> None:
        ended = asyncio.Event()
        until(ended)
        providers = Providers(folder, workers)
        await providers.listen()
        server = Server(
            providers.known, providers.asked, context=tls_context(str(files.cert), str(files.key)), streams=streams
        )
        with listening(port, shared=workers > 1) as listener:
            server.listen(listener)
            memory.settle()
            await ended.wait()
            server.close(listener)

    asyncio.run(serve())


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; TLS, HTTP/2 and HTTP/1.1.")] = 8443,
    folder: Annotated[Path, typer.Option(help="Where ca.pem, cert.pem and key.pem are made.")] = Path("certificates"),
    streams: Annotated[int, typer.Option(help="Streams a client may have open on one connection.")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port: one a core to spare.")] = 1,
    moods: Annotated[str, typer.Option(help="The first moods, as for PUT /_moods: JSON, or @ and a file of it.")] = "",
) -> None:
    """Simulated providers on one port, until interrupted."""
    first = _moods_of(moods)
    try:
        write_keys(folder, f"https://127.0.0.1:{port}")
        files = tls.write(folder, now=datetime.datetime.now(datetime.UTC))
        shutil.rmtree(folder / "workers", ignore_errors=True)
        (folder / "workers").mkdir()
        write_moods(folder / MOODS_FILE, first)
    except OSError as error:
        print(f"simulators: {error.filename}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(1) from None
    memory.spare_scipy()
    kernels.warm()
    try:
        listening(port, shared=workers > 1).close()
    except OSError as error:
        print(f"simulators: 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(1) from None
    one = partial(work, folder.resolve(), files, port=port, streams=streams, workers=workers)
    run_workers(workers, lambda until: one(until=until))


def _moods_of(given: str) -> Moods:
    """Moods of the command line. Errors: `typer.BadParameter`."""
    try:
        text = Path(given[1:]).read_bytes() if given.startswith("@") else given.encode()
        return _MOODS.decode(text or b"{}")
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--moods: {error}") from None


if __name__ == "__main__":
    typer.run(main)
