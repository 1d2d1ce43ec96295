"""
Whose mailbox a message comes to: several recipients, aliases, details, catch-alls, quotas; changed while it runs.
"""

from __future__ import annotations

import smtplib

from tests.interop.clients import CLIENTS, SENDER, Errand, missing, session, smtplib_send
from tests.interop.running import SMALL_QUOTA, RunningServer, ServerTestCase

TEXT = b"Subject: hello\r\n\r\nhello\r\n"
KEPT = TEXT.replace(b"\r\n", b"\n")


class RecipientsTests(ServerTestCase):
    """From the address to the mailbox."""

    def _send(self, server: RunningServer, *recipients: str, text: bytes = TEXT) -> None:
        smtplib_send(Errand(server.address("smtp4"), text, recipients=recipients), self.new_directory())

    def test_several_recipients_share_one_file(self) -> None:
        server = self.serve()
        self._send(server, "anna@example.org", "bob@example.org", "postmaster@example.org")
        files = [server.files(f"{name}@example.org") for name in ("anna", "bob", "postmaster")]
        self.assertEqual([len(each) for each in files], [1, 1, 1])
        self.assertEqual(len({each[0].stat().st_ino for each in files}), 1)
        self.assertEqual(files[0][0].stat().st_nlink, 3)
        self.assertEqual(server.messages("bob@example.org"), [KEPT])
        # RFC 5321 7.6: none learns of the others.
        stored = files[0][0].read_bytes()
        self.assertNotIn(b"bob@", stored)
        self.assertNotIn(b"Delivered-To", stored)

    def test_real_clients_send_to_several(self) -> None:
        for name, (send, program) in CLIENTS.items():
            if program and missing(program):
                continue
            server = self.serve()
            tls = "starttls" if name == "openssl" else "off"
            text = b"From: <sender@example.net>\r\nMessage-ID: <1@example.net>\r\n" + TEXT
            errand = Errand(
                server.address("smtp4"), text, recipients=("anna@example.org", "bob@example.org"), tls=tls
            )
            send(errand, self.new_directory())
            for account in ("anna@example.org", "bob@example.org"):
                self.assertEqual(server.messages(account), [text.replace(b"\r\n", b"\n")], name)

    def test_the_same_recipient_twice_gets_it_once(self) -> None:
        server = self.serve()
        self._send(server, "anna@example.org", "ANNA@Example.ORG", "anna+again@example.org")
        self.assertEqual(server.messages("anna@example.org"), [KEPT])

    def test_an_alias_goes_to_all_its_targets(self) -> None:
        server = self.serve()
        self._send(server, "team@example.org")
        self.assertEqual(server.messages("anna@example.org"), [KEPT])
        self.assertEqual(server.messages("bob@example.org"), [KEPT])

    def test_a_detail_is_not_part_of_the_mailbox_s_name(self) -> None:
        server = self.serve()
        self._send(server, "anna+lists@example.org")
        self.assertEqual(server.messages("anna@example.org"), [KEPT])
        self.assertIn(b"for <anna+lists@example.org>;", server.files("anna@example.org")[0].read_bytes())

    def test_a_catch_all_takes_what_has_no_account(self) -> None:
        server = self.serve()
        self._send(server, "whoever@example.net")
        self.assertEqual(server.messages("postmaster@example.org"), [KEPT])

    def test_the_postmaster_without_a_domain(self) -> None:
        server = self.serve()
        self._send(server, "postmaster")
        self.assertEqual(server.messages("postmaster@example.org"), [KEPT])

    def test_a_null_sender(self) -> None:
        server = self.serve()
        errand = Errand(server.address("smtp4"), TEXT, sender="")
        smtplib_send(errand, self.new_directory())
        self.assertTrue(server.files("anna@example.org")[0].read_bytes().startswith(b"Return-Path: <>\n"))


