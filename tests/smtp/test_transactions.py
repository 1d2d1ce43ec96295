"""Transactions through the server: chunks that are slow, fail, stop or are refused; a reply for each recipient."""

from __future__ import annotations

import errno
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.internet.defer import fail

from mailserver import reply as replies
from mailserver.limits import Limits
from mailserver.reply import Refusal, Reply
from tests.smtp.driver import Conversation, settings
from tests.smtp.phrases import BDAT as START_OF_CHUNKS
from tests.smtp.phrases import EHLO, MAIL, RCPT, START, chunk
from tests.smtp.test_server import LogCase
from tests.smtp.wire import Line, waiting

OPEN = START_OF_CHUNKS
SENT = "220 250 250 250"
LMTP = b"LHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<one@d>\r\nRCPT TO:<two@d>\r\n"
#: An hour of running time: a clock does not stand at zero when mail comes.
LATE = 3600.0


class ServerCase(LogCase):
    def line(self, *sent: bytes, steps: dict[str, Any] | None = None, late: bool = False, **changes: Any) -> Line:
        line = Line(settings(**changes), steps, connect=False)
        if late:
            line.clock.advance(LATE)
        line.server.makeConnection(line.wire)
        return self.send(line, *sent)

    def send(self, line: Line, *sent: bytes) -> Line:
        for part in sent:
            line.server.dataReceived(part)
        return line

    def text_of(self, line: Line) -> str:
        return line.wire.value().decode("ascii")


class ChunkTests(ServerCase):
    def test_a_message_in_chunks_from_the_first_to_the_250(self) -> None:
        line = self.line(OPEN, chunk(b"Subject: x\r\n"), chunk(b"\r\n..a\r\n", last=True), b"QUIT\r\n")
        self.assertEqual(line.codes, f"{SENT} 250 250 221")
        self.assertEqual(line.delivery.text, b"Subject: x\r\n\r\n..a\r\n")
        self.assertEqual(line.delivery.done[-2:], ["prepare", "commit"])
        self.assertIn("250 2.0.0 12 octets received\r\n", self.text_of(line))

    def test_the_reply_to_a_chunk_tells_its_octets_however_it_came(self) -> None:
        line = self.line(OPEN, b"BDAT 7\r\nab", b"cd", b"efg")
        self.assertEqual(line.last, "250 2.0.0 7 octets received")

    def test_a_slow_place_holds_the_chunk_and_what_is_behind_it_back(self) -> None:
        place = waiting()
        line = self.line(OPEN + chunk(b"a") + chunk(b"b", last=True) + b"NOOP\r\n", steps={"data": place})
        self.assertEqual(line.codes, SENT)
        line.steps.clear()
        from tests.smtp.wire import Recording

        delivery = Recording({})
        place.callback(delivery)
        self.assertEqual(line.codes, f"{SENT} 250 250 250")
        self.assertEqual(delivery.text, b"ab")

    def test_a_slow_write_holds_the_next_chunk_back(self) -> None:
        write = waiting()
        line = self.line(OPEN, chunk(b"a") + chunk(b"b", last=True), steps={"write": write})
        self.assertEqual(line.codes, f"{SENT} 250")  # received it is; what becomes of it the last reply tells
        self.assertEqual(line.delivery.text, b"a")
        line.steps["write"] = None
        write.callback(None)
        self.assertEqual(line.codes, f"{SENT} 250 250")
        self.assertEqual(line.delivery.text, b"ab")

    def test_a_write_that_fails_is_told_at_the_end_of_its_chunk(self) -> None:
        for trouble in (Refusal(replies.DISK_FULL), fail(Refusal(replies.DISK_FULL))):
            line = self.line(
                OPEN, b"BDAT 5\r\nab", b"cde", chunk(b"f", last=True), b"NOOP\r\n", steps={"write": trouble}
            )
            self.assertEqual(line.codes, f"{SENT} 452 503 250")
            self.assertEqual(line.delivery.done, ["write", "abort"])

    def test_each_step_that_fails_leaves_the_conversation_in_step(self) -> None:
        for step, codes in [("data", "451 503"), ("prepare", "250 451"), ("commit", "250 451")]:
            line = self.line(OPEN, chunk(b"a"), chunk(b"b", last=True), steps={step: OSError(errno.EIO, "x")})
            self.assertEqual(line.codes, f"{SENT} {codes}", step)
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
            line.steps.clear()
            self.send(line, MAIL, RCPT, chunk(b"c", last=True))
            self.assertEqual(line.codes, f"{SENT} {codes} 250 250 250", step)
            self.assertEqual(line.delivery.text, b"c")

    def test_a_connection_lost_in_a_chunk_or_between_two_leaves_nothing(self) -> None:
        for sent in (b"BDAT 9\r\nabc", chunk(b"abc")):
            line = self.line(OPEN, sent)
            line.lose()
            self.assertEqual(line.delivery.done, ["write", "abort"])
            self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_rset_between_chunks_aborts_the_delivery(self) -> None:
        line = self.line(OPEN, chunk(b"abc"), b"RSET\r\n", MAIL)
        self.assertEqual(line.delivery.done, ["write", "abort"])
        self.assertEqual(line.codes, f"{SENT} 250 250 250")

    def test_too_big_is_told_once_and_the_delivery_is_aborted_at_once(self) -> None:
        line = self.line(OPEN, b"BDAT 65537 LAST\r\n" + b"x", limits=Limits(message_size=65536, error_delay=0.0))
        self.assertEqual(line.codes, f"{SENT} 552")
        self.assertTrue(line.wire.disconnecting)
        self.assertEqual(line.delivery.done, ["abort"])

    def test_many_small_chunks_cost_no_square(self) -> None:
        line = self.line(OPEN, chunk(b"x") * 5000 + b"BDAT 0 LAST\r\n")
        line.clock.pump([0] * 200)
        self.assertEqual(line.delivery.text, b"x" * 5000)
        self.assertEqual(line.codes, SENT + " 250" * 5001)


