"""
The log: observers of twisted.logger that write one event as one line, for programs (JSON) or for people (text).

In: events, as `Logger(namespace="mailserver.x").info("{text with fields}", event="message", ...plain fields...)`
makes them.  Out: lines in a file.  docs/logs.md lists the events and the keys of a line.
Failures: none.  An event that cannot be formatted is logged all the same; a file that takes nothing (ENOSPC, EPIPE,
closed) costs lines, which are counted and told about when it takes some again; nothing is raised into the reactor.
Security: no byte of a value can start a line, move a terminal's cursor or end a JSON string.  Fields whose names say
that they are secret are written as "***"; whoever logs must not put them in, this is the second line of defence.

RFC 8259 (JSON), RFC 3339 (time).
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import math
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.compat import ioType
from twisted.python.failure import Failure
from zope.interface import implementer

#: A field with such a name, at any depth, is never written.
SECRET = re.compile(r"(?:.*_)?(?:password|secret|credentials|response|initial_response|key|token)\Z", re.IGNORECASE)
HIDDEN = "***"
#: What begins each line of a traceback in a text log; no event's line begins so.
TRACEBACK_PREFIX = "  | "
#: Values are bounded: characters of a text and of a traceback (its end is kept), nesting, and members of a list (the
#: recipients of a message fit) and of one within another value.
MAX_TEXT, MAX_TRACEBACK, MAX_DEPTH, MAX_ITEMS, MAX_INNER_ITEMS = 8192, 32_768, 4, 1000, 50

#: The keys that every JSON line has of its own; a field of the same name is written with "_" behind it.
_OWN_KEYS = frozenset({"time", "level", "source", "event", "text", "error", "traceback"})
#: How Twisted begins the text of an event that it cannot format; the rest of it shows all values, secret or not.
_NOT_FORMATTED = "MESSAGE LOST"
#: What twisted.python.log puts into an event, beside what was meant to be logged.
_LEGACY_KEYS = frozenset({"isError", "failure", "why", "format", "system", "time", "message", "logLevel", "printed"})
_LevelType: Any = type(LogLevel.info)
_LEVELS: dict[str, Any] = {"warning": LogLevel.warn, **{level.name: level for level in LogLevel.iterconstants()}}


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events to a file, each by one `write`.

    file: opened for text or for bytes (UTF-8); it stays the caller's.  render: the event as a line (or, with a
    traceback, several), "\\n" at the end.  least: events below this level are left out; those without one never are.
    """

    def __init__(self, file: IO[Any], render: Callable[[LogEvent], str], least: Any = None) -> None:
        self._file = file
        self._render = render
        self._least = least
        self._binary = ioType(file) is bytes
        self._lost = 0

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level")
        if event.get("log_namespace") == "log_legacy" and level is LogLevel.info:
            # Twisted's own remarks ("... starting on 25", "(TCP Port 25 Closed)"): we say the same in our words.
            level = LogLevel.debug
        if self._least is not None and isinstance(level, _LevelType) and level < self._least:
            return
        lines = self._render(event)
        if self._lost:
            # The write that failed may have left half a line; a break of its own keeps this one whole.
            lines = "\n" + self._render(_lines_lost(self._lost, event.get("log_time"))) + lines
        try:
            self._write(lines)
        except (OSError, ValueError):  # ValueError: the file is closed
            self._lost += 1
        else:
            self._lost = 0

    def _write(self, lines: str) -> None:
        if self._binary:
            self._file.write(lines.encode("utf-8", "backslashreplace"))
        else:
            try:
                self._file.write(lines)
            except UnicodeEncodeError:  # a terminal that is not UTF-8
                self._file.write(lines.encode("ascii", "backslashreplace").decode("ascii"))
        self._file.flush()


def json_observer(file: IO[Any]) -> LineObserver:
    """An observer that writes each event as one JSON object in one line of ASCII."""
    return LineObserver(file, json_line)


def text_observer(file: IO[Any], *, timestamps: bool = True) -> LineObserver:
    """
    An observer that writes lines for people.

    timestamps: begin each with the local time; False where somebody else does (journald).
    """
    return LineObserver(file, text_line if timestamps else _text_line_without_time)


