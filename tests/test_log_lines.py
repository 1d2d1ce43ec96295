"""A line of the log: one event is one line, whatever stands in it, and nothing secret is in the line."""

from __future__ import annotations

import enum
import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver import log_lines
from mailserver.address import parse_address
from mailserver.envelope import TLSInfo
from mailserver.log_lines import (
    MAX_INNER_ITEMS,
    MAX_ITEMS,
    MAX_TEXT,
    TRACEBACK_PREFIX,
    json_line,
    text_line,
    text_line_without_time,
)
from mailserver.reply import OK

WHEN = 1795196400.1234  # 2026-11-20T17:40:00.123Z
SPY = "correct horse battery"


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Login:
    user: str
    password: str


class Nasty:
    """An object that answers nothing."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


def event(text: str | None = "a text", **fields: Any) -> dict[str, Any]:
    plain = {"log_time": WHEN, "log_level": LogLevel.info, "log_namespace": "mailserver.test", "log_format": text}
    return plain | fields


def parsed(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json_line(record))


def failure(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException:
        return Failure()


#: field's value -> what the JSON line holds
VALUES = [
    (None, None),
    (True, True),
    (7, 7),
    (1.5, 1.5),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    ("ü\n", "ü\n"),
    (b"caf\xc3\xa9 \xff", "café \\xff"),
    (bytearray(b"x"), "x"),
    ((1, b"two"), [1, "two"]),
    ([], []),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ({1: b"x"}, {"1": "x"}),
    (frozenset({3}), [3]),
    (Colour.RED, "RED"),
    (Path("/x/y"), "/x/y"),
    (ValueError("no"), "ValueError: no"),
    (parse_address("a@example.org"), "a@example.org"),
    (OK, "250 2.0.0 Ok"),
    (
        TLSInfo("TLSv1.3", "X", 256),
        {
            "version": "TLSv1.3",
            "cipher": "X",
            "bits": 256,
            "server_name": "",
            "resumed": False,
            "client_name": "",
            "client_fingerprint": "",
        },
    ),
    (Nasty(), "[Nasty]"),
    (2**300, hex(2**300)),
    ("x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 3) + "..."),
    ("x" * MAX_TEXT, "x" * MAX_TEXT),
    (list(range(MAX_ITEMS)), list(range(MAX_ITEMS))),
    (list(range(MAX_ITEMS + 1)), [*range(MAX_ITEMS), "..."]),
    ([list(range(MAX_INNER_ITEMS + 1))], [[*range(MAX_INNER_ITEMS), "..."]]),
    ([[[[[1]]]]], [[[["..."]]]]),
    ([[[[1]]]], [[[[1]]]]),
]


class JSONLines(SynchronousTestCase):
    def test_a_line_has_the_keys_that_the_manual_names(self) -> None:
        line = parsed(event("from {sender}", event="message", sender="a@example.org", size=12, log_source=self))
        self.assertEqual(
            line,
            {
                "time": "2026-11-20T17:40:00.123Z",
                "level": "info",
                "source": "mailserver.test",
                "event": "message",
                "text": "from a@example.org",
                "sender": "a@example.org",
                "size": 12,
            },
        )

    def test_an_event_without_a_name_is_a_log(self) -> None:
        self.assertEqual(parsed(event())["event"], "log")

    def test_each_kind_of_value_has_its_json(self) -> None:
        for value, expected in VALUES:
            self.assertEqual(parsed(event(field=value))["field"], expected, repr(expected)[:80])

    def test_a_field_with_the_name_of_a_key_of_ours_is_kept_beside_it(self) -> None:
        line = parsed(event(time="noon", level=3))
        self.assertEqual((line["time_"], line["level_"]), ("noon", 3))
        self.assertEqual(line["level"], "info")

    def test_a_failure_brings_error_and_traceback(self) -> None:
        line = parsed(event("it broke", log_failure=failure(ValueError("bad\nvalue"))))
        self.assertEqual(line["error"], "ValueError: bad\nvalue")
        self.assertIn("Traceback", line["traceback"])
        self.assertNotIn("log_failure", line)

    def test_a_failure_whose_exception_has_no_text_is_logged(self) -> None:
        class MuteError(Exception):
            __str__ = Nasty.__str__
            __repr__ = Nasty.__str__

        self.assertTrue(parsed(event("x", log_failure=failure(MuteError())))["error"].startswith("MuteError: "))

    def test_a_time_that_makes_no_sense_is_null(self) -> None:
        for when in (None, "noon", float("nan"), 1e300):
            self.assertIsNone(parsed(event(log_time=when))["time"])

    def test_the_internals_of_twisteds_old_log_are_left_out(self) -> None:
        line = parsed(event("{log_text}", log_text="old", isError=0, message=("old",), system="-", time=WHEN, own=1))
        self.assertEqual(line["text"], "old")
        self.assertEqual(set(line) - {"time", "level", "source", "event", "text"}, {"own"})

    def test_a_failure_of_twisteds_old_log_is_told_like_any_other(self) -> None:
        old = event("{log_text}", log_text="why\nTraceback\n", log_namespace="log_legacy", isError=1, why="why")
        old["failure"] = failure(ValueError("bad"))
        line = parsed(old)
        self.assertEqual((line["text"], line["error"]), ("why", "ValueError: bad"))
        self.assertNotIn("failure", line)
        self.assertTrue(text_line(old | {"why": None}).splitlines()[0].endswith(": Unhandled error: ValueError: bad"))

    def test_an_event_that_cannot_be_formatted_is_logged_with_its_fields(self) -> None:
        for pattern in ("{missing}", "{sender.nothing}", "{bad", "{nasty}"):
            line = parsed(event(pattern, sender="a@example.org", nasty=Nasty()))
            self.assertIn(pattern, line["text"])
            self.assertEqual(line["sender"], "a@example.org")


class TextLines(SynchronousTestCase):
    def test_a_line_is_time_level_event_and_text(self) -> None:
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(WHEN))
        line = text_line(event("250 from=<{sender}>", event="message", sender="a@example.org"))
        self.assertEqual(line, f"{local} info message: 250 from=<a@example.org>\n")

    def test_a_text_that_begins_with_the_event_does_not_say_it_twice(self) -> None:
        self.assertTrue(text_line(event("message 4f2a", event="message")).endswith(" info message: 4f2a\n"))
        self.assertTrue(text_line(event("messages", event="message")).endswith(" info message: messages\n"))

    def test_without_an_event_name_the_source_is_told(self) -> None:
        self.assertTrue(text_line(event("x")).endswith(" info mailserver.test: x\n"))

    def test_an_event_without_a_text_shows_its_fields(self) -> None:
        self.assertTrue(text_line(event(None, event="e", a=1, password=SPY)).endswith("info e: a=1 password=***\n"))

    def test_what_could_start_a_line_or_move_a_cursor_is_escaped(self) -> None:
        for bad, shown in [
            ("a\r\nb", "a\\r\\nb"),
            ("\x1b[2J", "\\x1b[2J"),
            ("\x00\x7f\x85", "\\x00\\x7f\\x85"),
            ("\u2028", "\\u2028"),
            ("\u202eabc", "\\u202eabc"),
            ("\ud800", "\\ud800"),
            ("süß", "süß"),
        ]:
            self.assertTrue(text_line(event("{x}", event=bad, x=bad)).endswith(f" info {shown}: {shown}\n"), shown)

    def test_a_traceback_follows_with_its_prefix(self) -> None:
        first, *rest = text_line(event("it broke", log_failure=failure(ValueError("a\nb")))).splitlines()
        self.assertTrue(first.endswith("it broke: ValueError: a\\nb"))
        self.assertGreater(len(rest), 1)
        self.assertTrue(all(line.startswith(TRACEBACK_PREFIX) for line in rest))


class Secrets(SynchronousTestCase):
    NAMES = (
        "password", "secret", "credentials", "response", "initial_response", "key", "token", "Password", "api_key"
    )  # fmt: skip

    def test_no_secret_field_is_written_wherever_it_stands(self) -> None:
        for name in self.NAMES:
            for record in (
                event("login {" + name + "}", **{name: SPY}),
                event("login {missing}", **{name: SPY}),
                event(None, **{name: SPY}),
                event("x", inner={"list": [{name: SPY}]}),
                event("x", deep={"a": {"b": {"c": {"d": {name: SPY}}}}}),
                event("x {" + name + "}", **{name: SPY}, log_flattened={f"{name}!s:": SPY, f"{name}!:": SPY}),
            ):
                self.assertNotIn(SPY, json_line(record), record)
                self.assertNotIn(SPY, text_line(record), record)

    def test_the_fields_of_a_dataclass_are_hidden_too(self) -> None:
        self.assertEqual(parsed(event("x", login=Login("a", SPY)))["login"], {"user": "a", "password": "***"})

    def test_names_that_only_contain_such_a_word_are_shown(self) -> None:
        line = parsed(event("x", keyboard="k", responses=2, tokens=3))
        self.assertEqual((line["keyboard"], line["responses"], line["tokens"]), ("k", 2, 3))


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Nasty) | st.just(OK)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        | st.tuples(inner)
        | st.builds(Login, inner, inner)
    ),
    max_leaves=8,
)
NAMES = st.text(max_size=8) | st.sampled_from(
    [
        "log_time",
        "log_level",
        "log_format",
        "log_namespace",
        "log_failure",
        "event",
        "isError",
        "time",
        "log_flattened",
    ]
)
TEXTS = st.text() | st.sampled_from(["{a}", "{", "{}", "{0}", "{event!r}", "{a()}", "{log_time.x}"])


class Properties(SynchronousTestCase):
    @settings(deadline=None, max_examples=150)
    @given(st.dictionaries(NAMES, ANYTHING, max_size=6), TEXTS)
    def test_any_event_is_exactly_one_json_line(self, record: dict[str, Any], pattern: str) -> None:
        for whole in (record, record | {"log_format": pattern}):
            line = json_line(whole)
            self.assertTrue(line.isascii() and line.endswith("\n"))
            self.assertEqual(len(line.splitlines()), 1)
            self.assertIsInstance(json.loads(line), dict)

    @settings(deadline=None, max_examples=150)
    @given(st.dictionaries(NAMES, ANYTHING, max_size=6), TEXTS)
    def test_any_event_is_one_printable_line_of_text(self, record: dict[str, Any], pattern: str) -> None:
        for whole in (record, record | {"log_format": pattern}):
            line, *rest = text_line(whole)[:-1].splitlines()
            self.assertTrue(line.isprintable())
            self.assertTrue(all(more.startswith(TRACEBACK_PREFIX) for more in rest))

    @settings(deadline=None, max_examples=100)
    @given(st.sampled_from(Secrets.NAMES), st.integers(0, 6), st.booleans())
    def test_a_secret_is_hidden_at_any_depth(self, name: str, depth: int, in_list: bool) -> None:
        value: Any = {name: SPY}
        for _ in range(depth):
            value = [value] if in_list else {"inner": value}
        self.assertNotIn(SPY, json_line(event("x", value=value)))
        self.assertNotIn(SPY, text_line(event(None, value=value)))


#: Events as ours are: a format, a name, fields of plain values; and now and then one that is odd.
FIELD_NAMES = st.sampled_from(
    ["a", "b", "size", "time", "time_", "text", "password", "api_key", "event", "log_more", "log_token", "a%s", "why"]
)
PLAIN = (
    st.text(max_size=20)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.booleans()
    | st.none()
    | st.lists(st.text(max_size=9), max_size=3)
    | st.sampled_from(
        ["x" * MAX_TEXT, "x" * (MAX_TEXT + 1), 10**5000, [""] * MAX_ITEMS, [""] * (MAX_ITEMS + 1), ["x" * 9000]]
    )
)
FORMATS = st.lists(
    st.sampled_from(["{a}", "{b}", "{size}", "{password}", "{log_more}", "{log_token}", "{event}", "text %s", "{{}}"])
    | st.sampled_from(
        ["{time}", "{a!r}", "{size:>5}", "{missing}", "{", "MESSAGE LOST", "{log_flattened}", "ü\n", "{a.b}"]
    ),
    max_size=5,
).map("".join)
SOURCES = st.sampled_from(["mailserver.smtp", "log_legacy", "ü\n", None, 7])


class ShortWayTests(SynchronousTestCase):
    """What is prepared for a kind of event changes nothing in its lines."""

    @settings(deadline=None, max_examples=400)
    @given(st.dictionaries(FIELD_NAMES, PLAIN, max_size=6), FORMATS, SOURCES)
    @example({"a": "x" * MAX_TEXT}, "{a}", "s")
    @example({"a": "x" * (MAX_TEXT - 150)}, "{a}", "s")
    @example({"a": [""] * (MAX_ITEMS + 1)}, "x", "s")
    @example({"log_flattened": "x"}, "{log_flattened}", "s")
    def test_both_ways_give_the_same_lines(self, fields: dict[str, Any], text: str, source: Any) -> None:
        self.compare(event(text) | fields | {"log_namespace": source})

    @settings(deadline=None, max_examples=200)
    @given(st.dictionaries(NAMES, ANYTHING, max_size=6), TEXTS)
    def test_they_do_so_for_any_event(self, record: dict[str, Any], pattern: str) -> None:
        self.compare(record)
        self.compare(record | {"log_format": pattern})

    def compare(self, record: dict[str, Any]) -> None:
        self.assertEqual(json_line(record), json_line(record, prepared=False))
        self.assertEqual(text_line_without_time(record), text_line_without_time(record, prepared=False))

    def test_each_event_gets_its_own_values(self) -> None:
        for number in range(3):
            record = event("a {n}", n=number, name="n%d", password=SPY, last=[str(number)])
            self.assertEqual(parsed(record)["text"], f"a {number}")
            self.assertEqual((parsed(record)["n"], parsed(record)["name"]), (number, "n%d"))
            self.assertEqual((parsed(record)["password"], parsed(record)["last"]), ("***", [str(number)]))

    def test_simple_events_take_the_short_way(self) -> None:
        self.patch(log_lines, "formatEvent", lambda *_: self.fail("formatted by Twisted"))
        self.patch(log_lines, "_json_members", lambda *_: self.fail("walked through"))
        self.assertEqual(parsed(event("{a} of {b}", event="e", a=1, b="c"))["text"], "1 of c")

    @settings(deadline=None, max_examples=200)
    @given(st.floats(-1e10, 3e11) | st.floats(1.7e9, 1.9e9) | st.integers(-10, 2**33))
    @example(1.9999999)
    @example(253402300799.0)
    @example(0.0)
    def test_the_time_is_the_moments(self, when: float) -> None:
        try:
            moment = datetime.fromtimestamp(when, UTC)
        except (ValueError, OverflowError, OSError):
            expected = None
        else:
            expected = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.assertEqual(parsed(event(log_time=when))["time"], expected)
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(math.floor(when)))
        self.assertTrue(text_line(event("x", log_time=when)).startswith(f"{local} info "))
