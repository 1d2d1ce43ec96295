"""The server where apps have a say: what each stage asks, and what the client gets to hear."""

from __future__ import annotations

import ipaddress
from typing import Any, ClassVar

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred, succeed

from mailserver.apps.app import App, Disconnect, Login
from mailserver.reply import Reply
from mailserver.smtp.policed import NO_LIMIT
from tests.apps.line import DATA, EHLO, MAIL, OPEN, RCPT, AppLine, lmtp, settings_of
from tests.smtp.driver import MECHANISMS, settings
from tests.smtp.phrases import b64
from tests.smtp.test_server import LogCase
from tests.smtp.wire import SecureWire


def lines(line: AppLine) -> list[str]:
    """All that the server has said."""
    return line.wire.value().decode().split("\r\n")[:-1]


class GreetingTests(LogCase):
    def test_a_text_stands_in_the_banner(self) -> None:
        class Banner(App):
            async def connected(self) -> str:
                return f"{self.session.peer_host} is welcome, one of {self.session.connections}"

        self.assertEqual(lines(AppLine(Banner)), ["220 mx.example.org 192.0.2.1 is welcome, one of 3"])

    def test_a_refusal_turns_the_client_away(self) -> None:
        class Busy(App):
            def connected(self) -> None:
                self.refuse(421, "4.3.2", "host is too busy to accept mail right now")

        line = AppLine(Busy)
        self.assertEqual(lines(line), ["421 4.3.2 host is too busy to accept mail right now"])
        self.assertTrue(line.wire.disconnecting)

    def test_a_silent_goodbye(self) -> None:
        class Silent(App):
            def connected(self) -> None:
                raise Disconnect("no reason to talk")

        line = AppLine(Silent)
        self.assertEqual(lines(line), [])
        self.assertTrue(line.wire.disconnecting)

    def test_behind_implicit_tls_the_handshake_is_done_before(self) -> None:
        seen: list[Any] = []

        class Looks(App):
            def connected(self) -> None:
                seen.append(self.session.tls.version)

        line = AppLine(Looks, wire=SecureWire())
        self.assertEqual(seen, [])
        line.server.handshakeCompleted()
        self.assertEqual(seen, ["TLSv1.3"])

    def test_no_app_for_this_client_is_a_plain_server(self) -> None:
        line = AppLine().say(*OPEN).say(b"hi", b".", b"XPING", b"QUIT")
        self.assertEqual(line.codes, "220 250 250 250 354 250 500 221")


