"""
The log: observers of twisted.logger that write one event as one line, for programs (JSON) or for people (text).

In: events, as `Logger(namespace="mailserver.x").info("{text with fields}", event="message", ...plain fields...)`
makes them.  Out: lines in a file (`log_lines` makes them).  docs/logs.md lists the events and the keys of a line.
Failures: none.  A file that takes nothing (ENOSPC, EPIPE, closed) costs lines, which are counted and told about when
it takes some again; nothing is raised into the reactor.

When a line is written: at once - but under twistd the debug and info events of the reactor's thread wait for the end
of its turn, a few milliseconds at most, and go in one write.  (To append to a file can mean to wait for the file
system's journal, which is busy with messages then.)  A warning or an error takes along what waits, so the order is
kept.  When the process is killed (SIGKILL) the lines of one turn are lost; any other end of it writes them.
"""

from __future__ import annotations

import atexit
import dataclasses
import fcntl
import io
import os
import stat
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python import threadable
from twisted.python.compat import ioType
from zope.interface import implementer

from mailserver.log_lines import json_line, text_line, text_line_without_time

#: So many lines wait at most.
MOST_WAITING = 200

_LevelType: Any = type(LogLevel.info)
_LEVELS: dict[str, Any] = {"warning": LogLevel.warn, **{level.name: level for level in LogLevel.iterconstants()}}
_MAY_WAIT = frozenset({LogLevel.debug, LogLevel.info})


#: What Twisted says of each connection that a web client makes, for a webhook or in an app.
REMARKS_OF_TWISTED = frozenset({"Starting factory {factory!r}", "Stopping factory {factory!r}"})


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events to a file.  Any thread may call it.

    file: opened for text or for bytes (UTF-8); it stays the caller's.  render: the event as a line (or, with a
    traceback, several), "\\n" at the end.  least: events below this level are left out; those without one never are.
    reactor: while it runs, its own events may wait for the end of its turn; None: every line is written at once.
    """

    def __init__(
        self, file: IO[Any], render: Callable[[LogEvent], str], least: Any = None, *, reactor: Any = None
    ) -> None:
        self.file = file
        self._render = render
        self._left_out = frozenset(level for level in LogLevel.iterconstants() if least is not None and level < least)
        self._reactor = reactor
        self._binary = ioType(file) is bytes
        self._waiting: list[str] = []
        self._when: Any = None
        self._lost = 0
        # Of a thread that is interrupted by a signal, which may be logged: it must not wait for itself.
        self._lock = threading.RLock()
        if reactor is not None:
            # twistd ends itself by the signal that stopped it, and then nothing of Python's is called any more.
            reactor.addSystemEventTrigger("after", "shutdown", self.flush)
            atexit.register(self.flush)

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if not isinstance(level, _LevelType):
            level = None
        elif level is LogLevel.info and (
            event.get("log_namespace") == "log_legacy" or event.get("log_format") in REMARKS_OF_TWISTED
        ):
            # Twisted's own remarks ("... starting on 25", "(TCP Port 25 Closed)"): we say the same in our words.
            level = LogLevel.debug
        if level in self._left_out:
            return
        lines = self._render(event)
        with self._lock:
            self._when = event.get("log_time")
            self._waiting.append(lines)
            if not self._may_wait(level):
                self.flush()
            elif len(self._waiting) == 1:
                self._reactor.callLater(0, self.flush)

    def _may_wait(self, level: Any) -> bool:
        if self._reactor is None or level not in _MAY_WAIT or len(self._waiting) >= MOST_WAITING:
            return False
        return bool(self._reactor.running) and threadable.isInIOThread()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if not waiting:
                return
            lines = "".join(waiting)
            if self._lost:
                # The write that failed may have left half a line; a break of its own keeps these whole.
                lines = "\n" + self._render(_lines_lost(self._lost, self._when)) + lines
            try:
                self._write(lines)
            except (OSError, ValueError):  # ValueError: the file is closed
                self._lost += len(waiting)
            else:
                self._lost = 0

    def relay(self, lines: str) -> None:
        """Write lines that another process has rendered."""
        with self._lock:
            self.flush()
            try:
                self._write(lines)
            except (OSError, ValueError):
                self._lost += lines.count("\n")

    def _write(self, lines: str) -> None:
        if self._binary:
            self.file.write(lines.encode("utf-8", "backslashreplace"))
        else:
            try:
                self.file.write(lines)
            except UnicodeEncodeError:  # a terminal that is not UTF-8
                self.file.write(lines.encode("ascii", "backslashreplace").decode("ascii"))
        self.file.flush()


class SharedLines(io.RawIOBase):
    """
    A descriptor to which several processes write whole lines: what is written in one call stays together.

    A file and a terminal keep one write(2) together by themselves; a pipe only up to PIPE_BUF (pipe(7)), and a
    socket (that of journald) not much more, which the lines of one turn of the reactor are over.  So whoever writes
    to one of these locks it meanwhile (fcntl(2), by process).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._locks = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._turn = threading.Lock()

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, octets: Any) -> int:
        """All of them.  Raises OSError."""
        with self._turn:
            if self._locks:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                rest = memoryview(octets)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            finally:
                if self._locks:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return len(octets)


def json_observer(file: IO[Any]) -> LineObserver:
    """An observer that writes each event as one JSON object in one line of ASCII."""
    return LineObserver(file, json_line)


