"""
SIGTERM: no new connections, 421 to the idle, an end for the transactions under way, exit status 0.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

from tests.interop.clients import SENDER, session
from tests.interop.running import (
    DOMAINS,
    DOORS,
    LIMITS,
    PATIENCE,
    SERVER,
    STANDARD,
    ServerTestCase,
    await_true,
    listener,
)

ANNA = "anna@example.org"


class DrainTests(ServerTestCase):
    """How it ends."""

    def test_without_connections_it_ends_at_once(self) -> None:
        server = self.serve()
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len(server.events("stopped")), 1)

    def test_the_idle_get_421(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as plain, session(server.address("smtps6"), "implicit") as secure:
            server.running.send_signal(signal.SIGTERM)
            for client in (plain, secure):
                code, text = client.getreply()
                self.assertEqual((code, text[:5]), (421, b"4.3.2"))
                assert client.file is not None
                self.assertEqual(client.file.read(), b"")
        self.assertEqual(server.wait(), 0)

    def test_a_transaction_under_way_may_end(self) -> None:
        server = self.serve()
        address = server.address("smtp4")
        with session(address) as client:
            for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                client.docmd(command)
            client.send(b"Subject: x\r\n\r\nbegun\r\n")
            server.running.send_signal(signal.SIGTERM)
            server.await_events("draining")
            self.assertRaises(ConnectionRefusedError, socket.create_connection, address, PATIENCE)
            client.send(b"and ended\r\n.\r\n")
            self.assertEqual(client.getreply()[0], 250)
            self.assertEqual(client.getreply()[0], 421)
        self.assertEqual(server.wait(), 0)
        self.assertEqual(server.messages(ANNA), [b"Subject: x\n\nbegun\nand ended\n"])

    def test_who_does_not_end_is_cut_off_and_leaves_nothing(self) -> None:
        config = SERVER + "drain_timeout = 1\n" + LIMITS + listener("smtp4", "127.0.0.1:0") + DOMAINS
        server = self.serve(config)
        with session(server.address("smtp4")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                client.docmd(command)
            client.send(b"x" * 100_000)
            self.assertEqual(server.stop(), 0)
        self.assertEqual(server.files(ANNA), [])

    def test_a_tls_client_that_goes_on_sending_is_not_waited_for(self) -> None:
        limits = LIMITS + 'closing_timeout = "1 s"\n'
        server = self.serve(SERVER + "drain_timeout = 1\n" + limits + DOORS + DOMAINS)
        with session(server.address("smtps4"), "implicit") as client:
            self.assertEqual(client.docmd("QUIT")[0], 221)
            server.running.send_signal(signal.SIGTERM)
            assert client.sock is not None
            end = time.monotonic() + PATIENCE
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    client.sock.sendall(b"x")
                    time.sleep(0.1)
            self.assertLess(time.monotonic(), end, "it was served as long as it sent")
        self.assertEqual(server.wait(), 0)

    def test_right_behind_a_reload_that_closes_listeners(self) -> None:
        """The stop once met a dictionary that the reload changed, and the process stayed for ever."""
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        server.write(SERVER + LIMITS + DOORS.replace('name = "smtps4"', 'name = "other"') + DOMAINS)
        server.running.send_signal(signal.SIGHUP)
        server.running.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)

    def test_a_second_sigterm_changes_nothing(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            server.running.send_signal(signal.SIGTERM)
            server.await_events("draining")
            server.running.send_signal(signal.SIGTERM)
            client.rset()
            self.assertEqual(client.getreply()[0], 421)
        self.assertEqual(server.wait(), 0)


class KillTests(ServerTestCase):
    """SIGKILL: what was acknowledged is there, the rest is swept away at the next start."""

    def test_acknowledged_mail_survives_and_leftovers_do_not(self) -> None:
        server = self.serve(STANDARD)
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, [ANNA], b"Subject: kept\r\n\r\n")
            for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                client.docmd(command)
            client.send(b"Subject: lost\r\n\r\n" + b"y" * 300_000)
            tmp = server.maildir(ANNA) / "tmp"
            await_true(lambda: bool(list(tmp.iterdir())), "a file in tmp/", server.told)
            server.running.kill()
            server.wait()
        self.assertEqual(server.messages(ANNA), [b"Subject: kept\n\n"])
        (left,) = tmp.iterdir()
        # Of another process that might still run nothing is taken away before it is old.
        old = time.time() - 40 * 3600
        os.utime(left, (old, old))
        server.start()
        await_true(lambda: not list(tmp.iterdir()), "an empty tmp/", server.told)
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, [ANNA], b"Subject: again\r\n\r\n")
        self.assertEqual(len(server.messages(ANNA)), 2)
