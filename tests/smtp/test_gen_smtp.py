"""
gen_smtp's defects and its own test cases, one named test each: what works there works here, what fails there does not.

D1 to D17: defects of its server that are measured or read.  TS1 to TS25: the cases of its server's test suite.
docs/gen_smtp.md has the whole checklist; D18 to D20 are about its client and its decoder.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ConfigError, load
from mailserver.limits import Limits
from mailserver.policy.clients import ClientLimits
from mailserver.reply import Refusal, Reply
from mailserver.smtp.lmtp import LMTPSession
from mailserver.smtp.rules import EXTENSIONS
from mailserver.smtp.syntax import BadSyntax, parse_command, parse_path
from tests.smtp.driver import CHALLENGE, Conversation, settings
from tests.smtp.phrases import AUTH, BDAT, DATA, EHLO, HELO, MAIL, OPEN, RCPT, START, b64, chunk
from tests.smtp.test_server import LogCase
from tests.smtp.wire import Line

TEXT = b"Subject: x\r\n\r\nbody\r\n"
GOD = b"God@heaven.af.mil"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Case(SynchronousTestCase):
    def talk(self, *sent: bytes, tls: bool = False, kind: Any = None, **changes: Any) -> Conversation:
        options: dict[str, Any] = {} if kind is None else {"kind": kind}
        return Conversation(settings(**changes), tls=tls, **options).feed(sent)

    def check(self, sent: bytes, codes: str, **options: Any) -> Conversation:
        """Whole and byte by byte."""
        for parts in ([sent], pieces(sent, 1)):
            conversation = self.talk(*parts, **options)
            self.assertEqual(conversation.codes, f"220 {codes}")
        return conversation

    def announced(self, **options: Any) -> list[str]:
        output = self.talk(EHLO, **options).output.decode()
        return [line[4:] for line in output.split("\r\n")[2:-1]]


class DefectTests(Case):
    def test_D1_a_bare_newline_never_ends_a_message(self) -> None:
        for policy, codes in [("fix", "250"), ("strip", "250"), ("ignore", "250"), ("reject", "550")]:
            for end in (
                b"\n.\n",
                b"\n.\r\n",
                b"\r.\r",
                b"\r\n.\n",
                b"\r\n.\r",
                b"\n.\r",
                b"\r.\r\n",
                b"\r\r\n.\r\r\n",
            ):
                sent = START + b"hi" + end + MAIL + RCPT + DATA + b"\r\n.\r\n"
                conversation = self.check(sent, f"{OPEN} {codes}", bare_newlines=policy)
                self.assertLessEqual(len(conversation.messages), 1, (policy, end))

    def test_D1_nothing_that_is_stored_can_smuggle_onward(self) -> None:
        sent = START + b"a\n.\nb\r.\rc\r\n.\nd\n.\r\ne\r\n.\r\n"
        for policy in ("fix", "strip"):
            (_, text) = self.check(sent, f"{OPEN} 250", bare_newlines=policy).messages[0]
            self.assertEqual(text.count(b"\r\n"), text.count(b"\r"))
            self.assertEqual(text.count(b"\r\n"), text.count(b"\n"))

    def test_D2_commands_behind_a_message_are_commands(self) -> None:
        sent = START + TEXT + b".\r\n" + MAIL + RCPT + DATA + b"2\r\n.\r\nNOOP\r\nQUIT\r\n"
        conversation = self.check(sent, f"{OPEN} 250 250 250 354 250 250 221")
        self.assertEqual([text for _, text in conversation.messages], [TEXT, b"2\r\n"])

    def test_D2_no_reply_holds_what_could_be_another_reply(self) -> None:
        conversation = self.talk(
            EHLO, b"MAIL FROM:<a@b> X=\xff\r\n", b"FOO\t250 ok\r\n", b"MAIL FROM:<a@b> 250-x\r\n"
        )
        for line in conversation.output.split(b"\r\n")[:-1]:
            self.assertRegex(line, rb"\A\d{3}[ -][ -~]*\Z")

    def test_D3_an_end_in_several_segments_is_an_end_at_once(self) -> None:
        for cut in range(1, 5):
            whole = TEXT[:-2] + b"\r\n.\r\n"
            conversation = self.talk(START, whole[:-cut], *pieces(whole[-cut:], 1))
            self.assertEqual((conversation.codes[-3:], conversation.messages[0][1]), ("250", TEXT), cut)
            self.assertEqual(conversation.pauses, [])

    def test_D4_the_rest_of_a_refused_message_is_no_commands(self) -> None:
        limit: dict[str, Any] = {"limits": Limits(message_size=65536)}
        for text, changes, code in [
            (b"x" * 70_000 + b"\r\n", limit, "552"),
            (b"a\nb\r\n", {}, "550"),
            (b"x" * 2000 + b"\r\n", {"limits": Limits(text_line=1000)}, "554"),
        ]:
            sent = START + text + b"VRFY someuser\r\nMAIL FROM:<e@f>\r\nQUIT\r\n.\r\nNOOP\r\n"
            conversation = self.talk(*pieces(sent, 999), **changes)
            self.assertEqual(conversation.codes, f"220 {OPEN} {code} 250")
            self.assertEqual(conversation.messages, [])

    def test_D5_every_response_of_auth_has_a_reply(self) -> None:
        for sent, codes in [
            (b"AUTH PLAIN\r\n*\r\n", "334 501"),
            (b"AUTH PLAIN\r\n!!\r\n", "334 501"),
            (b"AUTH LOGIN\r\n%%\r\n", "334 501"),
            (b"AUTH PLAIN " + b64(b"one field"), "501"),
            (b"AUTH PLAIN =\r\n", "501"),
            (b"AUTH LOGIN " + b64(b"a@b") + b64(b"secret"), "334 235"),
        ]:
            self.check(EHLO + sent + b"NOOP\r\n", f"250 {codes} 250", tls=True, **AUTH)

    def test_D6_no_parameter_ends_a_session(self) -> None:
        for parameter, code in [
            (b"SIZE=abc", "501"),
            (b"SIZE=-1", "501"),
            (b"SIZE=", "501"),
            (b"SIZE=9999999999999999999999", "501"),
            (b"BODY=BINARYMIME", "250"),
            (b"BODY=NONSENSE", "504"),
            (b"BODY=", "501"),
        ]:
            self.check(EHLO + b"MAIL FROM:<a@b> " + parameter + b"\r\nNOOP\r\n", f"250 {code} 250")

    def test_D7_under_tls_starttls_is_not_offered_and_harmless(self) -> None:
        self.assertNotIn("STARTTLS", self.announced(tls=True, starttls=True))
        self.check(EHLO + b"STARTTLS\r\nNOOP\r\n", "250 503 250", tls=True, starttls=True)

    def test_D9_a_recipient_needs_a_sender(self) -> None:
        self.check(EHLO + RCPT + DATA, "250 503 503")
        self.check(EHLO + MAIL + b"RSET\r\n" + RCPT, "250 250 250 503")

    def test_D10_parameters_of_recipients_are_read_and_told(self) -> None:
        sent = EHLO + MAIL + b"RCPT TO:<b@c> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@c\r\n" + DATA + b".\r\n"
        ((envelope, _),) = self.check(sent, "250 250 250 354 250").messages
        told = dict(envelope.recipients[0].parameters)
        self.assertEqual(told, {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;b+2Bx@c"})
        self.check(EHLO + MAIL + b"RCPT TO:<b@c> FOO=1\r\n", "250 250 555")

    def test_D11_the_values_of_parameters_keep_their_case(self) -> None:
        sent = EHLO + b"MAIL FROM:<a@b> envid=X-SomeExtension ret=Hdrs\r\n" + RCPT + DATA + b".\r\n"
        ((envelope, _),) = self.check(sent, "250 250 250 354 250").messages
        self.assertEqual(dict(envelope.parameters), {"ENVID": "X-SomeExtension", "RET": "Hdrs"})

    def test_D12_without_any_extension_mail_is_taken(self) -> None:
        off = frozenset(EXTENSIONS)
        self.assertEqual(self.announced(off=off), [])
        conversation = self.check(START + TEXT + b".\r\n", f"{OPEN} 250", off=off)
        self.assertIn(b"250 mx.example.org\r\n", conversation.output)

    def test_D13_a_long_line_is_one_mistake_and_its_tail_no_command(self) -> None:
        sent = b"NOOP " + b"x" * 5000 + b"QUIT\r\nNOOP\r\n"
        self.check(sent, "500 250")
        self.assertEqual(self.talk(*pieces(sent, 1460)).codes, "220 500 250")

    def test_D14_an_empty_message_ends_at_once(self) -> None:
        self.assertEqual(self.check(START + b".\r\n", f"{OPEN} 250").messages[0][1], b"")

    def test_D16_no_password_in_clear_text(self) -> None:
        self.assertFalse(any(line.startswith("AUTH") for line in self.announced(**AUTH)))
        self.check(EHLO + b"AUTH PLAIN\r\nAUTH LOGIN\r\nAUTH CRAM-MD5\r\n", "250 538 538 538", **AUTH)


class ServerDefectTests(LogCase):
    def test_D8_a_message_that_flows_is_not_cut(self) -> None:
        line = Line().say(b"EHLO x", MAIL.strip(), RCPT.strip(), b"DATA")
        for _ in range(300):
            line.clock.advance(4)
            line.say(b"x" * 2100)
        self.assertEqual(line.say(b".").codes, "220 250 250 250 354 250")

    def test_D15_everything_has_a_limit(self) -> None:
        limits = Limits(recipients=100, errors=5, error_delay=0.0, connections_per_client=1, auth_failures=2)
        admission = ClientLimits(limits, lambda: 0.0, lambda: 0.5)
        line = Line(settings(limits=limits), admission=admission)
        line.say(b"EHLO x", MAIL.strip(), *[RCPT.strip()] * 101)
        line.clock.pump([0, 0, 0])
        self.assertEqual(line.codes, "220" + " 250" * 102 + " 452")
        line.say(*[b"FOO"] * 5)
        self.assertEqual(line.codes[-19:], "500 500 500 500 421")
        again = Line(settings(limits=limits), admission=admission)
        self.assertEqual(again.codes, "421")
        guessing = Conversation(settings(limits=limits, **AUTH), tls=True)
        guessing.feed([EHLO, *[b"AUTH PLAIN " + b64(b"\0a@b\0wrong")] * 2])
        self.assertEqual(guessing.codes, "220 250 535 421")

    def test_D17_why_a_connection_ended_is_told_in_the_log(self) -> None:
        for sent, seconds, reason in [
            ((b"QUIT",), 0, "quit"),
            ((), 300, "timeout: command"),
            ((b"GET / HTTP/1.1",), 0, "HTTP request"),
            ((), 0, "connection lost"),
        ]:
            self.events.clear()
            line = Line().say(*sent) if sent else Line()
            line.clock.advance(seconds)
            line.lose()
            self.assertEqual(self.named("connection")[0]["reason"], reason)


#: path, the address as it was meant
PATHS = [
    (b"<God@heaven.af.mil>", "God@heaven.af.mil"),
    (b"<\\God@heaven.af.mil>", "God@heaven.af.mil"),
    (b'<"God"@heaven.af.mil>', "God@heaven.af.mil"),
    (b'<@gateway.af.mil,@uucp.local:"\\G\\o\\d"@heaven.af.mil>', "God@heaven.af.mil"),
    (b"<God2@heaven.af.mil>", "God2@heaven.af.mil"),
    (b"<God+extension@heaven.af.mil>", "God+extension@heaven.af.mil"),
    (b"<God~*$@heaven.af.mil>", "God~*$@heaven.af.mil"),
    (b'<"God~!#$%^&*()_+123"@heaven.af.mil>', '"God~!#$%^&*()_+123"@heaven.af.mil'),
]
UTF8 = [
    "испытание@пример.example",
    "我買@屋企.example",
    "Pelé@example.com",
    '"Pel é"@example.com',
    "二ノ宮@example.com",
]


class AddressTests(Case):
    def path(self, text: bytes, *, null: bool = False) -> tuple[str | None, bytes]:
        address, rest = parse_path(text, null=null, postmaster=False)
        return None if address is None else str(address), rest

    def test_TS1_forms_of_an_address(self) -> None:
        for text, address in PATHS:
            self.assertEqual(self.path(text), (address, b""), text)

    def test_TS2_without_brackets_and_with_blanks(self) -> None:
        for text in (GOD, b" " + GOD + b" ", b" <" + GOD + b"> ", b"<" + GOD + b">"):
            self.assertEqual(self.path(text), (GOD.decode(), b""), text)

    def test_TS3_utf_8_only_where_it_was_asked_for(self) -> None:
        for text in UTF8:
            raw = f"<{text}> SIZE=100".encode()
            self.assertEqual(self.path(raw), (text, b"SIZE=100"))
            self.check(EHLO + b"MAIL FROM:" + raw + b" SMTPUTF8\r\n", "250 250")
            self.check(EHLO + b"MAIL FROM:" + raw + b"\r\n", "250 553")

    def test_TS4_what_is_no_address(self) -> None:
        wrong = [b"<<", b"<God<@h.example>", b"<God@h.example", b"<God@h.example ", b"God@h.example>", b"", b" "]
        wrong += [b"<" + b"x" * 310 + b"@h.example>", b"<@gateway.af.mil God@h.example>"]
        for text in wrong:
            with self.assertRaises(BadSyntax):
                self.path(text, null=True)
        for text in (b"<>", b" <> "):
            self.assertEqual(self.path(text, null=True), (None, b""))
        rest = b"SIZE=100 BODY=8BITMIME"
        self.assertEqual(self.path(b"<" + GOD + b"> " + rest), (GOD.decode(), rest))

    def test_TS5_a_line_is_a_verb_and_an_argument(self) -> None:
        for line, verb, argument in [
            (b"HELO", b"HELO", b""),
            (b"helo \t x  ", b"HELO", b"x"),
            (b"  NOOP  ", b"NOOP", b""),
            (b"", b"", b""),
            (b"mail FROM:<a@b>  SIZE=1", b"MAIL", b"FROM:<a@b>  SIZE=1"),
        ]:
            command = parse_command(line)
            self.assertEqual((command.verb, command.argument), (verb, argument), line)


class SessionCaseTests(Case):
    """The dialogues of its suite."""

    def test_TS6_the_banner(self) -> None:
        self.assertTrue(self.talk().output.startswith(b"220 mx.example.org"))

    def test_TS7_helo(self) -> None:
        conversation = self.check(HELO + b"HELO\r\nLHLO x\r\n", "250 501 500")
        self.assertEqual(conversation.replies[1], "250 mx.example.org")

    def test_TS9_ehlo_has_many_lines_and_a_last_one(self) -> None:
        lines = self.talk(EHLO).output.decode().split("\r\n")[1:-1]
        self.assertEqual(lines[0], "250-mx.example.org")
        self.assertTrue(all(line.startswith("250-") for line in lines[:-1]))
        self.assertTrue(lines[-1].startswith("250 "))

    def test_TS10_auth_where_it_is_not_offered(self) -> None:
        self.check(EHLO + b"AUTH PLAIN\r\n", "250 502", tls=True)

    def test_TS11_a_transaction_also_with_a_blank_behind_the_colon(self) -> None:
        for blank in (b"", b" "):
            sent = EHLO + b"MAIL FROM:" + blank + b"<a@b>\r\nRCPT TO:" + blank + b"<c@d>\r\n" + DATA + TEXT + b".\r\n"
            conversation = self.check(sent, f"{OPEN} 250")
            self.assertIn("queued as", conversation.replies[-1])
            self.assertEqual(conversation.messages[0][1], TEXT)

    def test_TS12_the_order_of_extensions_and_utf_8(self) -> None:
        names = [line.split(" ")[0] for line in self.announced()]
        self.assertEqual(names[:4], ["SIZE", "8BITMIME", "PIPELINING", "SMTPUTF8"])
        sent = "EHLO x\r\nMAIL FROM:<ö@b.example> SMTPUTF8\r\nRCPT TO:<二@d.example>\r\nDATA\r\nSubject: é\r\n\r\nü\r\n.\r\n"
        ((envelope, text),) = self.check(sent.encode(), f"{OPEN} 250").messages
        self.assertTrue(envelope.smtputf8)
        self.assertEqual(text, "Subject: é\r\n\r\nü\r\n".encode())

    def test_TS13_a_bare_newline_in_header_or_body(self) -> None:
        for text in (
            b"Subject: x\nTo: y\r\n\r\nz\r\n",
            b"A: b\r\n\r\nx\ny\r\n",
            b"A: b\r\n\r\nx\ry\r\n",
            b"A: b\n\nx\n\r\n",
        ):
            conversation = self.check(START + text + b".\r\nNOOP\r\n", f"{OPEN} 550 250")
            self.assertEqual(conversation.messages, [])

    def test_TS14_lmtp(self) -> None:
        lhlo = b"LHLO x\r\n"
        conversation = self.check(EHLO + HELO + lhlo, "500 500 250", kind=LMTPSession)
        self.assertIn(b"\r\n250-", conversation.output)
        sent = lhlo + MAIL + b"".join(b"RCPT TO:<%s@d>\r\n" % name for name in (b"x", b"y", b"z")) + DATA + TEXT
        conversation = self.check(
            sent + b".\r\nQUIT\r\n", "250 250 250 250 250 354 250 250 250 221", kind=LMTPSession
        )
        self.assertEqual([line.split(" ")[2] for line in conversation.replies[-4:-1]], ["<x@d>", "<y@d>", "<z@d>"])
        off = frozenset({"SIZE"})
        self.assertFalse(any(line.startswith("SIZE") for line in self.announced(off=off)))

    def test_TS15_auth_is_announced_and_unknown_mechanisms_refused(self) -> None:
        self.assertIn("AUTH PLAIN LOGIN CRAM-MD5", self.announced(tls=True, **AUTH))
        self.check(b"AUTH CRAZY\r\n" + EHLO + b"AUTH CRAZY\r\n", "503 250 504", tls=True, **AUTH)

    def test_TS16_plain(self) -> None:
        for login, code in [
            (b"\0a@b\0secret", "235"),
            (b"a@b\0a@b\0secret", "235"),
            (b"\0a@b\0wrong", "535"),
            (b"a@b\0a@b\0wrong", "535"),
        ]:
            conversation = self.check(EHLO + b"AUTH PLAIN\r\n" + b64(login), f"250 334 {code}", tls=True, **AUTH)
            # RFC 4954 4: a challenge of no octets is "334" and a blank.
            self.assertIn(b"\r\n334 \r\n", conversation.output)
            self.check(EHLO + b"AUTH PLAIN " + b64(login), f"250 {code}", tls=True, **AUTH)

    def test_TS17_login(self) -> None:
        for password, code in [(b"secret", "235"), (b"wrong", "535")]:
            sent = EHLO + b"AUTH LOGIN\r\n" + b64(b"a@b") + b64(password)
            conversation = self.check(sent, f"250 334 334 {code}", tls=True, **AUTH)
            self.assertIn(b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n", conversation.output)

    def test_TS18_cram_md5(self) -> None:
        for password, code in [(b"tanstaaftanstaaf", "235"), (b"wrong", "535")]:
            digest = hmac.new(password, CHALLENGE, "md5").hexdigest().encode()
            sent = EHLO + b"AUTH CRAM-MD5\r\n" + b64(b"tim " + digest)
            self.check(sent, f"250 334 {code}", tls=True, **AUTH)

    def test_TS19_starttls(self) -> None:
        self.assertIn("STARTTLS", self.announced(starttls=True))
        sent = EHLO + b"STARTTLS foo\r\nSTARTTLS\r\n"
        conversation = self.talk(sent, EHLO, b"STARTTLS\r\n", starttls=True)
        self.assertEqual(conversation.codes, "220 250 501 220 250 503")
        self.assertNotIn(b"STARTTLS", conversation.output.split(b"\r\n220 ")[1])

    def test_TS20_a_message_behind_starttls(self) -> None:
        conversation = self.talk(EHLO, b"STARTTLS\r\n", START, TEXT + b".\r\n", starttls=True)
        self.assertEqual(conversation.codes, f"220 250 220 {OPEN} 250")
        self.assertEqual(conversation.messages[0][0].protocol, "ESMTPS")

    def test_TS22_each_policy_for_bare_newlines(self) -> None:
        for policy, text, stored in [
            ("reject", b"foo", b"foo"),
            ("reject", b"foo\n", None),
            ("reject", b"fo\ro\n", None),
            ("fix", b"foo\n", b"foo\r\n"),
            ("fix", b"fo\ro\n", b"fo\r\no\r\n"),
            ("fix", b"fo\ro\n\r", b"fo\r\no\r\n\r\n"),
            ("strip", b"fo\ro\n", b"foo"),
            ("strip", b"fo\ro\n\r", b"foo"),
            ("ignore", b"fo\ro\n", b"fo\ro\n"),
            ("fix", b"\nfoo", b"\r\nfoo"),
            ("strip", b"\nfoo", b"foo"),
            ("reject", b"\nfoo", None),
            ("reject", b"\r\nfoo", b"\r\nfoo"),
        ]:
            for size in (1, 2, 100):
                sent = [*pieces(BDAT + chunk(text, last=True), size)]
                conversation = self.talk(*sent, bare_newlines=policy)
                self.assertEqual(conversation.codes[-3:], "550" if stored is None else "250", (policy, text))
                self.assertEqual([each for _, each in conversation.messages], [] if stored is None else [stored])

    def test_TS23_the_size_limit(self) -> None:
        limit: dict[str, Any] = {"limits": Limits(message_size=65536)}
        self.assertEqual(self.announced(**limit)[0], "SIZE 65536")
        for size, code in [(65536, "250"), (65537, "552")]:
            self.check(EHLO + b"MAIL FROM:<a@b> SIZE=%d\r\n" % size, f"250 {code}", **limit)
            text = b"x" * (size - 2) + b"\r\n"
            self.assertEqual(self.talk(START + text + b".\r\n", **limit).codes[-3:], code)

    def test_TS24_no_size_limit_to_speak_of(self) -> None:
        options: dict[str, Any] = {"limits": Limits(message_size=2**40), "off": frozenset({"SIZE"})}
        self.assertFalse(any(line.startswith("SIZE") for line in self.announced(**options)))
        self.check(START + TEXT + b".\r\n", f"{OPEN} 250", **options)
        self.check(EHLO + b"MAIL FROM:<a@b> SIZE=100000000\r\n", "250 250", limits=Limits(message_size=2**40))


class AvatarCaseTests(LogCase):
    """Where its example module decides, an avatar does."""

    def test_TS8_a_name_that_is_not_wanted(self) -> None:
        """A name is no reason to refuse (RFC 5321 4.1.4); the avatar sees it with the sender."""
        line = Line(steps={"mail": Refusal(Reply(554, "5.7.1", "invalid hostname"))}).say(
            b"HELO invalid", MAIL.strip()
        )
        self.assertEqual(line.last, "554 5.7.1 invalid hostname")
        self.assertEqual(line.say(b"NOOP").last[:3], "250")


class ConfigCaseTests(SynchronousTestCase):
    def test_TS25_lmtp_is_refused_on_port_25(self) -> None:
        file = Path(self.mktemp())
        text = '[server]\nhostname = "mx.example.org"\ndata_dir = "data"\n[[domain]]\nname = "example.org"\n'
        listener = '[[listener]]\nprotocol = "lmtp"\naddress = "127.0.0.1:{}"\n'
        file.write_text(text + listener.format(25))
        error = self.assertRaises(ConfigError, load, file)
        self.assertIn("25", str(error.problems[0]))
        file.write_text(text + listener.format(24))
        self.assertEqual(load(file).listeners[0].protocol, "lmtp")


class NameTests(SynchronousTestCase):
    def test_each_row_of_the_checklist_has_a_test(self) -> None:
        from tests import test_tls

        names = [name for value in globals().values() if isinstance(value, type) for name in dir(value)]
        rows = {f"D{number}" for number in range(1, 18)} | {f"TS{number}" for number in range(1, 26)}
        # Which certificate a name gets is tested where the certificates are.
        self.assertTrue(hasattr(test_tls.NameTests, "test_the_certificate_is_chosen_by_name"))
        tested = {name.split("_")[1] for name in names if name.startswith("test_")} | {"TS21"}
        self.assertEqual(rows - tested, set())
