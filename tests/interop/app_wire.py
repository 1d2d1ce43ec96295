"""
An app behind a real server in this process, and a client that says every word itself.

In: an app.  Out: `AppTestCase.serve`, which gives a port; `Wire`, a connection to it, for a thread.
Every wait is bounded by `PATIENCE`.
"""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

import mailserver
from mailserver.apps.loading import load_class
from mailserver.mime import decode
from mailserver.server import Listening, listen

#: Seconds after which a client gives up.
PATIENCE = 20.0
MESSAGE = "Subject: hello\r\n\r\nIt works.\r\n"
#: Where to listen with AUTH but without TLS, as gen_smtp has it: on loopback, and only when it is asked for.
CLEAR_AUTH = {"address": "127.0.0.1:0", "auth": "optional", "allow_insecure_auth": True}
LMTP = "lmtp:127.0.0.1:0"
reactor: Any = the_reactor


class Recording(mailserver.App):
    """Notes what it hears in `heard`, which belongs to the class: each test makes a class of its own."""

    heard: ClassVar[list[Any]]

    def __init_subclass__(cls) -> None:
        cls.heard = []


def b64(text: str) -> str:
    """As AUTH wants it."""
    return base64.b64encode(text.encode()).decode()


def trusting() -> ssl.SSLContext:
    """TLS with whoever is there: the certificate of a test is signed by nobody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Wire:
    """One connection.  It blocks: for a thread.  A context manager, which closes it."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, tls: bool = False) -> None:
        self._socket: socket.socket = socket.create_connection((host, port), PATIENCE)
        if tls:
            self._socket = trusting().wrap_socket(self._socket)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def reply(self) -> str:
        """The next reply, its lines joined by LF; "" when the connection is over."""
        lines: list[str] = []
        while True:
            line = self._stream.readline().decode("utf-8")
            if not line:
                return "\n".join(lines)
            lines.append(line.removesuffix("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    def send(self, text: str) -> None:
        """These octets."""
        self._socket.sendall(text.encode())

    def say(self, line: str) -> str:
        """A command, and its reply."""
        self.send(line + "\r\n")
        return self.reply()

    def greeted(self, name: str = "client.example.net") -> Self:
        """Behind banner and EHLO."""
        assert self.reply().startswith("220 ")
        assert self.say(f"EHLO {name}").startswith("250")
        return self

    def secure(self, server_name: str | None = None) -> None:
        """STARTTLS."""
        assert self.say("STARTTLS").startswith("220")
        self._stream.close()
        self._socket = trusting().wrap_socket(self._socket, server_hostname=server_name)
        self._stream = self._socket.makefile("rb")

    def transaction(self, *recipients: str, sender: str = "me@example.net", message: str = MESSAGE) -> list[str]:
        """A whole one, the last reply of each step; with LMTP as many as there are recipients behind the message."""
        said = [self.say(f"MAIL FROM:<{sender}>")]
        said += [self.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
        said.append(self.say("DATA"))
        said.append(self.say(f"{message}."))
        return said


class AppTestCase(TestCase):
    """Tests with servers, which stop when the test is over."""

    timeout = 60

    def serve(self, app: Any, *where: Any, **settings: Any) -> Listening:
        """A server on a free port of loopback (or where it is said)."""
        server = self.started(app, *where, **settings)
        self.addCleanup(server.stop)
        return server

    def started(self, app: Any, *where: Any, **settings: Any) -> Listening:
        """The same for who stops it: nothing waits for long."""
        limits: Mapping[str, Any] = {"auth_failure_delay": 0, **settings.pop("limits", {})}
        table = {"drain_timeout": 0, **settings.pop("server", {})}
        return listen(app, *(where or ("127.0.0.1:0",)), reactor=reactor, limits=limits, server=table, **settings)

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """The client, which blocks, beside the server."""
        return deferToThread(function, *arguments)

    def folder(self) -> Path:
        """A new folder."""
        path = Path(self.mktemp()).absolute()
        path.mkdir()
        return path


#: The folder with the examples.
EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def example(source: str) -> Any:
    """The app of an example: "tickets.py:Tickets"."""
    return load_class(source, EXAMPLES)


class Sent:
    """A message that somebody has sent to a `smarthost`."""

    def __init__(self, envelope: mailserver.Envelope, raw: bytes) -> None:
        self.sender = str(envelope.sender or "")
        self.recipients = [str(each.address) for each in envelope.recipients]
        self.raw = raw
        self.mail = decode(raw)

    @property
    def text(self) -> str:
        """Its text."""
        body = self.mail.body()
        return "" if body is None else body.text

    def __getitem__(self, name: str) -> str:
        return self.mail.headers.get(name) or ""


def smarthost() -> tuple[type[mailserver.App], list[Sent]]:
    """A server that takes all mail, as an app; and what it has got."""
    sent: list[Sent] = []

    class Smarthost(mailserver.App):
        def message(self, envelope: mailserver.Envelope, message: Any) -> None:
            sent.append(Sent(envelope, message.read()))

    return Smarthost, sent


def submit(port: int, recipient: str, message: str | bytes, sender: str = "me@example.net") -> str:
    """One message by smtplib; its last reply.  It blocks."""
    octets = message.encode() if isinstance(message, str) else message
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.example.net")
        code, text = client.mail(sender)
        if code == 250:
            code, text = client.rcpt(recipient)
        if code == 250:
            try:
                code, text = client.data(octets)
            except smtplib.SMTPDataError as error:
                code, text = error.smtp_code, error.smtp_error
        return f"{code} {text.decode() if isinstance(text, bytes) else text}"
