"""The server in the reactor of these tests, with smtplib in a thread; trial itself looks for what is left behind."""

from __future__ import annotations

import re
import smtplib
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.sockets import BindError
from mailserver.testing import AsyncMailServer, MessageNotReceived, UnexpectedMessage
from tests.testing.clients import PATIENCE, answers, connect, message, send

reactor: Any = the_reactor


class Case(TestCase):
    timeout = 60

    async def serve(self, **options: Any) -> AsyncMailServer:
        server = await AsyncMailServer(reactor, **options).start()
        self.addCleanup(server.stop)
        return server

    def in_thread(self, function: Any, *arguments: Any, **others: Any) -> Deferred[Any]:
        return deferToThread(function, *arguments, **others)


class LifeTests(Case):
    async def test_a_message_arrives(self) -> None:
        server = await self.serve()
        await self.in_thread(send, server, "b@example.org", "c@example.org", subject="Grüße")
        (received,) = server.messages
        self.assertEqual(received.recipients, ("b@example.org", "c@example.org"))
        self.assertEqual((received.subject, received.text.strip()), ("Grüße", "It works."))
        self.assertEqual(server.inboxes["c@example.org"], [received])
        self.assertIs(await server.wait_for_message(subject=re.compile("^Gr")), received)
        server.clear()
        self.assertEqual(server.messages, [])

    async def test_it_is_its_own_context(self) -> None:
        async with AsyncMailServer() as server:
            await self.in_thread(send, server)
            self.assertEqual(len(server.messages), 1)
        error = self.assertRaises(RuntimeError, lambda: server.messages)
        self.assertIn("does not run", str(error))

    async def test_it_may_be_stopped_twice_and_started_again(self) -> None:
        server = await self.serve()
        error = await self.assertFailure(server.start(), RuntimeError)
        self.assertIn("runs already", str(error))
        await server.stop()
        await server.stop()
        await server.start()
        self.assertEqual(await self.in_thread(answers, server, "NOOP"), [220, 250])

    async def test_several_run_at_once(self) -> None:
        servers = [await self.serve() for _ in range(5)]
        self.assertEqual(len({server.port for server in servers}), 5)
        await self.in_thread(send, servers[3])
        self.assertEqual([len(server.messages) for server in servers], [0, 0, 0, 1, 0])

    async def test_an_address_that_cannot_be_had_is_named(self) -> None:
        server = await self.serve()
        second = AsyncMailServer(port=server.port, tls="both")
        error = await self.assertFailure(second.start(), BindError)
        self.assertIn(f"127.0.0.1:{server.port}", str(error))
        self.assertRaises(RuntimeError, lambda: second.port)

    async def test_its_end_ends_connections_and_waits(self) -> None:
        server = await self.serve()
        waiting = server.wait_for_message(timeout=PATIENCE)
        failed = self.assertFailure(waiting, MessageNotReceived)
        client = await self.in_thread(connect, server)
        self.addCleanup(client.close)
        self.assertEqual(server.connections, 1)
        await server.stop()
        self.assertIn("was stopped", str(await failed))
        with self.assertRaises((smtplib.SMTPServerDisconnected, OSError)):
            await self.in_thread(client.noop)


class WaitTests(Case):
    async def test_the_arrival_ends_the_wait(self) -> None:
        server = await self.serve()
        waiting = server.wait_for_message(to="*@example.com", timeout=PATIENCE)
        await self.in_thread(send, server, "b@example.org")
        self.assertNoResult(waiting)
        await self.in_thread(send, server, "c@example.com")
        self.assertEqual((await waiting).recipients, ("c@example.com",))
        self.assertEqual(len(server.find(to="*@example.com")), 1)

    async def test_what_came_instead_is_told(self) -> None:
        server = await self.serve()
        await self.in_thread(send, server, subject="other")
        error = await self.assertFailure(server.wait_for_message(subject="mine", timeout=0), AssertionError)
        self.assertIn("no message with a subject 'mine' within 0 s; 1 message has arrived", str(error))
        self.assertIn("<Received 'other' from <a@example.net> to b@example.org", str(error))

    async def test_nothing_can_be_asserted(self) -> None:
        server = await self.serve()
        await server.assert_no_message()
        await self.in_thread(send, server)
        await server.assert_no_message(to="c@example.org")
        await self.assertFailure(server.assert_no_message(to="b@example.org"), UnexpectedMessage)


