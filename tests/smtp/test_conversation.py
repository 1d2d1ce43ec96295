"""The ground of a conversation: its verbs, lines, replies, errors and ends, whatever the commands mean."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.limits import Limits
from mailserver.reply import Reply
from mailserver.smtp import events
from mailserver.smtp.conversation import refused
from mailserver.smtp.rules import State
from tests.smtp.driver import MECHANISMS, TLS, Conversation, settings
from tests.smtp.phrases import BDAT, DATA, EHLO, MAIL, RCPT, START, b64, chunk

NOOP = b"NOOP\r\n"


class VerbTests(SynchronousTestCase):
    def test_each_octet_is_given_once(self) -> None:
        session = Conversation().session
        session.next_event()
        session.answer(None)
        self.assertEqual(session.data_to_send(), b"220 mx.example.org ESMTP\r\n")
        self.assertEqual(session.data_to_send(), b"")

    def test_there_is_one_question_and_it_is_answered_once(self) -> None:
        session = Conversation().session
        self.assertIsInstance(session.next_event(), events.Connected)
        self.assertTrue(session.waits_for_answer)
        session.answer(None)
        self.assertFalse(session.waits_for_answer)
        self.assertRaises(RuntimeError, session.answer, None)

    def test_what_comes_behind_the_end_is_dropped(self) -> None:
        conversation = Conversation().feed([b"QUIT\r\n"])
        conversation.session.receive(b"x" * 100_000)
        conversation.run()
        self.assertEqual((conversation.session.buffered, conversation.codes), (0, "220 221"))

    def test_what_waits_is_told(self) -> None:
        conversation = Conversation().feed([b"NOOP\r\nNO"])
        self.assertEqual(conversation.session.buffered, 2)

    def test_a_long_line_in_single_octets_is_a_line(self) -> None:
        conversation = Conversation(settings(limits=Limits(command_line=4096)))
        conversation.feed([b"NOOP " + b"x" * 3000, *([b"x"] * 500), b"\r", b"\n", NOOP])
        self.assertEqual(conversation.codes, "220 250 250")


class StateTests(SynchronousTestCase):
    def told(self, *sent: bytes) -> tuple[bool, bool, bool, bool]:
        session = Conversation().feed(sent).session
        return session.in_transaction, session.in_text, session.in_message, session.text_failed

    def test_where_the_conversation_stands(self) -> None:
        for sent, told in [
            ((EHLO,), (False, False, False, False)),
            ((EHLO, MAIL), (True, False, False, False)),
            ((START,), (True, True, True, False)),
            ((START, b"a\nb\r\n"), (True, True, True, True)),
            ((START, b".\r\n"), (False, False, False, False)),
            ((BDAT, b"BDAT 5\r\nab"), (True, True, True, False)),
            ((BDAT, chunk(b"ab")), (True, False, True, False)),
            ((BDAT, chunk(b"ab"), b"RSET\r\n"), (False, False, False, False)),
            ((EHLO, b"BDAT 5\r\nab"), (False, True, True, False)),
            ((START, b"QUIT"), (True, True, True, False)),
        ]:
            self.assertEqual(self.told(*sent), told, sent)

    def test_the_octets_of_a_text_are_counted_also_those_thrown_away(self) -> None:
        for sent, octets in [
            ((START, b"12345"), 5),
            ((START, b"a\nb"), 3),
            ((BDAT, chunk(b"123"), b"BDAT 9\r\n45"), 5),
            ((START, b"12345\r\n.\r\n", b"BDAT 9\r\n123"), 3),
        ]:
            self.assertEqual(Conversation().feed(sent).session.text_octets, octets, sent)

    def test_tls_before_the_banner_changes_no_state(self) -> None:
        conversation = Conversation()
        conversation.session.secured(TLS)
        self.assertIs(conversation.session.state, State.START)
        self.assertEqual(conversation.feed([EHLO]).codes, "220 250")
        self.assertIs(conversation.session.peer.tls, TLS)

    def test_the_listener_says_how_safe_it_must_be(self) -> None:
        for required, tls, allowed in [(False, False, True), (True, False, False), (True, True, True)]:
            conversation = Conversation(settings(tls_required=required), tls=tls)
            self.assertIs(conversation.session.allowed_by_tls, allowed)


class LineTests(SynchronousTestCase):
    def test_a_command_and_a_response_have_limits_of_their_own(self) -> None:
        limits = Limits(command_line=512, auth_line=1024)
        given_settings = settings(limits=limits, mechanisms=MECHANISMS, insecure_auth=True)
        for length, code in [(1022, "501"), (1023, "500")]:
            conversation = Conversation(given_settings).feed([EHLO, b"AUTH PLAIN\r\n", b"!" * length + b"\r\n", NOOP])
            self.assertEqual(conversation.codes, f"220 250 334 {code} 250", length)
        for length, words in [(510, "Command not recognized"), (511, "Line too long")]:
            conversation = Conversation(given_settings).feed([b"x" * length + b"\r\n", NOOP])
            self.assertIn(words, conversation.replies[1])
            self.assertEqual(conversation.codes, "220 500 250")

    def test_a_line_without_an_end_below_and_above(self) -> None:
        given_settings = settings(limits=Limits(line_without_end=1024))
        for length, codes in [(1024, "220"), (1025, "220 421")]:
            conversation = Conversation(given_settings).feed([b"x" * length])
            self.assertEqual(conversation.codes, codes, length)
            self.assertEqual(bool(conversation.closed), length > 1024)

    def test_every_verb_of_http_ends_it_but_only_in_the_first_line(self) -> None:
        for verb in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"):
            conversation = Conversation().feed([verb + b" ", b"/ HTTP/1.1\r\n"])
            self.assertEqual((conversation.codes, conversation.closed), ("220 421", "HTTP request"), verb)
            later = Conversation().feed([NOOP + verb + b" / HTTP/1.1\r\n" + NOOP])
            self.assertEqual(later.codes, "220 250 500 250", verb)


class ReplyTests(SynchronousTestCase):
    def test_a_no_is_counted_when_it_is_the_clients_mistake(self) -> None:
        for sender, code, errors, closed in [
            (b"denied", "550", 1, ""),
            (b"later", "451", 0, ""),
            (b"bye", "421", 0, "refused with 421"),
        ]:
            conversation = Conversation().feed([EHLO, b"MAIL FROM:<" + sender + b"@b>\r\n"])
            self.assertEqual(conversation.codes, f"220 250 {code}")
            self.assertEqual((conversation.session.error_count, conversation.closed), (errors, closed))

    def test_enhanced_codes_can_be_switched_off(self) -> None:
        conversation = Conversation(settings(off=frozenset({"ENHANCEDSTATUSCODES"}))).feed([EHLO, MAIL, b"FOO\r\n"])
        self.assertEqual(conversation.replies[2:], ["250 Sender ok", "500 Command not recognized: 'FOO'"])

    def test_pauses_begin_with_their_error_and_end_with_the_last(self) -> None:
        for before, errors, delay, pauses, codes in [
            (3, 5, 2.0, [2.0, 2.0], "220 500 500 500 500 421"),
            (0, 3, 2.0, [2.0, 2.0], "220 500 500 421"),
            (3, 5, 0.0, [], "220 500 500 500 500 421"),
            (10, 1, 2.0, [], "220 421"),
        ]:
            limits = Limits(errors_before_delay=before, errors=errors, error_delay=delay)
            conversation = Conversation(settings(limits=limits)).feed([b"FOO\r\n" * errors])
            self.assertEqual((conversation.pauses, conversation.codes), (pauses, codes))

    def test_what_is_pipelined_behind_an_error_waits_for_its_pause(self) -> None:
        conversation = Conversation(settings(limits=Limits(errors_before_delay=0)))
        conversation.run()
        session = conversation.session
        session.receive(b"FOO\r\nNOOP\r\n")
        self.assertIsInstance(session.next_event(), events.Pause)
        self.assertIsNone(session.next_event())
        self.assertEqual(session.data_to_send(), b"")
        session.answer(None)
        self.assertIsNone(session.next_event())
        self.assertEqual(session.data_to_send()[:3], b"500")

    def test_who_says_no(self) -> None:
        no = Reply(550, "5.0.0", "No")
        for answer in (None, replies.OK, Reply(354, "", "Go on"), events.Identity("joe"), (no,)):
            self.assertIsNone(refused(answer))
        for answer in (no, replies.LOCAL_TROUBLE):
            self.assertIs(refused(answer), answer)


class EndTests(SynchronousTestCase):
    def test_an_abort_while_a_question_is_open(self) -> None:
        conversation = Conversation()
        conversation.run()
        session = conversation.session
        session.receive(EHLO + MAIL)
        session.next_event()
        session.abort(replies.IDLE_TOO_LONG, "timeout")
        self.assertFalse(session.waits_for_answer)
        self.assertRaises(RuntimeError, session.answer, None)
        conversation.run()
        self.assertEqual((conversation.codes, conversation.closed), ("220 421", "timeout"))

    def test_in_a_handshake_nothing_is_said(self) -> None:
        session = Conversation(settings(starttls=True)).session
        session.next_event()
        session.answer(None)
        session.receive(EHLO + b"STARTTLS\r\n")
        session.next_event()
        session.answer(None)
        self.assertIsInstance(session.next_event(), events.StartTLS)
        session.data_to_send()
        session.abort(replies.IDLE_TOO_LONG, "timeout")
        self.assertEqual(session.data_to_send(), b"")
        self.assertIsInstance(session.next_event(), events.Close)

    def test_an_abort_without_a_reply_says_nothing(self) -> None:
        conversation = Conversation().feed([EHLO])
        conversation.session.abort(None, "connection lost")
        conversation.run()
        self.assertEqual((conversation.codes, conversation.closed), ("220 250", "connection lost"))

    def test_draining_waits_for_a_transaction_and_nothing_else(self) -> None:
        auth: dict[str, Any] = {"mechanisms": MECHANISMS, "insecure_auth": True}
        for sent, before, then, after in [
            ([EHLO], "421", [], ""),
            ([EHLO, b"AUTH PLAIN\r\n"], "334 421", [], ""),
            ([EHLO, MAIL], "250", [RCPT, DATA, b".\r\n"], " 250 354 250 421"),
            ([EHLO, MAIL], "250", [b"RSET\r\n"], " 250 421"),
            ([BDAT, chunk(b"a")], "250", [chunk(b"b", last=True)], " 250 421"),
            ([EHLO, b"BDAT 3\r\na"], "250", [b"bc"], " 503 421"),
        ]:
            conversation = Conversation(settings(**auth)).feed(sent)
            conversation.session.drain()
            conversation.run()
            start = len(conversation.codes)
            self.assertTrue(conversation.codes.endswith(before), (sent, conversation.codes))
            conversation.feed(then)
            self.assertEqual(conversation.codes[start:], after, sent)
            self.assertEqual(conversation.closed, "shutting down")

    def test_a_text_that_is_none_cannot_be_refused(self) -> None:
        conversation = Conversation().feed([EHLO])
        conversation.session.refuse_text(replies.DISK_FULL)
        self.assertEqual(conversation.feed([MAIL, RCPT, DATA, b".\r\n"]).codes, "220 250 250 250 354 250")


PARTS = st.sampled_from(
    [EHLO, MAIL, RCPT, DATA, b".\r\n", chunk(b"a\r"), chunk(b"\nb", last=True), chunk(b""), b"BDAT 3\r\n", b"BDAT 0 LAST\r\n",
     b"RSET\r\n", b"RCPT TO:<unknown@d>\r\n", b"XCLIENT ADDR=192.0.2.7\r\n", b"AUTH PLAIN " + b64(b"\0a@b\0secret"),
     b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", b"GET / HTTP/1.1\r\n", b"VRFY <b@c>\r\n"]
)  # fmt: skip


class PropertyTests(SynchronousTestCase):
    @hypothesis_settings(deadline=None, max_examples=150)
    @given(st.lists(PARTS, max_size=20), st.lists(st.integers(1, 9), max_size=40))
    def test_any_cut_of_chunks_gives_the_same(self, parts: list[bytes], cuts: list[int]) -> None:
        """Law 6, for BDAT too: the words of each reply as well as its code."""
        sent = b"".join(parts)
        limits = Limits(errors=1000, errors_before_delay=1000)
        given_settings = settings(xclient=True, vrfy=True, insecure_auth=True, mechanisms=MECHANISMS, limits=limits)
        pieces, at = [], 0
        for cut in cuts:
            pieces.append(sent[at : at + cut])
            at += cut
        whole = Conversation(given_settings).feed([sent])
        cut_up = Conversation(given_settings).feed([*pieces, sent[at:]])
        self.assertEqual(cut_up.output, whole.output)
        self.assertEqual(cut_up.messages, whole.messages)
        self.assertEqual(cut_up.session.peer, whole.session.peer)
