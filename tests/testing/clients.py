"""A client that blocks, as users have them: smtplib; for a thread, or for the main one."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from typing import Any

#: Seconds after which a client gives up.
PATIENCE = 20.0


def message(subject: str = "hello", text: str = "It works.\n") -> EmailMessage:
    """A mail without addresses."""
    mail = EmailMessage()
    mail["Subject"] = subject
    mail.set_content(text)
    return mail


def connect(server: Any, **others: Any) -> smtplib.SMTP:
    """A connection to `server.port`."""
    return smtplib.SMTP(server.host, server.port, timeout=PATIENCE, **others)


def send(
    server: Any, *to: str, sender: str = "a@example.net", subject: str = "hello", text: str = "It works.\n"
) -> Any:
    """Send a mail; what was refused, as smtplib tells it."""
    with connect(server) as client:
        return client.send_message(message(subject, text), sender, to or ("b@example.org",))


def answers(server: Any, *commands: str, port: int | None = None) -> list[int]:
    """The codes that the server answers, banner first."""
    with smtplib.SMTP(timeout=PATIENCE) as client:
        codes = [client.connect(server.host, port or server.port)[0]]
        return codes + [client.docmd(command)[0] for command in commands]
