"""The parameters of MAIL and RCPT: what their values mean, and which reply each mistake gets."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.limits import DEFAULT_LIMITS
from mailserver.reply import MESSAGE_TOO_BIG
from mailserver.smtp.parameters import MailParameters, Unacceptable, mail_parameters, rcpt_parameters
from mailserver.smtp.rules import EXTENSIONS

LIMITS = dataclasses.replace(DEFAULT_LIMITS, message_size=100_000)

#: text, size, body, smtputf8
GOOD = [
    (b"", None, "7BIT", False),
    (b"SIZE=0", 0, "7BIT", False),
    (b"SIZE=99999", 99_999, "7BIT", False),
    (b"SIZE=100000", 100_000, "7BIT", False),
    (b"size=00000000000000000001", 1, "7BIT", False),
    (b"BODY=7BIT", None, "7BIT", False),
    (b"body=8bitmime", None, "8BITMIME", False),
    (b"SMTPUTF8", None, "7BIT", True),
    (b"smtputf8 BODY=8BITMIME SIZE=5", 5, "8BITMIME", True),
    (b"AUTH=<>", None, "7BIT", False),
    (b"AUTH=e+3Dmc2@example.com", None, "7BIT", False),  # RFC 4954 6
    (b"AUTH=+C3+A4@example.com", None, "7BIT", False),
    (b"AUTH=<a@example.com>", None, "7BIT", False),  # curl
]

#: text, code, enhanced code
BAD = [
    (b"SIZE", 501, "5.5.4"),
    (b"SIZE=", 501, "5.5.4"),
    (b"SIZE=-1", 501, "5.5.4"),
    (b"SIZE=+5", 501, "5.5.4"),
    (b"SIZE=1_0", 501, "5.5.4"),
    (b"SIZE=0x5", 501, "5.5.4"),
    ("SIZE=\u0661".encode(), 501, "5.5.4"),
    (b"SIZE=" + b"0" * 21, 501, "5.5.4"),
    (b"SIZE=1 SIZE=1", 501, "5.5.4"),
    (b"SIZE=100001", 552, "5.3.4"),
    (b"SIZE=" + b"9" * 20, 552, "5.3.4"),
    (b"BODY", 501, "5.5.4"),
    (b"BODY=", 501, "5.5.4"),
    (b"BODY=8BIT", 504, "5.5.4"),
    (b"SMTPUTF8=x", 501, "5.5.4"),
    (b"SMTPUTF8=", 501, "5.5.4"),
    (b"AUTH", 501, "5.5.4"),
    (b"AUTH=", 501, "5.5.4"),
    (b"AUTH=a", 501, "5.5.4"),
    (b"AUTH=a@", 501, "5.5.4"),
    (b"AUTH=<a@example.com", 501, "5.5.4"),
    (b"AUTH=<a>", 501, "5.5.4"),
    (b"AUTH=@", 501, "5.5.4"),
    (b"AUTH=a+3@example.org", 501, "5.5.4"),
    (b"AUTH=a+0D+0Ab@example.org", 501, "5.5.4"),
    (b"AUTH=+FF@example.org", 501, "5.5.4"),
    (b"FOO", 555, "5.5.4"),
    (b"X==", 501, "5.5.4"),
]


class MailParametersTests(SynchronousTestCase):
    def test_known_parameters_are_understood(self) -> None:
        for text, size, body, smtputf8 in GOOD:
            found = mail_parameters(text, LIMITS, EXTENSIONS)
            self.assertEqual((found.size, found.body, found.smtputf8), (size, body, smtputf8), text)

    def test_each_mistake_has_its_reply(self) -> None:
        for text, code, enhanced in BAD:
            with self.assertRaises(Unacceptable, msg=repr(text)) as caught:
                mail_parameters(text, LIMITS, EXTENSIONS)
            self.assertEqual((caught.exception.reply.code, caught.exception.reply.enhanced), (code, enhanced), text)

    def test_a_size_over_the_limit_is_the_message_that_is_too_big(self) -> None:
        with self.assertRaises(Unacceptable) as caught:
            mail_parameters(b"SIZE=100001", LIMITS, frozenset(EXTENSIONS) - {"AUTH"})
        self.assertEqual(caught.exception.reply, MESSAGE_TOO_BIG)
        self.assertEqual(str(caught.exception), str(MESSAGE_TOO_BIG))

    def test_auth_is_unknown_where_there_is_no_login(self) -> None:
        with self.assertRaises(Unacceptable) as caught:
            mail_parameters(b"AUTH=<>", LIMITS, frozenset(EXTENSIONS) - {"AUTH"})
        self.assertEqual(caught.exception.reply.code, 555)

    def test_the_parameters_are_kept_as_they_were_given(self) -> None:
        found = mail_parameters(b"Size=05 AUTH=<> smtputf8", LIMITS, EXTENSIONS)
        self.assertEqual(found.given, {"SIZE": "05", "AUTH": "<>", "SMTPUTF8": None})

    @given(st.one_of(st.binary(max_size=60), st.text("SIZEBODYAUTH=<>12+@ ", max_size=40).map(str.encode)))
    @settings(deadline=None, max_examples=200)
    def test_any_octets_are_parameters_or_get_a_5yz(self, text: bytes) -> None:
        for ask in (lambda: mail_parameters(text, LIMITS, EXTENSIONS), lambda: rcpt_parameters(text, EXTENSIONS)):
            try:
                found = ask()
            except Unacceptable as refused:
                self.assertEqual(refused.reply.code // 100, 5)
                self.assertEqual(refused.reply.encode().count(b"\r\n"), 1)
            else:
                self.assertIsInstance(found, MailParameters | dict)


class RcptParametersTests(SynchronousTestCase):
    def test_none_is_known_without_dsn(self) -> None:
        self.assertEqual(rcpt_parameters(b"", ()), {})
        for text, code in [
            (b"NOTIFY=NEVER", 555),
            (b"ORCPT=rfc822;a@h", 555),
            (b"SIZE=1", 555),
            (b"=", 501),
            (b"A A", 501),
        ]:
            with self.assertRaises(Unacceptable, msg=repr(text)) as caught:
                rcpt_parameters(text, ())
            self.assertEqual(caught.exception.reply.code, code, text)

    def test_the_reply_names_the_parameter_and_not_its_value(self) -> None:
        with self.assertRaises(Unacceptable) as caught:
            rcpt_parameters(b"notify=SECRET", ())
        self.assertEqual(caught.exception.reply.text, "Unsupported option: NOTIFY")
