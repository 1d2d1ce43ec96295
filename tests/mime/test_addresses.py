"""Lists of addresses: what the strict and the lenient parser make of them, and how they are written."""

from __future__ import annotations

from email.utils import getaddresses

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.mime import addresses as addresses_module
from mailserver.mime.addresses import (
    AddressListError,
    Group,
    NamedAddress,
    format_addresses,
    format_name,
    mailboxes,
    parse_addresses,
)

A, B = NamedAddress("", "a@a.com"), NamedAddress("", "b@b.com")

#: Both parsers give the same: what it is, text, values.
BOTH = [
    ("TU3 bare", "a@a.com", [A]),
    ("TU3 in brackets", "<a@a.com>", [A]),
    ("TU3 named", "Name <a@a.com>", [NamedAddress("Name", "a@a.com")]),
    ("TU3 two words", "Two Words <a@a.com>", [NamedAddress("Two Words", "a@a.com")]),
    ("TU3 quoted", '"Quoted, Name" <a@a.com>', [NamedAddress("Quoted, Name", "a@a.com")]),
    ("TU3 escaped quotes", '"a \\"b\\" \\\\" <a@a.com>', [NamedAddress('a "b" \\', "a@a.com")]),
    ("TU3 UTF-8", "J\u00f6rg \u6211 <a@a.com>", [NamedAddress("J\u00f6rg \u6211", "a@a.com")]),
    ("TU3 a list of two", "a@a.com, <b@b.com>", [A, B]),
    ("TU2 an empty group", "undisclosed-recipients:;", [Group("undisclosed-recipients")]),
    ("TU2 a group", "friends:a@a.com,b@b.com;", [Group("friends", (A, B))]),
    ("TU5 a group among others", "b@b.com, x y: A <a@a.com>;, a@a.com",
     [B, Group("x y", (NamedAddress("A", "a@a.com"),)), A]),
    ("TU5 quoted local part", '"a b,"@a.com', [NamedAddress("", '"a b,"@a.com')]),
    ("TU5 domain literals", "a@[192.0.2.1], b@[IPv6:2001:db8::1]",
     [NamedAddress("", "a@[192.0.2.1]"), NamedAddress("", "b@[IPv6:2001:db8::1]")]),
    ("M77 comments", "(x) Name (y) <a@a.com> (z (nested \\) )), b@b.com", [NamedAddress("Name", "a@a.com"), B]),
    ("a comment that holds an address", "a@a.com (, c@c.com), b@b.com", None),
    ("folded", "Two\r\n Words\r\n\t<a@a.com>,\r\n b@b.com", [NamedAddress("Two Words", "a@a.com"), B]),
    ("dots in a name, RFC 5322 4.1", "John Q. Public <a@a.com>", [NamedAddress("John Q. Public", "a@a.com")]),
    ("an internationalised address", "\u6211@\u5c4b.example", [NamedAddress("", "\u6211@\u5c4b.example")]),
    ("blanks around the at sign", "a @ a.com", [A]),
    ("encoded words", "=?utf-8?b?SsO2?= =?utf-8?q?rg?= <a@a.com>", [NamedAddress("J\u00f6rg", "a@a.com")]),
    ("an encoded comma is no comma, RFC 2047 6.2", "=?utf-8?q?x=40x=2Ecom=2C_y?= <a@a.com>",
     [NamedAddress("x@x.com, y", "a@a.com")]),
    ("a quoted string that is only blanks", '"  " <a@a.com>', [NamedAddress("  ", "a@a.com")]),
]  # fmt: skip