def observer(format: str, level: str, file: IO[Any]) -> LineObserver:  # noqa: A002 - the configuration's own word
    """
    The observer that the configuration's `log_format` and `log_level` ask for.

    format: "text" or "json".  level: "debug", "info", "warn" (or "warning"), "error" or "critical"; lower ones are
    left out.  Raises ValueError for another.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_LEVELS)}")
    renderers = {"text": text_line, "json": json_line}
    if format not in renderers:
        raise ValueError(f'log format {format!r} is neither "text" nor "json"')
    return LineObserver(file, renderers[format], _LEVELS[level])


# -- lines -----------------------------------------------------------------------------------------------------------


def json_line(event: LogEvent) -> str:
    """The event as one JSON object and a line end.  Never raises, for whatever stands in the event."""
    legacy = "isError" in event or event.get("log_namespace") == "log_legacy"
    line: dict[str, Any] = {
        "time": _rfc3339(event.get("log_time")),
        "level": _level(event),
        "source": _safe_text(event.get("log_namespace", "-")),
        "event": _safe_text(event.get("event", "log")),
        "text": _cut(_message(event)),
    }
    failure = _failure_in(event)
    if failure is not None:
        line["error"], line["traceback"] = _failure(failure)
    for key, value in event.items():
        name = _safe_text(key)
        if name == "event" or name.startswith("log_") or (legacy and name in _LEGACY_KEYS):
            continue
        shown = HIDDEN if _is_secret(name) else _plain(value)
        line[name + "_" if name in _OWN_KEYS else name] = shown
    # ASCII alone: no encoding, line separator or lone surrogate can break the line.
    return json.dumps(line, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


def text_line(event: LogEvent) -> str:
    """`2026-11-20 17:40:00 info message: text`, in local time; a traceback follows, each line behind a prefix."""
    return f"{_local_time(event.get('log_time'))} {_text_line_without_time(event)}"


def _text_line_without_time(event: LogEvent) -> str:
    name = _safe_text(event.get("event") or event.get("log_namespace") or "log")
    text = _message(event)
    if text.startswith(f"{name} "):  # "message: 4f2a ...", not "message: message 4f2a ..."
        text = text[len(name) + 1 :]
    failure = _failure_in(event)
    if failure is None:
        return f"{_level(event)} {_one_line(name)}: {_one_line(_cut(text))}\n"
    error, traceback = _failure(failure)
    whole = f"{text}: {error}" if text else error
    lines = [f"{_level(event)} {_one_line(name)}: {_one_line(_cut(whole))}\n"]
    lines += [f"{TRACEBACK_PREFIX}{_one_line(line)}\n" for line in traceback.splitlines()]
    return "".join(lines)


def _lines_lost(count: int, when: Any) -> LogEvent:
    return {
        "log_time": when,
        "log_level": LogLevel.warn,
        "log_namespace": "mailserver.logs",
        "log_format": "{count} log lines before this one could not be written",
        "event": "log-lost",
        "count": count,
    }


# -- parts of a line -------------------------------------------------------------------------------------------------


def _message(event: LogEvent) -> str:
    """The event's text.  Where there is none, or it cannot be formatted, what can be told without it."""
    if "log_failure" not in event and _failure_in(event) is not None:
        return _safe_text(event.get("why") or "Unhandled error")  # the old text is why, error and traceback in one
    if event.get("log_format") is None:
        return _key_values(event)
    # Twisted would rather format what an observer before us has flattened, secrets and all.
    hidden = {key: HIDDEN for key in event if isinstance(key, str) and _is_secret(key)}
    fields = {key: value for key, value in event.items() if key != "log_flattened"} | hidden
    text = formatEvent(fields)
    if text.startswith(_NOT_FORMATTED):
        return f"{_safe_text(event['log_format'])} [not formatted] {_key_values(event)}".rstrip()
    return text


