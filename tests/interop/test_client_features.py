"""What Python's smtplib and curl can do beside sending a message: every call and option that concerns a server."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage

from tests.interop.clients import HELO, SENDER, ClientFailed, call, missing, session, unverified
from tests.interop.running import DOMAINS, LIMITS, PASSWORDS, SERVER, RunningServer, ServerTestCase, listener

ANNA, BOB, GREEN = "anna@example.org", "bob@example.org", "grün@example.org"
TEXT = b"Subject: x\r\n\r\nx\r\n"


class SmtplibTests(ServerTestCase):
    def test_send_message(self) -> None:
        server = self.serve()
        message = EmailMessage()
        message["From"], message["To"], message["Cc"], message["Bcc"] = SENDER, ANNA, BOB, "team@example.org"
        message["Subject"] = "Grüße"
        message.set_content("привет\n.\n")
        message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="ä.bin")
        with smtplib.SMTP(*server.address("smtp4"), local_hostname=HELO) as client:
            self.assertEqual(client.send_message(message), {})
        # The alias leads to both, who have one copy each.
        for account in (ANNA, BOB):
            (stored,) = server.messages(account)
            self.assertNotIn(b"Bcc", stored)
            self.assertIn(b"\nCc: bob@example.org\n", stored)

    def test_send_message_with_utf8_addresses(self) -> None:
        server = self.serve()
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "отправитель@example.net", GREEN, "x"
        message.set_content("x\n")
        with smtplib.SMTP_SSL(*server.address("smtps6"), context=unverified()) as client:
            self.assertEqual(client.send_message(message), {})
        self.assertIn("To: grün@example.org\n".encode(), server.messages(GREEN)[0])

    def test_login_chooses_a_mechanism(self) -> None:
        server = self.serve()
        for user in (ANNA, BOB):
            with smtplib.SMTP_SSL(*server.address("submissions4"), context=unverified()) as client:
                self.assertEqual(client.login(user, PASSWORDS[user])[0], 235)
                self.assertEqual(client.sendmail(user, [ANNA], TEXT), {})
        with smtplib.SMTP_SSL(*server.address("submissions4"), context=unverified()) as client:
            error = self.assertRaises(smtplib.SMTPAuthenticationError, client.login, ANNA, "Xk-wrong-7Clay")
            # It tries three mechanisms, which are all the failures that a connection may have.
            self.assertEqual(error.smtp_code, 421)
        self.assertEqual(len(server.messages(ANNA)), 2)

    def test_refusals(self) -> None:
        server = self.serve()
        with smtplib.SMTP(*server.address("smtp4")) as client:
            refused = client.sendmail(SENDER, [ANNA, "nobody@example.org", "x@example.com"], TEXT)
            self.assertEqual(
                {name: answer[0] for name, answer in refused.items()},
                {"nobody@example.org": 550, "x@example.com": 550},
            )
            error = self.assertRaises(
                smtplib.SMTPRecipientsRefused, client.sendmail, SENDER, ["nobody@example.org"], TEXT
            )
            self.assertEqual(list(error.recipients), ["nobody@example.org"])
            self.assertEqual(client.sendmail(SENDER, [ANNA], TEXT), {})
        with smtplib.SMTP(*server.address("submission4")) as client:
            error = self.assertRaises(smtplib.SMTPSenderRefused, client.sendmail, ANNA, [BOB], TEXT)
            self.assertEqual(error.smtp_code, 530)
            self.assertRaises(smtplib.SMTPNotSupportedError, client.login, ANNA, PASSWORDS[ANNA])
        self.assertEqual(len(server.messages(ANNA)), 2)

    def test_the_other_commands(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            self.assertEqual(client.verify(ANNA)[0], 252)
            self.assertEqual(client.expn("team")[0], 502)
            self.assertEqual(client.noop()[0], 250)
            self.assertEqual(client.rset()[0], 250)
            self.assertIn(b"MAIL", client.help())
            self.assertEqual(client.helo("old.example.net")[0], 250)
            client.mail(SENDER)
            client.rcpt(ANNA)
            self.assertEqual(client.data(TEXT)[0], 250)
            self.assertEqual(client.quit()[0], 221)
        stored = server.files(ANNA)[0].read_bytes()
        self.assertIn(b"from old.example.net ", stored)
        self.assertIn(b" with SMTP id ", stored)

    def test_bdat(self) -> None:
        """smtplib has no call for it."""
        server = self.serve()
        for tls in ("off", "starttls"):
            with session(server.address("smtp4"), tls) as client:
                client.mail(SENDER, ["BODY=BINARYMIME"])
                client.rcpt(ANNA)
                client.send(b"BDAT %d\r\n%s" % (len(TEXT), TEXT))
                self.assertEqual(client.getreply()[0], 250)
                client.send(b"BDAT 5\r\n.\r\n\0\nBDAT 0 LAST\r\n")
                self.assertEqual([client.getreply()[0] for _ in range(2)], [250, 250])
        self.assertEqual(server.messages(ANNA), [TEXT + b".\r\n\0\n"] * 2)


class CurlTests(ServerTestCase):
    skip = missing("curl")

    def curl(self, server: RunningServer, door: str, *options: str) -> str:
        host, port = server.address(door)
        scheme = "smtps" if door.startswith("submissions") else "smtp"
        command = ["curl", "--silent", "--show-error", "--verbose", "--insecure", "--max-time", "50"]
        return call([*command, "--url", f"{scheme}://{host}:{port}/{HELO}", *options])

    def test_recipients_that_may_be_refused(self) -> None:
        server = self.serve()
        text = self.new_directory() / "text"
        text.write_bytes(TEXT)
        options = ["--mail-from", SENDER, "--mail-rcpt", ANNA, "--mail-rcpt", "nobody@example.org", "-T", str(text)]
        self.assertRaises(ClientFailed, self.curl, server, "smtp4", *options)
        self.curl(server, "smtp4", "--mail-rcpt-allowfails", *options)
        self.assertEqual(len(server.messages(ANNA)), 1)

    def test_the_other_commands(self) -> None:
        door = listener("open", "127.0.0.1:0", vrfy="true")
        server = self.serve(SERVER + LIMITS + door + DOMAINS)
        self.assertIn("250 2.1.5 <anna@example.org>", self.curl(server, "open", "--mail-rcpt", ANNA))
        error = self.assertRaises(ClientFailed, self.curl, server, "open", "--mail-rcpt", "nobody@example.org")
        self.assertIn("550 5.1.1", str(error))
        self.assertIn("214", self.curl(server, "open", "--request", "HELP"))
        error = self.assertRaises(ClientFailed, self.curl, server, "open", "--request", "EXPN", "--mail-rcpt", "team")
        self.assertIn("502 5.5.1", str(error))

    def test_auth_parameter_and_initial_response(self) -> None:
        server = self.serve()
        text = self.new_directory() / "text"
        text.write_bytes(TEXT)
        login = ["--user", f"{ANNA}:{PASSWORDS[ANNA]}", "--login-options", "AUTH=PLAIN"]
        mail = ["--mail-from", ANNA, "--mail-auth", ANNA, "--mail-rcpt", BOB, "-T", str(text)]
        for option in ("--sasl-ir", "--no-sasl-ir"):
            told = self.curl(server, "submissions4", option, *login, *mail)
            self.assertEqual("> AUTH PLAIN\r" in told, option == "--no-sasl-ir")
            self.assertIn(f" AUTH=<{ANNA}>", told)
        self.assertEqual(len(server.messages(BOB)), 2)
