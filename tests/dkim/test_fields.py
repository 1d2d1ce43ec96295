"""The header section: where it ends, however the message is cut; its fields; which of them a name stands for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim.canonical import Canonicalization
from mailserver.dkim.fields import MOST_HEADER, MOST_LINES, FieldSet, HeaderTooLong, MessageSplitter, fields_of
from mailserver.limits import DEFAULT_LIMITS

#: message, header section, body
MESSAGES = [
    (b"", b"", b""),
    (b"\r\n", b"", b""),
    (b"\r\nbody", b"", b"body"),
    (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"body\r\n"),
    (b"A: b\r\n\r\n\r\n\r\n", b"A: b\r\n", b"\r\n\r\n"),
    (b"A: b\r\n c\r\n\r\n", b"A: b\r\n c\r\n", b""),
    (b"A: b\r\n", b"A: b\r\n", b""),
    (b"A: b", b"A: b", b""),
    (b"A: b\n\nbody\r\n\r\nrest", b"A: b\n\nbody\r\n", b"rest"),
    (b"\r", b"\r", b""),
]


def split(*blocks: bytes, most: int = MOST_HEADER, most_lines: int = MOST_LINES) -> tuple[bytes, bytes]:
    splitter = MessageSplitter(most, most_lines)
    body = b"".join([splitter.write(block) for block in blocks])
    return splitter.finish(), body


class SplitterTests(SynchronousTestCase):
    def test_messages_fall_into_header_and_body(self) -> None:
        for message, header, body in MESSAGES:
            self.assertEqual(split(message), (header, body), message)

    def test_however_they_are_cut(self) -> None:
        for message, header, body in MESSAGES:
            for size in range(1, 6):
                blocks = [message[at : at + size] for at in range(0, len(message), size)]
                self.assertEqual(split(*blocks), (header, body), (message, size))

    @given(
        st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b":"]), max_size=12).map(b"".join), st.integers(0, 14)
    )
    @settings(deadline=None, max_examples=300)
    def test_the_limit_does_not_depend_on_the_cut(self, message: bytes, most: int) -> None:
        def outcome(*blocks: bytes) -> object:
            try:
                return split(*blocks, most=most)
            except HeaderTooLong:
                return "too long"

        whole = outcome(message)
        self.assertEqual(outcome(*(message[at : at + 1] for at in range(len(message)))), whole)
        if isinstance(whole, tuple):
            self.assertLessEqual(len(whole[0]), most)

    def test_one_octet_and_one_line_more_are_too_many(self) -> None:
        self.assertEqual(split(b"A: b\r\n\r\nbody", most=6, most_lines=1)[1], b"body")
        self.assertRaises(HeaderTooLong, split, b"A: b\r\n\r\nbody", most=5)
        self.assertRaises(HeaderTooLong, split, b"A: b\r\nC: d\r\n\r\nbody", most_lines=1)
        self.assertRaises(HeaderTooLong, split, b"A: b\r\nC: d\r\n", most_lines=1)

    def test_the_limits_are_those_of_a_listener(self) -> None:
        self.assertEqual((MOST_HEADER, MOST_LINES), (DEFAULT_LIMITS.header_size, DEFAULT_LIMITS.header_lines))


class FieldsTests(SynchronousTestCase):
    def names(self, header: bytes) -> list[tuple[str, bytes]]:
        return [(each.name, each.raw) for each in fields_of(header)]

    def test_fields_keep_their_folds(self) -> None:
        self.assertEqual(
            self.names(b"From: a\r\n b\r\nX-Y :\tc\r\n"), [("from", b"From: a\r\n b\r\n"), ("x-y", b"X-Y :\tc\r\n")]
        )

    def test_the_last_one_gets_its_line_end(self) -> None:
        self.assertEqual(self.names(b"A: b\r\nC: d"), [("a", b"A: b\r\n"), ("c", b"C: d\r\n")])

    def test_what_is_no_field_has_no_name(self) -> None:
        for line in (b" folded", b"no colon", b": no name", b"\xc3\xa4: b", b"a b: c", b"a\x00: b", b"\tx: y"):
            self.assertEqual(self.names(line + b"\r\nA: b\r\n"), [("", line + b"\r\n"), ("a", b"A: b\r\n")])

    def test_a_bare_newline_does_not_begin_a_field(self) -> None:
        self.assertEqual(self.names(b"A: b\nFrom: c\rTo: d\r\n"), [("a", b"A: b\nFrom: c\rTo: d\r\n")])

    def test_no_header_has_no_fields(self) -> None:
        self.assertEqual(fields_of(b""), ())

    @given(st.binary(max_size=60))
    @settings(deadline=None, max_examples=200)
    def test_nothing_is_lost(self, header: bytes) -> None:
        raw = b"".join(each.raw for each in fields_of(header))
        self.assertEqual(raw.removesuffix(b"\r\n"), header.removesuffix(b"\r\n"))


class SelectionTests(SynchronousTestCase):
    """RFC 6376 5.4.2: from the bottom to the top."""

    def setUp(self) -> None:
        self.fields = FieldSet(
            fields_of(b"Received: <A>\r\nFrom: x\r\nreceived: <B>\r\nRECEIVED: <C>\r\nno field\r\n")
        )

    def select(self, *names: str) -> list[bytes]:
        return list(self.fields.selected(Canonicalization.RELAXED, names))

    def test_the_example_of_the_rfc(self) -> None:
        self.assertEqual(self.select("received", "received"), [b"received:<C>\r\n", b"received:<B>\r\n"])

    def test_the_order_is_that_of_the_list(self) -> None:
        self.assertEqual(
            self.select("received", "from", "received"), [b"received:<C>\r\n", b"from:x\r\n", b"received:<B>\r\n"]
        )

    def test_what_is_not_there_stands_for_nothing(self) -> None:
        self.assertEqual(self.select("to", "from", "from", "", "to"), [b"from:x\r\n"])

    def test_every_selection_begins_anew(self) -> None:
        self.assertEqual(self.select("from"), self.select("from"))

    def test_simple_fields_are_as_they_are(self) -> None:
        self.assertEqual(list(self.fields.selected(Canonicalization.SIMPLE, ["received"])), [b"RECEIVED: <C>\r\n"])

    def test_bare_newlines_are_seen(self) -> None:
        self.assertFalse(self.fields.has_bare_newline)
        for octets in (b"A: b\nC: d\r\n", b"A: b\rC: d\r\n", b"A: b\r", b"A: b\n\r\n c\r\n"):
            self.assertTrue(FieldSet(fields_of(octets)).has_bare_newline, octets)

    def test_they_are_counted(self) -> None:
        self.assertEqual(self.fields.counts, {"received": 3, "from": 1})
