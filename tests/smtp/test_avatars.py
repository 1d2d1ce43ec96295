"""Who is on the other end, through the server: SCRAM, tokens, VRFY, XCLIENT, early talkers, and the waits of a no."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from scramp import ScramClient
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import execute, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver import reply as replies
from mailserver.accounts.checker import AccountsChecker
from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.passwords import hash_password
from mailserver.address import parse_address
from mailserver.credentials import BearerToken, VerifiedUser
from mailserver.interfaces import IBearerToken, IMailAvatar, IScramKeys
from mailserver.limits import Limits
from mailserver.policy.clients import ClientLimits
from mailserver.reply import Refusal, Reply
from mailserver.sasl import BearerLogin, CramLogin, ExternalLogin, PlainLogin, VerifiedLogin, WrongProof
from mailserver.smtp.avatars import credentials_of
from mailserver.smtp.stock import mechanisms_of
from tests.sasl.test_scram import KEYS
from tests.smtp import wire
from tests.smtp.driver import MECHANISMS, settings
from tests.smtp.phrases import b64
from tests.smtp.test_logins import OAUTHBEARER, TOKEN, decoded, encoded
from tests.smtp.test_server import DATA, EHLO, LOGIN, MAIL, RCPT, WRONG, LogCase, password_checker
from tests.smtp.wire import Line, waiting

NAME, PASSWORD = "joe@example.org", "open sesame \u00e4"
NAMES = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "OAUTHBEARER", "XOAUTH2")
SASL = mechanisms_of({name.encode(): None for name in NAMES}, "mx.example.org")
EXPORTED = b"k" * 32  # what the handle of the wire exports


class ScramCase(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.accounts = AccountsDatabase(Path(self.mktemp()))
        self.addCleanup(self.accounts.close)
        self.accounts.add_account(parse_address(NAME), hash_password(PASSWORD))
        self.checker = AccountsChecker(self.accounts, run_in_thread=execute, clock=self.clock)

    def line(self, *, tls: bool = True, **options: Any) -> Line:
        options.setdefault("scram", self.checker)
        given = settings(mechanisms=SASL, insecure_auth=not tls)
        line = Line(given, checkers=(self.checker,), **options)
        if tls:
            line.server.handshakeCompleted()
        return line.say(EHLO)

    def login(self, line: Line, name: str, user: str = NAME, password: str = PASSWORD) -> str:
        """The last line of the exchange."""
        binding = ("tls-exporter", EXPORTED) if name.endswith("PLUS") else None
        client = ScramClient([name], user, password, channel_binding=binding)
        line.say(b"AUTH " + name.encode() + b" " + encoded(client.get_client_first().encode()))
        if not line.last.startswith("334"):
            return line.last
        client.set_server_first(decoded(line.last.encode()).decode())
        before = len(line.wire.value())
        line.say(encoded(client.get_client_final().encode()))
        if line.wire.value()[before:].startswith(b"334 "):
            client.set_server_final(decoded(line.last.encode()).decode())
            line.say(b"")
        return line.last


class ScramTests(ScramCase):
    def test_the_checker_has_the_keys(self) -> None:
        verifyObject(IScramKeys, self.checker)

    def test_an_account_comes_in(self) -> None:
        line = self.line(tls=False)
        self.assertEqual(self.login(line, "SCRAM-SHA-256"), "235 2.7.0 Authentication successful")
        self.assertEqual((line.avatar.user, line.server.session.peer.user), (NAME, NAME))
        self.assertEqual(self.login(self.line(), "SCRAM-SHA-256", "JOE@Example.ORG")[:3], "235")

    def test_with_a_channel_binding(self) -> None:
        from mailserver.smtp import server

        self.patch(server, "channel_bindings", lambda _handle: {"tls-exporter": EXPORTED})
        line = self.line()
        self.assertIn("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256", line.wire.value().decode())
        exchange = ScramClient(["SCRAM-SHA-256"], NAME, PASSWORD)
        first = b"p=tls-exporter,," + exchange.get_client_first().encode().removeprefix(b"n,,")
        line.say(b"AUTH SCRAM-SHA-256-PLUS " + encoded(first))
        exchange.set_server_first(decoded(line.last.encode()).decode())

        class Bound:
            def make_cbind_input(self, _binding: object) -> bytes:
                return b"p=tls-exporter,," + EXPORTED

        exchange.gs2_header = Bound()
        line.say(encoded(exchange.get_client_final().encode()), b"")
        self.assertEqual(line.last[:3], "235")

    def test_a_stranger_a_wrong_password_and_a_disabled_account_look_the_same(self) -> None:
        seen = set()
        self.accounts.add_account(parse_address("off@example.org"), hash_password(PASSWORD))
        self.accounts.set_enabled(parse_address("off@example.org"), enabled=False)
        for user, password in [(NAME, "wrong"), ("nobody@example.org", PASSWORD), ("off@example.org", PASSWORD)]:
            line = self.line()
            seen.add((self.login(line, "SCRAM-SHA-256", user, password), line.codes))
        self.assertEqual(seen, {("535 5.7.8 Authentication credentials invalid", "220 250 334 535")})

    def test_a_wrong_proof_waits_like_a_wrong_password_and_counts_like_one(self) -> None:
        admission = ClientLimits(Limits(auth_failures_per_minute=2), lambda: 0.0, lambda: 0.5)
        line = self.line(admission=admission)
        self.login(line, "SCRAM-SHA-256", password="wrong")
        line.clock.advance(1.9)
        self.assertEqual(line.codes, "220 250 334")
        line.clock.advance(0.2)
        self.assertEqual(line.codes, "220 250 334 535")
        self.login(line, "SCRAM-SHA-256", password="wrong")
        line.clock.advance(5)
        self.assertEqual(self.login(line, "SCRAM-SHA-256")[:3], "421")
        self.assertTrue(line.wire.disconnecting)

    def test_the_lookup_itself_is_refused_to_who_has_failed_too_often(self) -> None:
        admission = ClientLimits(Limits(auth_failures_per_minute=1), lambda: 0.0, lambda: 0.5)
        admission.auth_failed(self.line().server.session.peer, "x")
        asked: list[str] = []

        @implementer(IScramKeys)
        class Keys:
            def scram_keys(self, user: str) -> Any:
                asked.append(user)
                return KEYS

        line = self.line(admission=admission, scram=Keys())
        self.assertEqual(self.login(line, "SCRAM-SHA-256")[:9], "421 4.7.0")
        self.assertEqual(asked, [])
        line.lose()
        self.assertEqual(self.named("connection")[-1]["refusals"][0][:10], "login: 421")

    def test_keys_may_take_their_time_and_may_fail(self) -> None:
        @implementer(IScramKeys)
        class Keys:
            answer: Any = None

            def scram_keys(self, user: str) -> Any:
                return self.answer

        keys = Keys()
        keys.answer = succeed(KEYS)
        self.assertEqual(self.login(self.line(scram=keys), "SCRAM-SHA-256")[:3], "535")
        for answer in (fail(RuntimeError("no database")), None, "keys"):
            keys.answer = answer
            line = self.line(scram=keys)
            self.assertEqual(self.login(line, "SCRAM-SHA-256")[:3], "454")
            self.assertEqual(line.say(b"NOOP").last[:3], "250")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        keys.answer = waiting()
        line = self.line(scram=keys)
        self.login(line, "SCRAM-SHA-256")
        line.clock.advance(240)
        self.assertEqual(line.codes, "220 250 454")
        self.flushLoggedErrors()

    def test_where_nobody_knows_keys(self) -> None:
        self.assertEqual(self.login(self.line(scram=None), "SCRAM-SHA-256")[:3], "454")

    def test_no_key_and_no_proof_reaches_the_log(self) -> None:
        line = self.line()
        self.login(line, "SCRAM-SHA-256", password="wr0ng")
        self.login(line, "SCRAM-SHA-256")
        sent = [word for word in line.wire.value().decode().split() if len(word) > 40]
        line.lose()
        told = repr(self.events)
        for secret in (*sent, "wr0ng", "sesame"):
            self.assertNotIn(secret, told)


@implementer(ICredentialsChecker)
class TokenChecker:
    """Knows one token."""

    credentialInterfaces = (IBearerToken,)

    def requestAvatarId(self, credentials: Any) -> Any:
        self.seen = credentials
        return succeed(NAME.encode()) if credentials.token == TOKEN else fail(UnauthorizedLogin())


class BearerTests(LogCase):
    def line(self, *checkers: Any, **options: Any) -> Line:
        return Line(settings(mechanisms=SASL, insecure_auth=True), checkers=checkers, **options).say(EHLO)

    def test_an_apps_checker_decides(self) -> None:
        checker = TokenChecker()
        line = self.line(checker).say(b"AUTH OAUTHBEARER " + encoded(OAUTHBEARER))
        self.assertEqual(line.codes, "220 250 235")
        self.assertEqual((checker.seen.username, checker.seen.mechanism), (NAME.encode(), "OAUTHBEARER"))

    def test_a_wrong_token_waits_before_its_error(self) -> None:
        admission = ClientLimits(Limits(), lambda: 0.0, lambda: 0.5)
        line = self.line(TokenChecker(), admission=admission)
        line.say(b"AUTH OAUTHBEARER " + encoded(OAUTHBEARER.replace(b"vF9", b"xxx")))
        line.clock.advance(1.9)
        self.assertEqual(line.codes, "220 250")
        line.clock.advance(0.2)
        self.assertEqual(line.codes, "220 250 334")
        line.say(encoded(b"\x01"))
        self.assertEqual(line.codes, "220 250 334 535")

    def test_without_a_checker_for_it_nobody_can_tell(self) -> None:
        line = self.line(password_checker()).say(b"AUTH OAUTHBEARER " + encoded(OAUTHBEARER))
        self.assertEqual(line.last[:3], "454")

    def test_no_token_reaches_the_log(self) -> None:
        line = self.line(TokenChecker()).say(b"AUTH OAUTHBEARER " + encoded(OAUTHBEARER), b"QUIT")
        line.lose()
        self.assertNotIn(TOKEN, repr(self.events))


class CheckerTests(LogCase):
    def test_a_checker_that_never_answers_is_given_up(self) -> None:
        never = password_checker()
        self.patch(never, "requestAvatarId", lambda _credentials: waiting())
        line = Line(settings(insecure_auth=True, mechanisms=MECHANISMS), checkers=(never,)).say(EHLO, LOGIN)
        line.clock.advance(109)
        self.assertEqual(line.codes, "220 250")
        line.clock.advance(1)
        self.assertEqual(line.codes, "220 250 454")
        self.assertEqual(line.say(b"NOOP").last[:3], "250")
        self.flushLoggedErrors()

    def test_one_that_cannot_tell_now_costs_no_failure(self) -> None:
        cannot = password_checker()
        self.patch(cannot, "requestAvatarId", lambda _credentials: fail(LoginFailed()))
        admission = ClientLimits(Limits(auth_failures_per_minute=1), lambda: 0.0, lambda: 0.5)
        given = settings(insecure_auth=True, mechanisms=MECHANISMS)
        line = Line(given, checkers=(cannot,), admission=admission).say(EHLO, LOGIN, LOGIN)
        self.assertEqual(line.codes, "220 250 454 454")


class CredentialsTests(SynchronousTestCase):
    def test_each_login_has_credentials_of_its_kind(self) -> None:
        password = credentials_of(PlainLogin("j\u00f6", "p\u00e4ss"), "PLAIN")
        self.assertEqual((password.username, password.password), ("j\u00f6".encode(), "p\u00e4ss".encode()))
        cram = credentials_of(CramLogin("joe", b"<c>", "d" * 32), "CRAM-MD5")
        self.assertEqual((cram.username, cram.challenge, cram.digest), (b"joe", b"<c>", "d" * 32))
        for login in (VerifiedLogin("joe"), ExternalLogin("joe", "JOE")):
            self.assertEqual(credentials_of(login, "X"), VerifiedUser(b"joe"))
        token = credentials_of(BearerLogin("joe", "t0ken"), "XOAUTH2")
        self.assertEqual(token, BearerToken(b"joe", "t0ken", "XOAUTH2"))
        self.assertNotIn("t0ken", repr(token))

    def test_nobody_acts_for_another_and_a_wrong_proof_opens_nothing(self) -> None:
        logins: list[Any] = [kind("joe", authzid="boss") for kind in (VerifiedLogin, ExternalLogin)]
        for login in (*logins, PlainLogin("joe", "x", "boss"), WrongProof("joe", "x")):
            self.assertRaises(UnauthorizedLogin, credentials_of, login, "X")


class VerifyingAvatar(wire.Avatar):
    """Knows who exists."""

    def verify(self, address: Any) -> Any:
        self.calls.append(f"verify {address}")
        return self._step("verify")


class VerifyTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(wire, "Avatar", VerifyingAvatar)

    def line(self, answer: Any, **changes: Any) -> Line:
        given = settings(vrfy=True, limits=Limits(error_delay=0.0), **changes)
        return Line(given, {"verify": answer}).say(EHLO)

    def test_the_avatar_is_one(self) -> None:
        verifyObject(IMailAvatar, VerifyingAvatar("", {}))

    def test_the_avatar_says_who_exists(self) -> None:
        async def later() -> Reply:
            return Reply(250, "2.1.5", "<b@example.org>")

        for answer, code in [
            (Reply(250, "2.1.5", "<b@example.org>"), "250"),
            (succeed(replies.CANNOT_VERIFY), "252"),
            (later(), "250"),
            (Refusal(replies.UNKNOWN_USER), "550"),
            (fail(Refusal(replies.RELAYING_DENIED)), "550"),
        ]:
            line = self.line(answer).say(b"VRFY <b@example.org>")
            self.assertEqual(line.last[:3], code)
            self.assertIn("verify b@example.org", line.avatar.calls)

    def test_trouble_and_nonsense_are_451(self) -> None:
        for answer in (ValueError("secret"), None, "yes"):
            line = self.line(answer).say(b"VRFY b@example.org", b"NOOP")
            self.assertEqual(line.codes[-7:], "451 250")
            self.assertNotIn("secret", line.wire.value().decode())
        self.assertEqual(len(self.flushLoggedErrors(ValueError, TypeError)), 3)

    def test_who_tries_names_is_sent_away(self) -> None:
        line = self.line(Refusal(replies.UNKNOWN_USER)).say(*[b"VRFY <x@example.org>"] * 25)
        self.assertEqual(line.codes, "220 250" + " 550" * 19 + " 421")

    def test_where_a_login_is_needed_nobody_is_told_anything(self) -> None:
        line = self.line(Reply(250, "2.1.5", "<b@example.org>"))
        cast("Any", line.server.portal).checkers.clear()
        self.assertEqual(line.say(b"VRFY <b@example.org>").last[:3], "530")

    def test_where_it_is_not_allowed_the_avatar_is_not_asked(self) -> None:
        line = Line(settings()).say(EHLO, b"VRFY <b@example.org>")
        self.assertEqual(line.codes, "220 250 252")
        self.assertEqual(line.realm.avatars, [])


class EarlyTalkerTests(LogCase):
    def line(self, **options: Any) -> Line:
        return Line(settings(banner_delay=5.0), **options)

    def test_who_waits_is_greeted(self) -> None:
        line = self.line()
        line.clock.advance(4.9)
        self.assertEqual(line.wire.value(), b"")
        line.clock.advance(0.1)
        self.assertEqual(line.say(EHLO).codes, "220 250")

    def test_who_talks_before_is_refused(self) -> None:
        line = self.line()
        line.clock.advance(4.9)
        line.server.dataReceived(b"E")
        self.assertEqual(line.wire.value(), b"")
        line.clock.advance(0.1)
        self.assertEqual(line.codes, "554")
        self.assertTrue(line.wire.disconnecting)
        line.lose()
        self.assertIn("554", self.named("connection")[0]["refusals"][0])

    def test_one_who_talks_much_costs_little(self) -> None:
        line = self.line()
        for _ in range(3):
            line.server.dataReceived(b"x" * 60_000)
        self.assertEqual(line.wire.producerState, "paused")

    def test_one_who_goes_leaves_nothing_behind(self) -> None:
        line = self.line()
        line.lose()
        self.assertEqual((line.clock.getDelayedCalls(), self.flushLoggedErrors()), ([], []))

    def test_who_is_turned_away_need_not_wait(self) -> None:
        admission = ClientLimits(Limits(connections=1), lambda: 0.0, lambda: 0.5)
        self.line(admission=admission)
        self.assertEqual(self.line(admission=admission).codes, "421")

    def test_without_a_delay_who_talks_early_is_heard(self) -> None:
        line = Line(settings(), connect=False)
        line.server.makeConnection(line.wire)
        self.assertEqual(line.say(EHLO).codes, "220 250")


class XClientTests(LogCase):
    """The limits and the log are those of the client that a front end speaks for."""

    CLIENT = b"XCLIENT ADDR=198.51.100.7 LOGIN=joe@example.org"

    def line(self, admission: Any = None, **options: Any) -> Line:
        trusted = {"192.0.2.1"}
        return Line(settings(), admission=admission, xclient=trusted.__contains__, **options).say(EHLO)

    def test_only_trusted_peers_may(self) -> None:
        self.assertEqual(self.line().say(self.CLIENT).codes, "220 250 220")
        stranger = Line(settings(), xclient=lambda _host: False).say(EHLO, self.CLIENT)
        self.assertEqual(stranger.codes, "220 250 500")
        self.assertNotIn(b"XCLIENT", stranger.wire.value().split(b"500 ")[0])

    def test_connections_are_counted_for_the_client(self) -> None:
        admission = ClientLimits(Limits(connections_per_client=1, connection_rate=100), lambda: 0.0, lambda: 0.5)
        line = self.line(admission).say(self.CLIENT)
        self.assertEqual((line.codes, admission.connections), ("220 250 220", 1))
        second = self.line(admission).say(self.CLIENT)
        self.assertEqual(second.codes, "220 250 421")
        self.assertTrue(second.wire.disconnecting)
        second.lose()
        self.assertEqual(admission.connections, 1)
        line.lose()
        self.assertEqual(admission.connections, 0)
        self.assertEqual(self.line(admission).say(self.CLIENT).last[:3], "220")

    def test_messages_and_recipients_are_counted_for_the_client(self) -> None:
        limits = Limits(messages_per_minute=1, recipients_per_minute=2)
        admission = ClientLimits(limits, lambda: 0.0, lambda: 0.5)
        line = self.line(admission).say(self.CLIENT, EHLO, MAIL, RCPT, RCPT, RCPT)
        self.assertEqual(line.codes, "220 250 220 250 250 250 250 421")
        line = self.line(admission).say(self.CLIENT, EHLO, MAIL)
        self.assertEqual(line.codes, "220 250 220 250 421")
        # The front end itself, and others behind it, have sent nothing yet.
        self.assertEqual(self.line(admission).say(EHLO, MAIL, RCPT).codes[-7:], "250 250")

    def test_the_log_names_the_client(self) -> None:
        line = self.line().say(self.CLIENT + b" PORT=99", EHLO, MAIL, RCPT, DATA).say(b".", b"QUIT")
        line.lose()
        for event in (*self.named("message"), *self.named("connection")):
            self.assertEqual((event["peer"], event["user"]), ("198.51.100.7", "joe@example.org"))

    def test_a_login_of_the_front_end_is_over(self) -> None:
        given = settings(insecure_auth=True, mechanisms=MECHANISMS)
        line = Line(given, checkers=(password_checker(),), xclient=lambda _host: True).say(EHLO, LOGIN)
        own = line.avatar
        line.say(b"XCLIENT ADDR=198.51.100.7", EHLO, MAIL)
        self.assertEqual(own.calls, ["logout"])
        self.assertEqual((line.avatar.user, line.server.session.peer.user), ("", ""))

    def test_what_it_says_of_a_login_gives_no_rights(self) -> None:
        line = self.line().say(self.CLIENT, EHLO, MAIL)
        self.assertEqual(line.avatar.user, "")


class WaitTests(LogCase):
    def test_a_wait_that_is_cut_off_is_over_for_the_limits_too(self) -> None:
        admission = ClientLimits(Limits(auth_delays=1), lambda: 0.0, lambda: 0.5)
        given = settings(insecure_auth=True, mechanisms=MECHANISMS)
        line = Line(given, checkers=(password_checker(),), admission=admission).say(EHLO, WRONG)
        self.assertIsNotNone(admission.may_authenticate(line.server.session.peer))
        line.server.cut()
        line.lose()
        self.assertIsNone(admission.may_authenticate(line.server.session.peer))
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_external_without_an_account_waits_too(self) -> None:
        admission = ClientLimits(Limits(), lambda: 0.0, lambda: 0.5)
        line = Line(settings(mechanisms=SASL), checkers=(password_checker(),), admission=admission)
        line.server.handshakeCompleted()
        line.say(EHLO, b"AUTH EXTERNAL " + b64(b"x").strip())
        self.assertEqual(line.last[:3], "504")  # no certificate, no EXTERNAL
