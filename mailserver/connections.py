"""
The connections that are open now, of all listeners: counted, and ended in good order.

In: connections that come and go (each has `drain` and `cut`).  Out: a Deferred that fires when none is left.
RFC 5321 3.8: a server that goes down says 421 instead of hanging up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Connection(Protocol):
    """What can be ended."""

    def drain(self) -> None:
        """End as soon as nothing is lost by it."""

    def cut(self) -> None:
        """End now."""


class OpenConnections:
    """A set that tells when it is empty."""

    def __init__(self) -> None:
        self._open: set[Any] = set()
        self._waiting: set[Any] = set()
        self._empty: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Any]:
        return iter(tuple(self._open))

    def add(self, connection: Connection) -> None:
        """One more."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """One less."""
        self._open.discard(connection)
        self._waiting.discard(connection)
        if not self._open:
            waiting, self._empty = self._empty, []
            for each in waiting:
                each.callback(None)

    def may_wait(self, connection: Connection, most: int) -> bool:
        """May one that was turned away stay until it can be told so?  At most `most` of them at once."""
        if len(self._waiting) >= most:
            return False
        self._waiting.add(connection)
        return True

    def empty(self) -> Deferred[None]:
        """Fires when there is none."""
        if not self._open:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._empty.append(waiting)
        return waiting

    def drain(self, clock: IReactorTime, limit: float) -> Deferred[None]:
        """
        Let all end: the idle now, the others when their transaction is over, but cut those that are left after
        `limit` seconds.  Fires when none is left.
        """
        done = self.empty()
        if not done.called:
            timer = clock.callLater(limit, self._cut)

            def ended(_: None) -> None:
                if timer.active():
                    timer.cancel()

            done.addCallback(ended)
            for connection in self:
                connection.drain()
        return done

    def _cut(self) -> None:
        for connection in self:
            connection.cut()