class TimeTests(ServerCase):
    def test_silence_in_a_chunk_ends_it(self) -> None:
        line = self.line(OPEN, b"BDAT 9\r\nabc", late=True)
        line.clock.advance(179)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertEqual(line.codes, f"{SENT} 421")
        self.assertIn("abort", line.delivery.done)

    def test_silence_between_chunks_is_that_of_a_command(self) -> None:
        line = self.line(OPEN, chunk(b"abc"), late=True)
        line.clock.advance(299)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertEqual(line.codes, f"{SENT} 250 421")

    def test_a_trickle_of_chunks_is_cut(self) -> None:
        line = self.line(OPEN, late=True)
        for _ in range(70):
            self.send(line, b"BDAT 2\r\n", b"x")
            line.clock.advance(1)
            if line.wire.disconnecting:
                break
            self.send(line, b"y")
        self.assertEqual(line.codes[-3:], "421")
        self.assertIn("too slowly", line.last)

    def test_text_that_is_thrown_away_has_its_time_too(self) -> None:
        """Nobody was asked for a place for it, and yet it is not too slow from its first octet on."""
        refused = EHLO + MAIL + b"RCPT TO:<x>\r\nDATA\r\n"
        for sent, rest, codes in [
            ([refused, b"half a mes"], b"sage\r\n.\r\n", "220 250 250 501 354 554"),
            ([EHLO + b"BDAT 9\r\n", b"half"], b" more", "220 250 503"),
        ]:
            line = self.line(*sent, late=True)
            line.clock.advance(59)
            self.assertFalse(line.wire.disconnecting, sent)
            self.send(line, rest)
            self.assertEqual(line.codes, codes)

    def test_the_second_message_has_a_time_of_its_own(self) -> None:
        line = self.line(START, late=True)
        for _ in range(100):
            line.clock.advance(10)
            self.send(line, b"x" * 5_000)
        again = MAIL + RCPT + b"BDAT 9\r\nabc"
        self.send(line, b"\r\n.\r\n" + again)
        self.assertFalse(line.wire.disconnecting)
        self.send(line, b"defghi")
        self.assertEqual(line.codes, "220 250 250 250 354 250 250 250 250")

    def test_a_transaction_holds_a_connection_no_longer_than_five_minutes_beyond_its_hour(self) -> None:
        line = self.line(EHLO, MAIL, limits=Limits(recipients=100), steps={"rcpt": Refusal(replies.LOCAL_TROUBLE)})
        for _ in range(12):
            line.clock.advance(290)
            self.send(line, RCPT)
        self.assertFalse(line.wire.disconnecting)
        for _ in range(3):
            line.clock.advance(290)
            self.send(line, RCPT)
        self.assertIn("421 4.4.2 Connection open for too long", self.text_of(line))