class ChangesTests(ServerTestCase):
    """The command line changes what the running server does at once."""

    def _reply(self, server: RunningServer, recipient: str) -> tuple[int, str]:
        with session(server.address("smtp4")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            code, text = client.docmd(f"RCPT TO:<{recipient}>")
            return code, text.decode()[:5]

    def test_accounts_come_and_go(self) -> None:
        server = self.serve()
        self.assertEqual(self._reply(server, "new@example.org"), (550, "5.1.1"))
        server.accounts("account", "add", "new@example.org", "--password-stdin", stdin="Xk-new-7Shale\n")
        self.assertEqual(self._reply(server, "new@example.org"), (250, "2.1.5"))
        with session(server.address("submission4"), "starttls") as client:
            client.login("new@example.org", "Xk-new-7Shale")
        server.accounts("account", "passwd", "new@example.org", "--password-stdin", stdin="Xk-new-8Shale\n")
        with session(server.address("submission4"), "starttls") as client:
            self.assertRaises(smtplib.SMTPAuthenticationError, client.login, "new@example.org", "Xk-new-7Shale")
        server.accounts("account", "remove", "new@example.org", "--yes")
        self.assertEqual(self._reply(server, "new@example.org"), (550, "5.1.1"))
        self.assertNotIn("Xk-new", server.told())

    def test_aliases_come_and_go(self) -> None:
        server = self.serve()
        self.assertEqual(self._reply(server, "info@example.org"), (550, "5.1.1"))
        server.accounts("alias", "add", "info@example.org", "bob@example.org")
        smtplib_send(Errand(server.address("smtp4"), TEXT, recipients=("info@example.org",)), self.new_directory())
        self.assertEqual(server.messages("bob@example.org"), [KEPT])
        server.accounts("alias", "remove", "info@example.org")
        self.assertEqual(self._reply(server, "info@example.org"), (550, "5.1.1"))

    def test_what_a_command_has_changed_holds_for_the_next_recipient(self) -> None:
        server = self.serve()
        stages = [
            (("account", "disable", "anna@example.org"), 550),
            (("account", "enable", "anna@example.org"), 250),
            (("account", "remove", "anna@example.org", "--yes"), 550),
            (("alias", "add", "anna@example.org", "bob@example.org"), 250),
            (("alias", "remove", "anna@example.org"), 550),
            (("account", "add", "anna@example.org", "--password-stdin"), 250),
        ]
        with session(server.address("smtp4")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(client.docmd("RCPT TO:<anna@example.org>")[0], 250)
            for command, code in stages:
                server.accounts(*command, stdin="Xk-anna-8Quartz\n")
                self.assertEqual(client.docmd("RCPT TO:<anna@example.org>")[0], code, command)


class QuotaTests(ServerTestCase):
    """An account with room for `SMALL_QUOTA` octets."""

    def _send(self, server: RunningServer, size: int, *recipients: str) -> tuple[int, bytes]:
        text = b"x" * 98 + b"\r\n"
        with session(server.address("smtp4")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", *(f"RCPT TO:<{each}>" for each in recipients), "DATA"):
                client.docmd(command)
            client.send(text * (size // 100) + b".\r\n")
            return client.getreply()

    def test_a_full_mailbox_is_452_and_keeps_nothing(self) -> None:
        server = self.serve()
        self.assertEqual(self._send(server, SMALL_QUOTA // 2, "small@example.org")[0], 250)
        code, text = self._send(server, SMALL_QUOTA, "small@example.org")
        self.assertEqual((code, text[:5]), (452, b"4.2.2"))
        self.assertEqual(len(server.files("small@example.org")), 1)
        self.assertEqual(list((server.maildir("small@example.org") / "tmp").iterdir()), [])

    def test_nobody_gets_half_a_message(self) -> None:
        server = self.serve()
        code, _ = self._send(server, SMALL_QUOTA * 2, "anna@example.org", "small@example.org")
        self.assertEqual(code, 452)
        self.assertEqual(server.files("anna@example.org"), [])
        self.assertEqual(server.files("small@example.org"), [])

    def test_room_can_be_given_while_it_runs(self) -> None:
        server = self.serve()
        self.assertEqual(self._send(server, SMALL_QUOTA // 2, "small@example.org")[0], 250)
        self.assertEqual(self._send(server, SMALL_QUOTA // 2 + 1000, "small@example.org")[0], 452)
        server.accounts("account", "quota", "small@example.org", "0")
        self.assertEqual(self._send(server, SMALL_QUOTA, "small@example.org")[0], 250)
