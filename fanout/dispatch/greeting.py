"""Greet the push providers before the first action: one that does not answer like itself is a line in the log.

What is asked, and what counts as an answer, is `channels/greetings.py`. The question goes by a connection of its own,
once a start of a process, so the bulk lane's way stays free of it. Nothing is held back on doubt: the provider may be
having a bad minute, and a wrong address must not silence what would have reached people.
"""

from __future__ import annotations

import logging

from fanout.channels import greetings
from fanout.dispatch.calls import Caller, HttpCaller
from fanout.dispatch.credentials import Credential
from fanout.settings import Settings

log = logging.getLogger("fanout.dispatch")


async def greet(name: str, settings: Settings, credential: Credential, caller: Caller | None = None) -> bool:
    """Ask a push provider what it must refuse; False, and a line in the log, if it does not answer like itself.

    Who has nothing to show asks nothing.
    """
    provider = getattr(settings.providers, name)
    if not credential.authorize(provider.url):
        log.error("%s at %s: nothing goes there, for we have no credential", name, provider.url)
        return False
    if name == "fcm":
        question = greetings.fcm_question(provider.url, provider.project, credential.authorize)
    else:
        question = greetings.apns_question(provider.url, credential.authorize)
    way = caller or HttpCaller(ca=provider.ca, timeout_s=settings.dispatch.request_timeout_s, connections=1)
    try:
        why = greetings.doubt(name, await way.call(question))
    finally:
        await way.aclose()
    if why is not None:
        log.error("%s at %s: %s", name, provider.url, why)
    return why is None
