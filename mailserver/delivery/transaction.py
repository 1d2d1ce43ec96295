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

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.interfaces import IDelivery
from mailserver.reply import Refusal, Reply

_log = Logger(namespace="mailserver.delivery")

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
        waiting: list[Any] = []
        for delivery in self._deliveries:
            try:
                result = _start(delivery.write, block)
            except Exception as error:
                if not waiting:
                    raise
                # Those that have begun are waited for; nobody else would hear how they end.
                waiting.append(fail(error))
                break
            if result is not None:
                waiting.append(result)
        return _all(waiting) if waiting else None

    def prepare(self) -> Any:
        """Prepare all; the first that fails makes all fail."""
        for number, delivery in enumerate(self._deliveries, 1):
            prepared = _start(delivery.prepare)
            if prepared is not None:
                return self._prepare_later(prepared, self._deliveries[number:])
        return None

    async def _prepare_later(self, prepared: Any, others: Sequence[Any]) -> None:
        await _finish(prepared)
        for delivery in others:
            await _finish(_start(delivery.prepare))

    def commit(self) -> Any:
        """Commit all, in their order; the reply of the last that has one, or the usual one."""
        first = _start(self._deliveries[0].commit)
        if isinstance(first, Deferred) and len(self._deliveries) == 1:
            return first.addCallbacks(self._told, _refused)
        return self._commit_later(first)

    def _told(self, reply: Any) -> Any:
        return reply or self._accepted

    async def _commit_later(self, first: Any) -> Reply | tuple[Reply, ...]:
        reply: Reply | tuple[Reply, ...] | None = await _finish(first)
        for delivery in self._deliveries[1:]:
            reply = await _finish(_start(delivery.commit)) or reply
        return reply or self._accepted

    def abort(self) -> None:
        """Abort all.  One that fails at it, against its contract, does not keep the others from it."""
        for delivery in self._deliveries:
            try:
                delivery.abort()
            except Exception:  # noqa: BLE001 - whatever it is, the others come first
                _log.failure("a delivery cannot be aborted", event="abort-failed")


@implementer(IDelivery)
class EachRecipient:
    """
    A partial delivery to Maildirs whose commit answers for each recipient: LMTP (RFC 2033 4.2).

    routes: for each recipient of the envelope its mailboxes (`routing.Local`).  A recipient of several mailboxes gets
    the message in all of them or in none: what is tried again would double, what is not would be lost.
    """

    def __init__(self, inner: Any, routes: Sequence[Sequence[Any]], accepted: Reply) -> None:
        self._inner = inner
        self._routes = routes
        self._accepted = accepted
        self._refused_before: dict[Any, Refusal] = {}

    def refuse(self, path: Any, refusal: Refusal) -> None:
        """Before `prepare`: this Maildir gets nothing."""
        self._refused_before[path] = refusal

    def write(self, block: bytes) -> Any:
        """See `IDelivery.write`."""
        return self._inner.write(block)

    async def prepare(self) -> None:
        """See `IDelivery.prepare`; mailboxes that no recipient is left for get nothing either."""
        await _finish(_start(self._inner.prepare))
        refused = self._inner.refused
        for path, before in self._refused_before.items():
            if path not in refused:
                self._inner.leave_out(path, before)
        if not self._withdraw("leave_out"):
            raise next(iter(refused.values()))

    def _withdraw(self, how: str) -> bool:
        """
        By this method of the delivery, from mailboxes whose recipients do not get it in all of theirs.
        Returns: is a recipient left?
        """
        refused = self._inner.refused
        lacking = [(route, self._refusal(route)) for route in self._routes]
        wanted = {local.path for route, refusal in lacking if refusal is None for local in route}
        for route, refusal in lacking:
            for local in route:
                if refusal is not None and local.path not in wanted and local.path not in refused:
                    getattr(self._inner, how)(local.path, refusal)
        return bool(wanted)

    def _refusal(self, route: Sequence[Any]) -> Refusal | None:
        """Why the recipient of this route gets nothing, or None."""
        return next((self._inner.refused[local.path] for local in route if local.path in self._inner.refused), None)

    async def commit(self) -> tuple[Reply, ...]:
        """A reply for each recipient."""
        await _finish(_start(self._inner.commit))
        # Only now it is known which mailboxes are damaged.
        self._withdraw("take_back")
        refusals = [self._refusal(route) for route in self._routes]
        return tuple(self._accepted if refusal is None else refusal.reply for refusal in refusals)

    def abort(self) -> None:
        """See `IDelivery.abort`."""
        self._inner.abort()


def _start(step: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return step(*arguments)
    except OSError as error:
        raise Refusal(reply_for(error)) from error


def _refused(failure: Failure) -> Failure:
    """Trouble with files is a refusal."""
    if isinstance(failure.value, OSError):
        refusal = Refusal(reply_for(failure.value))
        refusal.__cause__ = failure.value
        return Failure(refusal)
    return failure


async def _finish(result: Any) -> Any:
    try:
        return await result if isinstance(result, Awaitable) else result
    except OSError as error:
        raise Refusal(reply_for(error)) from error


async def _all(waiting: list[Any]) -> None:
    """Wait until all have ended; then raise what the first that failed has raised."""
    failure: Exception | None = None
    for one in waiting:
        try:
            await _finish(one)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = failure or error
    if failure is not None:
        raise failure
