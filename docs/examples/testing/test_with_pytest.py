"""The code under test, and its tests with pytest: the fixture `mailserver` is there once the package is installed."""

import smtplib
from email.message import EmailMessage

import pytest


def welcome(host: str, port: int, address: str) -> bool:
    """The code under test: sends a mail; whether the server took it."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", address, "Welcome"
    mail.set_content("Good to have you here.\n")
    mail.add_alternative("<p>Good to have you here.</p>\n", subtype="html")
    try:
        with smtplib.SMTP(host, port) as client:
            client.send_message(mail)
    except smtplib.SMTPException:
        return False
    return True


def test_a_new_customer_is_welcome(mailserver):
    assert welcome(mailserver.host, mailserver.port, "anna@example.com")
    message = mailserver.wait_for_message(to="anna@example.com", subject="Welcome")
    assert message.sender == "shop@example.org"
    assert "Good to have you here." in message.text
    assert "<p>" in message.html


@pytest.mark.parametrize("stage", ["connect", "mail", "rcpt", "data", "message"])
def test_trouble_of_the_server_is_told(mailserver, stage):
    with mailserver.fail(stage, "451 4.3.0 Try again later"):
        assert not welcome(mailserver.host, mailserver.port, "anna@example.com")
    mailserver.assert_no_message()
    assert welcome(mailserver.host, mailserver.port, "anna@example.com")


@pytest.mark.mailserver(inboxes=["anna@example.com"])
def test_who_does_not_exist_is_told(mailserver):
    assert not welcome(mailserver.host, mailserver.port, "bob@example.com")


def test_two_servers(mailserver_factory):
    first, second = mailserver_factory(), mailserver_factory(tls="starttls")
    assert welcome(first.host, first.port, "anna@example.com")
    assert [len(server.messages) for server in (first, second)] == [1, 0]
