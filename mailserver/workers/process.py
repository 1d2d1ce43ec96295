"""
One worker: `python -m mailserver.workers.process NUMBER`, which only the parent starts.

In: the descriptors of `channel`; the number on the command line is for whoever looks at the list of processes.
Out: a `MailService` on the sockets that were inherited, as long as the parent wants it.
Signals: SIGTERM drains, as when the parent says so; SIGINT and SIGHUP are for the parent, which gets them from the
terminal too.
Failures: when it cannot start, the parent is told why, and the exit status is 1.  When the pipe from the parent ends,
the parent is dead: this worker drains and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailserver.children import Lines, line_of
from mailserver.workers.channel import BRIEF, FROM_PARENT, TABLES, TO_PARENT, Brief

if TYPE_CHECKING:
    from mailserver.service import MailService

#: A worker that could not start.
FAILED = 1


def main() -> int:
    """The program; the exit status."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (FROM_PARENT, TO_PARENT, BRIEF, TABLES):
        os.set_inheritable(descriptor, False)
    brief = Brief.read(BRIEF)
    with contextlib.suppress(ImportError, AttributeError):  # a reactor without a module of its own: the default one
        importlib.import_module(brief.reactor).install()
    from twisted.internet import reactor

    _begin_log(brief, reactor)
    return _serve(brief, reactor)


def _begin_log(brief: Brief, reactor: Any) -> None:
    from twisted.logger import globalLogBeginner

    from mailserver.logs import observer_of_worker

    globalLogBeginner.beginLoggingTo([observer_of_worker(brief.log, brief.number, reactor)])


def _serve(brief: Brief, reactor: Any) -> int:
    from mailserver.config import ConfigError
    from mailserver.foundations import StartError

    last = os.dup(TO_PARENT)
    try:
        service = _service(brief, reactor)
    except ConfigError as error:
        return _tell_failure([str(problem) for problem in error.problems if not problem.warning])
    except StartError as error:
        return _tell_failure(error.lines)
    serving = Serving(service, reactor)
    serving.start()
    reactor.run()
    from mailserver.counters import TOP_OF_WORKER

    os.set_blocking(last, True)
    with contextlib.suppress(OSError):  # the parent may be dead
        os.write(last, line_of({"say": "last", "told": service.ground.counters.snapshot(TOP_OF_WORKER)}))
    return serving.status


def _service(brief: Brief, reactor: Any) -> MailService:
    """Raises ConfigError, StartError."""
    from mailserver.config import parse
    from mailserver.foundations import Place
    from mailserver.service import MailService
    from mailserver.workers.tables import Table

    config = parse(brief.text, Path(brief.source))
    place = Place(
        worker=brief.number,
        unique=False,
        first=brief.first,
        sweep=brief.sweep,
        elsewhere=Table(TABLES, brief.number),
    )
    service = MailService(config, reactor, place=place, sockets=brief.bound())
    service.prepare()
    return service


def _tell_failure(lines: Sequence[str]) -> int:
    os.write(TO_PARENT, line_of({"say": "failed", "lines": list(lines)}))
    return FAILED


class Serving:
    """A worker from its start to its end."""

    def __init__(self, service: MailService, reactor: Any) -> None:
        self._service = service
        self._reactor = reactor
        self._lines = Lines()
        self._stops = False
        self._pipe: Any = None
        #: Of the process.
        self.status = 0

    def start(self) -> None:
        """Serve as soon as the reactor runs, and then say so."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._service.stopService)
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        from twisted.internet.stdio import StandardIO

        from mailserver.foundations import StartError

        # The reactor has taken SIGTERM by now, and would let it end the process with no exit status 0.
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._reactor.callFromThread(self.stop))
        try:
            self._service.privilegedStartService()
            self._service.startService()
        except StartError as error:  # its journal
            self.status = _tell_failure(error.lines)
            self._reactor.stop()
            return
        standard_io: Any = StandardIO  # mypy sees that of Windows
        self._pipe = standard_io(_parent_line(self), stdin=FROM_PARENT, stdout=TO_PARENT, reactor=self._reactor)
        self.say({"say": "ready"})

    def say(self, message: dict[str, Any]) -> None:
        """Tell the parent."""
        self._pipe.write(line_of(message))

    def heard(self, octets: bytes) -> None:
        """The parent says something."""
        from mailserver.counters import TOP_OF_WORKER

        for message in self._lines.feed(octets):
            if message["say"] == "stats":
                told = self._service.ground.counters.snapshot(TOP_OF_WORKER)
                self.say({"say": "stats", "id": message["id"], "told": told})
            elif message["say"] == "leave":
                self.leave(message["linger"])

    def leave(self, linger: float) -> None:
        """Accept no more; stop when all connections are over, at the latest after so many seconds."""
        from twisted.internet.defer import ensureDeferred

        if linger:
            ensureDeferred(self._service.leave(linger)).addBoth(lambda _: self.stop())
        else:
            self.stop()

    def orphaned(self) -> None:
        """The parent is gone."""
        from twisted.logger import Logger

        if not self._stops:
            Logger(namespace="mailserver.workers").error(
                "the parent is dead: this worker ends", event="worker-orphan"
            )
        self.stop()

    def stop(self) -> None:
        """Drain and end; once is enough."""
        if not self._stops:
            self._stops = True
            self._reactor.stop()


def _parent_line(serving: Serving) -> Any:
    from twisted.internet.protocol import Protocol, connectionDone
    from twisted.python.failure import Failure

    class ParentLine(Protocol):
        """What comes from the parent."""

        def dataReceived(self, data: bytes) -> None:
            """It says something."""
            serving.heard(data)

        def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted gives it
            """It is gone."""
            serving.orphaned()

    return ParentLine()


if __name__ == "__main__":
    sys.exit(main())
