"""
What the server says no to, in which words, and that the conversation goes on afterwards.
"""

from __future__ import annotations

import re
import socket
import ssl

from tests.interop.clients import CLIENTS, SENDER, ClientFailed, Errand, call, log_in, missing, session
from tests.interop.running import DOMAINS, LIMITS, PASSWORDS, SERVER, ServerTestCase, listener

ANNA = "anna@example.org"
TEXT = b"From: <sender@example.net>\r\nMessage-ID: <1@example.net>\r\nSubject: hello\r\n\r\nhello\r\n"


class RecipientsTests(ServerTestCase):
    """Who does not get mail."""

    #: recipient -> reply on the door for other servers.
    REFUSED = {
        "nobody@example.org": ("550", "5.1.1"),
        "anna@mail.example.org": ("550", "5.7.1"),
        "someone@example.com": ("550", "5.7.1"),
        "anna%example.com@example.org": ("550", "5.1.1"),
    }

    def test_every_client_hears_of_an_unknown_user(self) -> None:
        server = self.serve()
        for name, (send, program) in CLIENTS.items():
            if name == "openssl" or (program and missing(program)):
                continue
            errand = Errand(server.address("smtp4"), TEXT, recipients=("nobody@example.org",))
            error = self.assertRaises(ClientFailed, send, errand, self.new_directory())
            self.assertIn("550", str(error), name)
            if name != "curl":
                self.assertIn("5.1.1", str(error), name)

    def test_refused_recipients_and_then_one_that_is_not(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            for recipient, (code, enhanced) in self.REFUSED.items():
                got, text = client.docmd(f"RCPT TO:<{recipient}>")
                self.assertEqual((str(got), text[:5].decode()), (code, enhanced), recipient)
            self.assertEqual(client.docmd(f"RCPT TO:<{ANNA}>")[0], 250)
            self.assertEqual(client.data(TEXT)[0], 250)
        self.assertEqual(server.messages(ANNA), [TEXT.replace(b"\r\n", b"\n")])

    def test_a_user_cannot_send_to_others_before_there_is_a_queue(self) -> None:
        server = self.serve()
        with session(server.address("submission4"), "starttls") as client:
            log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            client.docmd(f"MAIL FROM:<{ANNA}>")
            code, text = client.docmd("RCPT TO:<someone@example.com>")
            self.assertEqual((code, text[:5]), (451, b"4.3.0"))
        (event,) = server.await_events("no-queue")
        self.assertEqual(event["recipient"], "someone@example.com")

    def test_bytes_behind_starttls_are_dropped(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.send(b"STARTTLS\r\nMAIL FROM:<injected@example.net>\r\nRCPT TO:<anna@example.org>\r\n")
            self.assertEqual(client.getreply()[0], 220)
            context = ssl.create_default_context(cafile=str(server.data / "tls" / "self-signed.crt"))
            assert client.sock is not None
            client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
            client.file = None
            # No transaction and no greeting is left from before.
            self.assertEqual(client.docmd("RCPT TO:<anna@example.org>")[0], 503)
            self.assertEqual(client.ehlo()[0], 250)
            self.assertNotIn("starttls", client.esmtp_features)
            self.assertEqual(client.docmd("RCPT TO:<anna@example.org>")[0], 503)


class SizeTests(ServerTestCase):
    """Messages over the limit."""

    CONFIG = SERVER + LIMITS + 'message_size = "64 KiB"\n' + listener("smtp4", "127.0.0.1:0") + DOMAINS

    def test_size_is_announced_and_kept(self) -> None:
        server = self.serve(self.CONFIG)
        with session(server.address("smtp4")) as client:
            self.assertEqual(client.esmtp_features["size"], "65536")
            code, text = client.docmd(f"MAIL FROM:<{SENDER}> SIZE=65537")
            self.assertEqual((code, text[:5]), (552, b"5.3.4"))
            self.assertEqual(client.docmd(f"MAIL FROM:<{SENDER}> SIZE=65536")[0], 250)

    def test_a_message_over_the_limit_is_swallowed_and_refused(self) -> None:
        server = self.serve(self.CONFIG)
        line = b"x" * 98 + b"\r\n"
        with session(server.address("smtp4")) as client:
            for count, expected in ((700, 552), (600, 250)):
                client.docmd(f"MAIL FROM:<{SENDER}>")
                client.docmd(f"RCPT TO:<{ANNA}>")
                client.docmd("DATA")
                client.send(b"Subject: x\r\n\r\n" + line * count + b".\r\n")
                self.assertEqual(client.getreply()[0], expected)
        self.assertEqual([len(each) for each in server.messages(ANNA)], [len(b"Subject: x\n\n") + 600 * 99])

    def test_curl_hears_of_it_before_it_sends(self) -> None:
        if reason := missing("curl"):
            self.skipTest(reason)
        server = self.serve(self.CONFIG)
        send, _ = CLIENTS["curl"]
        errand = Errand(server.address("smtp4"), TEXT + b"x" * 70_000 + b"\r\n")
        error = self.assertRaises(ClientFailed, send, errand, self.new_directory())
        self.assertIn("552", str(error))
        self.assertNotIn("> DATA", str(error))


class AttacksTests(ServerTestCase):
    """What only an attacker sends."""

    def test_smuggled_messages_stay_text_or_are_refused(self) -> None:
        server = self.serve()
        ends = [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n\0.\r\n", b"\r.\r\n"]
        for end in ends:
            with session(server.address("smtp4")) as client:
                for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                    client.docmd(command)
                inner = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nsmuggled\r\n"
                client.send(b"outer" + end + inner + b"\r\n.\r\n")
                code, text = client.getreply()
                self.assertIn(code, (250, 550, 554), (end, text))
                self.assertEqual(client.docmd("NOOP")[0], 250, end)
        self.assertEqual(server.files("bob@example.org"), [])

    def test_other_protocols_are_shown_the_door(self) -> None:
        server = self.serve()
        for words in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            with socket.create_connection(server.address("smtp4"), 30) as client, client.makefile("rb") as replies:
                self.assertEqual(replies.readline()[:4], b"220 ")
                client.sendall(words)
                self.assertNotRegex(replies.read(), rb"(?m)^2")


class CertificateTests(ServerTestCase):
    """What the server shows in TLS."""

    def test_the_self_signed_certificate_is_for_this_machine(self) -> None:
        server = self.serve()
        context = ssl.create_default_context(cafile=str(server.data / "tls" / "self-signed.crt"))
        for door, tls in (("smtp4", "starttls"), ("smtps4", "implicit"), ("smtps6", "implicit")):
            with session(server.address(door), tls, context) as client:
                self.assertEqual(client.noop()[0], 250)

    def test_old_versions_of_tls_are_refused(self) -> None:
        if reason := missing("openssl"):
            self.skipTest(reason)
        server = self.serve()
        host, port = server.address("smtps4")
        for option, works in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            command = ["openssl", "s_client", "-connect", f"{host}:{port}", option, "-cipher", "ALL:@SECLEVEL=0"]
            try:
                told = call(command, b"QUIT\r\n")
            except ClientFailed as error:
                told = str(error)
            self.assertEqual(bool(re.search(r"Cipher is (?!\(NONE\))", told)), works, told)

    def test_a_broken_handshake_is_logged(self) -> None:
        server = self.serve()
        context = ssl.create_default_context()
        self.assertRaises(ssl.SSLError, session(server.address("smtps4"), "implicit", context).__enter__)
        (event,) = server.await_events("connection")
        self.assertIn("TLS handshake failed", event["reason"])
        self.assertEqual(event["listener"], "smtps4")
