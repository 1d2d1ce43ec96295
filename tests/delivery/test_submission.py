"""What a submission server adds, takes away and refuses; and that no sender writes a field of theirs."""

from __future__ import annotations

import time
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.database import AccountsDatabase
from mailserver.address import Address, AddressError, parse_address
from mailserver.delivery.gate import fields
from mailserver.delivery.submission import BAD_FROM, MOST_FROM, NOT_YOURS, Senders, Submission
from mailserver.envelope import Envelope
from mailserver.reply import Refusal, Reply

NOW = 1_700_000_000.9
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
ID = b"Message-ID: <id7.1700000000@mail.example.org>\r\n"
WHOLE = b"Date: x\r\nMessage-ID: <x>\r\n"


class SubmissionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.accounts = AccountsDatabase(Path(self.mktemp()))
        self.addCleanup(self.accounts.close)
        for name in ("joe", "ann", "j\u00f6rg"):
            self.accounts.add_account(parse_address(f"{name}@example.org"), ["{PLAIN}x"])
        self.accounts.add_alias(parse_address("sales@example.org"), [parse_address("joe@example.org")])
        self.accounts.change_senders(parse_address("joe@example.org"), add=[parse_address("boss@example.com")])
        self.accounts.change_senders(parse_address("ann@example.org"), add=[Address("", "example.net")])
        separators = {"example.org": "+", "example.com": "-"}
        self.senders = Senders(self.accounts, lambda domain: separators.get(domain, ""))

    def judge(
        self, header: bytes, *, sender: str = "joe@example.org", user: str = "joe@example.org", **other: Any
    ) -> bytes:
        envelope = Envelope("id7", parse_address(sender) if sender else None)
        senders = other.get("senders", self.senders)
        return Submission(envelope, user, senders, hostname="mail.example.org", now=NOW)(header)

    def refused(self, header: bytes, **options: Any) -> Reply:
        with self.assertRaises(Refusal) as caught:
            self.judge(header, **options)
        return caught.exception.reply


class SendersTests(SubmissionCase):
    def test_whom_a_user_may_write_as(self) -> None:
        for user, sender, allowed in [
            ("joe@example.org", "joe@example.org", True),
            ("joe@example.org", "JOE@Example.ORG", True),
            ("joe@example.org", '"joe"@example.org', True),
            ("joe@example.org", "joe+lists@example.org", True),
            ("joe@example.org", "joe-lists@example.org", False),
            ("joe@example.org", "joey@example.org", False),
            ("joe@example.org", "joe@example.com", False),
            ("joe@example.org", "sales@example.org", True),
            ("joe@example.org", "sales+x@example.org", True),
            ("ann@example.org", "sales@example.org", False),
            ("joe@example.org", "boss@example.com", True),
            ("joe@example.org", "ann@example.org", False),
            ("ann@example.org", "anybody@example.net", True),
            ("ann@example.org", "anybody@sub.example.net", False),
            ("joe@example.org", "x@example.net", False),
            ("joe@example.org", "joe@[192.0.2.1]", False),
            ("joe@example.org", "nobody@example.org", False),
            ("j\u00f6rg@example.org", "jo\u0308rg@example.org", True),
            ("joe", "joe@example.org", False),
            ("", "joe@example.org", False),
        ]:
            try:
                self.senders.check(user, parse_address(sender))
            except Refusal as refusal:
                self.assertFalse(allowed, (user, sender))
                self.assertEqual(refusal.reply, NOT_YOURS)
            else:
                self.assertTrue(allowed, (user, sender))

    def test_the_reply_names_nobody(self) -> None:
        for name in ("joe", "ann", "example"):
            self.assertNotIn(name, str(NOT_YOURS))


