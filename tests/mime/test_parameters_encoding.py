"""Parameters of Content-Type and Content-Disposition, written (RFC 2045 5.1, RFC 2231)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.parameters import encode_parameters, parse_content_type

#: TM10: what it is, value, the pieces for `a`.
VALUES = [
    ("a token", "b", [" a=b"]),
    ("nothing", "", [' a=""']),
    ("a token of 76 columns", "x" * 74, [" a=" + "x" * 74]),
    ("one more", "x" * 75, [' a*0="' + "x" * 70 + '"', ' a*1="xxxxx"']),
    ("tspecials", 'b;c/d"e\\f', [' a="b;c/d\\"e\\\\f"']),
    ("a single quote, which some take for one", "it's", [' a="it\'s"']),
    ("a percent sign", "100%", [' a="100%"']),
    ("a blank", "b c", [' a="b c"']),
    ("a NUL", "b\0", [" a*=utf-8''b%00"]),
    ("a line end", "b\r\nX: y", [" a*=utf-8''b%0D%0AX%3A%20y"]),
    ("beyond ASCII", "\u00e4 b", [" a*=utf-8''%C3%A4%20b"]),
    ("what looks like an encoded word", "=?utf-8?q?b?=", [" a*=utf-8''%3D%3Futf-8%3Fq%3Fb%3F%3D"]),
    ("long, beyond ASCII", "\u00e4" * 20,
     [" a*0*=utf-8''" + "%C3%A4" * 10, " a*1*=" + "%C3%A4" * 10]),
    ("half a surrogate pair", "\ud800", [" a*=utf-8''%3F"]),
]  # fmt: skip


class EncodeParametersTests(SynchronousTestCase):
    def test_values(self) -> None:
        for what, value, pieces in VALUES:
            self.assertEqual(encode_parameters([("a", value)]), pieces, what)

    def test_in_their_order(self) -> None:
        self.assertEqual(encode_parameters([("b", "1"), ("a", "2 3")]), [" b=1", ' a="2 3"'])

    def test_utf8_goes_as_it_is_where_that_is_allowed(self) -> None:
        self.assertEqual(encode_parameters([("a", "\u00e4 b")], utf8=True), [' a="\u00e4 b"'])
        self.assertEqual(encode_parameters([("a", "\u00e4\n")], utf8=True), [" a*=utf-8''%C3%A4%0A"])

    def test_a_boundary_is_never_cut(self) -> None:
        self.assertEqual(len(encode_parameters([("boundary", "x" * 100)])), 1)

    def test_what_is_no_name_is_refused(self) -> None:
        for name in ("", "a b", "a*", "a=b", "a;b", "a\r\n", "\u00e4", "a'b", "a%"):
            error = self.assertRaises(ValueError, encode_parameters, [(name, "x")])
            self.assertIn(repr(name), str(error))

    @given(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufeff"), max_size=200), st.booleans()
    )
    @settings(deadline=None)
    def test_they_are_read_back(self, value: str, utf8: bool) -> None:
        pieces = encode_parameters([("a", value), ("b", "c")], utf8=utf8)
        field = "x/y;" + ";".join(pieces)
        for character in "\r\n\0":
            self.assertNotIn(character, field)
        for piece in pieces:
            self.assertLessEqual(len(piece), 77)
        # What decodes a parameter makes blanks of line ends and NUL, so that they do no harm.
        harmless = value.replace("\r", " ").replace("\n", " ").replace("\0", " ")
        self.assertEqual(parse_content_type(field.encode()).parameters, {"a": harmless, "b": "c"})