class RecipientReplyTests(ServerCase):
    """LMTP, RFC 2033 4.2."""

    def lmtp(self, *sent: bytes, **steps: Any) -> Line:
        return self.line(LMTP, *sent, steps=steps, lmtp=True, bare_newlines="fix")

    def test_each_recipient_has_the_reply_of_the_delivery(self) -> None:
        each = (Reply(250, "2.0.0", "Stored"), replies.MAILBOX_FULL)
        for sent in (b"DATA\r\nhi\r\n.\r\n", chunk(b"hi\r\n", last=True)):
            line = self.lmtp(sent, commit=each)
            self.assertEqual(
                self.text_of(line).split("\r\n")[-3:-1],
                ["250 2.0.0 <one@d> Stored", "452 4.2.2 <two@d> Mailbox full"],
            )
            self.assertEqual(line.delivery.done[-1], "commit")

    def test_one_reply_or_a_failure_is_repeated_for_each_with_its_name(self) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"commit": Reply(250, "2.0.0", "Fine")}, "250 2.0.0 <{}@d> Fine"),
            ({"prepare": Refusal(replies.MAILBOX_FULL)}, "452 4.2.2 <{}@d> Mailbox full"),
            ({"write": Refusal(replies.DISK_FULL)}, "452 4.3.1 <{}@d> Insufficient system storage"),
        ]
        for steps, text in cases:
            line = self.lmtp(b"DATA\r\nhi\r\n.\r\n", **steps)
            expected = [text.format("one"), text.format("two")]
            self.assertEqual(self.text_of(line).split("\r\n")[-3:-1], expected)

    def test_a_slow_commit_holds_all_replies_back_and_they_leave_together(self) -> None:
        commit = waiting()
        line = self.lmtp(b"DATA\r\nhi\r\n.\r\nNOOP\r\n", commit=commit)
        self.assertEqual(line.codes, "220 250 250 250 250 354")
        before = len(line.wire.writes)
        commit.callback((replies.OK, replies.OK))
        self.assertEqual(line.codes, "220 250 250 250 250 354 250 250 250")
        self.assertEqual(len(line.wire.writes), before + 1)

    def test_a_chunk_that_fails_has_one_reply_and_the_last_has_all(self) -> None:
        line = self.lmtp(b"BDAT 2\r\na", b"b", chunk(b"c", last=True), write=Refusal(replies.DISK_FULL))
        self.assertEqual(line.codes, "220 250 250 250 250 452 503")
        # The write was still to come when the chunk was whole: then the last one tells it to all.
        line = self.lmtp(chunk(b"a"), chunk(b"b", last=True), write=Refusal(replies.DISK_FULL))
        self.assertEqual(line.codes, "220 250 250 250 250 250 452 452")
        line = self.lmtp(chunk(b"a"), chunk(b"b", last=True), prepare=Refusal(replies.DISK_FULL))
        self.assertEqual(line.codes, "220 250 250 250 250 250 452 452")

    def test_one_who_has_miscounted_is_not_believed(self) -> None:
        for answer in ((replies.OK,), (replies.OK,) * 3):
            line = self.lmtp(b"DATA\r\nhi\r\n.\r\n", commit=answer)
            self.assertEqual(line.codes[-7:], "451 451")

    def test_421_for_one_ends_it_there(self) -> None:
        line = self.lmtp(b"DATA\r\nhi\r\n.\r\n", commit=(replies.OK, replies.SHUTTING_DOWN))
        self.assertEqual(line.codes[-7:], "250 421")
        self.assertTrue(line.wire.disconnecting)


