"""Patterns of addresses: what they match, whatever its case, and what is no pattern."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.address_patterns import compile_pattern

#: pattern, addresses that it matches, addresses that it does not
MATCHES = [
    (
        "tickets+*@example.org",
        ["tickets+1@example.org", "Tickets+@EXAMPLE.org"],
        ["tickets@example.org", "x+1@example.org"],
    ),
    ("*@example.org", ["a@example.org"], ["a@sub.example.org", "a@example.org.example.net"]),
    ("*@*.example.org", ["a@x.example.org", "a@x.y.example.org"], ["a@example.org"]),
    ("a?@example.org", ["ab@example.org"], ["a@example.org", "abc@example.org"]),
    ("*", ["a@example.org", "b@[192.0.2.1]"], []),
    ("a.b@example.org", ["a.b@example.org"], ["axb@example.org"]),
    ("a[bc]@example.org", [], ["ab@example.org"]),
    ("*@bücher.example", ["a@xn--bcher-kva.example", "a@Bücher.example"], ["a@bucher.example"]),
    ("*@[192.0.2.1]", ["a@[192.0.2.1]"], ["a@192.0.2.1"]),
    ("STRASSE@example.org", ["straße@example.org"], []),
]
#: no pattern, a word of the reason
BAD = [
    ("example.org", "@"),
    ("@example.org", "@"),
    ("a@", "@"),
    ("a b@example.org", "blank"),
    ("a@exa_mple..org", "label"),
    ("a\n@example.org", "control"),
]


class PatternTests(SynchronousTestCase):
    def test_what_a_pattern_matches(self) -> None:
        for pattern, yes, no in MATCHES:
            compiled = compile_pattern(pattern)
            for text in yes + no:
                local, _, domain = text.rpartition("@")
                try:
                    key = Address(local, domain).key
                except ValueError:
                    key = text
                self.assertEqual(bool(compiled.fullmatch(key)), text in yes, f"{pattern} {text}")

    def test_what_is_no_pattern_says_why(self) -> None:
        for pattern, word in BAD:
            error = self.assertRaises(ValueError, compile_pattern, pattern)
            self.assertIn(word, str(error), pattern)