class FaultTests(Case):
    async def test_a_recipient_fails(self) -> None:
        server = await self.serve()
        server.fail_rcpt("c@*", 450)
        refused = await self.in_thread(send, server, "b@example.org", "c@example.org")
        self.assertEqual(refused, {"c@example.org": (450, b"4.0.0 As the test wants it")})
        self.assertEqual(server.messages[0].recipients, ("b@example.org",))
        self.assertEqual(await self.in_thread(send, server, "c@example.org"), {})

    async def test_senders_and_messages_fail(self) -> None:
        server = await self.serve()
        server.fail_sender("a@example.net", "553 5.1.8 who?")
        await self.assertFailure(self.in_thread(send, server), smtplib.SMTPSenderRefused)
        server.fail_message("b@example.org", (452, "4.2.2", "full"))
        error = await self.assertFailure(self.in_thread(send, server), smtplib.SMTPDataError)
        self.assertEqual(error.args, (452, b"4.2.2 full"))
        self.assertEqual(server.messages, [])
        await self.in_thread(send, server)
        self.assertEqual(len(server.messages), 1)

    async def test_as_a_context_manager_it_lasts_for_the_block(self) -> None:
        server = await self.serve()
        with server.fail("mail", 451) as fault:
            for _ in range(3):
                await self.assertFailure(self.in_thread(send, server), smtplib.SMTPSenderRefused)
        self.assertEqual(fault.count, 3)
        self.assertEqual(await self.in_thread(send, server), {})

    async def test_faults_can_be_forgotten(self) -> None:
        server = await self.serve()
        server.fail("mail", times=None)
        server.fail("connect", times=None, where=lambda moment: moment.listener == "smtp")
        server.clear_faults()
        self.assertEqual(await self.in_thread(send, server), {})

    async def test_the_connection_ends_in_the_middle_of_the_text(self) -> None:
        server = await self.serve()
        fault = server.drop_after("data", octets=1000)
        text = "x" * 70 + "\n"
        failed = self.in_thread(send, server, text=text * 20)
        await self.assertFailure(failed, smtplib.SMTPServerDisconnected, OSError)
        self.assertEqual((fault.count, server.messages), (1, []))

    async def test_a_message_may_be_taken_and_its_client_never_told(self) -> None:
        server = await self.serve()
        server.drop_after("message", keep=True)
        await self.assertFailure(self.in_thread(send, server), smtplib.SMTPServerDisconnected)
        self.assertEqual(len(server.messages), 1)

    async def test_a_crash_is_a_reset(self) -> None:
        server = await self.serve()
        server.drop_after("helo", reset=True)
        with self.assertRaises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            await self.in_thread(send, server)
        self.assertEqual(server.messages, [])

    async def test_replies_may_be_chosen(self) -> None:
        server = await self.serve()
        server.reply("rcpt", "251 2.1.5 will forward")
        server.reply("connect", b"hello\r\n")
        with self.assertRaises(smtplib.SMTPException):
            await self.in_thread(send, server)
        said = await self.in_thread(answers, server, "EHLO c", "MAIL FROM:<>", "RCPT TO:<b@example.org>")
        self.assertEqual(said, [220, 250, 250, 251])

    async def test_it_can_wait(self) -> None:
        server = await self.serve()
        fault = server.delay("mail", 0.001)
        self.assertEqual(await self.in_thread(send, server), {})
        self.assertEqual(fault.count, 1)

    async def test_nobody_may_be_at_home(self) -> None:
        server = await self.serve(lmtp=True)
        ports = (server.port, server.lmtp_port)
        await server.stop_listening()
        await server.stop_listening()
        for port in ports:
            await self.assertFailure(self.in_thread(answers, server, port=port), ConnectionRefusedError)
        await server.listen_again()
        await server.listen_again()
        self.assertEqual((server.port, server.lmtp_port), ports)
        self.assertEqual(await self.in_thread(send, server), {})

    async def test_it_may_end_while_nobody_is_at_home(self) -> None:
        server = await self.serve()
        await server.stop_listening()
        await server.stop()
        self.assertRaises(RuntimeError, lambda: server.port)

    async def test_what_makes_no_sense_is_named(self) -> None:
        server = AsyncMailServer()
        for wrong, words in (
            (lambda: server.fail("rcpt", 250), "250 is no refusal"),
            (lambda: server.fail("lunch"), "'lunch' is no stage"),
            (lambda: server.fail_rcpt("nobody"), 'has no "@"'),
            (lambda: server.delay("mail", -1), "seconds: -1"),
            (lambda: server.drop_after("mail", octets=5), "octets: only of the text"),
            (lambda: server.drop_after("mail", keep=True), "keep: only of a whole message"),
        ):
            error = self.assertRaises(ValueError, wrong)
            self.assertIn(words, str(error))


