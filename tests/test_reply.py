"""Replies: whole lines only, code and enhanced code of one mind, and nothing of a peer's is quoted raw."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.reply import Refusal, Reply, echo

CATALOGUE = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}

#: code, enhanced
IMPOSSIBLE = [
    (199, ""),
    (600, ""),
    (0, ""),
    (-250, ""),
    (250, "4.0.0"),
    (450, "5.0.0"),
    (550, "2.0.0"),
    (354, "3.0.0"),
    (354, "2.0.0"),
    (250, "2.0"),
    (250, "2.0.0.0"),
    (250, "2.0.0 "),
    (250, "2.0.0\n"),
    (250, "2.1234.0"),
    (250, "2.0.1234"),
    (250, "2.\u0663.0"),
    (250, "2..0"),
    (250, "x.0.0"),
]

ENCODED = [
    ("one line", Reply(250, "2.0.0", "Ok"), b"250 2.0.0 Ok\r\n"),
    ("no enhanced code", Reply(354, "", "Go on"), b"354 Go on\r\n"),
    ("three lines, RFC 2034 4: the code in each", Reply(250, "2.1.0", "a\nb\nc"), None),
    ("no text", Reply(220, "", ""), b"220 \r\n"),
    ("an empty line in the middle", Reply(250, "", "a\n\nb"), b"250-a\r\n250-\r\n250 b\r\n"),
    ("CRLF", Reply(250, "", "a\r\n250 b"), b"250-a?\r\n250 250 b\r\n"),
    ("CR", Reply(250, "", "a\r250 b"), b"250 a?250 b\r\n"),
    ("control characters", Reply(250, "", "a\0\t\x0b\x0c\x1b\x7f"), b"250 a??????\r\n"),
    ("beyond ASCII", Reply(250, "", "\u00e4\u2028\u0085\ud800"), b"250 ????\r\n"),
]


class ReplyTests(SynchronousTestCase):
    def test_a_reply_is_encoded_as_whole_lines(self) -> None:
        for what, reply, wire in ENCODED:
            self.assertEqual(reply.encode(), wire or b"250-2.1.0 a\r\n250-2.1.0 b\r\n250 2.1.0 c\r\n", what)

    def test_the_enhanced_code_can_be_left_out(self) -> None:
        self.assertEqual(Reply(250, "2.0.0", "a\nb").encode(enhanced=False), b"250-a\r\n250 b\r\n")

    def test_a_line_of_512_octets_passes_and_a_longer_one_is_cut(self) -> None:
        fits = 512 - len(b"250 2.0.0 \r\n")
        for length in (fits - 1, fits):
            wire = Reply(250, "2.0.0", "x" * length).encode()
            self.assertEqual(len(wire), 512 - fits + length)
        self.assertEqual(Reply(250, "2.0.0", "x" * (fits + 1)).encode(), Reply(250, "2.0.0", "x" * fits).encode())

    def test_an_impossible_reply_cannot_be_built(self) -> None:
        for code, enhanced in IMPOSSIBLE:
            with self.assertRaises(ValueError, msg=f"{code} {enhanced!r}"):
                Reply(code, enhanced, "text")

    def test_2yz_and_3yz_are_positive(self) -> None:
        for code, positive in [(200, True), (250, True), (354, True), (399, True), (400, False), (599, False)]:
            self.assertIs(Reply(code, "", "").positive, positive, code)

    def test_str_is_for_the_log(self) -> None:
        self.assertEqual(str(Reply(250, "2.0.0", "Ok")), "250 2.0.0 Ok")
        self.assertEqual(str(Reply(354, "", "Go on")), "354 Go on")

    @given(st.integers(200, 599), st.text(max_size=700), st.booleans())
    @example(250, "\r\n.\r\n", True)
    @settings(deadline=None, max_examples=200)
    def test_no_text_makes_a_second_reply(self, code: int, text: str, enhanced: bool) -> None:
        kind = str(code)[0]
        wire = Reply(code, f"{kind}.0.0" if kind != "3" else "", text).encode(enhanced=enhanced)
        self.assertTrue(wire.endswith(b"\r\n"))
        lines = wire[:-2].split(b"\r\n")
        self.assertEqual(len(lines), text.count("\n") + 1)
        for line in lines:
            self.assertLessEqual(len(line), 512 - 2)
            self.assertRegex(line, rb"\A%d[ -][ -~]*\Z" % code)
        self.assertEqual([line[3:4] for line in lines], [b"-"] * (len(lines) - 1) + [b" "])


#: What the RFCs (5321 4.2.3, 3463, 4954 6, 3207 4) and the table of limits say, name by name.
CODES = {
    "250 2.0.0": ["OK"],
    "250 2.1.0": ["SENDER_OK"],
    "250 2.1.5": ["RECIPIENT_OK"],
    "220 2.0.0": ["GO_AHEAD_TLS"],
    "221 2.0.0": ["BYE"],
    "235 2.7.0": ["AUTHENTICATED"],
    "252 2.5.0": ["CANNOT_VERIFY"],
    "354 ": ["START_INPUT"],
    "421 4.3.2": ["SHUTTING_DOWN", "TOO_MANY_CONNECTIONS"],
    "421 4.4.2": ["IDLE_TOO_LONG", "TOO_SLOW", "SESSION_TOO_LONG"],
    "421 4.7.0": [
        "TOO_MANY_OF_CLIENT",
        "CONNECTING_TOO_FAST",
        "TOO_MANY_ERRORS",
        "TOO_MANY_UNKNOWN",
        "TOO_MANY_AUTH_FAILURES",
    ],
    "451 4.3.0": ["LOCAL_TROUBLE", "NO_QUEUE_YET"],
    "452 4.3.1": ["DISK_FULL"],
    "452 4.2.2": ["MAILBOX_FULL"],
    "452 4.5.3": ["TOO_MANY_RECIPIENTS"],
    "454 4.7.0": ["TLS_UNAVAILABLE", "AUTH_UNAVAILABLE"],
    "500 5.5.1": ["UNKNOWN_COMMAND"],
    "500 5.5.2": ["BAD_LINE", "LINE_TOO_LONG"],
    "500 5.5.6": ["AUTH_TOO_LONG"],
    "501 5.5.4": ["BAD_SYNTAX"],
    "501 5.5.2": ["BAD_BASE64"],
    "501 5.0.0": ["AUTH_CANCELLED"],
    "502 5.5.1": ["NOT_IMPLEMENTED"],
    "503 5.5.1": ["BAD_SEQUENCE", "HELLO_FIRST", "NO_SECOND_AUTH"],
    "504 5.5.4": ["UNKNOWN_MECHANISM"],
    "530 5.7.0": ["AUTH_REQUIRED", "STARTTLS_FIRST"],
    "535 5.7.8": ["BAD_CREDENTIALS"],
    "538 5.7.11": ["ENCRYPTION_NEEDED"],
    "550 5.1.1": ["UNKNOWN_USER"],
    "550 5.5.2": ["BARE_NEWLINE"],
    "550 5.7.1": ["RELAYING_DENIED"],
    "552 5.3.4": ["MESSAGE_TOO_BIG"],
    "553 5.6.7": ["UTF8_NEEDED"],
    "554 5.6.0": ["TEXT_LINE_TOO_LONG", "HEADER_TOO_BIG"],
    "554 5.4.6": ["MAIL_LOOP"],
    "554 5.5.1": ["NO_VALID_RECIPIENTS"],
    "555 5.5.4": ["UNKNOWN_PARAMETER"],
}


class CatalogueTests(SynchronousTestCase):
    def test_the_codes_are_those_of_the_rfcs_and_the_limits(self) -> None:
        for code, names in CODES.items():
            for name in names:
                reply = CATALOGUE[name]
                self.assertEqual(f"{reply.code} {reply.enhanced}", code, name)

    def test_each_entry_is_one_line_that_is_not_cut(self) -> None:
        self.assertGreater(len(CATALOGUE), 40)
        for name, reply in CATALOGUE.items():
            self.assertRegex(reply.text, r"\A[A-Z][ -~]*[^.\s]\Z", name)
            self.assertIn(reply.text.encode() + b"\r\n", reply.encode(), name)

    def test_each_entry_has_an_enhanced_code_save_the_354(self) -> None:
        bare = [name for name, reply in CATALOGUE.items() if not reply.enhanced]
        self.assertEqual(bare, ["START_INPUT"])

    def test_no_two_entries_are_the_same(self) -> None:
        self.assertEqual(len(set(CATALOGUE.values())), len(CATALOGUE))

    def test_trouble_of_ours_is_transient(self) -> None:
        for name in ("LOCAL_TROUBLE", "DISK_FULL", "MAILBOX_FULL", "NO_QUEUE_YET", "AUTH_UNAVAILABLE"):
            self.assertEqual(CATALOGUE[name].code // 100, 4, name)


#: what the peer sent, what is quoted back
ECHOES = [
    (b"FOO bar", "FOO bar"),
    (b"a\r\nb", "a\\r\\nb"),
    (b"a\\b", "a\\\\b"),
    (b"\x00\x1b\x7f", "\\x00\\x1b\\x7f"),
    (b"\xff", "\\xff"),
    ("\u00e4".encode(), "\\xc3\\xa4"),
    (b"", ""),
    (b"x" * (60 - 1), "x" * (60 - 1)),
    (b"x" * 60, "x" * 60),
    (b"x" * (60 + 1), "x" * 60),
]


class EchoTests(SynchronousTestCase):
    def test_what_the_peer_sent_is_quoted_escaped(self) -> None:
        for raw, quoted in ECHOES:
            self.assertEqual(echo(raw), quoted, raw)

    @given(st.binary(max_size=100))
    @settings(deadline=None, max_examples=150)
    def test_a_quote_is_short_printable_ascii(self, raw: bytes) -> None:
        quoted = echo(raw)
        self.assertLessEqual(len(quoted), 60)
        self.assertIsNotNone(re.fullmatch(r"[ -~]*", quoted))

    @given(st.binary(max_size=60 // 4), st.binary(max_size=60 // 4))
    @settings(deadline=None, max_examples=150)
    def test_two_different_short_things_are_quoted_differently(self, one: bytes, other: bytes) -> None:
        self.assertEqual(echo(one) == echo(other), one == other)


class RefusalTests(SynchronousTestCase):
    def test_a_refusal_carries_its_reply_and_a_detail_for_the_log(self) -> None:
        refusal = Refusal(replies.MAILBOX_FULL, "11 of 10 octets")
        self.assertEqual(refusal.reply, replies.MAILBOX_FULL)
        self.assertEqual(refusal.detail, "11 of 10 octets")
        self.assertEqual(str(refusal), "452 4.2.2 Mailbox full (11 of 10 octets)")
        self.assertEqual(str(Refusal(replies.MAILBOX_FULL)), "452 4.2.2 Mailbox full")

    def test_the_detail_is_not_for_the_peer(self) -> None:
        self.assertNotIn(b"secret", Refusal(replies.MAILBOX_FULL, "secret").reply.encode())

    def test_a_positive_reply_is_no_refusal(self) -> None:
        for name, reply in CATALOGUE.items():
            if reply.positive:
                with self.assertRaises(ValueError, msg=name):
                    Refusal(reply)
            else:
                self.assertEqual(Refusal(reply).reply, reply, name)
