"""Tag lists: the grammar, nothing around it, and the forms of values."""

from __future__ import annotations

import base64
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim.tags import (
    MOST_TAGS,
    BadTags,
    decode_quoted,
    encode_quoted,
    parse_base64,
    parse_list,
    parse_number,
    parse_tags,
    without_signature,
)

#: text, tags
LISTS = [
    (b"a=b", {"a": "b"}),
    (b" a = b ; c=d;", {"a": "b", "c": "d"}),
    (b"a=b;\r\n\tc=\r\n d \r\n\t;\r\n ", {"a": "b", "c": "d"}),
    (b"a=b\r\n", {"a": "b"}),
    (b"a=", {"a": ""}),
    (b"a=b=c==", {"a": "b=c=="}),
    (b"a=b c\td", {"a": "b c\td"}),
    (b"A=1;a=2", {"A": "1", "a": "2"}),
    (b"x_9=!<~", {"x_9": "!<~"}),
    ("a=b\u00fccher.example".encode(), {"a": "b\u00fccher.example"}),
    (b"a\r\n =\r\n\tb", {"a": "b"}),
]

NO_LISTS = [
    b"",
    b";",
    b" ",
    b"a",
    b"=b",
    b"a=b;;c=d",
    b";a=b",
    b"a=b;;",
    b"9=b",
    b"_a=b",
    b"a-b=c",
    b"a b=c",
    b"\xc3\xbc=c",
    b"a=b;a=b",
    b"a=b;c=d; a =e",
    b"a=b\rc",
    b"a=b\nc",
    b"a=b\r\nc=d",
    b"a=b\n c",
    b"a=b\x00",
    b"a=\x7f",
    b"a=\xff",
    b"a=b\x0b",
]


class ListTests(SynchronousTestCase):
    def test_lists_are_read(self) -> None:
        for text, tags in LISTS:
            self.assertEqual(parse_tags(text), tags, text)

    def test_what_is_no_list_is_refused(self) -> None:
        for text in NO_LISTS:
            with self.assertRaises(BadTags, msg=text):
                parse_tags(text)

    def test_a_hundred_tags_are_enough(self) -> None:
        tags = [b"t%d=x" % number for number in range(MOST_TAGS)]
        self.assertEqual(len(parse_tags(b";".join(tags) + b";")), MOST_TAGS)
        self.assertRaises(BadTags, parse_tags, b";".join([*tags, b"more=x"]))

    def test_the_order_is_kept(self) -> None:
        self.assertEqual(list(parse_tags(b"z=1;v=2;a=3")), ["z", "v", "a"])

    @given(st.binary(max_size=80))
    @settings(deadline=None, max_examples=300)
    def test_any_octets_are_a_list_or_refused(self, text: bytes) -> None:
        try:
            tags = parse_tags(text)
        except BadTags:
            return
        for name, value in tags.items():
            self.assertRegex(name, r"\A[A-Za-z][A-Za-z0-9_]*\Z")
            self.assertNotRegex(value, r"[\x00-\x08\x0a-\x1f\x7f;]")

    def test_reasons_hold_nothing_of_the_list(self) -> None:
        for text in (b"secret", b"a=secret\x00", b"secret=a;secret=b"):
            self.assertNotIn("secret", str(self.assertRaises(BadTags, parse_tags, text)))


class SignatureValueTests(SynchronousTestCase):
    def test_the_value_of_b_goes_and_nothing_else(self) -> None:
        for field, rest in [
            (b"X: v=1; b=abc\r\n", b"X: v=1; b="),
            (b"X: v=1; b=\r\n abc =\r\n", b"X: v=1; b="),
            (b"X: b=abc ; bh=b=b; c=b\r\n", b"X: b=; bh=b=b; c=b"),
            (b"X: bh=b; B=b;\r\n\tb\t=\r\n\tabc\r\n\t;\r\n t=1\r\n", b"X: bh=b; B=b;\r\n\tb\t=;\r\n t=1"),
            (b"X: v=1;\r\n b\r\n = abc;", b"X: v=1;\r\n b\r\n =;"),
            (b"X: v=1", b"X: v=1"),
        ]:
            self.assertEqual(without_signature(field), rest, field)


class ValueTests(SynchronousTestCase):
    def refuses(self, parse: Callable[[str], object], *values: str) -> None:
        for value in values:
            with self.assertRaises(BadTags, msg=repr(value)):
                parse(value)

    def test_lists_with_colons(self) -> None:
        self.assertEqual(parse_list("from : to:\tsubject"), ("from", "to", "subject"))
        self.refuses(parse_list, "", ":", "a:", ":a", "a: :b")

    def test_base64_with_blanks(self) -> None:
        self.assertEqual(parse_base64("YW Jj\tZA = ="), b"abcd")
        self.refuses(
            parse_base64, "", "=", "YWJjZA", "YWJjZA=", "YWJj-_==", "YWJjZA==YWJj", "Y=Jj", "YWJj====", "YWJ\u00fc"
        )

    def test_numbers_are_ascii_digits(self) -> None:
        self.assertEqual([parse_number(value, 12) for value in ("0", "007", "9" * 12)], [0, 7, 10**12 - 1])
        self.refuses(
            lambda value: parse_number(value, 12),
            "",
            "-1",
            "+1",
            "1_0",
            "1 0",
            "0x1",
            "\u0661",
            "\u00b2",
            "1" * 13,
            "1.0",
        )

    def test_quoted_printable(self) -> None:
        self.assertEqual(decode_quoted("jo=65 =3D\t=3B=C3=BC\u00fc"), "joe=;\u00fc\u00fc")
        self.refuses(decode_quoted, "=", "=4", "=4g", "=c3=bc", "=FF", "a;b", "a\x00", "=C3\u00fc")

    @given(st.text(max_size=20))
    @settings(deadline=None, max_examples=200)
    def test_what_is_quoted_is_safe_and_comes_back(self, text: str) -> None:
        try:
            quoted = encode_quoted(text)
        except UnicodeEncodeError:  # half a surrogate pair is no text
            return
        self.assertRegex(quoted, r"\A[!-:<-{}~]*\Z")
        self.assertEqual(decode_quoted(quoted), text)
        self.assertEqual(parse_tags(b"i=" + quoted.encode())["i"], quoted)

    @given(st.binary(min_size=1, max_size=60))
    @settings(deadline=None, max_examples=100)
    def test_base64_comes_back(self, octets: bytes) -> None:
        self.assertEqual(parse_base64(base64.b64encode(octets).decode()), octets)
