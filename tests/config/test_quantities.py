"""Sizes and times: what is taken, what is refused, and back again."""

from __future__ import annotations

import datetime as dt
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.quantities import (
    Range,
    parse_duration,
    parse_size,
    render_duration,
    render_size,
    show,
    toml,
    toml_key,
    with_unit,
)

SIZES = [
    (0, 0), (-5, -5), ("0 B", 0), ("50 MiB", 52_428_800), ("50MiB", 52_428_800), ("1GB", 10**9), ("1 gb", 10**9),
    ("1.5 KiB", 1536), (" 2 TiB ", 2**41), ("3 kb", 3000), ("9007199254740993 B", 9007199254740993),
]  # fmt: skip
DURATIONS = [
    (5, 5.0), (0.25, 0.25), ("5 min", 300.0), ("2h", 7200.0), ("30 s", 30.0), ("30 sec", 30.0), ("1 d", 86400.0),
    ("1.5 hours", 5400.0), ("250 ms", 0.25), ("1 Minute", 60.0), ("2 days", 172800.0), ("1 second", 1.0),
]  # fmt: skip
NEITHER = [True, [], {}, "", "5", "MiB", "-5 s", "+5 s", "1_0 s", "0x5 s", "5  ", "٣ s", "5 s s", "1e3 s", "5\ns",
           "1 .5 h", "5 parsecs"]  # fmt: skip


class ParseTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for value, octets in SIZES:
            with self.subTest(repr(value)):
                self.assertEqual(parse_size(value), octets)

    def test_durations(self) -> None:
        for value, seconds in DURATIONS:
            with self.subTest(repr(value)):
                self.assertEqual(parse_duration(value), seconds)

    def test_everything_else_is_refused(self) -> None:
        for value in [*NEITHER, 0.5, "0.5 B", "5 min", "5 m"]:
            with self.subTest(repr(value)):
                self.assertRaises(ValueError, parse_size, value)
        for value in [*NEITHER, float("inf"), float("nan"), "5 MiB", "5 m"]:
            with self.subTest(repr(value)):
                self.assertRaises(ValueError, parse_duration, value)

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, 10**18 - 1))
    def test_a_rendered_size_is_the_same_size(self, octets: int) -> None:
        text = render_size(octets).replace(",", "").replace("octets", "B")
        self.assertEqual(parse_size(text), octets)

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, 10**7))
    def test_a_rendered_duration_is_the_same_duration(self, seconds: int) -> None:
        self.assertEqual(parse_duration(render_duration(seconds).replace(",", "")), seconds)


class RenderTests(SynchronousTestCase):
    def test_the_largest_unit_that_fits_exactly(self) -> None:
        for number, unit, text in (
            (1023, "octets", "1,023 octets"), (1024, "octets", "1 KiB"), (1025, "octets", "1,025 octets"),
            (2**20, "octets", "1 MiB"), (2**40, "octets", "1 TiB"), (59, "seconds", "59 s"), (60, "seconds", "1 min"),
            (90, "seconds", "90 s"), (3600, "seconds", "1 h"), (86400, "seconds", "1 d"), (0.5, "seconds", "0.5 s"),
            (1000, "", "1,000"),
        ):  # fmt: skip
            self.assertEqual(with_unit(number, unit), text)


class RangeTests(SynchronousTestCase):
    def test_both_ends_are_included_and_nothing_beyond(self) -> None:
        allowed = Range(2, 5)
        self.assertEqual([allowed(2), allowed(5)], [2, 5])
        for number in (1, 6):
            self.assertRaises(ValueError, allowed, number)

    def test_it_says_what_would_be_right(self) -> None:
        error = self.assertRaises(ValueError, Range(1, 3600, "seconds"), 7200)
        self.assertEqual(str(error), "must be from 1 s to 1 h, not 2 h")


class TomlTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=200)
    @given(
        st.recursive(
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
            | st.datetimes() | st.dates(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        )
    )  # fmt: skip
    def test_what_is_written_reads_back(self, value: object) -> None:
        line = f"a = {toml(value)}\n"
        self.assertEqual(tomllib.loads(line)["a"], value)
        self.assertEqual(line.count("\n"), 1)

    def test_keys_are_quoted_only_where_they_must_be(self) -> None:
        self.assertEqual([toml_key(k) for k in ("a-b_1", "a.b", "", "é")], ["a-b_1", '"a.b"', '""', '"é"'])

    def test_what_has_no_form_is_refused(self) -> None:
        self.assertRaises(TypeError, toml, None)
        self.assertEqual(toml(dt.date(2026, 1, 2)), "2026-01-02")

    def test_a_shown_value_is_cut_to_60_characters(self) -> None:
        self.assertEqual(show("x" * 58), '"' + "x" * 58 + '"')
        self.assertEqual(show("x" * 59), '"' + "x" * 56 + "...")