#: What it is, text, what the lenient parser makes of it.  The strict one refuses.
LENIENT = [
    ("TU1 nothing", "", []),
    ("TU1 blanks", "   ", []),
    ("TU1 CRLF and tab", "\r\n\t", []),
    ("TU1 LF", "\n", []),
    ("TU1 a comma in brackets", "Jan <a,a@a.com>,b@b.com", [NamedAddress("Jan", "a,a@a.com"), B]),
    ("TU4 brackets in brackets", "a<b<c>>", [NamedAddress("a", "b")]),
    ("M77 a comma at the end", "a@a.com,", [A]),
    ("empty elements", ",, a@a.com ,, b@b.com", [A, B]),
    ("semicolons between", "a@a.com; b@b.com;", [A, B]),
    ("blanks between", "a@a.com b@b.com", [A, B]),
    ("name without brackets", "Joe Doe a@a.com", [NamedAddress("Joe Doe", "a@a.com")]),
    ("words behind", "<a@a.com> Joe", [NamedAddress("Joe", "a@a.com")]),
    ("source route, RFC 5322 4.4", "<@x.org,@y.org:a@a.com>", [A]),
    ("blanks around dots", "a@a . com", [A]),
    ("no end of brackets", "Joe <a@a.com, b@b.com", [NamedAddress("Joe", "a@a.com"), B]),
    ("no end of brackets, and others", "Joe <a@a.com, X <b@b.com>",
     [NamedAddress("Joe", "a@a.com"), NamedAddress("X", "b@b.com")]),
    ("no end of quotes", '"Joe <a@a.com>, b@b.com', [NamedAddress("Joe", "a@a.com"), B]),
    ("no end of a comment", "(Joe <a@a.com>, b@b.com", [NamedAddress("Joe", "a@a.com"), B]),
    ("no end of a comment, and one", "( Joe (x) <a@a.com>", [NamedAddress("Joe", "a@a.com")]),
    ("no end of a literal", "a@[192.0.2.1", [NamedAddress("", "a@192.0.2.1")]),
    ("no end of a group", "undisclosed-recipients:", [Group("undisclosed-recipients")]),
    ("a comma in an encoded word", "=?utf-8?Q?Doe,_J=C3=B6?= <a@a.com>", [NamedAddress("Doe, J\u00f6", "a@a.com")]),
    ("no address at all", "root", [NamedAddress("", "root")]),
    ("empty brackets", "Joe <>", [NamedAddress("Joe", "")]),
    ("two at signs", "a@b@c.com", [NamedAddress("", "a@b@c.com")]),
    ("a NUL", "a\0b@c.com", [NamedAddress("", "a\0b@c.com")]),
    ("a colon in a name", "Re: Joe <a@a.com>", [NamedAddress("Re: Joe", "a@a.com")]),
    ("group in a group", "x: y: a@a.com;, b@b.com;", None),
    ("a bare LF", "Joe\nDoe <a@a.com>", [NamedAddress("Joe Doe", "a@a.com")]),
    ("a backslash outside of quotes", "J\\oe <a@a.com>", [NamedAddress("J\\oe", "a@a.com")]),
    ("local part too long", "a" * 65 + "@a.com", [NamedAddress("", "a" * 65 + "@a.com")]),
    ("half a surrogate pair", "\ud800 <a@a.com>", None),
]  # fmt: skip

name_characters = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff")
names = st.text(name_characters, max_size=20) | st.text('a "\\,;:<>()[]@.=?_\u00e4', max_size=12)
locals_ = st.sampled_from(["a", "a.b", "a+b", '"a b"', '"a@b"', '"\\""', "j\u00f6rg", "!#$%&'*+-/=?^_`{|}~"])
domains = st.sampled_from(
    ["a.com", "x", "[192.0.2.1]", "[IPv6:2001:db8::1]", "b\u00fccher.example", "xn--bcher-kva.example"]
)
named = st.builds(lambda name, local, domain: NamedAddress(name, f"{local}@{domain}"), names, locals_, domains)
groups = st.builds(
    lambda name, members: Group(name, tuple(members)),
    names.filter(lambda n: n.strip(" ")),
    st.lists(named, max_size=3),
)


