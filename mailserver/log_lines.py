"""
One event of the log as a line: a JSON object for programs, or text for people.

In: events of twisted.logger.  Out: text of whole lines, "\n" at the end.  docs/logs.md lists the events and the keys.
Failures: none.  An event that cannot be formatted is shown all the same.
Security: no byte of a value can start a line, move a terminal's cursor or end a JSON string; what is shown is
bounded.  Fields whose names say that they are secret are written as "***"; whoever logs must not put them in, this is
the second line of defence.

A busy server logs the same few kinds of event over and over.  What depends on the names of an event's fields alone
(which are secret, what they are called in JSON) and on its format is worked out once for each kind and kept; texts
and numbers, which nearly all values are, take the short way through it.  All else goes the whole way, to the same
line.

RFC 8259 (JSON), RFC 3339 (time).
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from string import Formatter
from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

#: A field with such a name, at any depth, is never written.
SECRET = re.compile(r"(?:.*_)?(?:password|secret|credentials|response|initial_response|key|token)\Z", re.IGNORECASE)
HIDDEN = "***"
#: What begins each line of a traceback in a text log; no event's line begins so.
TRACEBACK_PREFIX = "  | "
#: Values are bounded: characters of a text and of a traceback (its end is kept), nesting, and members of a list (the
#: recipients of a message fit) and of one within another value.
MAX_TEXT, MAX_TRACEBACK, MAX_DEPTH, MAX_ITEMS, MAX_INNER_ITEMS = 8192, 32_768, 4, 1000, 50
#: So many kinds of event, and formats up to so many characters, are remembered.
KINDS, MAX_PREPARED = 256, 1024

#: The keys that every JSON line has of its own; a field of the same name is written with "_" behind it.
_OWN_KEYS = frozenset({"time", "level", "source", "event", "text", "worker", "error", "traceback"})
#: How Twisted begins the text of an event that it cannot format; the rest of it shows all values, secret or not.
_NOT_FORMATTED = "MESSAGE LOST"
#: What twisted.python.log puts into an event, beside what was meant to be logged.
_LEGACY_KEYS = frozenset({"isError", "failure", "why", "format", "system", "time", "message", "logLevel", "printed"})
#: Such values are formatted by "%s" as they are by "{}".
_SIMPLE = frozenset({str, int, float, bool, type(None)})
_TEXTS = frozenset({str})
#: Numbers that are surely short.
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: 9999-12-31T23:59:59Z, the end of what RFC 3339 can tell.
_LAST_SECOND = 253402300799.0
_LevelType: Any = type(LogLevel.info)
# ASCII alone: no encoding, line separator or lone surrogate can break the line.
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def json_line(event: LogEvent, *, prepared: bool = True) -> str:
    """
    The event as one JSON object and a line end.  Never raises, for whatever stands in the event.

    prepared: False goes the whole way; tests compare the two.
    """
    line = _prepared_json_line(event) if prepared else None
    return _encode(_json_members(event, prepared=prepared)) + "\n" if line is None else line


def _prepared_json_line(event: LogEvent) -> str | None:
    shape, source, name = _shape(tuple(event)), event.get("log_namespace", "-"), event.get("event", "log")
    if shape is None or source == "log_legacy" or type(source) is not str or type(name) is not str:
        return None
    pieces, fields = shape
    when = _rfc3339(event.get("log_time"))
    parts = pieces.copy()
    parts[1::2] = (
        "null" if when is None else f'"{when}"',
        _source(_level(event), source, name),
        _quote(_message(event)),
        *[_quote(value) if type(value) is str else _json_value(value) for value in map(event.__getitem__, fields)],
    )
    line = "".join(parts)
    # So short a line holds no text that is too long: nothing has to be cut.
    return line if len(line) <= MAX_TEXT else None


@lru_cache(maxsize=KINDS)
def _source(level: str, source: str, name: str) -> str:
    return f'"level":{_quote(level)},"source":{_quote(source)},"event":{_quote(name)}'


def _json_members(event: LogEvent, *, prepared: bool) -> dict[str, Any]:
    legacy = "isError" in event or event.get("log_namespace") == "log_legacy"
    line: dict[str, Any] = {
        "time": _rfc3339(event.get("log_time")),
        "level": _level(event),
        "source": _safe_text(event.get("log_namespace", "-")),
        "event": _safe_text(event.get("event", "log")),
        "text": _cut(_message(event, prepared=prepared)),
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
    return line


@lru_cache(maxsize=KINDS)
def _shape(keys: tuple[Any, ...]) -> tuple[list[str], tuple[str, ...]] | None:
    """
    What is the same in the lines of all events with these keys: pieces of text, each followed by a gap: for time,
    `_source`, text, and the values of the fields that are named.  None for the odd ones: failures, Twisted's old log,
    keys that are no names.
    """
    if "isError" in keys or "log_failure" in keys or any(type(key) is not str for key in keys):
        return None
    pieces = ['{"time":', "", ",", "", ',"text":', ""]
    names, fields = set(), []
    between = ""
    for key in keys:
        name = _cut(key)
        if name == "event" or name.startswith("log_"):
            continue
        shown = name + "_" if name in _OWN_KEYS else name
        if shown in names:
            return None
        names.add(shown)
        between += f",{_quote(shown)}:"
        if _is_secret(name):
            between += f'"{HIDDEN}"'
        else:
            pieces += [between, ""]
            fields.append(key)
            between = ""
    return [*pieces, between + "}\n"], tuple(fields)


def _json_value(value: Any) -> str:
    """What `_encode(_plain(value))` gives, sooner for what is frequent; texts in a list are not cut."""
    kind = type(value)
    if kind is int and _LEAST_INT <= value <= _MOST_INT:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float and math.isfinite(value):
        return repr(value)
    if kind is list and _TEXTS.issuperset(map(type, value)) and len(value) <= MAX_ITEMS:
        return f"[{','.join([_quote(item) for item in value])}]"
    return _encode(_plain(value))


def text_line(event: LogEvent) -> str:
    """
    `2026-11-20 17:40:00 info message: text`, in local time; of worker 2 (`log_worker`) `... info [2] message: text`.

    A traceback follows, each line behind a prefix.
    """
    return f"{_local_time(event.get('log_time'))} {text_line_without_time(event)}"


def text_line_without_time(event: LogEvent, *, prepared: bool = True) -> str:
    """The same where somebody else tells the time (journald).  prepared: as for `json_line`."""
    name = _safe_text(event.get("event") or event.get("log_namespace") or "log")
    text = _message(event, prepared=prepared)
    if text.startswith(f"{name} "):  # "message: 4f2a ...", not "message: message 4f2a ..."
        text = text[len(name) + 1 :]
    failure = _failure_in(event)
    begin = f"{_level(event)} [{event['log_worker']}]" if "log_worker" in event else _level(event)
    if failure is None:
        return f"{begin} {_one_line(name)}: {_one_line(_cut(text))}\n"
    error, traceback = _failure(failure)
    whole = f"{text}: {error}" if text else error
    lines = [f"{begin} {_one_line(name)}: {_one_line(_cut(whole))}\n"]
    lines += [f"{TRACEBACK_PREFIX}{_one_line(line)}\n" for line in traceback.splitlines()]
    return "".join(lines)


# -- parts of a line -------------------------------------------------------------------------------------------------


def _message(event: LogEvent, *, prepared: bool = True) -> str:
    """The event's text.  Where there is none, or it cannot be formatted, what can be told without it."""
    if "log_failure" not in event and _failure_in(event) is not None:
        return _safe_text(event.get("why") or "Unhandled error")  # the old text is why, error and traceback in one
    pattern = event.get("log_format")
    if pattern is None:
        return _key_values(event)
    if prepared and type(pattern) is str and len(pattern) <= MAX_PREPARED:
        text = _filled(pattern, event)
        if text is not None:
            return text
    # Twisted would rather format what an observer before us has flattened, secrets and all.
    hidden = {key: HIDDEN for key in event if isinstance(key, str) and _is_secret(key)}
    fields = {key: value for key, value in event.items() if key != "log_flattened"} | hidden
    text = formatEvent(fields)
    if text.startswith(_NOT_FORMATTED):
        return f"{_safe_text(event['log_format'])} [not formatted] {_key_values(event)}".rstrip()
    return text