class SeveralRepliesTests(ServerCase):
    """A delivery that answers for each recipient, where SMTP has one reply for all."""

    def test_the_one_reply_keeps_everybodys_mail_safe(self) -> None:
        ok, later, never = replies.OK, replies.MAILBOX_FULL, replies.RELAYING_DENIED
        for answer, code in [
            ((ok, ok), "250"),
            ((ok, later), "452"),
            ((ok, never), "550"),
            ((never, later), "452"),
            ((never, never), "550"),
            ((ok,), "250"),
        ]:
            line = self.line(START, b"hi\r\n.\r\n", steps={"commit": answer})
            self.assertEqual(line.codes[-3:], code, answer)


class NonsenseTests(ServerCase):
    """An app that answers nonsense has not said yes: 451, the log, and the connection goes on."""

    def test_in_each_decision(self) -> None:
        for step, codes in [("mail", "451"), ("rcpt", "451"), ("data", "451"), ("commit", "451")]:
            for nonsense in (False, "yes", 250, (), ("ok",), [replies.OK], object()):
                line = self.line(EHLO, steps={step: nonsense})
                for sent in (MAIL, RCPT, b"DATA\r\n", b".\r\n"):
                    self.send(line, sent)
                    if line.codes.endswith(codes):
                        break
                self.assertTrue(line.codes.endswith(codes), (step, nonsense, line.codes))
                self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1, (step, nonsense))
                self.send(line, b"NOOP\r\n")
                self.assertEqual(line.codes[-3:], "250")

    def test_a_place_that_is_a_reply_is_none(self) -> None:
        for answer in (replies.OK, replies.RELAYING_DENIED):
            line = self.line(START, steps={"data": answer})
            self.assertEqual(line.codes, "220 250 250 250 451")
            self.flushLoggedErrors(TypeError)


class SessionTests(ServerCase):
    def test_a_session_alone_believes_no_empty_answer(self) -> None:
        session = Conversation().feed([START]).session
        session.receive(b".\r\n")
        session.next_event()
        session.answer(())
        self.assertEqual(session.data_to_send()[:9], b"451 4.3.0")

    def test_recipients_that_come_late_count_for_the_text_behind_data(self) -> None:
        unknown = b"RCPT TO:<unknown@d>\r\n"
        for recipients, codes in [
            ((unknown, RCPT), "550 250 354 250"),
            ((RCPT, unknown), "250 550 354 250"),
            ((unknown, b"RCPT TO:<later@d>\r\n"), "550 451 354 554"),
            ((b"RCPT x\r\n",), "501 354 554"),
        ]:
            conversation = Conversation().feed([EHLO, MAIL, *recipients, b"DATA\r\n.\r\n"])
            self.assertEqual(conversation.codes, f"220 250 250 {codes}", recipients)

    def test_a_new_transaction_knows_nothing_of_the_refused_ones_of_the_last(self) -> None:
        for end in (b"RSET\r\n", EHLO):
            conversation = Conversation().feed([EHLO, MAIL, b"RCPT TO:<unknown@d>\r\n", end, MAIL, b"DATA\r\n"])
            self.assertEqual(conversation.codes, "220 250 250 550 250 250 503")

    @hypothesis_settings(deadline=None, max_examples=100)
    @given(st.lists(st.binary(max_size=30), min_size=1, max_size=8), st.lists(st.integers(1, 7), max_size=60))
    def test_binary_chunks_arrive_as_they_were(self, parts: list[bytes], cuts: list[int]) -> None:
        chunks = b"".join(chunk(part) for part in parts) + b"BDAT 0 LAST\r\n"
        sent = EHLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT + chunks
        pieces, at = [], 0
        for cut in cuts:
            pieces.append(sent[at : at + cut])
            at += cut
        conversation = Conversation().feed([*pieces, sent[at:]])
        self.assertEqual([text for _, text in conversation.messages], [b"".join(parts)])
