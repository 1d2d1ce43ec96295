"""
What an app has answered, understood: a text, a reply, an address - or nonsense, which is trouble with a name.

In: whatever a callback returned.  Out: values, or `Refusal` with 451; the log says whose answer it was.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from mailserver import reply as replies
from mailserver.address import Address, AddressError, parse_address
from mailserver.reply import Refusal, Reply

_log = Logger(namespace="mailserver.apps")


def reply_of(answer: Any, instance: Any, callback: str, enhanced: str) -> Reply | None:
    """A text as a reply with 250 and this enhanced code; a Reply as it is; None.  Raises Refusal for all else."""
    if answer is None or isinstance(answer, Reply):
        return answer
    if isinstance(answer, str):
        return Reply(250, enhanced, answer)
    raise nonsense(instance, callback, f"{type(answer).__name__} is no reply")


def address_of(answer: Any, instance: Any, callback: str) -> Address:
    """
    The address that an app wants instead.  Raises Refusal: that is none.

    One that the app has built is looked at like any other: what a client has sent may stand in it, and it goes into
    fields of the header and into the environment of programs.
    """
    if isinstance(answer, Address):
        try:
            parse_address(str(answer), need_domain=False).local.encode()  # no surrogates: nothing could write them
        except (AddressError, UnicodeEncodeError) as error:
            raise nonsense(instance, callback, str(error)) from None
        return answer
    if not isinstance(answer, str):
        raise nonsense(instance, callback, f"{type(answer).__name__} is no address")
    try:
        return parse_address(answer)
    except AddressError as error:
        raise nonsense(instance, callback, str(error)) from None


def nonsense(instance: Any, callback: str, what: str) -> Refusal:
    """The refusal for an answer that is none.  what: is wrong with it; for the log."""
    text = f"app {instance.name}: the answer to {callback} cannot be used: {what}"
    _log.error("{problem}", event="app-failed", app=instance.name, callback=callback, problem=text)
    return Refusal(replies.LOCAL_TROUBLE, text)
