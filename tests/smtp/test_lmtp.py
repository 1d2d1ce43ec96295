"""LMTP: its own transcripts, fed in every cut, and what it shares with SMTP."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.lmtp import LMTPSession
from tests.smtp import test_session
from tests.smtp.driver import Conversation
from tests.smtp.extension_transcripts import LHLO, LMTP_TRANSCRIPTS, TWO
from tests.smtp.phrases import DATA, MAIL, RCPT


class LMTPTranscriptTests(test_session.TranscriptTests):
    """The same laws for LMTP."""

    kind = LMTPSession
    transcripts = LMTP_TRANSCRIPTS


class LMTPTests(SynchronousTestCase):
    def test_each_reply_names_its_recipient(self) -> None:
        conversation = Conversation(kind=LMTPSession).feed([TWO + DATA + b".\r\n"])
        self.assertEqual(
            conversation.replies[-2:],
            ["250 2.0.0 <b@example.org> Ok: queued as t1", "250 2.0.0 <c@example.org> Ok: queued as t1"],
        )

    def test_the_protocol_names_of_rfc_3848(self) -> None:
        for tls, name in ((False, "LMTP"), (True, "LMTPS")):
            conversation = Conversation(kind=LMTPSession, tls=tls).feed([LHLO + MAIL + RCPT + DATA + b".\r\n"])
            self.assertEqual(conversation.messages[0][0].protocol, name)

    def test_it_announces_what_rfc_2033_asks_for(self) -> None:
        announced = Conversation(kind=LMTPSession).feed([LHLO]).output
        for name in (b"PIPELINING", b"ENHANCEDSTATUSCODES", b"8BITMIME"):
            self.assertIn(name, announced)
