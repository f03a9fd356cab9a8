"""Pictures on their way to the networks, call by call, so that none of them ever holds up a text for long.

Rules:

1. An upload shows nothing to anybody, so it may be done again, and what is known of it is kept in memory only: a
   process that dies begins anew.
2. `next` makes one call at most and says how long to leave the picture alone. The account does something else
   meanwhile: a network that works on one picture for an hour holds up neither other actions nor removals.
3. The words are worth more than the picture. One that is refused, or that would not be there within `PICTURE_S_MAX` of
   its first call, is given up, and the text goes alone; why, is remembered with the post.
4. An upload says nothing of posting: networks serve and count media elsewhere. So its failures do not touch the
   account's breaker, and what it is asked to wait does not shut the account's bucket.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import trio

from fanout.channels.posts import Post, Upload
from fanout.dispatch.retry import pause_s
from fanout.dispatch.retry_after import seconds_of
from fanout.settings import DispatchSettings
from fanout.social.accounts import Account
from fanout.store.states import Event, Reason

log = logging.getLogger("fanout.social")

PICTURE_S_MAX: Final = 60.0  # a text waits so long for its picture; networks take a photo within a few seconds
LOOK_S_MIN: Final = 0.2  # between two questions about a picture, whatever a network says

Key = tuple[int, str, int]
"""Action, account, phase."""


class Progress(NamedTuple):
    """Where a picture is. `hold_s`: it is on its way, ask again after so long; None: post, with `media` if the network
    has any. `why`: the picture was given up, the text goes alone."""

    hold_s: float | None
    media: str = ""
    why: Reason = Reason.NONE


class _Picture:
    """One picture. `failures` counts calls that came to nothing."""

    def __init__(self, now_s: float) -> None:
        self.begun_s = now_s
        self.so_far = Upload()
        self.failures = 0
        self.why = Reason.NONE


class Pictures:
    """The pictures of one poster. Used from one trio run."""

    def __init__(self, dispatch: DispatchSettings) -> None:
        self._dispatch = dispatch
        self._known: dict[Key, _Picture] = {}

    async def next(self, account: Account, key: Key, post: Post, *, now_ms: int) -> Progress:
        """Do what is next for a post's picture."""
        one = self._known.setdefault(key, _Picture(trio.current_time()))
        if one.why is not Reason.NONE:
            return Progress(None, why=one.why)
        call = account.channel.upload(post, one.so_far, now_ms=now_ms)
        if call is None:
            return Progress(None, one.so_far.media)
        answer = await account.caller.call(call)
        one.so_far = account.channel.uploaded(one.so_far, answer)
        if one.so_far.ready:
            return Progress(None, one.so_far.media)
        hold_s, why = one.so_far.wait_s, Reason.PROVIDER
        if one.so_far.refused is not None:
            event, why = one.so_far.refused
            one.so_far = one.so_far._replace(refused=None)
            if event is Event.REJECT:
                return self.given_up(key, why)
            one.failures += 1
            hold_s = pause_s(
                key[0],
                one.failures,
                first_s=self._dispatch.pause_first_s,
                most_s=self._dispatch.pause_most_s,
                asked_s=seconds_of(answer, now_ms),
            )
        hold_s = max(hold_s, LOOK_S_MIN)
        if trio.current_time() + hold_s > one.begun_s + PICTURE_S_MAX:
            return self.given_up(key, why)
        return Progress(hold_s)

    def given_up(self, key: Key, why: Reason) -> Progress:
        """The text goes alone from now on."""
        log.warning("a picture of action %d on %s is left out: %s", key[0], key[1], why.name.lower())
        one = self._known.setdefault(key, _Picture(trio.current_time()))
        one.why = why
        return Progress(None, why=why)

    def spent(self, key: Key) -> None:
        """The post was tried with its picture: another try brings it anew."""
        if (one := self._known.get(key)) is not None:
            one.so_far = Upload()

    def forget(self, action: int, account: str) -> None:
        """Nothing of this action is posted there any more."""
        for key in [key for key in self._known if key[:2] == (action, account)]:
            del self._known[key]