def _key_values(event: LogEvent) -> str:
    shown = []
    for key, value in event.items():
        name = _safe_text(key)
        if name != "event" and not name.startswith("log_") and name not in _LEGACY_KEYS:
            shown.append(f"{name}={HIDDEN if _is_secret(name) else _plain(value)}")
    return " ".join(shown)


def _failure_in(event: LogEvent) -> Any:
    """The event's failure: of `Logger.failure`, or of twisted.python.log.err; None for others."""
    failure = event.get("log_failure")
    if failure is None and event.get("log_namespace") == "log_legacy" and isinstance(event.get("failure"), Failure):
        failure = event["failure"]
    return failure


def _failure(failure: Any) -> tuple[str, str]:
    """A failure as ("type: message", traceback)."""
    if not isinstance(failure, Failure):
        return _safe_text(failure), ""
    name = getattr(failure.type, "__name__", "Failure")
    try:
        message, traceback = failure.getErrorMessage(), failure.getTraceback()
    except Exception as error:  # noqa: BLE001 - an exception whose own __str__ fails
        message, traceback = f"[not formatted: {type(error).__name__}]", ""
    return _cut(f"{name}: {message}"), traceback[-MAX_TRACEBACK:]


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if isinstance(level, _LevelType) else "-"


def _rfc3339(when: Any) -> str | None:
    """`2026-11-20T17:40:00.123Z`; None when the event tells no time that makes sense."""
    try:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _local_time(when: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when)) if when is not None else "-"
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"


# -- values ----------------------------------------------------------------------------------------------------------


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as something that JSON has: bounded, without secrets, never raising."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _cut(str.__str__(value))
    try:
        return _plain_other(value, depth)
    except Exception:  # noqa: BLE001 - a property or iterator of a foreign object may raise anything
        return f"[{type(value).__name__}]"


def _plain_other(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 256 else _cut(hex(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[: MAX_TEXT + 1]).decode("utf-8", "backslashreplace")[:MAX_TEXT]
    if isinstance(value, BaseException):
        return _cut(f"{type(value).__name__}: {value}")
    if isinstance(value, Failure):
        return _failure(value)[0]
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not _has_own_text(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return _plain_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        if depth >= MAX_DEPTH:
            return "..."
        most = _most_items(depth)
        shown = [_plain(item, depth + 1) for item in itertools.islice(value, most)]
        return shown if len(value) <= most else [*shown, "..."]
    return _safe_text(value)


def _has_own_text(value: object) -> bool:
    """Does its class say how it is written (Address, Reply)?"""
    return any("__str__" in kind.__dict__ for kind in type(value).__mro__[:-1])


def _plain_mapping(value: Mapping[Any, Any], depth: int) -> Any:
    if depth >= MAX_DEPTH:
        return "..."  # not its str(): that would show what SECRET hides
    shown = {}
    for key, item in itertools.islice(value.items(), _most_items(depth)):
        name = _safe_text(key)
        shown[name] = HIDDEN if _is_secret(name) else _plain(item, depth + 1)
    return shown


def _most_items(depth: int) -> int:
    return MAX_INNER_ITEMS if depth else MAX_ITEMS


@lru_cache(maxsize=1024)  # the keys of our events are few, and every event is asked about each
def _is_secret(name: str) -> bool:
    return SECRET.match(name) is not None


def _safe_text(value: Any) -> str:
    if type(value) is str:
        return _cut(value)
    if isinstance(value, bytes):
        return _cut(value.decode("utf-8", "backslashreplace"))
    try:
        return _cut(str(value))
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"[{type(value).__name__}]"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def _one_line(text: str) -> str:
    """Line ends, control characters and other things that do not print (bidirectional marks) as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


# -- twistd ----------------------------------------------------------------------------------------------------------


def twistd_logger(
    options: Mapping[str, Any],
    format: str,  # noqa: A002 - the configuration's own word
    level: str,
) -> Callable[[], LineObserver | None]:
    """
    What twistd's `logger` option wants: a callable, called once, that brings the observer.

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
        if name == "-" or (options.get("nodaemon") and not name):
            return observer(format, level, sys.stdout)
        return observer(format, level, _open_log_file(name or "twistd.log"))

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
