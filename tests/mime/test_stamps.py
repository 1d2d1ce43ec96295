"""Dates, identifiers, boundaries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import stamps
from mailserver.mime.stamps import format_date, generate_boundary, generate_message_id, random_token


class DateTests(SynchronousTestCase):
    def test_M74_seconds_are_written_in_utc(self) -> None:
        self.assertEqual(format_date(1795189361), "Fri, 20 Nov 2026 15:42:41 +0000")
        self.assertEqual(format_date(1795189361.9), "Fri, 20 Nov 2026 15:42:41 +0000")

    def test_the_day_has_no_zero_before_it(self) -> None:
        self.assertEqual(format_date(0), "Thu, 1 Jan 1970 00:00:00 +0000")

    def test_a_datetime_keeps_its_zone(self) -> None:
        for hours, zone in ((2, "+0200"), (-3.5, "-0330"), (0, "+0000"), (5.75, "+0545")):
            when = datetime(2026, 11, 20, 15, 42, 41, tzinfo=timezone(timedelta(hours=hours)))
            self.assertEqual(format_date(when), f"Fri, 20 Nov 2026 15:42:41 {zone}")

    def test_a_datetime_without_a_zone_is_in_utc(self) -> None:
        self.assertEqual(format_date(datetime(2026, 11, 20, 15, 42, 41)), "Fri, 20 Nov 2026 15:42:41 +0000")  # noqa: DTZ001

    def test_now_is_what_the_clock_says(self) -> None:
        self.patch(stamps.time, "time", lambda: 1795189361.5)
        self.assertEqual(format_date(), "Fri, 20 Nov 2026 15:42:41 +0000")

    @given(st.datetimes(datetime(1900, 1, 2), datetime(2200, 1, 1)), st.integers(-12 * 60, 14 * 60))  # noqa: DTZ001
    @settings(deadline=None)
    def test_python_reads_the_same(self, when: datetime, minutes: int) -> None:
        when = when.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
        self.assertEqual(parsedate_to_datetime(format_date(when)).astimezone(UTC), when.astimezone(UTC))


class MessageIdTests(SynchronousTestCase):
    def test_M75_it_holds_time_token_and_domain(self) -> None:
        made = generate_message_id("Example.ORG", now=1795189361.2, token="abc")
        self.assertEqual(made, "<1795189361.abc@example.org>")

    def test_domains(self) -> None:
        for domain, right in (
            ("b\u00fccher.example", "xn--bcher-kva.example"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[ipv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("localhost", "localhost"),
        ):
            self.assertTrue(generate_message_id(domain, now=0, token="t").endswith(f"@{right}>"), domain)

    def test_what_is_no_domain_is_refused_by_name(self) -> None:
        for domain in ("", "a b", "a>\r\nX: y", "a..b"):
            error = self.assertRaises(ValueError, generate_message_id, domain)
            self.assertIn(repr(domain), str(error))

    def test_two_are_not_the_same(self) -> None:
        self.assertNotEqual(generate_message_id("a.b", now=0), generate_message_id("a.b", now=0))


class BoundaryTests(SynchronousTestCase):
    def test_M76_it_cannot_stand_in_quoted_printable_or_base64(self) -> None:
        self.assertEqual(generate_boundary("0" * 32), "=_" + "0" * 32 + "==")
        self.assertLessEqual(len(generate_boundary()), 70)  # RFC 2046 5.1.1

    def test_two_are_not_the_same(self) -> None:
        self.assertNotEqual(generate_boundary(), generate_boundary())

    def test_a_token_has_128_bits(self) -> None:
        self.assertRegex(random_token(), r"\A[0-9a-f]{32}\Z")
