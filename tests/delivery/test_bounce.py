"""The report to a sender: its three parts, whom it names and why; nothing in it can become a field of its own."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.delivery.bounce import MOST_RETURNED, Failed, report, wants_report, wants_whole
from mailserver.envelope import Recipient
from mailserver.mime import Part, decode
from mailserver.reply import MAILBOX_FULL, UNKNOWN_USER, Reply
from mailserver.spool.held import Held
from tests.spool.messages import BOB, NOW, TEXT, held


def recipient(address: str = BOB, **parameters: str) -> Recipient:
    return Recipient(parse_address(address), parameters)


class ReportTests(SynchronousTestCase):
    def report(self, message: Held, *failed: Failed, returned: bytes = TEXT, whole: bool = True) -> Part:
        octets = report(message, failed, returned, hostname="mx.example.org", now=NOW, whole=whole)
        found = decode(octets)
        self.assertEqual(list(found.defects), [])
        self.assertEqual(
            (found.content_type, found.parameters["report-type"]), ("multipart/report", "delivery-status")
        )
        self.assertEqual(len(found.parts), 3)
        return found

    def status(self, part: Part) -> list[str]:
        return part.parts[1].content.decode().split("\r\n")

    def test_people_read_who_and_why(self) -> None:
        found = self.report(held(), (recipient(), UNKNOWN_USER))
        self.assertEqual(found.headers["To"], "anna@example.org")
        self.assertEqual(found.headers["Auto-Submitted"], "auto-replied")
        text = found.parts[0].text
        self.assertIn("    bob@example.org\n        550 5.1.1", text.replace("\r\n", "\n"))

    def test_programs_too(self) -> None:
        message = held(parameters={"ENVID": "QQ+2B3", "HOLDFOR": "60"})
        lines = self.status(
            self.report(
                message,
                (recipient(ORCPT="rfc822;b+2Bx@example.org"), UNKNOWN_USER),
                (recipient("c@example.org"), MAILBOX_FULL),
            )
        )
        self.assertEqual(
            [line for line in lines if line],
            [
                "Original-Envelope-Id: QQ+3",
                "Reporting-MTA: dns; mx.example.org",
                "Arrival-Date: Tue, 14 Nov 2023 22:12:20 +0000",
                "Future-Release-Request: for;60",
                "Original-Recipient: rfc822; b+x@example.org",
                "Final-Recipient: rfc822; bob@example.org",
                "Action: failed",
                "Status: 5.1.1",
                f"Diagnostic-Code: smtp; {UNKNOWN_USER}",
                "Final-Recipient: rfc822; c@example.org",
                "Action: failed",
                "Status: 5.2.2",
                "Diagnostic-Code: smtp; 452 4.2.2 Mailbox full",
            ],
        )
        self.assertEqual(len([line for line in lines if not line]), 3)

    def test_a_time_that_was_asked_for(self) -> None:
        message = held(parameters={"HOLDUNTIL": "2026-12-24T18:00:00Z"})
        lines = self.status(self.report(message, (recipient(), UNKNOWN_USER)))
        self.assertIn("Future-Release-Request: until;2026-12-24T18:00:00Z", lines)

    def test_addresses_beyond_ascii(self) -> None:
        message = held(sender=parse_address("grün@example.org"))
        found = self.report(message, (recipient("blau@exämple.org", ORCPT="utf-8;blau@exämple.org"), UNKNOWN_USER))
        self.assertEqual(found.parts[1].content_type, "message/global-delivery-status")
        lines = self.status(found)
        self.assertIn("Final-Recipient: utf-8; blau@exämple.org", lines)
        self.assertIn("Original-Recipient: utf-8; blau@exämple.org", lines)

    def test_the_message_comes_back_whole_or_as_its_header(self) -> None:
        whole = self.report(held(), (recipient(), UNKNOWN_USER)).parts[2]
        self.assertEqual((whole.content_type, whole.parts[0].headers["Subject"]), ("message/rfc822", "later"))
        head = TEXT.partition(b"\r\n\r\n")[0] + b"\r\n"
        part = self.report(held(), (recipient(), UNKNOWN_USER), returned=head, whole=False).parts[2]
        self.assertEqual((part.content_type, part.content.strip()), ("text/rfc822-headers", head.strip()))

    def test_octets_beyond_ascii_come_back_as_they_were(self) -> None:
        text = b"Subject: gr\xc3\xbcn\r\n\r\nk\xe4se\r\n"
        octets = report(held(), [(recipient(), UNKNOWN_USER)], text, hostname="h", now=NOW, whole=True)
        self.assertIn(text, octets)

    def test_no_reply_begins_a_field(self) -> None:
        bad = Reply(550, "5.0.0", "no\r\nX-Evil: 1\n\nFinal-Recipient: rfc822; x")
        lines = self.status(self.report(held(), (recipient(), bad)))
        self.assertEqual([line for line in lines if line.startswith(("X-Evil", "Final-Recipient: rfc822; x"))], [])
        text = self.report(held(), (recipient(), bad)).parts[0].text
        self.assertNotIn("\nX-Evil", text.replace("\r\n", "\n"))


class WishTests(SynchronousTestCase):
    def test_who_wants_to_hear(self) -> None:
        self.assertTrue(wants_report(recipient()))
        for notify, wanted in (
            ("NEVER", False),
            ("SUCCESS,DELAY", False),
            ("failure", True),
            ("SUCCESS,FAILURE", True),
        ):
            self.assertEqual(wants_report(recipient(NOTIFY=notify)), wanted, notify)

    def test_who_wants_the_whole_message(self) -> None:
        self.assertTrue(wants_whole(held(parameters={}), MOST_RETURNED))
        self.assertFalse(wants_whole(held(parameters={}), MOST_RETURNED + 1))
        self.assertTrue(wants_whole(held(parameters={"RET": "full"}), 1))
        self.assertFalse(wants_whole(dataclasses.replace(held(parameters={"RET": "HDRS"})), 1))
