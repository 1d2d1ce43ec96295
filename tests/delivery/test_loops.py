"""The loop check: our own address in Delivered-To, however it is written; and no other message."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.delivery.loops import MOST_DELIVERED_TO, SEEN, LoopCheck
from mailserver.reply import Refusal

MAILBOXES = [parse_address("joe@example.org"), parse_address("J\u00f6rg+list@b\u00fc.example.org")]

#: header sections that have been here
SEEN_HERE = (
    b"Delivered-To: joe@example.org\r\n",
    b"Delivered-To: <joe@example.org>\r\n",
    b"DELIVERED-to:joe@EXAMPLE.org\r\n",
    b"delivered-to : \t JOE@example.org  \r\n",
    b"Delivered-To:\r\n joe@example.org\r\n",
    b"Delivered-To:\r\n\t\r\n joe@example.org\r\n",
    b"Subject: x\r\nDelivered-To: ann@example.org\r\nDelivered-To: joe@example.org\r\nX: y\r\n",
    b'Delivered-To: "joe"@example.org\r\n',
    "Delivered-To: j\u00d6rg+LIST@B\u00dc.example.org\r\n".encode(),
    "Delivered-To: jo\u0308rg+list@b\u00fc.example.org\r\n".encode(),
    "Delivered-To: j\u00f6rg+list@xn--b-eha.example.org\r\n".encode(),
    b"Delivered-To: joe@example.org",
)
#: and those that have not
NOT_SEEN = (
    b"",
    b"Subject: Delivered-To: joe@example.org\r\n",
    b"Subject: x\r\n Delivered-To: joe@example.org\r\n",
    b"X-Delivered-To: joe@example.org\r\n",
    b"Delivered-To-Joe: joe@example.org\r\n",
    b" Delivered-To: joe@example.org\r\n",
    b"Delivered-To joe@example.org\r\n",
    b"Delivered-To: joe+x@example.org\r\n",
    b"Delivered-To: joe@example.com\r\n",
    b"Delivered-To: joe@example.org.example.com\r\n",
    "Delivered-To: j\u00f6rg@b\u00fc.example.org\r\n".encode(),
    b"Delivered-To:\r\n",
    b"Delivered-To: joe@example.org, ann@example.org\r\n",
    b"Delivered-To: =?utf-8?q?joe=40example.org?=\r\n",
    b"Delivered-To: \xff\xfe\r\n",
    b"Delivered-To: " + b"x" * 100_000 + b"\r\n",
    b"Received: by x for joe@example.org\r\n",
)


class LoopTests(SynchronousTestCase):
    def test_a_message_that_was_here_is_refused_for_good(self) -> None:
        for header in SEEN_HERE:
            with self.assertRaises(Refusal) as caught:
                LoopCheck(MAILBOXES)(header)
            self.assertEqual((caught.exception.reply.code, caught.exception.reply.enhanced), (554, "5.4.6"))

    def test_where_each_mailbox_has_its_own_answer_it_is_told_which(self) -> None:
        for header in SEEN_HERE:
            seen: list[str] = []
            self.assertEqual(LoopCheck(MAILBOXES, leave_out=seen.append)(header), header)
            self.assertEqual(len(seen), 1)
            self.assertIn(seen[0], [address.key for address in MAILBOXES])

    def test_any_other_passes_as_it_is(self) -> None:
        for header in NOT_SEEN:
            self.assertEqual(LoopCheck(MAILBOXES)(header), header)

    def test_only_the_mailboxes_of_this_message_count(self) -> None:
        header = b"Delivered-To: joe@example.org\r\n"
        self.assertEqual(LoopCheck([parse_address("ann@example.org")])(header), header)
        self.assertEqual(LoopCheck([])(header), header)
        with self.assertRaises(Refusal):
            LoopCheck([parse_address("ann@example.org"), parse_address("joe@example.org")])(header)

    def test_hops_to_others_at_the_limit_and_over_it(self) -> None:
        header = b"Delivered-To: ann@example.com\r\n"
        LoopCheck(MAILBOXES)(header * MOST_DELIVERED_TO)
        with self.assertRaises(Refusal) as caught:
            LoopCheck(MAILBOXES)(header * (MOST_DELIVERED_TO + 1))
        self.assertIs(caught.exception.reply, SEEN)

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(st.sampled_from([b"Delivered-To:", b"joe@example.org", b"\r\n", b" ", b"\r", b"\n", b"\xff", b"<"]))
    )
    def test_any_octets_are_refused_or_pass_as_they_are(self, parts: list[bytes]) -> None:
        header = b"".join(parts)
        try:
            self.assertEqual(LoopCheck(MAILBOXES)(header), header)
        except Refusal as refusal:
            self.assertIs(refusal.reply, SEEN)
