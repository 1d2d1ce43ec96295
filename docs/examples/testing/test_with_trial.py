"""The code under test, and its tests with trial: the server runs in the reactor of the tests."""

from email.message import EmailMessage

from twisted.internet import reactor
from twisted.mail.smtp import SMTPClientError, sendmail
from twisted.trial.unittest import TestCase

from mailserver.testing import AsyncMailServer
from mailserver.testing.trial import MailServerTestCase


def tell(host, port, address, subject):
    """The code under test: sends a mail with Twisted's client."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "watch@example.org", address, subject
    mail.set_content("It is back.\n")
    return sendmail(host, "watch@example.org", [address], mail.as_bytes(), port=port, reactor=reactor)


class TellTests(MailServerTestCase):
    async def test_somebody_is_told(self):
        sent = tell(self.mailserver.host, self.mailserver.port, "anna@example.com", "Up")
        message = await self.mailserver.wait_for_message(to="anna@example.com", timeout=10)
        self.assertEqual(message.subject, "Up")
        await sent

    async def test_after_a_lost_connection_it_is_tried_again(self):
        fault = self.mailserver.drop_after("data", octets=10)
        await tell(self.mailserver.host, self.mailserver.port, "anna@example.com", "Up")
        self.assertEqual((fault.count, len(self.mailserver.messages)), (1, 1))


class WithoutTheTestCase(TestCase):
    async def test_a_server_of_one_s_own(self):
        server = AsyncMailServer(reactor, inboxes=["anna@example.com"])
        await server.start()
        self.addCleanup(server.stop)
        await self.assertFailure(tell(server.host, server.port, "bob@example.com", "Up"), SMTPClientError)
        await tell(server.host, server.port, "anna@example.com", "Up")
        self.assertEqual([message.subject for message in server.messages], ["Up"])
