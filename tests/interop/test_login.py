"""
Logins by real clients: each mechanism, with and without an initial response, in every kind of TLS; and what is refused.
"""

from __future__ import annotations

import base64
import smtplib
from collections.abc import Callable

from tests.interop.clients import CLIENTS, ClientFailed, Errand, log_in, missing, session
from tests.interop.running import PASSWORDS, ServerTestCase

ANNA = "anna@example.org"
SECRET = PASSWORDS[ANNA]
TEXT = (
    b"From: <anna@example.org>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"Subject: hello\r\n\r\nhello\r\n"
)
KEPT = TEXT.replace(b"\r\n", b"\n")
DOORS = [("submission", "starttls"), ("submissions", "implicit")]
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")


def b64(text: str) -> str:
    """As it crosses the wire."""
    return base64.b64encode(text.encode()).decode()


def plain(user: str, password: str, authzid: str = "") -> str:
    """The argument of AUTH for PLAIN with its initial response."""
    return "PLAIN " + b64(f"{authzid}\0{user}\0{password}")


class ClientsTests(ServerTestCase):
    """Every client, mechanism, kind of TLS and family."""

    def _log_in_everywhere(self, name: str) -> None:
        send, program = CLIENTS[name]
        if program and (reason := missing(program)):
            self.skipTest(reason)
        server = self.serve()
        directory = self.new_directory()
        count = 0
        for family in ("4", "6"):
            for door, tls in DOORS:
                for mechanism in MECHANISMS:
                    errand = Errand(
                        server.address(door + family),
                        TEXT,
                        recipients=("bob@example.org",),
                        sender=ANNA,
                        tls=tls,
                        mechanism=mechanism,
                        user=ANNA,
                        password=SECRET,
                    )
                    send(errand, directory)
                    count += 1
                    self.assertEqual(server.messages("bob@example.org")[count - 1 :], [KEPT], (door, mechanism))
        stored = server.files("bob@example.org")[-1].read_bytes()
        self.assertIn(b" with ESMTPSA id ", stored)
        self.assertNotIn(SECRET.encode(), stored)
        events = server.await_events("message", count)
        self.assertEqual({event["user"] for event in events}, {ANNA})

    def _wrong_password(self, name: str) -> None:
        send, program = CLIENTS[name]
        if program and (reason := missing(program)):
            self.skipTest(reason)
        server = self.serve()
        for mechanism in MECHANISMS:
            errand = Errand(
                server.address("submissions4"),
                TEXT,
                sender=ANNA,
                tls="implicit",
                mechanism=mechanism,
                user=ANNA,
                password="Xk-wrong-7Clay",
            )
            error = self.assertRaises((ClientFailed, smtplib.SMTPException), send, errand, self.new_directory())
            if name != "curl":  # curl tells no more than "Login denied"
                self.assertIn("535", str(error))
        self.assertEqual(server.files(ANNA), [])
        self.assertNotIn("Xk-wrong", server.told())

    def test_swaks(self) -> None:
        self._log_in_everywhere("swaks")

    def test_curl(self) -> None:
        self._log_in_everywhere("curl")

    def test_msmtp(self) -> None:
        self._log_in_everywhere("msmtp")

    def test_smtplib(self) -> None:
        self._log_in_everywhere("smtplib")

    def test_swaks_with_a_wrong_password(self) -> None:
        self._wrong_password("swaks")

    def test_curl_with_a_wrong_password(self) -> None:
        self._wrong_password("curl")

    def test_msmtp_with_a_wrong_password(self) -> None:
        self._wrong_password("msmtp")

    def test_smtplib_with_a_wrong_password(self) -> None:
        self._wrong_password("smtplib")


class DialogueTests(ServerTestCase):
    """The words of the exchange."""

    def test_with_and_without_an_initial_response(self) -> None:
        server = self.serve()
        for mechanism in ("PLAIN", "LOGIN"):
            for initial in (True, False):
                with session(server.address("submission4"), "starttls") as client:
                    log_in(client, mechanism, ANNA, SECRET, initial=initial)
                    self.assertEqual(client.docmd(f"MAIL FROM:<{ANNA}>")[0], 250, (mechanism, initial))

    def test_names_and_passwords_in_utf8(self) -> None:
        server = self.serve()
        user, password = "grün@example.org", PASSWORDS["grün@example.org"]
        with session(server.address("submissions4"), "implicit") as client:
            self.assertEqual(client.docmd("AUTH", plain(user, password))[0], 235)
        with session(server.address("submissions4"), "implicit") as client:
            self.assertEqual(client.docmd("AUTH LOGIN")[0], 334)
            self.assertEqual(client.docmd(b64(user))[0], 334)
            self.assertEqual(client.docmd(b64(password))[0], 235)

    def test_refused_logins(self) -> None:
        cases: list[tuple[str, Callable[[str, str], str], int, str]] = [
            ("wrong password", lambda user, _: plain(user, "wrong"), 535, "5.7.8"),
            ("unknown user", lambda _, secret: plain("nobody@example.org", secret), 535, "5.7.8"),
            (
                "disabled",
                lambda *_: plain("gone@example.org", PASSWORDS["gone@example.org"]),
                535,
                "5.7.8",
            ),
            ("for another", lambda user, secret: plain(user, secret, "bob@example.org"), 535, "5.7.8"),
            ("unknown mechanism", lambda *_: "GSSAPI", 504, "5.5.4"),
            ("no base64", lambda *_: "PLAIN !!!!", 501, "5.5.2"),
        ]
        server = self.serve()
        for name, argument, code, enhanced in cases:
            with session(server.address("submissions4"), "implicit") as client:
                got, text = client.docmd("AUTH", argument(ANNA, SECRET))
                self.assertEqual((got, text[:5].decode()), (code, enhanced), name)

    def test_a_cancelled_exchange(self) -> None:
        server = self.serve()
        with session(server.address("submissions4"), "implicit") as client:
            self.assertEqual(client.docmd("AUTH PLAIN")[0], 334)
            self.assertEqual(client.docmd("*")[0], 501)
            log_in(client, "PLAIN", ANNA, SECRET)
            self.assertEqual(client.docmd("AUTH PLAIN")[0], 503)

    def test_the_third_failure_ends_the_connection(self) -> None:
        server = self.serve()
        with session(server.address("submissions4"), "implicit") as client:
            codes = [client.docmd("AUTH", plain(ANNA, "wrong"))[0] for _ in range(3)]
            self.assertEqual(codes, [535, 535, 421])
            self.assertRaises(smtplib.SMTPServerDisconnected, client.docmd, "NOOP")
        (event,) = server.await_events("connection")
        self.assertEqual(event["login_failures"], 3)

    def test_no_login_and_no_mail_without_tls(self) -> None:
        server = self.serve()
        with session(server.address("submission4")) as client:
            self.assertNotIn("auth", client.esmtp_features)
            self.assertEqual(client.docmd("AUTH", plain(ANNA, SECRET))[0], 530)
            code, text = client.docmd(f"MAIL FROM:<{ANNA}>")
            self.assertEqual((code, text[:5]), (530, b"5.7.0"))

    def test_no_mail_without_login(self) -> None:
        server = self.serve()
        with session(server.address("submission4"), "starttls") as client:
            self.assertEqual(client.docmd(f"MAIL FROM:<{ANNA}>")[0], 530)

    def test_no_login_where_other_servers_call(self) -> None:
        server = self.serve()
        with session(server.address("smtp4"), "starttls") as client:
            self.assertNotIn("auth", client.esmtp_features)
            self.assertNotIn(client.docmd("AUTH", plain(ANNA, SECRET))[0], (235, 535))