class AddTests(SubmissionCase):
    def test_what_is_missing_is_added_on_top_and_what_is_there_stays(self) -> None:
        from_ = b"From: <joe@example.org>\r\n"
        own = b"from: Joe <joe@example.org>\r\n"
        for header, result in [
            (b"", from_ + DATE + ID),
            (b"Subject: x\r\n", from_ + DATE + ID + b"Subject: x\r\n"),
            (own, DATE + ID + own),
            (own + b"DATE: x\r\n", ID + own + b"DATE: x\r\n"),
            (own + b"Message-Id : <x>\r\n", DATE + own + b"Message-Id : <x>\r\n"),
            (own + WHOLE, own + WHOLE),
            (own + b"Resent-Date: x\r\n", DATE + ID + own + b"Resent-Date: x\r\n"),
            (WHOLE, from_ + WHOLE),
            (own + b"Date: x", ID + own + b"Date: x"),
        ]:
            self.assertEqual(self.judge(header), result)

    def test_a_reader_finds_what_was_added(self) -> None:
        read = message_from_bytes(self.judge(b"Subject: x\r\n") + b"\r\nbody\r\n")
        self.assertEqual(parsedate_to_datetime(read["Date"]).timestamp(), int(NOW))
        self.assertEqual((read["From"], read["Subject"]), ("<joe@example.org>", "x"))
        self.assertRegex(read["Message-ID"], r"\A<[^<>@\s]+@mail\.example\.org>\Z")
        self.assertGreater(time.time(), NOW)

    def test_from_is_the_sender_also_in_utf_8_and_quotes(self) -> None:
        for sender, field in [
            ("j\u00f6rg@example.org", "From: <j\u00f6rg@example.org>\r\n"),
            ('"a > b"@example.com', 'From: <"a > b"@example.com>\r\n'),
        ]:
            self.assertIn(field.encode(), self.judge(WHOLE, sender=sender, senders=None))

    def test_the_null_sender_must_bring_its_from(self) -> None:
        self.assertEqual(self.refused(b"Subject: x\r\n", sender=""), BAD_FROM)
        own = b"From: joe@example.org\r\n" + WHOLE
        self.assertEqual(self.judge(own, sender=""), own)

    @settings(deadline=None, max_examples=150)
    @given(st.text(max_size=30), st.sampled_from(["example.org", "b\u00fc.example.org", "[192.0.2.1]"]))
    def test_no_sender_starts_a_field(self, local: str, domain: str) -> None:
        try:
            sender = parse_address(f"{local}@{domain}")
        except AddressError:
            try:
                quoted = local.replace("\\", "\\\\").replace('"', '\\"')
                sender = parse_address(f'"{quoted}"@{domain}')
            except AddressError:
                return
        envelope = Envelope("id7", sender)
        judged = Submission(envelope, "", None, hostname="mail.example.org", now=NOW)(b"Subject: x\r\n")
        names = [name for name, _ in fields(judged)]
        self.assertEqual(names, [b"from", b"date", b"message-id", b"subject"])
        self.assertEqual((judged.count(b"\r\n"), judged.count(b"\r"), judged.count(b"\n")), (4, 4, 4))


class RemoveTests(SubmissionCase):
    def test_blind_copies_and_return_paths_go_with_all_their_lines(self) -> None:
        own = b"From: joe@example.org\r\n" + WHOLE
        for removed in (
            b"Bcc: ann@example.org\r\n",
            b"BCC:ann@example.org,\r\n boss@example.com,\r\n\tx@example.com\r\n",
            b"bcc : \r\n ann@example.org\r\n",
            b"Bcc:\r\n \r\n ann@example.org\r\n",
            b"Resent-Bcc: ann@example.org,\r\n\tboss@example.com\r\n",
            b"Return-Path: <ann@example.org>\r\n",
            b"Bcc: ann@example.org\r\nBcc: boss@example.com\r\n",
        ):
            for header in (removed + own, own + removed, own + removed + b"To: x@example.com\r\n"):
                judged = self.judge(header)
                self.assertEqual(judged, header.replace(removed, b""))
                self.assertNotIn(b"ann@", judged)

    def test_what_only_looks_like_them_stays(self) -> None:
        own = b"From: joe@example.org\r\n" + WHOLE
        for field in (b"X-Bcc: a@b\r\n", b"Subject: x\r\n Bcc: a@b\r\n", b"Bcc2: a@b\r\n", b"Cc: a@b\r\n"):
            self.assertEqual(self.judge(own + field), own + field)

    def test_a_bare_newline_hides_no_field(self) -> None:
        """Where a policy lets them be (`ignore`, or a binary message): a reader may take them for line ends."""
        own = b"From: joe@example.org\r\n" + WHOLE
        for newline in (b"\n", b"\r", b"\n\r", b"\r\r\n"):
            hidden = own + b"X: y" + newline + b"Bcc: ann@example.org\r\n"
            self.assertEqual(self.judge(hidden), own + b"X: y\r\n", newline)
            self.assertEqual(self.refused(own + b"X: y" + newline + b"From: ann@example.org\r\n"), BAD_FROM)
            split = b"X: y" + newline * 2 + own
            self.assertEqual(self.judge(split), b"X: y\r\n" + own, newline)

    def test_a_received_field_and_others_stay_in_their_order(self) -> None:
        header = b"Received: by x\r\nFrom: joe@example.org\r\n" + WHOLE + b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n"
        self.assertEqual(self.judge(header), header)


