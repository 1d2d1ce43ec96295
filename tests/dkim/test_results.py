"""Results as values and as an Authentication-Results field that no signer can write into."""

from __future__ import annotations

import dataclasses
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import AddressError
from mailserver.dkim.results import Outcome, Result, Verification, Weakness, short_signature

GOOD = Result(
    Outcome.PASS,
    domain="example.org",
    selector="s1",
    identity="joe@example.org",
    algorithm="rsa-sha256",
    bits=2048,
    signature="AbC/+def",
)

# RFC 8601 2.2, for what is written here: a result, a reason, properties; values are tokens, quoted strings, addresses.
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f-\U0010ffff]|\\[ -~])*"'
_VALUE = rf"(?:[^\s;\"()<>@,:\\/\[\]?=]+|{_QUOTED})"
RESINFO = re.compile(
    rf"dkim=(?:pass|fail|neutral|permerror|temperror|policy)(?: reason={_QUOTED})?"
    rf"(?: header\.(?:[dsab]={_VALUE}|i=(?:[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]+|{_QUOTED})?@[a-z0-9._-]+))*\Z"
)


class TextTests(SynchronousTestCase):
    def test_a_result_in_words(self) -> None:
        self.assertEqual(
            GOOD.text,
            "dkim=pass header.d=example.org header.i=joe@example.org header.s=s1 header.a=rsa-sha256 "
            'header.b="AbC/+def"',
        )

    def test_the_reason_and_the_test_mode_are_told(self) -> None:
        self.assertEqual(Result(Outcome.FAIL, "no").text, 'dkim=fail reason="no"')
        self.assertEqual(Result(Outcome.PASS, testing=True).text, 'dkim=pass reason="testing"')
        self.assertEqual(Result(Outcome.NEUTRAL, "no", testing=True).text, 'dkim=neutral reason="no, testing"')

    def test_identities_are_made_safe(self) -> None:
        for identity, text in [
            ("@example.org", "header.i=@example.org"),
            ("a b@example.org", 'header.i="a b"@example.org'),
            ('a"\\b@example.org', 'header.i="a\\"\\\\b"@example.org'),
            ("a@b@example.org", 'header.i="a@b"@example.org'),
            ("x; dkim=pass@example.org", 'header.i="x; dkim=pass"@example.org'),
            ("a\r\nb@example.org", "header.i=@example.org"),
            ("\u00fc@b\u00fccher.example", "header.i=@xn--bcher-kva.example"),
            ("a" * 65 + "@example.org", "header.i=@example.org"),
            ("nothing", ""),
            ("a@b c", ""),
        ]:
            self.assertEqual(Result(Outcome.FAIL, identity=identity).text, f"dkim=fail {text}".strip(), identity)

    @given(st.builds(Result, st.sampled_from(Outcome), reason=st.text(), identity=st.text(), signature=st.text()))
    @settings(deadline=None, max_examples=300)
    def test_whatever_stands_in_a_result_the_text_has_the_form_of_the_rfc(self, result: Result) -> None:
        self.assertRegex(result.text, RESINFO)
        self.assertRegex(result.text, r"\A[ -~]+\Z")

    def test_results_cannot_be_changed(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            GOOD.outcome = Outcome.FAIL  # type: ignore[misc]


class FieldTests(SynchronousTestCase):
    def test_without_signatures(self) -> None:
        self.assertEqual(
            Verification().authentication_results("MX.example.org"),
            b"Authentication-Results: mx.example.org;\r\n\tdkim=none\r\n",
        )

    def test_every_signature_has_its_lines(self) -> None:
        field = Verification((GOOD, Result(Outcome.FAIL, "why", "example.com"))).authentication_results(
            "mx.example.org"
        )
        self.assertEqual(
            field,
            b"Authentication-Results: mx.example.org;\r\n"
            b"\tdkim=pass header.d=example.org header.i=joe@example.org header.s=s1\r\n"
            b'\t header.a=rsa-sha256 header.b="AbC/+def";\r\n'
            b'\tdkim=fail reason="why" header.d=example.com\r\n',
        )

    def test_no_line_is_longer_than_998_octets(self) -> None:
        name = ".".join(["a" * 61] * 4)
        result = Result(
            Outcome.PASS, "r" * 70, name, name, "a" * 64 + "@" + name, "ed25519-sha256", signature="=" * 8
        )
        for line in Verification((result,) * 10).authentication_results(name).split(b"\r\n"):
            self.assertLess(len(line), 400)

    def test_the_name_of_the_server_must_be_one(self) -> None:
        for name in ("", "mx example", "mx;dkim=pass", "mx\r\nX: y"):
            self.assertRaises(AddressError, Verification().authentication_results, name)

    @given(st.lists(st.builds(Result, st.sampled_from(Outcome), reason=st.text(), identity=st.text()), max_size=3))
    @settings(deadline=None, max_examples=100)
    def test_nothing_begins_a_line_of_its_own(self, results: list[Result]) -> None:
        field = Verification(tuple(results)).authentication_results("mx.example.org")
        self.assertTrue(field.endswith(b"\r\n"))
        first, *rest = field[:-2].split(b"\r\n")
        self.assertEqual(first, b"Authentication-Results: mx.example.org;")
        for line in rest:
            self.assertRegex(line, rb"\A\t[ -~]+\Z")


class DomainsTests(SynchronousTestCase):
    def test_only_what_passes_and_is_no_test_counts(self) -> None:
        results = (
            GOOD,
            Result(Outcome.FAIL, domain="a.example"),
            Result(Outcome.POLICY, domain="b.example"),
            Result(Outcome.PASS, domain="c.example", testing=True),
            Result(Outcome.PASS, domain="d.example", weaknesses=(Weakness.SHORT_KEY,)),
        )
        self.assertEqual(Verification(results).domains, {"example.org", "d.example"})


class ShortSignatureTests(SynchronousTestCase):
    def test_the_first_eight_characters_tell_signatures_apart(self) -> None:
        for text, short in [("AbC/+def1234", "AbC/+def"), (" A bC/ +def1", "AbC/+def"), ("abc", "abc"), ("", "")]:
            self.assertEqual(short_signature(text), short)
        for text in ("\u00fc", "a\x00"):
            self.assertEqual(short_signature(text), "")