def _filled(pattern: str, event: LogEvent) -> str | None:
    """The text of an event whose format and values are simple; None for others."""
    parts = _parts(pattern)
    if parts is None:
        return None
    template, fields = parts
    try:
        values = tuple(map(event.__getitem__, fields))
        text = template % values if _SIMPLE.issuperset(map(type, values)) else None
    except (KeyError, ValueError):  # ValueError: a number with more digits than Python writes
        return None
    return None if text is None or text.startswith(_NOT_FORMATTED) else text


@lru_cache(maxsize=KINDS)
def _parts(pattern: str) -> tuple[str, tuple[str, ...]] | None:
    """A format of nothing but "{name}" as one for "%", and the names; None for any other, and where one is secret."""
    template, fields = "", []
    try:
        for literal, field, spec, conversion in Formatter().parse(pattern):
            template += literal.replace("%", "%%")
            if field is None:
                continue
            if spec or conversion or not _FIELD.match(field) or _is_secret(field) or field == "log_flattened":
                return None
            template += "%s"
            fields.append(field)
    except ValueError:  # a brace too many, or too few
        return None
    return template, tuple(fields)


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
    if type(when) is float and 0.0 <= when < _LAST_SECOND:
        second = int(when)
        micro = round((when - second) * 1_000_000)
        if micro < 1_000_000:
            return f"{_utc(second)}.{micro // 1000:03d}Z"
    try:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError, OSError):
        return None


@lru_cache(maxsize=8)  # events come in the order of their time, many in one second
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _local_time(when: Any) -> str:
    try:
        return "-" if when is None else _local(math.floor(when))
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"


@lru_cache(maxsize=8)
def _local(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


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
