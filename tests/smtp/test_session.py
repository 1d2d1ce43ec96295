"""The session: every transcript in every cut, the laws of the conversation, and its properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.limits import Limits
from mailserver.reply import Reply
from mailserver.smtp import events
from mailserver.smtp.rules import State
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import MECHANISMS, TLS, Conversation, settings
from tests.smtp.phrases import AUTH, EHLO, MAIL, RCPT, START, Transcript, b64
from tests.smtp.transcripts import TRANSCRIPTS

quick = hypothesis_settings(deadline=None, max_examples=150)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class TranscriptTests(SynchronousTestCase):
    """The same octets give the same replies and messages, however they are cut."""

    maxDiff = None

    kind: type[SMTPSession] = SMTPSession
    transcripts = TRANSCRIPTS

    def converse(self, transcript: Transcript, chunks: list[bytes]) -> Conversation:
        return Conversation(settings(**transcript.settings), tls=transcript.tls, kind=self.kind).feed(chunks)

    def check(self, transcript: Transcript, conversation: Conversation, how: str, more: str = "") -> None:
        name = f"{transcript.name} ({how})"
        expected = f"220 {transcript.codes}{more}"
        self.assertEqual(conversation.codes, expected, name)
        self.assertEqual(tuple(text for _, text in conversation.messages), transcript.texts, name)
        self.assertEqual(bool(conversation.closed), transcript.closed, name)

    def test_fed_whole(self) -> None:
        for transcript in self.transcripts:
            self.check(transcript, self.converse(transcript, [transcript.sent]), "whole")

    def test_fed_byte_by_byte(self) -> None:
        for transcript in self.transcripts:
            self.check(transcript, self.converse(transcript, pieces(transcript.sent, 1)), "byte by byte")

    def test_fed_in_odd_pieces(self) -> None:
        for transcript in self.transcripts:
            for size in (2, 3, 5, 7, 4093):
                self.check(transcript, self.converse(transcript, pieces(transcript.sent, size)), f"pieces of {size}")

    def test_the_words_of_the_replies_do_not_depend_on_the_cut(self) -> None:
        for transcript in self.transcripts:
            whole = self.converse(transcript, [transcript.sent]).output
            for size in (1, 3):
                cut = self.converse(transcript, pieces(transcript.sent, size)).output
                self.assertEqual(cut, whole, transcript.name)

    def test_fed_with_a_tail(self) -> None:
        for transcript in self.transcripts:
            if transcript.closed:
                self.check(transcript, self.converse(transcript, [transcript.sent + b"NOOP\r\n"]), "tail")
            elif transcript.settings.get("limits", Limits()).idle_commands > 10 and transcript.codes[-3:] != "354":
                conversation = self.converse(transcript, [transcript.sent + b"NOOP\r\n"])
                self.check(transcript, conversation, "tail", " 250")

    def test_names_are_unique(self) -> None:
        names = [transcript.name for transcript in self.transcripts]
        self.assertEqual(len(names), len(set(names)))

    def test_every_reply_is_whole_lines_with_enhanced_codes_where_they_belong(self) -> None:
        for transcript in self.transcripts:
            for line in self.converse(transcript, [transcript.sent]).replies[1:]:
                self.assertLessEqual(len(line), 510)
                plain = line[:3] in ("220", "334", "354") or (line[:3] == "250" and line[4:5] != "2")
                if not plain:
                    self.assertRegex(line, r"^\d{3} [245]\.\d{1,3}\.\d{1,3} ", transcript.name)
                    self.assertEqual(line[0], line[4], transcript.name)


class GreetingTests(SynchronousTestCase):
    def test_the_banner_names_the_host(self) -> None:
        self.assertEqual(Conversation().feed([]).output, b"220 mx.example.org ESMTP\r\n")

    def test_a_banner_of_ones_own(self) -> None:
        output = Conversation(settings(banner="Welcome")).feed([]).output
        self.assertEqual(output, b"220 mx.example.org Welcome\r\n")

    def test_a_peer_that_is_turned_away_gets_the_reply_instead_of_the_banner(self) -> None:
        conversation = Conversation()
        self.assertIsInstance(conversation.session.next_event(), events.Connected)
        conversation.session.receive(EHLO)
        conversation.session.answer(replies.TOO_MANY_CONNECTIONS)
        conversation.run()
        self.assertEqual(conversation.codes, "421")
        self.assertEqual(conversation.closed, "turned away")

    def test_nothing_is_read_before_the_banner(self) -> None:
        conversation = Conversation()
        conversation.session.receive(EHLO)
        self.assertIsInstance(conversation.session.next_event(), events.Connected)
        self.assertIsNone(conversation.session.next_event())


class ExtensionTests(SynchronousTestCase):
    def ehlo(self, *, tls: bool = False, **changes: object) -> list[str]:
        output = Conversation(settings(**changes), tls=tls).feed([EHLO]).output.decode()
        return [line[4:] for line in output.split("\r\n")[2:-1]]

    def test_the_order_is_stable(self) -> None:
        always = ["SIZE 52428800", "8BITMIME", "PIPELINING", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        always += ["CHUNKING", "BINARYMIME", "DSN"]
        limits, auth = "LIMITS MAILMAX=1000 RCPTMAX=1000", "AUTH PLAIN LOGIN CRAM-MD5"
        self.assertEqual(self.ehlo(), [*always, limits])
        self.assertEqual(self.ehlo(starttls=True), [*always, "STARTTLS", limits])
        self.assertEqual(self.ehlo(starttls=True, tls=True), [*always, "REQUIRETLS", limits])
        self.assertEqual(self.ehlo(**AUTH), [*always, limits])
        self.assertEqual(self.ehlo(**AUTH, tls=True), [*always, auth, "REQUIRETLS", limits])
        self.assertEqual(self.ehlo(**AUTH, insecure_auth=True), [*always, auth, limits])
        last = ["FUTURERELEASE 60 2026-11-20T17:41:00Z", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"]
        self.assertEqual(self.ehlo(hold=60, now=lambda: 1_795_196_400.9, xclient=True)[-2:], last)

    def test_each_can_be_switched_off(self) -> None:
        given = {"starttls": True, "hold": 60, "xclient": True, **AUTH, "insecure_auth": True}
        for tls in (False, True):
            announced = self.ehlo(tls=tls, **given)
            for line in announced:
                name = line.split(" ")[0]
                left = self.ehlo(tls=tls, **given, off=frozenset({name}))
                gone = {line} | ({"BINARYMIME"} if name == "CHUNKING" else set())
                self.assertEqual(left, [each for each in announced if each not in gone], name)

    def test_size_tells_the_limit(self) -> None:
        self.assertEqual(self.ehlo(limits=Limits(message_size=100_000))[0], "SIZE 100000")

    def test_helo_has_one_line(self) -> None:
        output = Conversation().feed([b"HELO x\r\n"]).output
        self.assertEqual(output.split(b"\r\n")[1], b"250 mx.example.org")


class StartTLSTests(SynchronousTestCase):
    def test_all_is_forgotten_and_the_name_must_be_given_again(self) -> None:
        conversation = Conversation(settings(starttls=True)).feed(
            [EHLO, MAIL, RCPT, b"STARTTLS\r\n", MAIL, EHLO, MAIL]
        )
        self.assertEqual(conversation.codes, "220 250 250 250 220 503 250 250")
        self.assertIs(conversation.session.peer.tls, TLS)

    def test_plaintext_behind_it_is_dropped_in_one_segment_or_several(self) -> None:
        for chunks in ([EHLO + b"STARTTLS\r\n" + MAIL + RCPT], pieces(EHLO + b"STARTTLS\r\n", 1)):
            conversation = Conversation(settings(starttls=True))
            conversation.run()
            for chunk in chunks:
                conversation.session.receive(chunk)
                while (event := conversation.session.next_event()) is not None and not isinstance(
                    event, events.StartTLS
                ):
                    if isinstance(event, events.Question):
                        conversation.session.answer(None)
            conversation.session.receive(MAIL)  # while the handshake runs
            conversation.session.secured(TLS)
            conversation.session.receive(b"NOOP\r\n")
            conversation.run()
            self.assertEqual(conversation.codes, "220 250 220 250")

    def test_a_login_before_it_is_forgotten(self) -> None:
        given = settings(starttls=True, insecure_auth=True, mechanisms=MECHANISMS)
        conversation = Conversation(given).feed([EHLO, b"AUTH PLAIN " + b64(b"\0a@b\0secret")])
        self.assertEqual(conversation.session.peer.user, "a@b")
        conversation.feed([b"STARTTLS\r\n"])
        self.assertEqual((conversation.session.peer.user, conversation.session.peer.helo), ("", ""))

    def test_a_client_hello_in_clear_text_ends_it_without_a_word(self) -> None:
        conversation = Conversation().feed([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
        self.assertEqual(conversation.codes, "220")
        self.assertIn("ClientHello", conversation.closed)


class EnvelopeTests(SynchronousTestCase):
    def envelope(self, sent: bytes, *, tls: bool = False, **changes: object) -> object:
        conversation = Conversation(settings(**changes), tls=tls).feed([sent + b".\r\n"])
        return conversation.messages[0][0]

    def test_it_holds_all_that_was_said(self) -> None:
        sent = EHLO + b"MAIL FROM:<a@Example.NET> SIZE=12 BODY=8BITMIME\r\n" + RCPT + b"DATA\r\n"
        envelope = self.envelope(sent, listener="smtp-25")
        self.assertEqual(str(envelope.sender), "a@Example.NET")
        self.assertEqual([str(each.address) for each in envelope.recipients], ["b@example.org"])
        self.assertEqual((envelope.size, envelope.body, envelope.smtputf8), (12, "8BITMIME", False))
        self.assertEqual(dict(envelope.parameters), {"SIZE": "12", "BODY": "8BITMIME"})
        self.assertEqual(
            (envelope.peer.host, envelope.peer.port, envelope.peer.helo), ("192.0.2.1", 4711, "client.example.net")
        )
        self.assertEqual((envelope.listener, envelope.local_host, envelope.local_port), ("smtp-25", "192.0.2.25", 25))

    def test_the_protocol_names_of_rfc_3848(self) -> None:
        helo = b"HELO x\r\n" + MAIL + RCPT + b"DATA\r\n"
        login = EHLO + b"AUTH PLAIN " + b64(b"\0a@b\0secret") + MAIL + RCPT + b"DATA\r\n"
        utf8 = EHLO + b"MAIL FROM:<a@b> SMTPUTF8\r\n" + RCPT + b"DATA\r\n"
        self.assertEqual(self.envelope(helo).protocol, "SMTP")
        self.assertEqual(self.envelope(START).protocol, "ESMTP")
        self.assertEqual(self.envelope(START, tls=True).protocol, "ESMTPS")
        self.assertEqual(self.envelope(login, **AUTH, tls=True).protocol, "ESMTPSA")
        self.assertEqual(self.envelope(login, **AUTH, insecure_auth=True).protocol, "ESMTPA")
        self.assertEqual(self.envelope(utf8, tls=True).protocol, "UTF8SMTPS")

    def test_each_transaction_has_its_own_id(self) -> None:
        conversation = Conversation().feed([START + b".\r\n" + MAIL + RCPT + b"DATA\r\n.\r\n"])
        self.assertEqual([envelope.id for envelope, _ in conversation.messages], ["t1", "t2"])
        self.assertIn("250 2.0.0 Ok: queued as t2", conversation.replies)


class QuestionTests(SynchronousTestCase):
    """Law 1: one question at a time."""

    def test_nothing_is_parsed_while_a_question_is_open(self) -> None:
        conversation = Conversation()
        conversation.run()
        session = conversation.session
        session.receive(EHLO + MAIL + RCPT)
        self.assertIsInstance(session.next_event(), events.Hello)
        self.assertIsNone(session.next_event())
        self.assertEqual(session.data_to_send(), b"")
        session.answer(None)
        self.assertIsInstance(session.next_event(), events.Mail)
        self.assertIsNone(session.next_event())

    def test_an_answer_without_a_question_is_our_own_mistake(self) -> None:
        conversation = Conversation()
        conversation.run()
        self.assertRaises(RuntimeError, conversation.session.answer, None)

    def test_a_positive_reply_replaces_the_words(self) -> None:
        conversation = Conversation()
        conversation.run()
        conversation.session.receive(EHLO + MAIL)
        conversation.session.next_event()
        conversation.session.answer(None)
        conversation.session.next_event()
        conversation.session.answer(Reply(250, "2.1.0", "Welcome back"))
        conversation.run()
        self.assertEqual(conversation.replies[-1], "250 2.1.0 Welcome back")


class TextTests(SynchronousTestCase):
    def test_the_text_is_told_as_it_comes(self) -> None:
        conversation = Conversation().feed([START, b"one\r\n", b"two\r\n"])
        self.assertEqual(conversation.events.count("Text"), 2)
        self.assertTrue(conversation.session.in_text)

    def test_a_failure_is_told_at_once_and_answered_at_the_end(self) -> None:
        conversation = Conversation().feed([START, b"a\nb\r\n"])
        self.assertIn("TextFailed", conversation.events)
        self.assertEqual(conversation.codes[-3:], "354")
        conversation.feed([b"more\r\n.\r\n"])
        self.assertEqual(conversation.events.count("TextFailed"), 1)
        self.assertEqual(conversation.codes[-3:], "550")
        self.assertNotIn("EndOfText", conversation.events)

    def test_trouble_of_ours_is_answered_at_the_end(self) -> None:
        conversation = Conversation().feed([START, b"one\r\n"])
        conversation.session.refuse_text(replies.DISK_FULL)
        conversation.feed([b"two\r\n.\r\nNOOP\r\n"])
        self.assertEqual(conversation.codes[-7:], "452 250")
        self.assertNotIn("TextFailed", conversation.events)

    def test_trouble_with_the_last_block_wins_over_the_answer(self) -> None:
        conversation = Conversation()
        conversation.feed([START])
        session = conversation.session
        session.receive(b"one\r\n.\r\n")
        self.assertIsInstance(session.next_event(), events.Text)
        session.refuse_text(replies.DISK_FULL)
        self.assertIsInstance(session.next_event(), events.EndOfText)
        session.answer(None)
        conversation.run()
        self.assertEqual(conversation.codes[-3:], "452")


class EndTests(SynchronousTestCase):
    def test_draining_says_421_between_transactions(self) -> None:
        conversation = Conversation().feed([EHLO])
        conversation.session.drain()
        conversation.run()
        self.assertEqual(conversation.codes, "220 250 421")
        self.assertEqual(conversation.closed, "shutting down")

    def test_draining_lets_a_transaction_end(self) -> None:
        conversation = Conversation().feed([START, b"one\r\n"])
        conversation.session.drain()
        conversation.feed([b"two\r\n.\r\n" + MAIL])
        self.assertEqual(conversation.codes[-7:], "250 421")
        self.assertEqual(len(conversation.messages), 1)

    def test_an_abort_gives_up_the_transaction_and_says_so(self) -> None:
        conversation = Conversation().feed([START, b"one\r\n"])
        conversation.session.abort(replies.IDLE_TOO_LONG, "timeout")
        conversation.run()
        self.assertEqual(conversation.events[-2:], ["Reset", "Close"])
        self.assertEqual(conversation.codes[-3:], "421")
        self.assertIs(conversation.session.state, State.CLOSED)

    def test_nothing_is_said_twice(self) -> None:
        conversation = Conversation().feed([EHLO])
        for _ in range(2):
            conversation.session.abort(replies.IDLE_TOO_LONG, "timeout")
        conversation.run()
        self.assertEqual(conversation.codes, "220 250 421")

    def test_errors_are_delayed_from_the_tenth_on(self) -> None:
        conversation = Conversation().feed([b"FOO\r\n" * 9])
        self.assertEqual(conversation.pauses, [])
        conversation.feed([b"FOO\r\n"])
        self.assertEqual(conversation.pauses, [1.0])


COMMANDS = st.sampled_from(
    [EHLO, b"HELO x\r\n", MAIL, RCPT, b"RCPT TO:<unknown@d>\r\n", b"DATA\r\n", b"RSET\r\n", b"NOOP\r\n", b"STARTTLS\r\n",
     b"AUTH PLAIN\r\n", b"*\r\n", b64(b"\0a@b\0secret"), b".\r\n", b"..\r\n", b"x\n.\r\n", b"\r\n", b"a" * 600 + b"\r\n",
     b"QUIT\r\n", b"\xff\x00\r\n", b"VRFY x\r\n"]
)  # fmt: skip
LIMITS = Limits(command_line=512, errors_before_delay=1000, errors=1000)


class PropertyTests(SynchronousTestCase):
    @quick
    @given(st.lists(COMMANDS | st.binary(max_size=20), max_size=25), st.data())
    def test_any_cut_gives_the_same(self, parts: list[bytes], data: st.DataObject) -> None:
        sent = b"".join(parts)
        given_settings = settings(starttls=False, insecure_auth=True, mechanisms=MECHANISMS, limits=LIMITS)
        whole = Conversation(given_settings).feed([sent])
        cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
        chunks = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        cut = Conversation(given_settings).feed(chunks)
        self.assertEqual(cut.output, whole.output)
        self.assertEqual(cut.messages, whole.messages)
        self.assertEqual(cut.closed, whole.closed)

    @quick
    @given(st.lists(st.binary(max_size=200), max_size=10))
    def test_no_input_raises_and_every_reply_is_a_whole_line(self, chunks: list[bytes]) -> None:
        conversation = Conversation().feed(chunks)
        for line in conversation.output.split(b"\r\n")[:-1]:
            self.assertRegex(line.decode("ascii"), r"^[2-5]\d\d[ -]")
            self.assertLessEqual(len(line), 510)

    @quick
    @given(st.lists(COMMANDS, max_size=30))
    def test_one_reply_for_each_command(self, parts: list[bytes]) -> None:
        """Outside of texts and exchanges, the replies are as many as the lines."""
        plain = [
            part for part in parts if part[:4] in (b"EHLO", b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP", b"VRFY")
        ]
        conversation = Conversation(settings(limits=LIMITS)).feed([b"".join(plain)])
        self.assertEqual(len(conversation.replies), len(plain) + 1)

    @quick
    @given(st.lists(COMMANDS, max_size=15), st.sampled_from([b"RSET\r\n", EHLO]))
    def test_after_rset_and_ehlo_the_state_is_that_of_a_fresh_session(self, parts: list[bytes], reset: bytes) -> None:
        conversation = Conversation(settings(limits=LIMITS)).feed([EHLO, *parts])
        if conversation.closed or conversation.session.in_text:
            return
        before = len(conversation.output)
        conversation.feed([reset, RCPT, MAIL, RCPT])
        fresh = Conversation(settings(limits=LIMITS)).feed([EHLO])
        start = len(fresh.output)
        fresh.feed([reset, RCPT, MAIL, RCPT])
        self.assertEqual(conversation.output[before:], fresh.output[start:])

    @quick
    @given(st.binary(max_size=300))
    def test_output_after_tls_does_not_depend_on_plaintext_behind_starttls(self, tail: bytes) -> None:
        outputs = []
        for behind in (b"", tail):
            conversation = Conversation(settings(starttls=True))
            conversation.run()
            conversation.session.receive(EHLO + b"STARTTLS\r\n" + behind)
            conversation.run()
            conversation.feed([EHLO, MAIL])
            outputs.append(conversation.output)
        self.assertEqual(outputs[0], outputs[1])
