"""The code under test, and its tests with unittest."""

import smtplib
import unittest

from mailserver.testing import MailServer, MailServerMixin


class Newsletter:
    """The code under test: sends a text to many, and remembers who refused it."""

    def __init__(self, server, user, password):
        self.server, self.user, self.password = server, user, password
        self.gone = []

    def send(self, text, addresses):
        with smtplib.SMTP(self.server.host, self.server.port) as client:
            client.starttls(context=self.server.ssl_context())
            client.login(self.user, self.password)
            try:
                refused = client.sendmail("news@example.org", addresses, f"Subject: News\r\n\r\n{text}\r\n")
            except smtplib.SMTPRecipientsRefused as error:
                refused = error.recipients
        self.gone += [address for address, (code, _) in refused.items() if code >= 500]


class NewsletterTests(MailServerMixin, unittest.TestCase):
    mailserver_options = {"tls": "starttls", "auth": {"news": "secret"}, "auth_required": True}

    def setUp(self):
        super().setUp()
        self.newsletter = Newsletter(self.mailserver, "news", "secret")

    def test_everybody_gets_it(self):
        self.newsletter.send("It is spring.", ["anna@example.com", "bob@example.com"])
        for address in ("anna@example.com", "bob@example.com"):
            (message,) = self.mailserver.inboxes[address]
            self.assertEqual(message.text.strip(), "It is spring.")
        self.assertEqual(message.session.identity, "news")
        self.assertIsNotNone(message.session.tls)

    def test_who_is_gone_is_remembered_and_who_is_full_is_not(self):
        self.mailserver.fail_rcpt("anna@*", "550 5.1.1 No such user")
        self.mailserver.fail_rcpt("bob@*", "452 4.2.2 Mailbox full")
        self.newsletter.send("It is spring.", ["anna@example.com", "bob@example.com"])
        self.assertEqual(self.newsletter.gone, ["anna@example.com"])
        self.mailserver.assert_no_message()


class WithoutTheMixin(unittest.TestCase):
    def test_a_server_for_a_block(self):
        with MailServer(lmtp=True) as server:
            with smtplib.LMTP(server.host, server.lmtp_port) as client:
                client.sendmail("a@example.org", ["b@example.org"], "Subject: hello\r\n\r\nIt works.\r\n")
            self.assertEqual(server.wait_for_message().session.protocol, "LMTP")


if __name__ == "__main__":
    unittest.main()