class OptionTests(Case):
    async def test_starttls_with_a_certificate_that_can_be_trusted(self) -> None:
        server = await self.serve(tls="starttls", auth={"anna": "Xk-anna-7Quartz"})
        certificate = server.certificate

        def sent(host: str) -> bool:
            with smtplib.SMTP(host, server.port, timeout=PATIENCE) as client:
                client.ehlo()
                offered = client.has_extn("auth")
                client.starttls(context=server.ssl_context())
                client.login("anna", "Xk-anna-7Quartz")
                client.send_message(message(), "a@example.net", ["b@example.org"])
                return offered

        self.assertFalse(await self.in_thread(sent, "127.0.0.1"))
        self.assertFalse(await self.in_thread(sent, "localhost"))
        facts = server.messages[0].session
        assert facts.tls is not None
        self.assertEqual((facts.identity, facts.protocol, facts.tls.version[:3]), ("anna", "ESMTPSA", "TLS"))
        await server.stop()
        self.assertFalse(certificate.exists() or certificate.parent.exists())

    async def test_implicit_tls(self) -> None:
        for tls in ("implicit", "both"):
            server = await self.serve(tls=tls)
            self.assertEqual(server.port == server.tls_port, tls == "implicit")

            def sent(server: AsyncMailServer = server) -> None:
                context = server.ssl_context()
                context.verify_flags |= 0x80020  # VERIFY_X509_STRICT and PARTIAL_CHAIN: what Python 3.13 asks for
                with smtplib.SMTP_SSL("localhost", server.tls_port, context=context, timeout=PATIENCE) as client:
                    client.send_message(message(), "a@example.net", ["b@example.org"])

            await self.in_thread(sent)
            self.assertEqual(server.messages[0].session.listener, "smtps")

    async def test_a_port_that_was_not_asked_for_is_an_error(self) -> None:
        server = await self.serve()
        for port in ("tls_port", "lmtp_port", "certificate"):
            error = self.assertRaises(RuntimeError, getattr, server, port)
            self.assertIn("make it with", str(error))

    async def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        server = await self.serve(lmtp=True)
        server.fail_message("c@example.org", 450)

        def talk() -> list[bytes]:
            with smtplib.LMTP(server.host, server.lmtp_port) as client:
                client.ehlo()
                client.mail("a@example.net")
                client.rcpt("b@example.org")
                client.rcpt("c@example.org")
                code, _ = client.docmd("DATA")
                self.assertEqual(code, 354)
                client.send(b"Subject: x\r\n\r\n.\r\n")
                return [client.getreply()[1] for _ in range(2)]

        first, second = await self.in_thread(talk)
        self.assertIn(b"queued", first)
        self.assertIn(b"4.0.0 <c@example.org>", second)
        self.assertEqual([each.recipients for each in server.messages], [("b@example.org",)])

    async def test_logins(self) -> None:
        server = await self.serve(auth={"anna": "Xk-anna-7Quartz"}, auth_required=True)

        def login(user: str, password: str) -> int:
            with connect(server) as client:
                try:
                    return client.login(user, password)[0]
                except smtplib.SMTPAuthenticationError as error:
                    return error.smtp_code

        await self.assertFailure(self.in_thread(send, server), smtplib.SMTPSenderRefused)
        self.assertEqual(await self.in_thread(login, "anna", "Xk-anna-7Quartz"), 235)
        self.assertEqual(await self.in_thread(login, "anna", "wrong"), 535)
        server.fail("auth", "454 4.7.0 not now", times=None)  # smtplib tries one mechanism after the other
        self.assertEqual(await self.in_thread(login, "anna", "Xk-anna-7Quartz"), 454)

    async def test_everybody_may_be_believed(self) -> None:
        server = await self.serve(auth="any")

        def login() -> None:
            with connect(server) as client:
                client.login("whoever", "whatever")
                client.send_message(message(), "a@example.net", ["b@example.org"])

        await self.in_thread(login)
        self.assertEqual(server.messages[0].session.identity, "whoever")

    async def test_only_some_inboxes_exist(self) -> None:
        server = await self.serve(inboxes=["b@example.org"])
        refused = await self.in_thread(send, server, "b@example.org", "c@example.org")
        self.assertEqual(refused["c@example.org"][0], 550)

    async def test_sizes_and_extensions(self) -> None:
        server = await self.serve(size_limit=200, extensions_off=["8bitmime", "PIPELINING"])
        error = await self.assertFailure(self.in_thread(send, server, text="x" * 300), smtplib.SMTPSenderRefused)
        self.assertEqual(error.smtp_code, 552)

        def offered() -> dict[str, str]:
            with connect(server) as client:
                client.ehlo()
                return client.esmtp_features

        features = await self.in_thread(offered)
        self.assertEqual(features["size"], "200")
        self.assertNotIn("8bitmime", features)
        self.assertNotIn("pipelining", features)

    async def test_ipv6(self) -> None:
        server = await self.serve(host="::1")
        await self.in_thread(send, server)
        self.assertEqual(server.messages[0].session.host, "::1")

    async def test_nothing_is_written_where_no_tls_is(self) -> None:
        server = await self.serve()
        self.assertIsNone(server.core.certificate)
        self.assertIsNone(server.core._folder)
