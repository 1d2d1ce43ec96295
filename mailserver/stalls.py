"""
How long does the reactor not come round?  Every reply of every connection waits for that long.

In: a clock.  Out: calls of `Counters.stalled` for each look that came late; `mailserver stats` shows the longest.
One delayed call looks twenty times a second how late it is: what blocks for longer than that is seen whole, what is
shorter in part.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds between two looks.
INTERVAL = 0.05
#: Lateness below this is the reactor's ordinary work (seconds).
ORDINARY = 0.001
#: While a process starts it reads files and makes keys, and nobody waits yet (seconds).
STARTING = 1.0


class StallWatch(Service):
    """clock: the reactor.  stalled: told how late a look was, in seconds."""

    def __init__(self, clock: IReactorTime, stalled: Callable[[float], None]) -> None:
        self._clock = clock
        self._stalled = stalled
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Look from now on."""
        super().startService()
        self._next(STARTING)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next(self, seconds: float) -> None:
        self._due = self._clock.seconds() + seconds
        self._call = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        late = self._clock.seconds() - self._due
        if late > ORDINARY:
            self._stalled(late)
        self._next(INTERVAL)