def text_observer(file: IO[Any], *, timestamps: bool = True) -> LineObserver:
    """
    An observer that writes lines for people.

    timestamps: begin each with the local time; False where somebody else does (journald).
    """
    return LineObserver(file, text_line if timestamps else text_line_without_time)


def observer(
    format: str,  # noqa: A002 - the configuration's own word
    level: str,
    file: Any,
    *,
    worker: int | None = None,
    reactor: Any = None,
) -> LineObserver:
    """
    The observer that the configuration's `log_format` and `log_level` ask for.

    format: "text" or "json".  level: "debug", "info", "warn" (or "warning"), "error" or "critical"; lower ones are
    left out.  worker: the number of this process, which each line tells, where it is one of several.
    reactor: as for `LineObserver`.  Raises ValueError for another word.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_LEVELS)}")
    renderers = {"text": text_line, "json": json_line} if worker is None else _of_worker(worker)
    if format not in renderers:
        raise ValueError(f'log format {format!r} is neither "text" nor "json"')
    return LineObserver(file, renderers[format], _LEVELS[level], reactor=reactor)


def _of_worker(worker: int) -> dict[str, Callable[[LogEvent], str]]:
    """The same, with the number of a worker in each line."""
    begin = f'{{"worker":{worker},'
    return {
        "text": lambda event: text_line({**event, "log_worker": worker}),
        "json": lambda event: begin + json_line(event).removeprefix("{"),
    }


def _lines_lost(count: int, when: Any) -> LogEvent:
    return {
        "log_time": when,
        "log_level": LogLevel.warn,
        "log_namespace": "mailserver.logs",
        "log_format": "{count} log lines before this one could not be written",
        "event": "log-lost",
        "count": count,
    }


# -- several processes -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Destination:
    """
    Where this process logs to, for those that it starts.

    logger: the name of an observer of the user's own (twistd --logger).  syslog: prefix and facility.
    observer: the one that this process has made, once it has.
    """

    format: str
    level: str
    logger: str | None = None
    syslog: tuple[str, int] | None = None
    observer: LineObserver | None = None

    def descriptor(self) -> int | None:
        """
        To which the others write their lines too; None: to a file that is rotated only this process can write, so
        they write to a pipe, and `LineObserver.relay` takes what comes out.
        """
        from twisted.python.logfile import BaseLogFile

        if self.observer is None:
            return 1
        return None if isinstance(self.observer.file, BaseLogFile) else int(self.observer.file.fileno())

    def words(self) -> dict[str, Any]:
        """What `observer_of_worker` needs."""
        return {"format": self.format, "level": self.level, "logger": self.logger, "syslog": self.syslog}


def observer_of_worker(words: Mapping[str, Any], worker: int, reactor: Any) -> Any:
    """
    The observer of a worker, which writes to descriptor 1.  words: of its parent's `Destination`.

    worker: its number.  reactor: as for `LineObserver`.
    """
    from twisted.python.reflect import namedAny

    if words["logger"] is not None:
        return namedAny(words["logger"])()
    if words["syslog"] is not None:
        from twisted.python.syslog import SyslogObserver

        prefix, facility = words["syslog"]
        return SyslogObserver(f"{prefix}[{worker}]", facility=facility).emit
    return observer(words["format"], words["level"], SharedLines(1), worker=worker, reactor=reactor)


# -- twistd ----------------------------------------------------------------------------------------------------------


def twistd_logger(
    options: Mapping[str, Any],
    format: str,  # noqa: A002 - the configuration's own word
    level: str,
    *,
    shared: bool = False,
) -> Callable[[], LineObserver | None]:
    """
    What twistd's `logger` option wants: a callable, called once, that brings the observer.

    shared: other processes write to the same standard output.

    options: twistd's own (`logfile`, `nodaemon`, `syslog`), which mean what they mean without us: in the foreground
    to standard output, else `twistd.log` or the named file, rotated at 1 MB and by SIGUSR1.  The callable returns
    None for syslog, which makes twistd use its own observer.  It ends the process (SystemExit) when a daemon is to
    log to standard output, as twistd does.  Raises ValueError for an unknown format or level, OSError when the file
    cannot be opened.
    """
    observer(format, level, sys.stdout)  # a wrong word is told now, not when the daemon is half started

    def make() -> LineObserver | None:
        if options.get("syslog"):
            return None
        name = options.get("logfile") or ""
        if name == "-" and not options.get("nodaemon"):
            sys.exit("Daemons cannot log to stdout, exiting!")
        from twisted.internet import reactor  # twistd has chosen it by now

        if name == "-" or (options.get("nodaemon") and not name):
            return observer(
                format, level, SharedLines(sys.stdout.fileno()) if shared else sys.stdout, reactor=reactor
            )
        return observer(format, level, _open_log_file(name or "twistd.log"), reactor=reactor)

    return make


def _open_log_file(name: str) -> Any:
    """A rotating file, 0640 when it is new; a device or a pipe as it is."""
    from twisted.python.logfile import LogFile

    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        log_file = LogFile.fromFullPath(name, defaultMode=0o640)
    else:
        if not stat.S_ISREG(kind):  # /dev/stderr, a FIFO: renaming it would be wrong
            return open(name, "ab", buffering=0)
        log_file = LogFile.fromFullPath(name)
    _rotate_on_signal(log_file)
    return log_file


def _rotate_on_signal(log_file: Any) -> None:
    import signal

    def rotate(_number: int, _frame: Any) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(log_file.rotate)  # type: ignore[attr-defined]  # the module stands for IReactorThreads

    # Only where nobody else has taken the signal: None, or SIG_DFL, which is 0.
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
