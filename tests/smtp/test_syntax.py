"""Command lines, paths, parameters: the grammar, what gen_smtp takes (TS1 to TS5, S90 to S96), and no way around it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.smtp.syntax import (
    BadSyntax,
    Command,
    decode_xtext,
    parse_command,
    parse_hello_name,
    parse_number,
    parse_parameters,
    parse_path,
)

#: line, verb, argument
COMMANDS = [
    (b"HELO", b"HELO", b""),
    (b"HELO ", b"HELO", b""),
    (b"helo host", b"HELO", b"host"),
    (b"  HeLo   a  b  ", b"HELO", b"a  b"),
    (b"NOOP\t x\t", b"NOOP", b"x"),
    (b"MAIL FROM:<a@b>\tSIZE=1", b"MAIL", b"FROM:<a@b> SIZE=1"),
    (b"", b"", b""),
    (b" \t ", b"", b""),
    (b"X-Y \xff\xfe", b"X-Y", b"\xff\xfe"),
    ("RCPT TO:<\u00e4@b>".encode(), b"RCPT", "TO:<\u00e4@b>".encode()),
    # A tab in quotes must not become a blank: that is another mailbox.
    (b'MAIL FROM:<"a\tb"@c>\tX', b"MAIL", b'FROM:<"a\tb"@c> X'),
    (b'MAIL FROM:<"a\\"\tb"@c>', b"MAIL", b'FROM:<"a\\"\tb"@c>'),
    (b'NOOP "\t', b"NOOP", b'"\t'),
]


class CommandTests(SynchronousTestCase):
    def test_a_line_is_split_into_verb_and_argument(self) -> None:
        for line, verb, argument in COMMANDS:
            self.assertEqual(parse_command(line), Command(verb, argument), line)

    def test_no_control_character_but_the_tab_is_allowed(self) -> None:
        for octet in (*range(32), 127):
            line = b"NOOP a%cb" % octet
            if octet == 9:
                self.assertEqual(parse_command(line).argument, b"a b")
                continue
            for where in (line, b"%cNOOP" % octet, b"NOOP%c" % octet, b'NOOP "%c"' % octet):
                with self.assertRaises(BadSyntax, msg=where):
                    parse_command(where)

    @given(st.binary(max_size=100))
    @settings(deadline=None, max_examples=200)
    def test_any_octets_are_a_command_or_refused(self, line: bytes) -> None:
        try:
            command = parse_command(line)
        except BadSyntax:
            return
        self.assertNotIn(b" ", command.verb)
        self.assertEqual(command.argument, command.argument.strip(b" "))


#: text, address, rest
PATHS = [
    ("<God@heaven.af.mil>", "God@heaven.af.mil", b""),
    ("<\\God@heaven.af.mil>", "God@heaven.af.mil", b""),
    ('<"God"@heaven.af.mil>', "God@heaven.af.mil", b""),
    ('<@gateway.af.mil,@uucp.local:"\\G\\o\\d"@heaven.af.mil>', "God@heaven.af.mil", b""),
    ("<@[192.0.2.1],@[IPv6:2001:db8::1],@b:a@example.org>", "a@example.org", b""),
    ("<God2@heaven.af.mil>", "God2@heaven.af.mil", b""),
    ("<God+extension@heaven.af.mil>", "God+extension@heaven.af.mil", b""),
    ("<God~*$@heaven.af.mil>", "God~*$@heaven.af.mil", b""),
    ('<"God~!#$%^&*()_+123"@heaven.af.mil>', '"God~!#$%^&*()_+123"@heaven.af.mil', b""),
    ("God@heaven.af.mil", "God@heaven.af.mil", b""),
    ("  God@heaven.af.mil  ", "God@heaven.af.mil", b""),
    (" <God@heaven.af.mil> ", "God@heaven.af.mil", b""),
    ("<\u0438\u0432\u0430\u043d@example.org> SIZE=100", "\u0438\u0432\u0430\u043d@example.org", b"SIZE=100"),
    ("\u6211@example.org SIZE=100", "\u6211@example.org", b"SIZE=100"),
    ('<"\u0438 \u6211"@example.org>', '"\u0438 \u6211"@example.org', b""),
    ("<a@h> SIZE=100 BODY=8BITMIME", "a@h", b"SIZE=100 BODY=8BITMIME"),
    ("a@h SIZE=100 BODY=8BITMIME", "a@h", b"SIZE=100 BODY=8BITMIME"),
    ("<a@h>   SIZE=100  ", "a@h", b"SIZE=100"),
    ('<"a>b <c"@h> X', '"a>b <c"@h', b"X"),
    ('<"a\\">b"@h> X', '"a\\">b"@h', b"X"),
    ('"a b"@h X', '"a b"@h', b"X"),
    ('"a<b"@h', '"a<b"@h', b""),
    ("<a@[192.0.2.1]>", "a@[192.0.2.1]", b""),
    ("<a@[IPv6:2001:db8::1]> X", "a@[IPv6:2001:db8::1]", b"X"),
    ("<a@h> AUTH=<>", "a@h", b"AUTH=<>"),
]

#: neither a sender nor a recipient
NO_PATHS = [
    "",
    " ",
    "<<",
    ">",
    "><",
    "<God<@h>",
    "<God@h",
    "<God@h ",
    "God@h>",
    "God<@h",
    "<@gateway.af.mil God@h>",
    "<@gateway.af.mil>",
    "<@:a@h>",
    "<@a,:b@h>",
    "<@a,b:c@h>",
    "<@a, @b:c@h>",
    "<@a:>",
    "<@a:@b:c@h>",
    "<a@h>X",
    "<a@h>SIZE=1",
    "<a@h>>",
    "<a@h><b@h>",
    "<a@h,b@h>",
    "<a b@h>",
    "< a@h>",
    "<a@h >",
    '<"a@h>',
    '<"a"b@h>',
    '"a b@h',
    "<a>",
    "<a@>",
    "<@h>",
    "< >",
    "<a@h\u2028>",
    '<"a\tb"@h>',
    "<a\\@h>",
    "Joe <a@h>",
    "<(comment)a@h>",
]


class PathTests(SynchronousTestCase):
    def test_paths_are_read_up_to_their_rest(self) -> None:
        for text, address, rest in PATHS:
            found, behind = parse_path(text.encode(), null=True, postmaster=True)
            self.assertEqual((str(found), behind), (address, rest), text)

    def test_other_texts_are_refused(self) -> None:
        for text in NO_PATHS:
            for null in (False, True):
                # "<a>" is no postmaster either.
                with self.assertRaises(BadSyntax, msg=repr(text)):
                    parse_path(text.encode(), null=null, postmaster=True)

    def test_the_null_path_is_for_senders(self) -> None:
        for text, rest in [(b"<>", b""), (b" <> ", b""), (b"<> SIZE=1", b"SIZE=1")]:
            self.assertEqual(parse_path(text, null=True, postmaster=False), (None, rest))
            with self.assertRaises(BadSyntax, msg=repr(text)):
                parse_path(text, null=False, postmaster=True)

    def test_postmaster_alone_is_for_recipients(self) -> None:
        for text in (b"<postmaster>", b"<PostMaster>", b"postmaster"):
            found, _ = parse_path(text, null=False, postmaster=True)
            assert found is not None
            self.assertEqual(found, Address(found.local, ""))
            self.assertEqual(found.local.lower(), "postmaster")
            with self.assertRaises(BadSyntax):
                parse_path(text, null=True, postmaster=False)

    def test_an_address_of_254_octets_passes_and_a_longer_one_does_not(self) -> None:
        domain = ".".join(["d" * 46] * 4) + ".org"
        for length, passes in [(254, True), (255, False), (320, False), (321, False)]:
            text = b"<" + b"l" * (length - len(domain) - 1) + b"@" + domain.encode() + b">"
            self.assertEqual(len(text), length + 2)
            if passes:
                self.assertIsNotNone(parse_path(text, null=False, postmaster=False)[0])
            else:
                with self.assertRaises(BadSyntax):
                    parse_path(text, null=False, postmaster=False)

    def test_what_is_not_utf8_is_refused(self) -> None:
        for text in (b"<\xff@h>", b"<a@\xc3>", b"<\xed\xa0\x80@h>", b"<\xc0\xaf@h>", b"<\xe4@h>"):
            with self.assertRaises(BadSyntax, msg=repr(text)):
                parse_path(text, null=False, postmaster=False)

    @given(st.one_of(st.binary(max_size=80), st.text('<>@"\\,: a.[]', max_size=40).map(str.encode)), st.booleans())
    @example(b'<"\\', True)
    @settings(deadline=None, max_examples=400)
    def test_any_octets_are_a_path_or_refused(self, text: bytes, null: bool) -> None:
        try:
            address, rest = parse_path(text, null=null, postmaster=not null)
        except BadSyntax as error:
            self.assertTrue(str(error).isascii())
            return
        self.assertEqual(rest, rest.strip(b" "))
        again = b"<>" if address is None else b"<" + str(address).encode() + b">"
        self.assertEqual(parse_path(again + b" " + rest, null=null, postmaster=not null), (address, rest))

    def test_no_line_takes_more_than_one_pass(self) -> None:
        # A pattern that tried things twice would need hours for these (n^2) or for ever (2^n).
        size = 2**20
        for unit in (b'"', b'\\"', b'"\\', b'""', b"<", b'<"', b"@a", b"@a,", b"@[", b",@[]", b"a", b"\\", b'"\t\\'):
            for start, end in [
                (b"", b""),
                (b"<", b""),
                (b"<", b">"),
                (b"<@a,", b">"),
                (b"<@a:", b""),
                (b'<"', b'"@h'),
            ]:
                text = start + unit * (size // len(unit)) + end
                with self.assertRaises(BadSyntax):
                    parse_path(text, null=True, postmaster=True)
            parse_command(unit * (size // len(unit)) + b"\t")


#: text, parameters
PARAMETERS: list[tuple[bytes, dict[str, str | None]]] = [
    (b"", {}),
    (b"   ", {}),
    (b"SIZE=100", {"SIZE": "100"}),
    (b"size=100 Body=8bitmime", {"SIZE": "100", "BODY": "8bitmime"}),
    (b"SMTPUTF8", {"SMTPUTF8": None}),
    (b"A   B", {"A": None, "B": None}),
    (b"8-BIT=1", {"8-BIT": "1"}),
    (b'X-=<>!~"\\', {"X-": '<>!~"\\'}),
    ("ORCPT=utf-8;\u00e4@h".encode(), {"ORCPT": "utf-8;\u00e4@h"}),
]

NO_PARAMETERS = [
    b"=",
    b"=1",
    b"SIZE=",
    b"SIZE==1",
    b"A=1=2",
    b"-A",
    b"A_B",
    b"A.B=1",
    b"<a@h>",
    b"A=\t",
    b"A=\x7f",
    b"A=\0",
    b"A\n",
    b"A=1\n",
    "\u00c4=1".encode(),
    b"A=\xff",
    b"A=1 A=1",
    b"A a",
    b"A=1 B a=2",
]


class ParameterTests(SynchronousTestCase):
    def test_parameters_are_read_in_their_order(self) -> None:
        for text, parameters in PARAMETERS:
            self.assertEqual(list(parse_parameters(text).items()), list(parameters.items()), text)

    def test_malformed_and_repeated_ones_are_refused(self) -> None:
        for text in NO_PARAMETERS:
            with self.assertRaises(BadSyntax, msg=repr(text)):
                parse_parameters(text)

    @given(st.binary(max_size=80))
    @settings(deadline=None, max_examples=200)
    def test_any_octets_are_parameters_or_refused(self, text: bytes) -> None:
        try:
            parameters = parse_parameters(text)
        except BadSyntax:
            return
        written = " ".join(k if v is None else f"{k}={v}" for k, v in parameters.items())
        self.assertEqual(parse_parameters(written.encode()), parameters)

    def test_numbers_are_up_to_20_ascii_digits_and_nothing_else(self) -> None:
        for text, number in [("0", 0), ("007", 7), ("52428800", 52428800), ("9" * 20, 10**20 - 1)]:
            self.assertEqual(parse_number(text), number)
        wrong: list[str | None] = [
            "",
            "-1",
            "+5",
            "1_0",
            "0x5",
            "1e3",
            "1.0",
            " 1",
            "1 ",
            "1\n",
            "\u0661",
            "\uff11",
            "\u00b2",
            "9" * 21,
            None,
        ]
        for value in wrong:
            with self.assertRaises(BadSyntax, msg=repr(value)):
                parse_number(value)


class HelloNameTests(SynchronousTestCase):
    def test_any_word_of_printable_ascii_is_taken(self) -> None:
        for name in ("mail.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "a_b", "-", "(x", "x" * 254, "x" * 255):
            self.assertEqual(parse_hello_name(name.encode()), name)

    def test_other_things_are_refused(self) -> None:
        for name in (b"", b" ", b"a b", b"a\tb", b"a\n", b"a\0", b"\x7f", "\u00e4".encode(), b"\xff", b"x" * 256):
            with self.assertRaises(BadSyntax, msg=repr(name)):
                parse_hello_name(name)


class XtextTests(SynchronousTestCase):
    def test_xtext_is_decoded(self) -> None:
        for text, decoded in [
            ("", ""),
            ("a@h", "a@h"),
            ("a+2Bb+3Dc", "a+b=c"),
            ("+C3+A4", "\u00e4"),
            ("+0D+0A", "\r\n"),
        ]:
            self.assertEqual(decode_xtext(text), decoded)

    def test_other_texts_are_refused(self) -> None:
        for text in ("+", "+2", "+2b", "+GG", "a+", "a=b", "a b", "a\n", "\u00e4", "+FF", "+C3", "+ED+A0+80"):
            with self.assertRaises(BadSyntax, msg=repr(text)):
                decode_xtext(text)

    @given(st.text(max_size=40))
    @settings(deadline=None, max_examples=150)
    def test_what_is_written_in_xtext_is_read_again(self, text: str) -> None:
        octets = text.encode("utf-8", "replace")
        written = "".join(chr(o) if 33 <= o <= 126 and chr(o) not in "+=" else f"+{o:02X}" for o in octets)
        self.assertEqual(decode_xtext(written).encode(), octets)
