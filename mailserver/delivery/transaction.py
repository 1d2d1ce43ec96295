"""
One message on its way to all its destinations: the two phases, over several of them.

In: the deliveries that the destinations opened.  Out: one `IDelivery`.  Every failure becomes a `Refusal` that tells
the truth: 452 for a full disk, 451 for other trouble; and then nothing is left anywhere.
RFC 5321 4.2.5 (what a 250 means), 6.1.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from zope.interface import implementer

from mailserver import reply as replies
from mailserver.interfaces import IDelivery
from mailserver.reply import Refusal, Reply

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def reply_for(error: OSError) -> Reply:
    """452 4.3.1 when there is no room, 451 4.3.0 for all other trouble with files."""
    return replies.DISK_FULL if error.errno in _FULL else replies.LOCAL_TROUBLE


@implementer(IDelivery)
class Transaction:
    """
    A delivery to several deliveries.

    Those that can still be taken back are committed first; a destination that cannot comes last in `deliveries`.
    """

    def __init__(self, deliveries: Sequence[Any], accepted: Reply) -> None:
        self._deliveries = tuple(deliveries)
        self._accepted = accepted

    def write(self, block: bytes) -> Awaitable[None] | None:
        """A block to each; something to wait for only when one of them makes us wait."""
        waiting = [result for delivery in self._deliveries if (result := _start(delivery.write, block)) is not None]
        return _all(waiting) if waiting else None

    async def prepare(self) -> None:
        """Prepare all; the first that fails makes all fail."""
        for delivery in self._deliveries:
            await _finish(_start(delivery.prepare))

    async def commit(self) -> Reply:
        """Commit all, in their order; the reply of the last, or the usual one."""
        reply: Reply | None = None
        for delivery in self._deliveries:
            reply = await _finish(_start(delivery.commit)) or reply
        return reply or self._accepted

    def abort(self) -> None:
        """Abort all."""
        for delivery in self._deliveries:
            delivery.abort()


def _start(step: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return step(*arguments)
    except OSError as error:
        raise Refusal(reply_for(error)) from error


async def _finish(result: Any) -> Any:
    try:
        return await result if isinstance(result, Awaitable) else result
    except OSError as error:
        raise Refusal(reply_for(error)) from error


async def _all(waiting: list[Any]) -> None:
    for one in waiting:
        await _finish(one)
