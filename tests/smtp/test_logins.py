"""AUTH through the session: SCRAM with and without channel bindings, bearer tokens, EXTERNAL, and how each ends."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.envelope import Peer
from mailserver.limits import Limits
from mailserver.sasl import BearerLogin, ExternalLogin, VerifiedLogin, WrongProof
from mailserver.smtp import events
from mailserver.smtp.rules import State
from mailserver.smtp.session import SMTPSession
from mailserver.smtp.stock import mechanisms_of
from tests.sasl.test_scram import KEYS, PASSWORD, STRANGER, Client
from tests.smtp.driver import TLS, settings

NAMED = dataclasses.replace(TLS, client_name="joe@example.org", client_fingerprint="ab" * 32)
END_POINT = b"s" * 32
BINDINGS = {"tls-exporter": b"e" * 32, "tls-server-end-point": END_POINT}
BOTH = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")
#: RFC 7628 3.1 and Google's, with the token "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==".
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
OAUTHBEARER = (
    b"n,a=joe@example.org,\x01host=mx.example.org\x01port=587\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01"
)
XOAUTH2 = b"user=joe@example.org\x01auth=Bearer " + TOKEN.encode() + b"\x01\x01"


def encoded(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def decoded(reply: bytes) -> bytes:
    assert reply.startswith(b"334 "), reply
    return base64.b64decode(reply[4:])


class Talk:
    """A session behind EHLO.  verdict: the answer to `Login`; keys: to `Lookup`."""

    def __init__(self, *names: str, tls: Any = TLS, bindings: Any = None, **changes: Any) -> None:
        given_settings = settings(mechanisms=mechanisms_of({n.encode(): None for n in names}, "mx"), **changes)
        self.session = SMTPSession(given_settings, Peer("192.0.2.1", 1), new_id=lambda: "t1")
        if tls is not None:
            self.session.secured(tls, BINDINGS if bindings is None else bindings)
        self.verdict: Any = events.Identity("joe@example.org")
        self.keys: Any = KEYS
        self.logins: list[Any] = []
        self.lookups: list[str] = []
        self.pauses = 0
        self._run()
        self.announced = self.say(b"EHLO client.example.net")

    def say(self, line: bytes) -> bytes:
        """The reply, without its last CRLF."""
        self.session.receive(line + b"\r\n")
        return self._run().removesuffix(b"\r\n")

    def auth(self, name: str, initial: bytes | None = None) -> bytes:
        return self.say(b"AUTH " + name.encode() + (b"" if initial is None else b" " + encoded(initial)))

    def respond(self, octets: bytes) -> bytes:
        return self.say(encoded(octets))

    def _run(self) -> bytes:
        while (event := self.session.next_event()) is not None:
            if isinstance(event, events.Login):
                self.logins.append(event.credentials)
                wrong = isinstance(event.credentials, WrongProof)
                self.session.answer(replies.BAD_CREDENTIALS if wrong else self.verdict)
            elif isinstance(event, events.Lookup):
                self.lookups.append(event.user)
                self.session.answer(self.keys)
            elif isinstance(event, events.Question):
                self.session.answer(None)
        return self.session.data_to_send()


class LoginsCase(SynchronousTestCase):
    def offered(self, *names: str, **options: Any) -> list[str]:
        talk = Talk(*names, **options)
        lines = [line[4:] for line in talk.announced.decode().split("\r\n")]
        return next((line.split(" ")[1:] for line in lines if line.startswith("AUTH")), [])


class OfferTests(LoginsCase):
    def test_plus_only_with_something_to_bind_to(self) -> None:
        self.assertEqual(self.offered(*BOTH, "PLAIN"), [*BOTH, "PLAIN"])
        self.assertEqual(self.offered(*BOTH, "PLAIN", bindings={}), ["SCRAM-SHA-256", "PLAIN"])
        self.assertEqual(self.offered("SCRAM-SHA-256-PLUS", bindings={}), [])

    def test_external_only_with_a_verified_certificate(self) -> None:
        self.assertEqual(self.offered("EXTERNAL", "PLAIN", tls=NAMED), ["EXTERNAL", "PLAIN"])
        self.assertEqual(self.offered("EXTERNAL", "PLAIN"), ["PLAIN"])
        self.assertEqual(self.offered("EXTERNAL", tls=None, insecure_auth=True), [])

    def test_nothing_in_clear_text_and_nothing_where_it_is_switched_off(self) -> None:
        self.assertEqual(self.offered("PLAIN", *BOTH, tls=None), [])
        self.assertEqual(self.offered("PLAIN", *BOTH, off=frozenset({"AUTH"})), [])

    def test_what_is_not_offered_cannot_be_had(self) -> None:
        for talk, name in [
            (Talk(*BOTH, bindings={}), "SCRAM-SHA-256-PLUS"),
            (Talk("EXTERNAL", "PLAIN"), "EXTERNAL"),
            (Talk("PLAIN"), "LOGIN"),
        ]:
            self.assertEqual(talk.auth(name)[:9], b"504 5.5.4", name)
            self.assertIs(talk.session.state, State.READY)


class ScramTests(LoginsCase):
    def client(self, name: str, password: str = PASSWORD) -> ScramClient:
        binding = ("tls-server-end-point", END_POINT) if name.endswith("PLUS") else None
        return ScramClient([name], "user", password, channel_binding=binding)

    def exchange(self, talk: Talk, name: str, client: Any) -> bytes:
        """Until the reply to client-final."""
        client.set_server_first(decoded(talk.auth(name, client.get_client_first().encode())).decode())
        return talk.respond(client.get_client_final().encode())

    def test_scramps_client_comes_in(self) -> None:
        for name in BOTH:
            talk = Talk(*BOTH)
            client = self.client(name)
            client.set_server_final(decoded(self.exchange(talk, name, client)).decode())
            self.assertEqual(talk.say(b""), b"235 2.7.0 Authentication successful", name)
            self.assertEqual(talk.session.peer.user, "joe@example.org")
            self.assertEqual(talk.lookups, ["user"])
            self.assertEqual(talk.logins, [VerifiedLogin("user")])

    def test_without_an_initial_response_an_empty_challenge_comes_first(self) -> None:
        talk = Talk(*BOTH)
        self.assertEqual(talk.auth("SCRAM-SHA-256"), b"334 ")
        self.assertTrue(decoded(talk.respond(self.client("SCRAM-SHA-256").get_client_first().encode())))

    def test_a_wrong_proof_is_asked_about_like_a_wrong_password(self) -> None:
        for keys, password in [(KEYS, "wrong"), (STRANGER, PASSWORD)]:
            talk = Talk(*BOTH)
            talk.keys = keys
            reply = self.exchange(talk, "SCRAM-SHA-256", self.client("SCRAM-SHA-256", password))
            self.assertEqual(reply, b"535 5.7.8 Authentication credentials invalid")
            (login,) = talk.logins
            self.assertEqual((type(login), login.user), (WrongProof, "user"))
            self.assertIs(talk.session.state, State.READY)

    def test_the_keys_may_be_refused(self) -> None:
        for answer, code, closed in [
            (replies.TOO_MANY_AUTH_FAILURES, b"421", True),
            (replies.AUTH_UNAVAILABLE, b"454", False),
            (None, b"454", False),
            (events.Identity("joe"), b"454", False),
        ]:
            talk = Talk(*BOTH)
            talk.keys = answer
            reply = talk.auth("SCRAM-SHA-256", self.client("SCRAM-SHA-256").get_client_first().encode())
            self.assertEqual(reply[:3], code)
            self.assertEqual(talk.session.state is State.CLOSED, closed)
            self.assertEqual((talk.session.peer.user, talk.logins), ("", []))

    def test_a_client_that_could_bind_comes_in_where_plus_is_not_offered(self) -> None:
        """RFC 5802 6: "y" says that the server cannot; it is a lie of somebody only where we say that we can."""
        for names, reply in [(("SCRAM-SHA-256",), b"334"), (BOTH, b"535")]:
            talk = Talk(*names)
            client = Client("y,,")
            first = talk.auth("SCRAM-SHA-256", client.first())
            self.assertEqual(first[:3], reply, names)
            if reply == b"334":
                self.assertEqual(talk.respond(client.final(decoded(first)))[:4], b"334 ")
                self.assertEqual(talk.say(b"")[:3], b"235")

    def test_malformed_and_cancelled(self) -> None:
        for lines, code in [((b"x",), b"501"), ((b"*",), b"501"), ((b"=",), b"501"), ((b"",), b"501")]:
            talk = Talk(*BOTH)
            talk.auth("SCRAM-SHA-256")
            for line in lines:
                reply = talk.say(line)
            self.assertEqual(reply[:3], code, lines)
            self.assertEqual(talk.say(b"NOOP")[:3], b"250")

    def test_a_refused_user_is_not_in(self) -> None:
        talk = Talk(*BOTH)
        talk.verdict = replies.BAD_CREDENTIALS
        self.exchange(talk, "SCRAM-SHA-256", self.client("SCRAM-SHA-256"))
        self.assertEqual(talk.say(b"")[:3], b"535")
        self.assertEqual(talk.session.peer.user, "")


class BearerTests(LoginsCase):
    def test_a_good_token(self) -> None:
        for name, message, host in [("OAUTHBEARER", OAUTHBEARER, "mx.example.org"), ("XOAUTH2", XOAUTH2, "")]:
            talk = Talk(name)
            self.assertEqual(talk.auth(name, message)[:3], b"235", name)
            (login,) = talk.logins
            self.assertIsInstance(login, BearerLogin)
            self.assertEqual((login.user, login.token, login.host), ("joe@example.org", TOKEN, host))

    def test_a_bad_token_gets_the_error_first_and_535_behind_the_answer(self) -> None:
        """RFC 7628 3.2.3 and 4.4."""
        for name, message in [("OAUTHBEARER", OAUTHBEARER), ("XOAUTH2", XOAUTH2)]:
            for answer in (encoded(b"\x01"), b"", b"*", b"=", b"no base64!"):
                talk = Talk(name)
                talk.verdict = replies.BAD_CREDENTIALS
                self.assertIn("status", json.loads(decoded(talk.auth(name, message))))
                self.assertEqual(talk.say(answer), b"535 5.7.8 Authentication credentials invalid", answer)
                self.assertEqual(len(talk.logins), 1)
                self.assertEqual(talk.say(b"NOOP")[:3], b"250")

    def test_no_token_asks_what_is_wanted_and_is_told_once(self) -> None:
        """RFC 7628 4.3: one challenge with the error, one answer, the end."""
        for name, message in [("OAUTHBEARER", b"n,a=j,\x01auth=\x01\x01"), ("XOAUTH2", b"user=j\x01auth=\x01\x01")]:
            talk = Talk(name)
            self.assertIn("status", json.loads(decoded(talk.auth(name, message))))
            self.assertEqual(talk.respond(b"\x01")[:3], b"535", name)
            self.assertIsInstance(talk.logins[0], WrongProof)

    def test_trouble_of_ours_ends_it_at_once(self) -> None:
        talk = Talk("OAUTHBEARER")
        talk.verdict = replies.AUTH_UNAVAILABLE
        self.assertEqual(talk.auth("OAUTHBEARER", OAUTHBEARER)[:3], b"454")
        talk.verdict = replies.TOO_MANY_AUTH_FAILURES
        self.assertEqual(talk.auth("OAUTHBEARER", OAUTHBEARER)[:3], b"421")
        self.assertIs(talk.session.state, State.CLOSED)

    def test_the_failures_count_whatever_the_last_line_was(self) -> None:
        for answer in (b"", b"*", b"x" * 600):
            talk = Talk("OAUTHBEARER", limits=Limits(auth_failures=2, auth_line=512))
            talk.verdict = replies.BAD_CREDENTIALS
            token = b"n,,\x01auth=Bearer x\x01\x01"
            for code in (b"535", b"421"):
                self.assertEqual(talk.auth("OAUTHBEARER", token)[:3], b"334")
                self.assertEqual(talk.say(answer)[:3], code, answer)
            self.assertIs(talk.session.state, State.CLOSED)


class ExternalTests(LoginsCase):
    def test_the_name_in_the_certificate_comes_in(self) -> None:
        for initial, authzid in [
            (b"", ""),
            (b"joe@example.org", "joe@example.org"),
            (b"boss@example.org", "boss@example.org"),
        ]:
            talk = Talk("EXTERNAL", tls=NAMED)
            line = b"AUTH EXTERNAL " + (encoded(initial) or b"=")
            self.assertEqual(talk.say(line)[:3], b"235")
            self.assertEqual(talk.logins, [ExternalLogin("joe@example.org", authzid)])

    def test_in_two_steps(self) -> None:
        talk = Talk("EXTERNAL", tls=NAMED)
        self.assertEqual(talk.auth("EXTERNAL"), b"334 ")
        self.assertEqual(talk.say(b"")[:3], b"235")


class LimitTests(LoginsCase):
    def test_failures_below_at_and_behind_the_limit(self) -> None:
        talk = Talk("PLAIN", limits=Limits(auth_failures=3))
        talk.verdict = replies.BAD_CREDENTIALS
        codes = [talk.auth("PLAIN", b"\0joe\0wrong")[:3] for _ in range(3)]
        self.assertEqual(codes, [b"535", b"535", b"421"])

    def test_trouble_of_ours_is_no_failure_of_theirs(self) -> None:
        talk = Talk("PLAIN", limits=Limits(auth_failures=2))
        talk.verdict = replies.AUTH_UNAVAILABLE
        self.assertEqual([talk.auth("PLAIN", b"\0joe\0right")[:3] for _ in range(5)], [b"454"] * 5)
        self.assertEqual(talk.session.error_count, 0)

    def test_an_answer_that_is_none_is_a_no(self) -> None:
        talk = Talk("PLAIN")
        talk.verdict = None
        self.assertEqual(talk.auth("PLAIN", b"\0joe\0right")[:3], b"535")
        self.assertEqual(talk.session.peer.user, "")

    @hypothesis_settings(deadline=None, max_examples=100)
    @given(
        st.sampled_from(["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "PLAIN"]),
        st.lists(st.binary(max_size=40), max_size=4),
    )
    def test_whatever_is_said_each_line_has_one_reply_and_nobody_comes_in(
        self, name: str, lines: list[bytes]
    ) -> None:
        talk = Talk("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "PLAIN", tls=NAMED)
        talk.verdict = replies.BAD_CREDENTIALS
        talk.auth(name)
        for line in lines:
            if talk.session.state is State.AUTH:
                self.assertRegex(talk.respond(line), rb"\A(?:334|5\d\d|4\d\d) [^\r\n]*\Z")
        self.assertEqual(talk.session.peer.user, "")
