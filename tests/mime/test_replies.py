"""Replies, and who must not get one from a program."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import decode
from mailserver.mime.encode import encode
from mailserver.mime.fields import EncodeError
from mailserver.mime.headers import Headers
from mailserver.mime.mail import Mail
from mailserver.mime.replies import is_auto_submitted, reply_subject, reply_to

ORIGINAL = (
    b"From: =?utf-8?q?J=C3=B6?= <jo@example.com>\r\n"
    b"To: Desk <desk@example.org>, other@example.net\r\n"
    b"Cc: third@example.net, JO@example.com\r\n"
    b"Subject: help\r\n"
    b"Message-ID: <3@example.com>\r\n"
    b"References: <1@example.com>\r\n <2@example.com>\r\n"
    b"\r\nPlease.\r\n"
)


def reply(octets: bytes, **arguments: object) -> Mail:
    """The reply to a mail, which can be written."""
    mail = reply_to(decode(octets), "Done.", **arguments)  # type: ignore[arg-type]
    encode(mail)
    return mail


class ReplyTests(SynchronousTestCase):
    def test_it_goes_to_the_author_with_the_thread(self) -> None:
        mail = reply(ORIGINAL)
        self.assertEqual([str(each) for each in mail.to], ["J\u00f6 <jo@example.com>"])
        self.assertEqual([str(each) for each in mail.from_], ["Desk <desk@example.org>"])
        self.assertEqual(mail.subject, "Re: help")
        headers = mail.part().headers
        self.assertEqual(headers.get("in-reply-to"), "<3@example.com>")
        self.assertEqual(headers.get("references"), "<1@example.com> <2@example.com> <3@example.com>")
        self.assertEqual(mail.text, "Done.")
        self.assertEqual(mail.cc, ())

    def test_reply_to_is_before_from(self) -> None:
        mail = reply(b"Reply-To: a@example.net, b@example.net\r\n" + ORIGINAL)
        self.assertEqual([str(each) for each in mail.to], ["a@example.net", "b@example.net"])

    def test_who_answers_can_be_said(self) -> None:
        self.assertEqual(str(reply(ORIGINAL, from_="bot@example.org").sender), "bot@example.org")

    def test_everyone_but_who_answers_and_each_once(self) -> None:
        mail = reply(ORIGINAL, everyone=True)
        self.assertEqual([str(each) for each in mail.cc], ["other@example.net", "third@example.net"])

    def test_a_program_says_that_it_is_one(self) -> None:
        self.assertEqual(reply(ORIGINAL, automatic=True).part().headers.get("auto-submitted"), "auto-replied")
        self.assertTrue(is_auto_submitted(reply(ORIGINAL, automatic=True).part().headers))
        self.assertFalse(is_auto_submitted(reply(ORIGINAL).part().headers))

    def test_there_must_be_addresses(self) -> None:
        for octets, field in (
            (b"To: a@example.org\r\n\r\n", "From"),
            (b"From: nobody\r\nTo: a@example.org\r\n\r\n", "From"),
            (b"From: a@example.org\r\nTo: undisclosed-recipients:;\r\n\r\n", "To"),
        ):
            error = self.assertRaises(EncodeError, reply_to, decode(octets), "x")
            self.assertEqual(error.field, field)

    def test_subjects(self) -> None:
        # RFC 5322 3.6.5
        for subject, wanted in (
            ("a", "Re: a"),
            ("Re: a", "Re: a"),
            ("RE: re: a", "Re: a"),
            ("Re[2]: AW: a", "Re: a"),
            ("Reply: a", "Re: Reply: a"),
            ("", "Re:"),
            ("a\r\nBcc: x", "Re: a Bcc: x"),
            ("a\u2028b", "Re: a b"),
        ):
            self.assertEqual(reply_subject(subject), wanted, subject)

    def test_a_parent_alone_begins_the_thread(self) -> None:
        # RFC 5322 3.6.4
        head = b"From: a@example.org\r\nTo: b@example.org\r\nMessage-ID: <2@x>\r\n"
        one = reply(head + b"In-Reply-To: <1@x>\r\n\r\n")
        self.assertEqual(one.part().headers.get("references"), "<1@x> <2@x>")
        two = reply(head + b"In-Reply-To: <1@x> <0@x>\r\n\r\n")
        self.assertEqual(two.part().headers.get("references"), "<2@x>")

    def test_a_long_thread_is_cut_in_its_middle(self) -> None:
        identifiers = [f"<{number}@example.com>" for number in range(1000)]
        octets = b"From: a@example.org\r\nTo: b@example.org\r\nMessage-ID: <new@x>\r\n"
        references = "\r\n ".join(identifiers).encode()
        found = reply(octets + b"References: " + references + b"\r\n\r\n").references
        self.assertEqual((found[0], found[-2:]), ("<0@example.com>", ("<999@example.com>", "<new@x>")))
        self.assertLess(len(found), 60)

    @given(st.lists(st.sampled_from([
        b"From: ", b"To: ", b"Reply-To: ", b"Cc: ", b"Subject: ", b"Message-ID: ", b"References: ", b"In-Reply-To: ",
        b"a@example.org", b"<", b">", b"\r\n", b"\r\n ", b"\xe4", b'"', b",", b"=?utf-8?q?=0D=0ABcc:_x?=", b"(", b";", b":",
        b"\0", b"<i@d>", b"j\xc3\xb6@b\xc3\xbccher.example", b"x" * 1200,
    ]), max_size=30).map(b"".join))  # fmt: skip
    @settings(deadline=None, max_examples=300)
    def test_a_hostile_mail_is_answered_or_not_and_nothing_is_injected(self, octets: bytes) -> None:
        try:
            mail = reply_to(decode(octets), "x", from_="desk@example.org", everyone=True)
            written = encode(mail)
        except EncodeError:
            return
        names = {name.lower() for name, _ in decode(written).headers}
        self.assertLessEqual(
            names, {"from", "to", "cc", "subject", "in-reply-to", "references", "date", "message-id", "mime-version"}
        )
        self.assertEqual(decode(written).text, "x")


class AutoSubmittedTests(SynchronousTestCase):
    def test_fields_that_say_so(self) -> None:
        for name, value in (
            ("Auto-Submitted", "auto-replied"),
            ("auto-submitted", "Auto-Generated"),
            ("Auto-Submitted", "auto-notified; owner-email=x@example.org"),
            ("Auto-Submitted", "(a comment) auto-replied"),
            ("Auto-Submitted", ""),
            ("Precedence", "bulk"),
            ("Precedence", " Junk "),
            ("Precedence", "list"),
            ("List-Id", "<x.example.org>"),
            ("List-Unsubscribe", "<mailto:x@example.org>"),
            ("List-Post", "NO"),
            ("Return-Path", "<>"),
            ("Return-Path", " < > "),
            ("Return-Path", "<MAILER-DAEMON@example.org>"),
            ("Return-Path", "<MAILER-DAEMON>"),
            ("Return-Path", "<owner-list@example.org>"),
            ("Return-Path", "<list-request@example.org>"),
            ("Content-Type", "multipart/report; report-type=delivery-status"),
            ("X-Auto-Response-Suppress", "DR, OOF"),
            ("X-Auto-Response-Suppress", "All"),
        ):
            self.assertTrue(is_auto_submitted(Headers([("From", "a@example.org"), (name, value)])), (name, value))

    def test_fields_that_do_not(self) -> None:
        for name, value in (
            ("Auto-Submitted", "no"),
            ("Auto-Submitted", "(a comment) NO (another)"),
            ("Precedence", "normal"),
            ("Return-Path", "<a@example.org>"),
            ("Content-Type", "multipart/mixed"),
            ("X-Auto-Response-Suppress", "DR"),
            ("Listed", "x"),
            ("Subject", "auto-replied"),
        ):
            self.assertFalse(is_auto_submitted(Headers([(name, value)])), (name, value))
        self.assertFalse(is_auto_submitted(Headers()))
