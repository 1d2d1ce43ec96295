"""
SCRAM-SHA-256 by three other implementations: GNU SASL (bound to the channel by tls-exporter), msmtp, and scramp's client
under Python's smtplib (bound by tls-server-end-point).
"""

from __future__ import annotations

import base64
import hashlib
import ssl

from scramp import ScramClient

from tests.interop.clients import CLIENTS, ClientFailed, Errand, call, missing, session
from tests.interop.running import PASSWORDS, RunningServer, ServerTestCase

ANNA, GREEN = "anna@example.org", "grün@example.org"
TEXT = b"From: <anna@example.org>\r\nMessage-ID: <1@example.org>\r\nSubject: hello\r\n\r\nhello\r\n"


class GNUSaslTests(ServerTestCase):
    skip = missing("gsasl")

    def log_in(
        self, server: RunningServer, mechanism: str, *options: str, user: str = ANNA, password: str = ""
    ) -> str:
        host, port = server.address("submission4")
        command = ["gsasl", "--client", "--smtp", "--connect", f"{host}:{port}", "--mechanism", mechanism]
        command += ["--authentication-id", user, "--password", password or PASSWORDS[user]]
        command += [f"--x509-ca-file={server.data}/tls/self-signed.crt", "--service=smtp", *options]
        return call([*command, "--hostname=mail.example.org"], b"QUIT\r\n")

    def test_without_and_with_channel_binding(self) -> None:
        server = self.serve()
        for user in (ANNA, GREEN):
            self.assertIn("235 2.7.0", self.log_in(server, "SCRAM-SHA-256", "--no-cb", user=user))
            told = self.log_in(server, "SCRAM-SHA-256-PLUS", user=user)
            self.assertIn("235 2.7.0", told)
            self.assertIn(base64.b64encode(b"p=tls-exporter,").decode()[:16], told)
            self.assertIn("server trusted", told)  # we have proved to know the password, too
        self.assertEqual([event["user"] for event in server.await_events("connection", 4)], [ANNA] * 2 + [GREEN] * 2)

    def test_a_wrong_password(self) -> None:
        server = self.serve()
        for mechanism, options in (("SCRAM-SHA-256", ["--no-cb"]), ("SCRAM-SHA-256-PLUS", [])):
            error = self.assertRaises(
                ClientFailed, self.log_in, server, mechanism, *options, password="Xk-wrong-7Clay"
            )
            self.assertIn("535 5.7.8", str(error))


class MsmtpTests(ServerTestCase):
    skip = missing("msmtp")

    def test_a_message_of_a_user(self) -> None:
        server = self.serve()
        send, _ = CLIENTS["msmtp"]
        for at, (door, tls) in enumerate((("submission4", "starttls"), ("submissions6", "implicit"))):
            errand = Errand(
                server.address(door),
                TEXT,
                sender=ANNA,
                tls=tls,
                mechanism="SCRAM-SHA-256",
                user=ANNA,
                password=PASSWORDS[ANNA],
            )
            told = send(errand, self.new_directory())
            self.assertIn("AUTH SCRAM-SHA-256", told)
            self.assertEqual(len(server.files(ANNA)), at + 1)


class ScrampTests(ServerTestCase):
    """Under smtplib."""

    def log_in(self, server: RunningServer, door: str, mechanism: str, *, tamper: bool = False) -> tuple[int, bytes]:
        tls = "implicit" if door.startswith("submissions") else "starttls"
        with session(server.address(door), tls) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            certificate = client.sock.getpeercert(binary_form=True)
            assert certificate is not None
            data = hashlib.sha256(certificate + (b"x" if tamper else b"")).digest()
            binding = ("tls-server-end-point", data) if mechanism.endswith("-PLUS") else None
            scram = ScramClient([mechanism], ANNA, PASSWORDS[ANNA], channel_binding=binding)
            first = base64.b64encode(scram.get_client_first().encode()).decode()
            code, challenge = client.docmd(f"AUTH {mechanism} {first}")
            self.assertEqual(code, 334)
            scram.set_server_first(base64.b64decode(challenge).decode())
            code, challenge = client.docmd(base64.b64encode(scram.get_client_final().encode()).decode())
            if code != 334:
                return code, challenge
            scram.set_server_final(base64.b64decode(challenge).decode())  # raises when the server has no keys
            return client.docmd("")

    def test_every_door(self) -> None:
        server = self.serve()
        for door in ("submission4", "submissions4", "submission6"):
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"):
                self.assertEqual(self.log_in(server, door, mechanism)[0], 235, (door, mechanism))

    def test_somebody_between_both_ends(self) -> None:
        server = self.serve()
        code, text = self.log_in(server, "submissions4", "SCRAM-SHA-256-PLUS", tamper=True)
        self.assertEqual((code, text[:5]), (535, b"5.7.8"))
        (event,) = server.await_events("connection")
        self.assertEqual(event["login_failures"], 1)
