"""The limits: their defaults are those of the documents, and each has a unit, a reason and a range it lies in."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from mailserver.limits import AUTH_TOGETHER, COUNTED_TOGETHER, DEFAULT_LIMITS, Limits

MIB = 1024 * 1024

#: name, default, least, most that the RFCs or the reason of the limit demand
DEFAULTS = [
    ("command_line", 4096, "RFC 3461 5.4: 1,036 and the parameters", 2048),
    ("auth_line", 16_384, "RFC 4954 4: 12,288", None),
    ("line_without_end", 65_536, "", None),
    ("text_line", MIB, "RFC 5321 4.5.3.1.6: at least 998 and CRLF", 998),
    ("message_size", 52_428_800, "RFC 5321 4.5.3.1.7: at least 64 KiB", 65_536),
    ("header_size", MIB, "", None),
    ("header_lines", 10_000, "", None),
    ("received_fields", 100, "RFC 5321 6.3: at least 100 by default", None),
    ("recipients", 1000, "RFC 5321 4.5.3.1.8: at least 100", 100),
    ("unknown_recipients", 20, "", None),
    ("messages_per_connection", 1000, "", None),
    ("errors_before_delay", 10, "", None),
    ("error_delay", 1.0, "", None),
    ("errors", 20, "", None),
    ("idle_commands", 100, "", None),
    ("hold", 2_592_000.0, "30 days; RFC 4865 sets no number", 0.0),
    ("held_messages", 1000, "", None),
    ("proxy_header_timeout", 5.0, "", None),
    ("tls_handshake_timeout", 30.0, "", None),
    ("command_timeout", 300.0, "RFC 5321 4.5.3.2.7", None),
    ("busy_command_timeout", 30.0, "", None),
    ("text_timeout", 180.0, "RFC 5321 4.5.3.2.5", None),
    ("text_rate", 500, "", None),
    ("text_grace", 60.0, "", None),
    ("connection_time", 3600.0, "", None),
    ("decision_timeout", 110.0, "", None),
    ("unread_timeout", 60.0, "", None),
    ("closing_timeout", 5.0, "", None),
    ("connections", 1000, "", None),
    ("connections_per_client", 50, "", None),
    ("connection_rate", 300, "", None),
    ("messages_per_minute", 1000, "", None),
    ("recipients_per_minute", 10_000, "", None),
    ("auth_failures", 3, "", None),
    ("auth_failure_delay", 2.0, "", None),
    ("auth_failure_delay_most", 15.0, "", None),
    ("auth_failures_per_minute", 10, "", None),
    ("auth_failures_per_day", 50, "", None),
    ("auth_delays", 20, "", None),
]


class LimitsTests(SynchronousTestCase):
    def test_the_defaults_are_those_of_the_table(self) -> None:
        self.assertEqual({name: default for name, default, _, _ in DEFAULTS}, dataclasses.asdict(DEFAULT_LIMITS))

    def test_no_limit_can_be_set_below_what_the_rfc_asks_for(self) -> None:
        fields = {field.name: field for field in dataclasses.fields(Limits)}
        for name, _, why, least in DEFAULTS:
            if least is not None:
                self.assertEqual(fields[name].metadata["least"], least, why)

    def test_each_has_a_unit_a_reason_and_a_default_in_its_range(self) -> None:
        for field in dataclasses.fields(Limits):
            known = field.metadata
            self.assertEqual(set(known), {"unit", "least", "most", "reason"}, field.name)
            self.assertIn(known["unit"], ("octets", "seconds", ""), field.name)
            self.assertTrue(0 <= known["least"] <= field.default <= known["most"], field.name)
            self.assertLess(known["least"], known["most"], field.name)
            self.assertRegex(known["reason"], r"^[A-Z].*\.$", field.name)

    def test_a_number_of_seconds_may_have_a_fraction_and_nothing_else_may(self) -> None:
        for field in dataclasses.fields(Limits):
            kind = float if field.metadata["unit"] == "seconds" else int
            for value in (field.default, field.metadata["least"], field.metadata["most"]):
                self.assertIs(type(value), kind, field.name)

    def test_those_that_are_counted_together_are_limits(self) -> None:
        names = {field.name for field in dataclasses.fields(Limits)}
        self.assertEqual({*COUNTED_TOGETHER, *AUTH_TOGETHER} - names, set())

    def test_the_defaults_go_together(self) -> None:
        limits = DEFAULT_LIMITS
        self.assertLess(limits.command_line, limits.auth_line)
        self.assertLess(limits.auth_line, limits.line_without_end)
        self.assertLess(limits.header_size, limits.message_size)
        self.assertLess(limits.errors_before_delay, limits.errors)
        self.assertLess(limits.busy_command_timeout, limits.command_timeout)
        self.assertLess(limits.decision_timeout, limits.command_timeout)
        self.assertLess(limits.auth_failure_delay, limits.auth_failure_delay_most)
        self.assertLess(limits.connections_per_client, limits.connections)

    def test_they_cannot_be_changed(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            DEFAULT_LIMITS.errors = 1  # type: ignore[misc]
