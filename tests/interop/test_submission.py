"""
What a submission server does to its users' messages (RFC 6409), and whom it lets write as whom; loops; bare newlines
under each policy; listeners that insist on TLS, on patience, on certificates.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl

from tests.interop.clients import SENDER, log_in, session, unverified
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    PATIENCE,
    SERVER,
    RunningServer,
    ServerTestCase,
    listener,
    run,
)

ANNA, BOB = "anna@example.org", "bob@example.org"
WHOLE = (
    b"From: Anna <anna@example.org>\r\nTo: <bob@example.org>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\nSubject: =?utf-8?q?a?=\r\n\t=?utf-8?q?b?=\r\nX-Odd :  kept \r\n\r\nbody\r\n \r\n..\r\n"
)


class MessagesTests(ServerTestCase):
    """Through port 587."""

    def submit(self, server: RunningServer, text: bytes, *, author: str = ANNA, user: str = ANNA) -> bytes:
        """What lies in the mailbox behind the trace fields."""
        with session(server.address("submission4"), "starttls") as client:
            log_in(client, "PLAIN", user, PASSWORDS[user])
            client.sendmail(author, [BOB], text)
        return server.messages(BOB)[-1]

    def test_a_message_that_has_all_fields_is_kept_octet_by_octet(self) -> None:
        server = self.serve()
        self.assertEqual(self.submit(server, WHOLE), WHOLE.replace(b"\r\n", b"\n"))

    def test_missing_fields_are_added(self) -> None:
        server = self.serve()
        stored = self.submit(server, b"Subject: short\r\n\r\nbody\r\n")
        head, _, body = stored.partition(b"\n\n")
        names = [line.partition(b":")[0] for line in head.splitlines()]
        self.assertEqual(sorted(names), [b"Date", b"From", b"Message-ID", b"Subject"])
        self.assertIn(b"From: <anna@example.org>", head)
        self.assertRegex(head, rb"(?m)^Date: \w{3}, \d+ \w{3} 20\d\d \d\d:\d\d:\d\d \+0000$")
        self.assertRegex(head, rb"(?m)^Message-ID: <[a-z2-7]+\.\d+@mail\.example\.org>$")
        self.assertEqual(body, b"body\n")

    def test_blind_copies_and_return_paths_are_taken_out(self) -> None:
        server = self.serve()
        secret = b"Bcc: <secret@example.com>,\r\n\t<secret2@example.com>\r\nReturn-Path: <x@example.com>\r\nresent-bcc: <y@example.com>\r\n"
        self.assertEqual(self.submit(server, secret + WHOLE), WHOLE.replace(b"\r\n", b"\n"))
        self.assertNotIn(b"secret", server.files(BOB)[-1].read_bytes())

    def test_only_the_smtp_port_takes_a_message_as_it_is(self) -> None:
        server = self.serve()
        text = b"Bcc: <x@example.com>\r\nSubject: no date\r\n\r\n"
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, [BOB], text)
        self.assertEqual(server.messages(BOB), [text.replace(b"\r\n", b"\n")])

    def test_whom_a_user_may_write_as(self) -> None:
        server = self.serve()
        with session(server.address("submission4"), "starttls") as client:
            log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            # team@ is an alias of hers.
            answers = {
                BOB: 550,
                "nobody@example.org": 550,
                "a@example.com": 550,
                "team@example.org": 250,
                "anna+x@example.org": 250,
            }
            for sender, code in answers.items():
                self.assertEqual(client.mail(sender)[0], code, sender)
                client.rset()
            server.accounts("account", "may-send-as", ANNA, "--add", BOB, "--add", "@example.com")
            for sender, code in {**answers, BOB: 250, "a@example.com": 250}.items():
                self.assertEqual(client.mail(sender)[0], code, sender)
                client.rset()
            # The From field is asked the same.
            for author, code in (("bob@example.org", 250), ("nobody@example.org", 550)):
                client.mail(ANNA)
                client.rcpt(BOB)
                text = WHOLE.replace(b"anna@example.org", author.encode())
                self.assertEqual(client.data(text)[0], code, author)
            client.mail(ANNA)
            client.rcpt(BOB)
            self.assertEqual(client.data(b"From: <a@example.com>\r\n" + WHOLE)[0], 554)


class LoopTests(ServerTestCase):
    def test_a_mailbox_that_had_it_and_a_hundred_servers(self) -> None:
        server = self.serve()
        line = b"Received: from a.example.net by b.example.net; Fri, 20 Nov 2026 12:00:00 +0000\r\n"
        with session(server.address("smtp4")) as client:
            for text, code, enhanced in (
                (b"Delivered-To: anna@example.org\r\n\r\n", 554, b"5.4.6"),
                (b"Delivered-To: bob@example.org\r\n\r\n", 250, b"2.0.0"),
                (line * 101 + b"\r\n", 554, b"5.4.6"),
                (line * 100 + b"\r\n", 250, b"2.0.0"),
                (b"\r\n" + line * 200, 250, b"2.0.0"),
            ):
                client.mail(SENDER)
                client.rcpt(ANNA)
                got, said = client.data(text)
                self.assertEqual((got, said[:5]), (code, enhanced), text[:60])
        self.assertEqual(len(server.messages(ANNA)), 3)


class NewlinesTests(ServerTestCase):
    """The policies of listeners for a CR or LF that stands alone."""

    TEXT = b"Subject: x\r\n\r\na\nb\rc\r\n.\nd\n.\n\r\n"
    RESULTS = {
        "reject": None,
        "fix": b"Subject: x\n\na\nb\nc\n\nd\n.\n\n",
        "strip": b"Subject: x\n\nabc\nd.\n",
        "ignore": b"Subject: x\r\n\r\na\nb\rc\r\n\nd\n.\n\r\n",
    }

    def test_every_policy(self) -> None:
        doors = [listener(policy, "127.0.0.1:0", bare_newlines=f'"{policy}"') for policy in self.RESULTS]
        server = self.serve(SERVER + LIMITS + "".join(doors) + DOMAINS)
        count = 0
        for policy, result in self.RESULTS.items():
            with session(server.address(policy)) as client:
                for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                    client.docmd(command)
                # What follows a bare end is text, and after the real one the connection is in step.
                client.send(self.TEXT + b".\r\nNOOP\r\n")
                self.assertEqual(client.getreply()[0], 550 if result is None else 250, policy)
                self.assertEqual(client.getreply()[0], 250, policy)
            if result is not None:
                count += 1
                self.assertEqual(server.messages(ANNA)[count - 1 :], [result], policy)


class InsistentTests(ServerTestCase):
    def test_nothing_without_tls(self) -> None:
        server = self.serve(SERVER + LIMITS + listener("in", "127.0.0.1:0", tls_required="true") + DOMAINS)
        with session(server.address("in")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", "RSET", "VRFY x", "HELP", "AUTH PLAIN"):
                code, text = client.docmd(command)
                self.assertEqual((code, text[:5]), (530, b"5.7.0"), command)
            client.send(b"BDAT 4 LAST\r\nhi\r\nNOOP\r\n")
            self.assertEqual([client.getreply()[0] for _ in range(2)], [530, 250])
            client.starttls(context=unverified())
            client.sendmail(SENDER, [ANNA], b"\r\n")
            self.assertEqual(client.quit()[0], 221)
        self.assertEqual(len(server.messages(ANNA)), 1)

    def test_who_talks_before_the_banner(self) -> None:
        server = self.serve(SERVER + LIMITS + listener("in", "127.0.0.1:0", banner_delay='"1 s"') + DOMAINS)
        with socket.create_connection(server.address("in"), PATIENCE) as client, client.makefile("rb") as replies:
            client.sendall(b"EHLO early.example.net\r\nMAIL FROM:<a@example.net>\r\n")
            self.assertEqual(replies.read()[:4], b"554 ")
        with session(server.address("in")) as patient:
            patient.sendmail(SENDER, [ANNA], b"\r\n")
        self.assertEqual(len(server.messages(ANNA)), 1)


class CertificatesTests(ServerTestCase):
    """Clients with certificates, as openssl makes them."""

    def prepare(self, mode: str) -> RunningServer:
        directory = self.new_directory()
        self.files = {name: str(directory / name) for name in ("ca", "anna", "bob", "other")}

        def issue(name: str, subject: str, *options: str) -> None:
            path = self.files[name]
            new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            out = ["-keyout", f"{path}.key", "-out", f"{path}.crt", "-subj", f"/CN={subject}"]
            run(["openssl", "req", "-x509", *new, *out, *options])

        issue("ca", "Test CA")
        signed = ["-CA", f"{self.files['ca']}.crt", "-CAkey", f"{self.files['ca']}.key"]
        leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth"]
        issue("anna", "Anna", *signed, *leaf, "-addext", f"subjectAltName=email:{ANNA}")
        issue("bob", BOB, *signed, *leaf)
        issue("other", ANNA)  # signed by nobody we know
        keys = {"client_certificates": f'"{mode}"', "client_ca": f'"{self.files["ca"]}.crt"'}
        doors = [
            listener(tls, "127.0.0.1:0", "submission", tls=f'"{tls}"', **keys) for tls in ("implicit", "starttls")
        ]
        external = '[auth]\nmechanisms = ["EXTERNAL", "PLAIN"]\n'
        return self.serve(SERVER + LIMITS + external + "".join(doors) + DOMAINS)

    def context(self, name: str) -> ssl.SSLContext:
        context = unverified()
        if name:
            context.load_cert_chain(f"{self.files[name]}.crt", f"{self.files[name]}.key")
        return context

    def external(self, server: RunningServer, tls: str, name: str) -> tuple[int, bytes]:
        with session(server.address(tls), tls, self.context(name)) as client:
            client.noop()  # with TLS 1.3 a client hears only now that its certificate was not taken
            return client.docmd("AUTH EXTERNAL =")

    def test_a_certificate_on_request_is_a_login(self) -> None:
        server = self.prepare("request")
        for tls in ("implicit", "starttls"):
            for name in ("anna", "bob"):
                self.assertEqual(self.external(server, tls, name)[0], 235, (tls, name))
            with session(server.address(tls), tls) as client:
                self.assertEqual(client.esmtp_features["auth"].split(), ["PLAIN"])
                log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            self.assertRaises((ssl.SSLError, OSError, smtplib.SMTPException), self.external, server, tls, "other")
        with session(server.address("implicit"), "implicit", self.context("anna")) as client:
            client.docmd("AUTH EXTERNAL =")
            self.assertEqual([client.mail(BOB)[0], client.mail(ANNA)[0]], [550, 250])
        users = [event["user"] for event in server.await_events("connection", 9)]
        self.assertEqual((users.count(ANNA), users.count(BOB)), (5, 2))

    def test_without_a_required_certificate_there_is_no_connection(self) -> None:
        server = self.prepare("require")
        for tls in ("implicit", "starttls"):
            self.assertEqual(self.external(server, tls, "anna")[0], 235, tls)
            for name in ("", "other"):
                self.assertRaises((ssl.SSLError, OSError, smtplib.SMTPException), self.external, server, tls, name)
        failed = [event["reason"] for event in server.await_events("connection", 6)]
        self.assertEqual(len([reason for reason in failed if re.match("TLS handshake failed", reason)]), 4, failed)
