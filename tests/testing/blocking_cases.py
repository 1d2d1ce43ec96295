"""
The server in a thread, as unittest sees it: run by `test_blocking` in a process of its own, for there the reactor is
free.  smtplib is in the main thread, or in several.
"""

from __future__ import annotations

import smtplib
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.internet.threads import blockingCallFromThread

from mailserver.reactor_thread import run_reactor
from mailserver.testing import MailServer, MessageNotReceived, UnexpectedMessage
from tests.testing.clients import answers, connect, message, send


class BlockingTests(unittest.TestCase):
    def serve(self, **options: Any) -> MailServer:
        server = MailServer(**options).start()
        self.addCleanup(server.stop)
        return server

    def test_a_message_arrives(self) -> None:
        with MailServer() as server:
            send(server, "b@example.org", "c@example.org", subject="Grüße")
            (received,) = server.messages
            self.assertEqual((received.subject, received.recipients), ("Grüße", ("b@example.org", "c@example.org")))
            self.assertIs(server.wait_for_message(to="c@example.org"), received)
            self.assertEqual(server.inboxes["b@example.org"], [received])
        self.assertRaises(RuntimeError, lambda: server.messages)

    def test_the_arrival_ends_the_wait(self) -> None:
        server = self.serve()
        with ThreadPoolExecutor() as threads:
            waits = [threads.submit(server.wait_for_message, count=n, timeout=60) for n in (1, 2, 3)]
            for number in range(3):
                send(server, subject=str(number))
            self.assertEqual([wait.result(60).subject for wait in waits], ["0", "1", "2"])

    def test_what_came_instead_is_told(self) -> None:
        server = self.serve()
        send(server, subject="other")
        with self.assertRaisesRegex(MessageNotReceived, "no message to c@.* within 0.01 s; 1 message has arrived"):
            server.wait_for_message(to="c@example.org", timeout=0.01)
        with self.assertRaises(UnexpectedMessage):
            server.assert_no_message(within=60)
        server.clear()
        server.assert_no_message(within=0.01)

    def test_things_go_wrong(self) -> None:
        server = self.serve()
        with server.fail_message(reply=554) as fault:
            self.assertRaises(smtplib.SMTPDataError, send, server)
        self.assertEqual((fault.count, server.messages), (1, []))
        server.drop_after("message", keep=True)
        self.assertRaises(smtplib.SMTPServerDisconnected, send, server)
        self.assertEqual(len(server.messages), 1)
        server.stop_listening()
        self.assertRaises(ConnectionRefusedError, send, server)
        server.listen_again()
        send(server)
        self.assertEqual(len(server.messages), 2)

    def test_tls_and_lmtp_and_logins(self) -> None:
        server = self.serve(tls="both", lmtp=True, auth={"anna": "Xk-anna-7Quartz"})
        with connect(server) as client:
            client.starttls(context=server.ssl_context())
            client.login("anna", "Xk-anna-7Quartz")
            client.send_message(message(), "a@example.net", ["b@example.org"])
        with smtplib.SMTP_SSL("localhost", server.tls_port, context=server.ssl_context()) as client:
            client.send_message(message(), "a@example.net", ["b@example.org"])
        self.assertEqual(answers(server, "LHLO client", port=server.lmtp_port), [220, 250])
        self.assertEqual([each.session.identity for each in server.messages], ["anna", ""])

    def test_servers_come_and_go_and_no_thread_or_call_is_left(self) -> None:
        from twisted.internet import reactor

        self.serve()
        threads = threading.active_count()
        for _ in range(20):
            servers = [MailServer(tls="both" if tls else False).start() for tls in (0, 0, 1)]
            for server in servers:
                send(server)
                client = connect(server)
                self.addCleanup(client.close)  # is open when the server stops
            for server in servers:
                server.stop()
        self.assertEqual(threading.active_count(), threads)
        calls = blockingCallFromThread(reactor, reactor.getDelayedCalls)  # type: ignore[arg-type, attr-defined]
        self.assertEqual(calls, [])

    def test_many_clients_at_once(self) -> None:
        server = self.serve()
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(send, server, subject=str(number)) for number in range(40)]:
                done.result(60)
        self.assertEqual({each.subject for each in server.messages}, {str(number) for number in range(40)})

    def test_a_second_start_and_a_second_stop(self) -> None:
        server = MailServer()
        self.assertRaises(RuntimeError, lambda: server.port)
        server.start()
        self.assertRaisesRegex(RuntimeError, "runs already", server.start)
        server.stop()
        server.stop()

    def test_in_the_reactor_s_thread_nobody_may_wait(self) -> None:
        from twisted.internet import reactor

        server = self.serve()

        def asked() -> None:
            for wait in (server.wait_for_message, server.stop_listening, MailServer().start):
                with self.assertRaisesRegex(RuntimeError, "must not wait"):
                    wait()

        blockingCallFromThread(reactor, asked)  # type: ignore[arg-type]

    def test_the_reactor_runs_once(self) -> None:
        from twisted.internet import reactor

        run_reactor(reactor)
        run_reactor(reactor)
        self.assertEqual([thread.name for thread in threading.enumerate()].count("mailserver"), 1)


if __name__ == "__main__":
    unittest.main()
