"""Header sections: order, names, raw and decoded values, and that nothing can be injected."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import Field, Headers, decode, parse_headers
from mailserver.mime.headers import find_field, section_end, unfold

SECTION = (
    b"Received: from a\r\n by b\r\nSUBJECT: =?utf-8?q?=C3=A4?=\r\nReceived: from c\r\nX-Empty:\r\nx-last : \xe4\r\n"
)


class ReadTests(SynchronousTestCase):
    """Headers of a mail."""

    def test_fields_keep_their_order_and_their_duplicates(self) -> None:
        headers = Headers.read(SECTION)
        self.assertEqual(
            list(headers),
            [
                ("Received", "from a by b"),
                ("SUBJECT", "\u00e4"),
                ("Received", "from c"),
                ("X-Empty", ""),
                ("x-last", "\u00e4"),
            ],
        )
        self.assertEqual(len(headers), 5)

    def test_raw_octets_are_as_they_stood(self) -> None:
        headers = Headers.read(SECTION)
        self.assertEqual(b"".join(field.raw for field in headers.fields), SECTION)
        self.assertEqual(headers.fields[0].body, b"from a by b")
        self.assertEqual(headers.fields[4].body, b"\xe4")

    def test_names_are_the_same_in_upper_and_lower_case(self) -> None:
        for ask in (False, True):  # before and after all fields were taken apart
            headers = Headers.read(SECTION)
            if ask:
                self.assertEqual(len(headers), 5)
            self.assertEqual(headers["subject"], "\u00e4")
            self.assertEqual(headers.get("Subject"), "\u00e4")
            self.assertEqual(headers.get("RECEIVED"), "from a by b")
            self.assertEqual(headers.get_all("received"), ["from a by b", "from c"])
            self.assertEqual(headers.get("x-empty"), "")
            self.assertIn("X-LAST", headers)
            field = headers.find("X-Last")
            assert field is not None
            self.assertEqual(field.raw, b"x-last : \xe4\r\n")

    def test_what_is_not_there_is_none_or_the_default_or_a_key_error(self) -> None:
        headers = Headers.read(SECTION)
        self.assertIsNone(headers.get("subj"))
        self.assertEqual(headers.get("subjec", "x"), "x")
        self.assertEqual(headers.get_all("x"), [])
        self.assertNotIn("", headers)
        self.assertNotIn(7, headers)
        self.assertRaises(KeyError, lambda: headers["to"])

    def test_a_name_within_a_value_or_a_fold_is_no_field(self) -> None:
        headers = Headers.read(b"A: To: x\r\n To: y\r\nTo-Do: z\r\nTo : w\r\n")
        self.assertEqual(headers["to"], "w")
        self.assertEqual(headers.get_all("to"), ["w"])

    def test_a_mail_with_only_cr_has_its_raw_octets(self) -> None:
        headers = decode(b"A: b\r c\rSubject: x\r\rbody").headers
        self.assertEqual([field.raw for field in headers.fields], [b"A: b\r c\r", b"Subject: x\r"])
        self.assertEqual(list(headers), [("A", "b c"), ("Subject", "x")])

    def test_M4_a_section_is_read_alone(self) -> None:
        headers, rest = parse_headers(b"A: b\r\n\r\nbody")
        self.assertEqual((list(headers), rest), ([("A", "b")], b"body"))
        headers, rest = parse_headers(b"A: b\nno field\n")
        self.assertEqual((list(headers), rest), ([("A", "b")], b"no field\n"))
        headers, rest = parse_headers(b" folded: x\r\n")
        self.assertEqual((list(headers), rest), ([], b" folded: x\r\n"))
        self.assertEqual(len(parse_headers(b"")[0]), 0)

    def test_no_value_is_in_a_repr(self) -> None:
        headers = Headers.read(b"Subject: secret\r\n")
        self.assertNotIn("secret", repr(headers) + repr(headers.fields))

    @given(
        st.lists(st.sampled_from([b"A: b\r\n", b"B:c\n", b" d\r\n", b"\te", b"\n", b"Subject:", b":", b"\r"])).map(
            b"".join
        )
    )
    @settings(deadline=None, max_examples=300)
    def test_looking_for_one_is_the_same_as_taking_all_apart(self, octets: bytes) -> None:
        section = octets[: section_end(octets)]
        whole = Headers.read(section)
        self.assertEqual(b"".join(field.raw for field in whole.fields), section)
        for name in ("a", "b", "subject", "x"):
            found = Headers.read(section).find(name)
            first = whole.find(name)
            self.assertEqual(found and found.raw, first and first.raw)


class MadeTests(SynchronousTestCase):
    """Headers of a program."""

    def test_fields_are_what_was_given(self) -> None:
        headers = Headers([("Subject", "\u00e4"), ("X", b" caf\xe9 ")])
        self.assertEqual(list(headers), [("Subject", "\u00e4"), ("X", "caf\u00e9")])
        self.assertEqual([field.raw for field in headers.fields], [b"", b""])
        self.assertEqual(headers.fields[0].body, "\u00e4".encode())
        self.assertEqual(headers.fields[1].body, b"caf\xe9")

    def test_text_of_a_program_is_not_decoded_and_octets_are(self) -> None:
        self.assertEqual(Field("Subject", "=?utf-8?q?a?=").value, "=?utf-8?q?a?=")
        self.assertEqual(Field("Subject", b"=?utf-8?q?a?=").value, "a")

    def test_add_insert_set_and_remove(self) -> None:
        headers = Headers.read(b"A: 1\r\nB: 2\r\na: 3\r\n")
        headers.add("C", "4")
        headers.insert(0, "D", "5")
        self.assertEqual(list(headers), [("D", "5"), ("A", "1"), ("B", "2"), ("a", "3"), ("C", "4")])
        headers.set("A", "6")
        self.assertEqual(list(headers), [("D", "5"), ("A", "6"), ("B", "2"), ("C", "4")])
        headers.set("e", "7")
        headers.remove("b")
        headers.remove("nobody")
        self.assertEqual(list(headers), [("D", "5"), ("A", "6"), ("C", "4"), ("e", "7")])
        self.assertEqual(headers["a"], "6")

    def test_the_list_of_fields_is_a_copy(self) -> None:
        headers = Headers([("A", "b")])
        headers.fields.clear()
        self.assertEqual(len(headers), 1)

    def test_nothing_can_end_a_field_or_begin_one(self) -> None:
        bad = [
            ("A", "b\r\nBcc: c"),
            ("A", "b\rc"),
            ("A", "b\nc"),
            ("A", "b\0"),
            ("A", b"b\nc"),
            ("A", "\r\n "),
            ("A", b"\0"),
        ]
        bad += [
            ("", "b"),
            ("A b", "c"),
            ("A:", "b"),
            ("A\r\nB", "c"),
            ("\u00e4", "b"),
            ("A\n", "b"),
            (" A", "b"),
            ("A\0", "b"),
        ]
        for name, value in bad:
            for put in (
                lambda name, value: Headers([(name, value)]),
                lambda name, value: Headers().add(name, value),
                lambda name, value: Headers().set(name, value),
                lambda name, value: Headers().insert(0, name, value),
            ):
                with self.assertRaises(ValueError, msg=(name, value)):
                    put(name, value)

    def test_an_error_names_the_field(self) -> None:
        with self.assertRaisesRegex(ValueError, "X-Ticket"):
            Headers().add("X-Ticket", "a\nb")
        with self.assertRaisesRegex(ValueError, "X-Ticket"):
            Headers().add("X-Ticket", "\ud800")
        with self.assertRaisesRegex(ValueError, "Bad Name"):
            Headers().add("Bad Name", "x")

    def test_what_was_refused_changed_nothing(self) -> None:
        headers = Headers([("A", "b")])
        with self.assertRaises(ValueError):
            headers.set("A", "x\n")
        self.assertEqual(list(headers), [("A", "b")])

    @given(st.text(max_size=20), st.text(max_size=20))
    @settings(deadline=None, max_examples=300)
    def test_a_field_is_one_field_or_refused(self, name: str, value: str) -> None:
        try:
            field = Field(name, value)
        except ValueError:
            return
        written = field.name.encode() + b": " + field.body + b"\r\n"
        self.assertEqual(len(parse_headers(written + b"\r\n")[0]), 1)


class PieceTests(SynchronousTestCase):
    def test_unfolding_takes_line_ends_and_nothing_else(self) -> None:
        self.assertEqual(unfold(b" a\r\n b\n\tc \r\n"), b"a b\tc")

    def test_a_field_is_found_where_it_stands(self) -> None:
        self.assertEqual(find_field(SECTION, b"subject"), (25, 54))
        self.assertIsNone(find_field(SECTION, b"subjec"))
        self.assertIsNone(find_field(b"", b"subject"))
        self.assertIsNone(find_field(b"Subject", b"subject"))