class BothTests(SynchronousTestCase):
    def test_what_is_right_is_the_same_to_both(self) -> None:
        for what, text, wanted in BOTH:
            strict = parse_addresses(text, strict=True)
            if wanted is not None:
                self.assertEqual(strict, wanted, what)
                self.assertEqual(parse_addresses(text), wanted, what)
            for each in mailboxes(strict):
                self.assertIsInstance(each.address, Address, what)

    def test_a_comment_never_holds_an_address(self) -> None:
        text = "a@a.com (, c@c.com), b@b.com"
        self.assertEqual(parse_addresses(text, strict=True), [A, B])
        self.assertEqual([each.text for each in mailboxes(parse_addresses(text))], ["a@a.com", "b@b.com"])

    def test_names_come_from_comments_only_where_the_reading_is_lenient(self) -> None:
        text = "a@a.com (Joe (the first) Doe)"
        self.assertEqual(parse_addresses(text), [NamedAddress("Joe (the first) Doe", "a@a.com")])
        self.assertEqual(parse_addresses(text, strict=True), [A])

    def test_python_finds_the_same_addresses(self) -> None:
        for what, text, wanted in BOTH:
            if wanted is None or any(mark in text for mark in ("=?", "\r\n", ":;")) or not text.isascii():
                continue
            theirs = [each for each in getaddresses([text]) if each[1]]
            self.assertEqual([address for _, address in theirs], [each.text for each in mailboxes(wanted)], what)


class LenientTests(SynchronousTestCase):
    def test_best_reading(self) -> None:
        for what, text, wanted in LENIENT:
            found = parse_addresses(text)
            if wanted is not None:
                self.assertEqual(found, wanted, what)

    def test_strictly_these_are_refused(self) -> None:
        for what, text, _ in LENIENT:
            with self.assertRaises(AddressListError, msg=what):
                parse_addresses(text, strict=True)

    def test_what_is_no_address_is_kept_and_says_so(self) -> None:
        found = mailboxes(parse_addresses("Jan <a,a@a.com>, b@b.com"))
        self.assertEqual([each.address for each in found], [None, Address("b", "b.com")])

    @given(st.text('ab@.,;:<>()[]"\\ \r\n\t=?q_\u00e4', max_size=60) | st.text(max_size=30))
    @example('"a\\')
    @example("(a\\")
    @settings(deadline=None, max_examples=500)
    def test_any_text_is_read(self, text: str) -> None:
        lenient = parse_addresses(text)
        try:
            strict = parse_addresses(text, strict=True)
        except AddressListError as error:
            self.assertTrue(str(error).isprintable() or not text.isprintable())
            return
        # Comments give names, and quoted encoded words are decoded, only where the reading is lenient.
        self.assertEqual([each.text for each in mailboxes(strict)], [each.text for each in mailboxes(lenient)])

    def test_no_token_is_looked_at_again_and_again(self) -> None:
        pieces = (
            '"',
            '"\\',
            "(",
            "(\\",
            "[",
            "[\\",
            "<",
            "=?",
            "=?a?q?",
            "g:",
            "a <",
            "(a",
            "a@",
            " (",
            "a:b;",
            "a@b,",
        )
        calls = 0
        real = addresses_module._Tokens._end_of_comment

        def counted(tokens: addresses_module._Tokens, start: int) -> int:
            nonlocal calls
            calls += tokens._nested
            return real(tokens, start)

        self.patch(addresses_module._Tokens, "_end_of_comment", counted)
        for piece in pieces:
            calls = 0
            tokens = addresses_module._Tokens(piece * 2000).all()
            self.assertEqual("".join(token.text for token in tokens), piece * 2000)
            # A search for the end of a nested comment goes to the end of the text once at most.
            self.assertLessEqual(calls, 1, piece)

    def test_after_a_quote_without_its_end_no_other_is_searched_for(self) -> None:
        tokens = addresses_module._Tokens('"a" "b')
        tokens.all()
        self.assertIs(tokens._pattern, addresses_module._TOKEN_UNQUOTED)