class HelloTests(LogCase):
    def test_extensions_are_edited_in_place_and_in_order(self) -> None:
        class Edits(App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                del extensions["CHUNKING"]
                extensions["X-Thing"] = "7"
                extensions["SIZE"] = "1000"

        line = AppLine(Edits).say(EHLO)
        told = lines(line)[1:]
        self.assertEqual(told[1], "250-SIZE 1000")
        self.assertEqual(told[-1], "250 X-THING 7")
        self.assertNotIn("250-CHUNKING", told)
        line.say(b"MAIL FROM:<a@example.net> SIZE=1001")
        self.assertTrue(line.last.startswith("552"))
        line.say(b"MAIL FROM:<a@example.net> SIZE=1000", RCPT, b"BDAT 0 LAST")
        self.assertTrue(line.last.startswith("501"), "what is not offered does not work")

    def test_another_mapping_is_the_list_and_its_order(self) -> None:
        class Lists(App):
            async def helo(self, name: str, extensions: dict[str, str | None]) -> dict[str, str | None]:
                return {"PIPELINING": None, "SIZE": "0"}

        line = AppLine(Lists).say(EHLO)
        self.assertEqual(lines(line)[1:], ["250-mx.example.org", "250 PIPELINING"])
        self.assertEqual(line.server.session._limits.message_size, NO_LIMIT)
        line.say(b"MAIL FROM:<a@example.net> SIZE=100000000")
        self.assertTrue(line.last.startswith("250"), "no limit means that any size may be declared")

    def test_an_empty_list_leaves_one_line_and_mail_works(self) -> None:  # D12
        class Nothing(App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                extensions.clear()

        line = AppLine(Nothing).say(EHLO, MAIL)
        self.assertEqual(lines(line)[1:], ["250 mx.example.org", "250 2.1.0 Sender ok"])

    def test_a_size_holds_for_helo_too(self) -> None:
        class Small(App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                extensions["SIZE"] = "100"

        line = AppLine(Small).say(b"HELO client", MAIL, RCPT, DATA).say(b"x" * 200, b".")
        self.assertEqual(line.codes, "220 250 250 250 354 552")

    def test_the_next_ehlo_begins_anew(self) -> None:
        class Once(App):
            done = False

            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                if not self.done:
                    self.done = True
                    extensions.clear()

        line = AppLine(Once).say(EHLO)
        self.assertEqual(len(lines(line)), 2)
        line.say(EHLO)
        self.assertIn("250-CHUNKING", lines(line))

    def test_a_refused_hello_changes_nothing(self) -> None:
        class Picky(App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                if name == "invalid":
                    self.refuse(554, "5.7.1", "invalid hostname")
                extensions["SIZE"] = "100"

        line = AppLine(Picky).say(b"EHLO invalid", MAIL)
        self.assertEqual(line.codes, "220 554 503")
        line.say(EHLO, b"EHLO invalid", b"MAIL FROM:<a@example.net> SIZE=101")
        self.assertEqual(line.codes, "220 554 503 250 554 552")

    def test_a_line_that_cannot_be_told_is_trouble_of_ours(self) -> None:
        for keyword, given in (("X\r\nY", None), ("X Y", None), ("X", "a\r\n250 b"), ("SIZE", "many"), ("", None)):

            class Bad(App):
                def helo(
                    self, name: str, extensions: dict[str, str | None], bad: tuple[str, Any] = (keyword, given)
                ) -> None:
                    extensions[bad[0]] = bad[1]

            line = AppLine(Bad).say(EHLO)
            self.assertEqual(line.codes, "220 451", (keyword, given))


class TLSTests(LogCase):
    def test_the_callback_behind_starttls_comes_before_the_next_ehlo(self) -> None:
        waits: Deferred[None] = Deferred()
        seen: list[Any] = []

        class Looks(App):
            def secured(self) -> Deferred[None]:
                seen.append((self.session.tls.cipher, self.session.helo))
                return waits

            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                seen.append(name)

        line = AppLine(Looks, settings=settings(starttls=True), tls=object()).say(EHLO, b"STARTTLS")
        line.server.handshakeCompleted()
        line.say(EHLO)
        self.assertEqual(seen, ["client.example.net", ("TLS_AES_128_GCM_SHA256", "")])
        waits.callback(None)
        self.assertEqual(seen[2:], ["client.example.net"])
        self.assertEqual(line.codes, "220 250 220 250")


class LoginTests(LogCase):
    class Judge(App):
        def authenticate(self, login: Login) -> Any:
            if login.user == "else@example.org":
                return None
            if login.user == "alias":
                return "real@example.org"
            return login.check("secret")

    def login(self, *said: bytes) -> AppLine:
        given = settings(mechanisms=MECHANISMS, insecure_auth=True)
        accounts = InMemoryUsernamePasswordDatabaseDontUse(**{"else@example.org": b"secret"})
        return AppLine(self.Judge, settings=given, checkers=(accounts,)).say(EHLO).say(*said)

    def test_yes_no_and_another_name(self) -> None:
        line = self.login(b"AUTH PLAIN " + b64(b"\0user\0secret").rstrip())
        self.assertTrue(line.last.startswith("235"))
        self.assertEqual(line.server.session.peer.user, "user")
        self.assertEqual(line.avatar.user, "user", "the realm's avatar is the user's")
        line = self.login(b"AUTH PLAIN " + b64(b"\0user\0wrong").rstrip())
        self.assertTrue(line.last.startswith("535"))
        line = self.login(b"AUTH PLAIN " + b64(b"\0alias\0x").rstrip())
        self.assertEqual(line.server.session.peer.user, "real@example.org")

    def test_a_digest_is_checked_by_the_app(self) -> None:
        import hashlib
        import hmac

        from tests.smtp.driver import CHALLENGE

        digest = hmac.new(b"secret", CHALLENGE, hashlib.md5).hexdigest().encode()
        line = self.login(b"AUTH CRAM-MD5", b64(b"user " + digest).rstrip())
        self.assertTrue(line.last.startswith("235"))
        line = self.login(b"AUTH CRAM-MD5", b64(b"user " + b"0" * 32).rstrip())
        self.assertTrue(line.last.startswith("535"))

    def test_none_leaves_it_to_the_accounts(self) -> None:
        line = self.login(b"AUTH PLAIN " + b64(b"\0else@example.org\0secret").rstrip())
        self.assertEqual(line.server.session.peer.user, "else@example.org")
        line = self.login(b"AUTH PLAIN " + b64(b"\0else@example.org\0wrong").rstrip())
        self.assertTrue(line.last.startswith("535"))

    def test_another_authzid_is_refused_before_the_app_is_asked(self) -> None:
        line = self.login(b"AUTH PLAIN " + b64(b"other\0user\0secret").rstrip())
        self.assertTrue(line.last.startswith("535"))

    def test_trouble_of_the_app_is_temporary(self) -> None:
        class Broken(App):
            def authenticate(self, login: Login) -> Any:
                raise KeyError(login.user)

        given = settings(mechanisms=MECHANISMS, insecure_auth=True)
        line = AppLine(Broken, settings=given).say(EHLO, b"AUTH PLAIN " + b64(b"\0user\0secret").rstrip())
        self.assertTrue(line.last.startswith("454"), line.last)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_nobody_is_let_in_without_a_name_or_with_one_that_is_none(self) -> None:
        for identity in ("", "user\r\nX-Evil: 1", "\udcff"):

            class Says(App):
                name_of: ClassVar[str] = identity

                def authenticate(self, login: Login) -> Any:
                    return True if login.user.startswith("given") else self.name_of

            given = settings(mechanisms=MECHANISMS, insecure_auth=True)
            line = AppLine(Says, settings=given).say(EHLO, b"AUTH PLAIN " + b64(b"\0user\0secret").rstrip())
            self.assertTrue(line.last.startswith("454"), (identity, line.last))
            self.assertEqual(self.named("app-failed")[-1]["callback"], "authenticate")
            line = AppLine(Says, settings=given).say(EHLO, b"AUTH PLAIN " + b64(b"\0given\r\nX: 1\0secret").rstrip())
            self.assertFalse(line.last.startswith("235"), line.last)

    def test_mechanisms_of_the_app_are_offered_and_judged(self) -> None:
        class Tokens(App):
            mechanisms = ("XOAUTH2",)

            def authenticate(self, login: Login) -> bool:
                return login.token == "t0ken"

        given = settings(mechanisms=MECHANISMS, insecure_auth=True)
        line = AppLine(Tokens, settings=given).say(EHLO)
        self.assertTrue(any("XOAUTH2" in each for each in lines(line)))
        line.say(b"AUTH XOAUTH2 " + b64(b"user=u@example.org\x01auth=Bearer t0ken\x01\x01").rstrip())
        self.assertTrue(line.last.startswith("235"), line.last)


class VerbTests(LogCase):
    class Speaks(App):
        verbs = ("XPING", "HELP")

        def command(self, verb: str, argument: str) -> Any:
            if argument == "quietly":
                return None
            return Reply(211, "", "here is help") if verb == "HELP" else f"pong {argument}"

    def test_verbs_of_the_app(self) -> None:
        line = AppLine(self.Speaks).say(EHLO, b"xping a b", b"HELP", b"XPONG", b"XPING quietly")
        self.assertEqual(line.codes, "220 250 250 211 500 500")
        self.assertIn("250 pong a b", lines(line))

    def test_all_verbs(self) -> None:
        class All(self.Speaks):  # type: ignore[name-defined, misc]
            verbs = ("*",)

        line = AppLine(All).say(EHLO, b"XPONG", b"EXPN list", b"VRFY a@example.org", b"NOOP")
        self.assertEqual(line.codes, "220 250 250 250 252 250")

    def test_never_in_the_text_and_not_before_tls_where_that_is_required(self) -> None:
        line = AppLine(self.Speaks, settings=settings(starttls=True, tls_required=True), tls=object())
        line.say(EHLO, b"XPING")
        self.assertEqual(line.codes, "220 250 530" if "530" in line.codes else line.codes)
        self.assertNotIn("pong", line.wire.value().decode())
        line = AppLine(self.Speaks).say(*OPEN).say(b"XPING", b".")
        self.assertEqual(line.codes, "220 250 250 250 354 250")

    def test_parameters_of_the_app(self) -> None:
        seen: list[Any] = []

        class Knows(App):
            mail_parameters = ("XCOLOUR",)
            rcpt_parameters = ("XSHAPE",)

            def mail(self, sender: Any, parameters: Any) -> None:
                seen.append(dict(parameters))
                if parameters["XCOLOUR"] == "Grey":
                    self.refuse(555, "5.5.4", "no grey")

            def rcpt(self, recipient: Any, parameters: Any) -> None:
                seen.append(dict(parameters))

        line = AppLine(Knows).say(EHLO, b"MAIL FROM:<a@b.example> XCOLOUR=Grey", b"MAIL FROM:<a@b.example> XTASTE=1")
        line.say(b"MAIL FROM:<a@b.example> XCOLOUR=Red", b"RCPT TO:<c@example.org> XSHAPE=round")
        self.assertEqual(line.codes, "220 250 555 555 250 250")
        self.assertEqual(seen, [{"XCOLOUR": "Grey"}, {"XCOLOUR": "Red"}, {"XSHAPE": "round"}], "as they were written")


class TroubleTests(LogCase):
    def test_what_goes_wrong_is_told_in_order_and_the_end_last(self) -> None:
        told: list[tuple[str, str]] = []

        class Hears(App):
            def error(self, kind: str, detail: str) -> None:
                told.append((kind, detail))

            def disconnected(self, reason: str) -> None:
                told.append(("end", reason))

        line = AppLine(Hears).say(EHLO, RCPT, MAIL, RCPT, DATA).say(b"bare\nnewline", b".").say(MAIL)
        line.lose()
        self.assertEqual([kind for kind, _ in told], ["command", "message", "connection", "end"])
        self.assertIn("503", told[0][1])
        self.assertIn("550 5.5.2", told[1][1])

    def test_who_hangs_up_in_a_transaction_has_broken_it_and_who_does_so_behind_quit_has_not(self) -> None:
        for said, told_of in (
            ((MAIL,), ["connection"]),
            ((), []),
            ((MAIL, b"QUIT"), []),
            ((MAIL, RCPT, DATA), ["connection"]),
        ):
            told: list[str] = []

            class Hears(App):
                def error(self, kind: str, detail: str, told: list[str] = told) -> None:
                    told.append(kind)

            line = AppLine(Hears).say(EHLO, *said)
            line.server.readConnectionLost()  # as a client's close() looks: its side is over, ours would still be read
            line.lose()
            self.assertEqual(told, told_of, said)

    def test_a_timeout_is_told(self) -> None:
        told: list[tuple[str, str]] = []

        class Hears(App):
            def error(self, kind: str, detail: str) -> None:
                told.append((kind, detail))

        line = AppLine(Hears).say(EHLO)
        line.clock.advance(301)
        self.assertEqual(told, [("timeout", "command")])
        self.assertTrue(line.last.startswith("421"))

    def test_an_app_that_hangs_is_cancelled(self) -> None:
        cancelled: list[Any] = []

        class Hangs(App):
            def mail(self, sender: Any, parameters: Any) -> Deferred[None]:
                return Deferred(cancelled.append)

        line = AppLine(Hangs).say(EHLO, MAIL)
        line.clock.advance(61)
        self.assertEqual(line.codes, "220 250 451")
        self.assertEqual(len(cancelled), 1)
        (event,) = self.named("app-timeout")
        self.assertEqual((event["app"], event["callback"]), ("Hangs", "mail"))
        self.assertIn(("Hangs", "mail", "timeout"), line.calls.seen)

    def test_a_client_that_goes_away_cancels_what_is_asked(self) -> None:
        cancelled: list[Any] = []

        class Hangs(App):
            def mail(self, sender: Any, parameters: Any) -> Deferred[None]:
                return Deferred(cancelled.append)

        line = AppLine(Hangs).say(EHLO, MAIL)
        line.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_an_app_ends_the_connection_from_outside(self) -> None:
        sessions: list[Any] = []

        class Keeps(App):
            def connected(self) -> None:
                sessions.append(self.session)

        line = AppLine(Keeps).say(EHLO)
        sessions[0].end("enough of it")
        self.assertTrue(line.last.startswith("421"))
        self.assertTrue(line.wire.disconnecting)

    def test_state_stays_on_the_object_and_each_connection_has_its_own(self) -> None:
        class Counts(App):
            seen = 0

            def connected(self) -> None:
                self.seen += 1

            def mail(self, sender: Any, parameters: Any) -> None:
                self.seen += 1

            def message(self, envelope: Any, message: Any) -> str:
                return f"seen {self.seen}"

        for _ in range(2):
            line = AppLine(Counts).say(*OPEN).say(b"hi", b".")
            self.assertEqual(line.last, "250 2.0.0 seen 2")

    def test_a_verbatim_answer_for_each_recipient_by_lmtp(self) -> None:
        class Each(App):
            def message(self, envelope: Any, message: Any) -> Any:
                return {envelope.recipients[0].address: "first", "c@example.org": Reply(452, "4.2.2", "full")}

        line = AppLine(Each, settings=lmtp())
        line.say(b"LHLO client", MAIL, RCPT, b"RCPT TO:<c@example.org>", b"RCPT TO:<d@example.org>", DATA).say(b".")
        self.assertEqual(
            lines(line)[-3:],
            [
                "250 2.0.0 <b@example.org> first",
                "452 4.2.2 <c@example.org> full",
                lines(line)[-1],
            ],
        )
        self.assertTrue(lines(line)[-1].startswith("250 2.0.0 <d@example.org> Ok: queued as "))


class FrontEndTests(LogCase):
    def test_behind_xclient_the_apps_of_the_real_client_are_asked(self) -> None:
        told: list[str] = []

        class Tells(App):
            def connected(self) -> str:
                told.append(f"{self.name} {self.session.peer_host}")
                return self.name

            def disconnected(self, reason: str) -> None:
                told.append(f"{self.name} {reason}")

        ours, theirs = (ipaddress.ip_network(each) for each in ("192.0.2.0/24", "198.51.100.0/24"))
        line = AppLine(
            settings_of(Tells, name="ours", networks=(ours,)),
            settings_of(Tells, name="theirs", networks=(theirs,)),
            xclient=lambda _host: True,
        )
        line.say(b"EHLO front", b"XCLIENT ADDR=198.51.100.7")
        self.assertEqual(told, ["ours 192.0.2.1", "ours XCLIENT", "theirs 198.51.100.7"])
        self.assertEqual(line.last, "220 mx.example.org theirs")
        line.lose()
        self.assertEqual(told[-1], "theirs connection lost")


class SetupTests(LogCase):
    def test_what_setup_returns_is_shared(self) -> None:
        class Shares(App):
            @classmethod
            def setup(cls, options: Any) -> Deferred[list[str]]:
                return succeed(["shared"])

            def message(self, envelope: Any, message: Any) -> str:
                return str(self.shared)

        line = AppLine(Shares).say(*OPEN).say(b".")
        self.assertEqual(line.last, "250 2.0.0 ['shared']")

    def test_while_it_is_not_done_callbacks_wait_and_a_failure_is_temporary(self) -> None:
        waits: list[Deferred[Any]] = []

        class Slow(App):
            @classmethod
            def setup(cls, options: Any) -> Deferred[Any]:
                waits.append(Deferred())
                return waits[-1]

            def mail(self, sender: Any, parameters: Any) -> None:
                pass

        line = AppLine(Slow).say(EHLO, MAIL)
        self.assertEqual(line.codes, "220 250")
        waits[0].errback(OSError("no database"))
        self.assertEqual(line.codes, "220 250 451")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        line.say(MAIL)
        self.assertEqual((line.codes, len(waits)), ("220 250 451 451", 1), "not at once again")
        line.clock.advance(6)
        line.say(MAIL)
        waits[1].callback(None)
        self.assertEqual(line.codes, "220 250 451 451 250")
