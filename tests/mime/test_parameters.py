"""Fields with parameters (TM1 to TM3, TM10, M26 to M28); most rows are in corpus_headers.py."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.parameters import (
    PLAIN_TEXT,
    decode_parameters,
    parse_content_type,
    parse_disposition,
    strip_comments,
)

#: TM1.
COMMENTS = [
    (b"", b""),
    (b"a", b"a"),
    (b"(a)b", b"b"),
    (b"a (b) c", b"a  c"),
    (b"a (b (c) d) e", b"a  e"),
    (b"(\\)\\\\)", b""),
    (b"(\\()x", b"x"),
    (b'"Height (from xkcd).eml"', b'"Height (from xkcd).eml"'),
    (b'"a\\"(b)" (c)', b'"a\\"(b)" '),
    (b"a\\b", b"a\\b"),
    (b"a\\(b(c)", b"a\\(b"),
    (b"a (b", b"a "),
    (b"a) b", b"a) b"),
    (b'"a (b) c', b'"a  c'),
    (b'"" (a) "', b'""  "'),
    (b"a\\", b"a\\"),
]

PIECES = st.lists(
    st.sampled_from(
        [
            b";",
            b"=",
            b'"',
            b"(",
            b")",
            b"\\",
            b" ",
            b"\t",
            b"text/plain",
            b"a",
            b"*",
            b"*0",
            b"*1*",
            b"'",
            b"%E4",
            b"=?utf-8?q?a?=",
            b"\xff",
            b"\r\n ",
        ]
    ),
    max_size=30,
).map(b"".join)


class CommentTests(SynchronousTestCase):
    def test_comments_are_taken_out(self) -> None:
        for text, left in COMMENTS:
            self.assertEqual(strip_comments(text), left, text)

    def test_a_deep_comment_costs_no_recursion(self) -> None:
        self.assertEqual(strip_comments(b"(" * 100_000 + b"x" + b")" * 100_000 + b"y"), b"y")

    @given(PIECES)
    @settings(deadline=None, max_examples=300)
    def test_what_is_left_has_no_comment_that_ends(self, text: bytes) -> None:
        left = strip_comments(text)
        self.assertLessEqual(len(left), len(text))


class ParameterTests(SynchronousTestCase):
    def test_a_type_is_lower_case_and_its_parameters_keep_their_case(self) -> None:
        found = parse_content_type(b"Text/HTML; Charset=UTF-8")
        self.assertEqual((found.type, found.subtype, found.parameters), ("text", "html", {"charset": "UTF-8"}))

    def test_parameters_are_a_new_dict_each_time(self) -> None:
        found = parse_content_type(b"text/plain; a=b")
        found.parameters["a"] = "c"
        self.assertEqual(found.parameters, {"a": "b"})
        PLAIN_TEXT.parameters["x"] = "y"
        self.assertEqual(PLAIN_TEXT.parameters, {})

    def test_a_boundary_keeps_its_octets(self) -> None:
        for field, boundary in (
            (b"multipart/mixed; boundary=b", b"b"),
            (b'multipart/mixed; boundary="\xe4 b "', b"\xe4 b"),
            (b'multipart/mixed; boundary="=?utf-8?q?a?="', b"=?utf-8?q?a?="),
            (b"multipart/mixed; boundary*=utf-8''a%20b", b"a b"),
            (b"multipart/mixed; boundary*0=a; boundary*1=b", b"ab"),
            (b"multipart/mixed; boundary=", None),
            (b'multipart/mixed; boundary=" "', None),
            (b"multipart/mixed", None),
        ):
            self.assertEqual(parse_content_type(field).boundary, boundary, field)

    def test_the_same_with_and_without_care(self) -> None:
        """A comment at the end makes the careful way be taken; it finds the same."""
        for field in (b"text/plain; a=b; C=d", b'text/plain; a="b;c" ; d="e"', b"text/plain;a=b;"):
            plain, careful = parse_content_type(field), parse_content_type(b"text/plain (c)" + field[10:])
            self.assertEqual(plain.parameters, careful.parameters)

    def test_most_parameters(self) -> None:
        for most in (1, 2, 3):
            field = b"text/plain; a=1; b=2; c=3"
            self.assertEqual(len(parse_content_type(field, most).parameters), most)
            self.assertEqual(len(parse_disposition(field, most)[0].parameters), most)

    def test_a_continuation_with_a_number_of_five_digits_is_one(self) -> None:
        self.assertEqual(decode_parameters([(b"a*99999", b"x"), (b"a*0", b"y")])[0], {"a": "yx"})
        self.assertEqual(decode_parameters([(b"a*999999", b"x")])[0], {"a*999999": "x"})

    @given(PIECES | st.binary(max_size=60))
    @settings(deadline=None, max_examples=500)
    def test_any_octets_are_a_type_and_a_disposition(self, field: bytes) -> None:
        found = parse_content_type(field)
        self.assertTrue(found.type and found.subtype)
        self.assertEqual(found.type, found.type.lower())
        disposition, _ = parse_disposition(field)
        for parameters in (found.parameters, disposition.parameters):
            for name, value in parameters.items():
                self.assertEqual(name, name.lower())
                self.assertFalse({"\r", "\n", "\0"} & {*value})

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z]{1,8}", fullmatch=True),
            st.text(st.characters(min_codepoint=32, max_codepoint=126)),
            max_size=5,
        )
    )
    @settings(deadline=None, max_examples=200)
    def test_values_in_quotes_come_back(self, parameters: dict[str, str]) -> None:
        if any("=?" in value for value in parameters.values()):
            return  # may be an encoded word
        escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
        field = "text/plain" + "".join(f'; {name}="{value}"' for name, value in escaped.items())
        self.assertEqual(parse_content_type(field.encode()).parameters, parameters)
        self.assertEqual(parse_content_type(field.encode()).problems, [])