class ErrorTests(SynchronousTestCase):
    def failure(self, text: str) -> AddressListError:
        return self.assertRaises(AddressListError, parse_addresses, text, strict=True)

    def test_it_names_the_place_and_the_text(self) -> None:
        error = self.failure("a@a.com, Joe <b>")
        self.assertEqual((error.place, error.text), (14, "a@a.com, Joe <b>"))
        self.assertEqual(str(error), "not an address at character 15: 'a@a.com, Joe <b>'")

    def test_it_names_the_address_that_is_none(self) -> None:
        error = self.failure("a@a.com, joe@-x.org")
        self.assertIn("'joe@-x.org'", str(error))

    def test_what_is_missing_is_said(self) -> None:
        for text, reason in (
            ("", "no address"),
            ("a@a.com b@b.com", "label"),
            ("<a@a.com", "a bracket without its end"),
            ("a: b@b.com", "a group without its semicolon"),
            ('"a', "a quote without its end"),
            ("(a", "a comment without its end"),
            ("a@a.com,", "an address is missing"),
            ("<a@a.com> <b@b.com>", "a comma is missing"),
            ("a\x01 <a@a.com>", "a control character"),
            ("a@a.com\r\n, b@b.com", "a control character"),
            (".a <a@a.com>", "a name that begins with a dot"),
        ):
            self.assertIn(reason, str(self.failure(text)), text)

    def test_a_long_text_is_quoted_in_part(self) -> None:
        self.assertLess(len(str(self.failure("x" * 10_000))), 200)


class FormatTests(SynchronousTestCase):
    def test_names_are_quoted_where_they_must_be(self) -> None:
        # M79, TU4
        for name, written in (
            ("Joe Doe", "Joe Doe"),
            ("J\u00f6rg", "J\u00f6rg"),
            ("O'Neill", "O'Neill"),
            ("Doe, Joe", '"Doe, Joe"'),
            ('a "b" \\', '"a \\"b\\" \\\\"'),
            ("J. Doe", '"J. Doe"'),
            ("a@b", '"a@b"'),
            ("<a>", '"<a>"'),
            ("a:b;c", '"a:b;c"'),
            ("[a]", '"[a]"'),
            ("(a)", '"(a)"'),
            (" a", '" a"'),
            ("a  b", '"a  b"'),
            ("a\r\nBcc: b", '"a  Bcc: b"'),
            ("a\0b", "a b"),
            ("=?utf-8?q?a?=", '"=?utf-8?q?a?="'),
            ("", ""),
        ):
            self.assertEqual(format_name(name), written, name)

    def test_lists(self) -> None:
        self.assertEqual(format_addresses([]), "")
        self.assertEqual(format_addresses([A, NamedAddress("X, Y", "b@b.com")]), 'a@a.com, "X, Y" <b@b.com>')
        self.assertEqual(format_addresses([Group("g", (A, B)), Group("h")]), "g: a@a.com, b@b.com;, h:;")

    def test_what_is_no_address_is_not_written(self) -> None:
        error = self.assertRaises(AddressListError, format_addresses, [A, Group("g", (NamedAddress("x", "a,b@c"),))])
        self.assertIn("'a,b@c'", str(error))

    def test_a_value_that_is_no_address_can_be_shown(self) -> None:
        self.assertEqual(str(NamedAddress("Jan", "a\r\nb")), "Jan <a  b>")
        self.assertEqual(str(NamedAddress("", "root")), "<root>")

    @given(st.lists(named | groups, min_size=1, max_size=4))
    @settings(deadline=None)
    def test_TU5_what_is_written_is_read_back(self, values: list[NamedAddress | Group]) -> None:
        self.assertEqual(parse_addresses(format_addresses(values), strict=True), values)