#: From fields that joe may write
HIS = (
    b"From: joe@example.org\r\n",
    b"From: <joe@example.org>\r\n",
    b"From: Joe Doe <joe+x@example.org>\r\n",
    b'From: "Doe, Joe" <joe@example.org>\r\n',
    b'From: "ann@example.org" <joe@example.org>\r\n',
    b"From: =?utf-8?q?D=C3=B6?= <JOE@example.org>\r\n",
    b"From: =?utf-8?q?ann=40example.org=2C?= <joe@example.org>\r\n",
    b"From: joe@example.org (Joe (the one) Doe)\r\n",
    b"From:\r\n Joe\r\n\t<joe@example.org>\r\n",
    b"From: sales@example.org, boss@example.com\r\n",
    b"From: joe@example.org,\r\n",
    b"From: Team: joe@example.org, sales@example.org;\r\n",
    b'From: "joe"@example.org\r\n',
    "From: J\u00f6 <joe@example.org>\r\n".encode(),
)
NOT_HIS = (
    b"From: \xff@example.org\r\n",
    b"From: ann@example.org\r\n",
    b"From: joe@example.org, ann@example.org\r\n",
    b"From: Team: joe@example.org, ann@example.org;\r\n",
    b'From: "joe@example.org" <ann@example.org>\r\n',
    b"From: joe@example.org <ann@example.org>\r\n",
    b"From: joe@example.org\r\n , ann@example.org\r\n",
    b"From: <@joe.example.org:ann@example.org>\r\n",
)
NONE = (
    b"From:\r\n",
    b"From: Joe\r\n",
    b"From: <>\r\n",
    b"From: undisclosed-recipients:;\r\n",
    b"From: Doe, Joe <joe@example.org>\r\n",
    b"From: joe@example.org)ann@example.org\r\n",
    b"From: joe@\r\n",
    b"From: joe@example.org\0\r\n",
    b"From: " + b"a:" * 2000 + b"\r\n",
    b"From: " + b"(" * 3000 + b"joe@example.org\r\n",
    b"From: joe@example.org\r\nFrom: joe@example.org\r\n",
    b"From: joe@example.org\r\nfrom : ann@example.org\r\n",
)


class AuthorTests(SubmissionCase):
    def test_who_a_user_may_say_that_they_are(self) -> None:
        for field in HIS:
            self.assertEqual(self.judge(field + WHOLE), field + WHOLE)
        for field in NOT_HIS:
            self.assertEqual(self.refused(field + WHOLE), NOT_YOURS, field)

    def test_a_from_that_is_none_or_more_than_one(self) -> None:
        for field in NONE:
            self.assertEqual(self.refused(field + WHOLE).code, 554, field[:60])

    def test_a_leading_line_that_is_no_field_is_no_from(self) -> None:
        judged = self.judge(b" From: ann@example.org\r\n" + WHOLE)
        self.assertTrue(judged.startswith(b"From: <joe@example.org>\r\n"))

    def test_a_long_from_at_the_limit_and_over_it(self) -> None:
        for length, taken in [(MOST_FROM, True), (MOST_FROM + 1, False)]:
            start, end = b"From: ", b" <joe@example.org>\r\n"
            field = start + b"x" * (length - len(start) - len(end)) + end
            if taken:
                self.assertEqual(self.judge(field + WHOLE), field + WHOLE)
            else:
                self.assertEqual(self.refused(field + WHOLE), BAD_FROM)

    def test_nobody_and_development_mode_are_asked_for_a_from_only(self) -> None:
        for options in ({"user": ""}, {"senders": None}):
            header = b"From: ann@example.org\r\n" + WHOLE
            self.assertEqual(self.judge(header, **options), header)
            self.assertEqual(self.refused(b"From: x\r\n", **options), BAD_FROM)

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.sampled_from(["joe@example.org", "ann@example.org", "<", ">", ",", ":", ";", '"', "(", ")", " ", "x",
                                     "\\", "=?utf-8?q?", "\r\n ", "@", "\u00e4"]), max_size=12))  # fmt: skip
    def test_whatever_from_holds_it_is_a_reply_or_his_own(self, parts: list[str]) -> None:
        field = ("From: " + "".join(parts) + "\r\n").encode()
        try:
            self.judge(field + WHOLE)
        except Refusal as refusal:
            self.assertIn(refusal.reply, (NOT_YOURS, BAD_FROM))
        else:
            self.assertIn("joe@example.org", "".join(parts))
