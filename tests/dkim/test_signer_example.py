"""docs/examples/signed_mail.py: what one app signs the other finds right, and the DNS speaks as agreed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.names import dns, error
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.destination import changed
from mailserver.apps.message import Message
from mailserver.dkim import KeyUnavailable, SigningOptions, sign, verify
from mailserver.reply import Refusal
from tests.dkim.vectors import ED25519, ED25519_PEM, PLAIN, RSA, RSA_PEM, result_of
from tests.test_examples import example

NOW = 1_528_637_909
RECORDS = {"s1._domainkey.example.com": RSA.record, "s2._domainkey.example.com": ED25519.record}


class Names:
    """twisted.names, as far as it is asked here."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def lookupText(self, name: str, timeout: Sequence[int] | None = None) -> defer.Deferred[Any]:
        self.asked.append(name)
        if isinstance(self.answer, Exception):
            return defer.fail(self.answer)
        text = RECORDS.get(name, "").encode()
        strings = [text[at : at + 255] for at in range(0, len(text), 255)]
        answers = [dns.RRHeader(name, dns.TXT, payload=dns.Record_TXT(*strings))] if text else []
        alias = dns.RRHeader(name, dns.CNAME, payload=dns.Record_CNAME(b"x"))
        return defer.succeed(([alias, *answers], [], []))


class Time:
    """The clock."""

    time = staticmethod(lambda: float(NOW))


class ExampleCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.example = example("signed_mail")
        self.patch(self.example, "time", Time)
        self.names = Names()

    def filtered(self, app: Any, shared: Any, message: bytes) -> bytes:
        """What the app makes of a message."""
        app = app()
        app.shared = shared
        changes = result_of(app.filter(None, Message.of(message)))
        return changed(Message.of(message), changes).read()

    def resolver(self) -> Any:
        return self.example.resolver_of(self.names)


class SignTests(ExampleCase):
    def shared(self) -> Any:
        folder = Path(self.mktemp())
        folder.mkdir()
        keys = {}
        for selector, pem in (("s1", RSA_PEM), ("s2", ED25519_PEM)):
            keys[selector] = str(folder / f"{selector}.pem")
            Path(keys[selector]).write_bytes(pem)
        return self.example.Sign.setup(self.example.Sign.Options(domain="example.com", keys=keys))

    def test_what_it_signs_verifies(self) -> None:
        message = self.filtered(self.example.Sign, self.shared(), PLAIN)
        self.assertTrue(message.endswith(PLAIN))
        results = result_of(verify(message, self.resolver(), now=NOW)).results
        self.assertEqual([(each.outcome, each.selector) for each in results], [("pass", "s1"), ("pass", "s2")])

    def test_what_nobody_should_sign_is_refused(self) -> None:
        refusal = self.assertRaises(
            Refusal, self.filtered, self.example.Sign, self.shared(), b"From: a\r\nFrom: b\r\n\r\n"
        )
        self.assertEqual(refusal.reply.code, 554)
        self.assertIn("more than one From", refusal.reply.text)


class CheckTests(ExampleCase):
    def check(self, message: bytes) -> bytes:
        return self.filtered(self.example.Check, self.resolver(), message)

    def test_the_result_is_put_on_top(self) -> None:
        signed = sign(PLAIN, SigningOptions("example.com", "s2", ED25519), now=NOW) + PLAIN
        text = self.check(signed)
        self.assertTrue(
            b" ".join(text.split()).startswith(b"Authentication-Results: mail.example.org; dkim=pass "), text
        )
        self.assertTrue(text.endswith(signed))
        self.assertEqual(self.names.asked, ["s2._domainkey.example.com"])

    def test_what_others_claim_is_taken_away(self) -> None:
        text = self.check(b"Authentication-Results: mail.example.org; dkim=pass\r\n" + PLAIN)
        self.assertEqual(text, b"Authentication-Results: mail.example.org; dkim=none\r\n" + PLAIN)


class ResolverTests(ExampleCase):
    def ask(self, name: str) -> Any:
        return result_of(self.resolver()(name))

    def test_strings_of_a_record_stay_together(self) -> None:
        [record] = self.ask("s1._domainkey.example.com")
        self.assertEqual(b"".join(record).decode(), RSA.record)

    def test_no_name_is_no_record(self) -> None:
        self.assertEqual(self.ask("s3._domainkey.example.com"), [])
        for trouble in (error.DNSNameError(), error.AuthoritativeDomainError()):
            self.names.answer = trouble
            self.assertEqual(self.ask("x"), [])

    def test_no_answer_is_told_as_that(self) -> None:
        for trouble in (
            error.DNSServerError(),
            error.DNSQueryRefusedError(),
            error.DNSQueryTimeoutError([]),
            error.ResolverError(),
            defer.TimeoutError(),
            OSError(),
        ):
            self.names.answer = trouble
            self.assertRaises(KeyUnavailable, self.ask, "x")
