"""
Load: several senders at the same time, each with its own way to send, until they are stopped.

In: the addresses of the server, notes.  Out: notes of every message and every reply.
The client is written here, with one `send` for each step: smtplib knows no BDAT and hides where a connection ended.
A sender that loses its connection tries to come back until it is stopped; the message that was under way stays without
an answer in the notes.

RFC 5321 (SMTP), 2920 (PIPELINING), 3030 (BDAT), 3207 (STARTTLS).
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.crash.messages import SENDER, Message, compose
from tests.crash.notes import ACKNOWLEDGED, Notes
from tests.interop.running import PATIENCE

KIB, MIB = 1024, 1024 * 1024
SMALL, MEDIUM, LARGE = (1 * KIB, 4 * KIB), (20 * KIB, 150 * KIB), (1 * MIB, 1 * MIB + 400 * KIB)
HELO = "driver.example.net"
#: Seconds before a sender without a connection tries again.
AGAIN = 0.02
_CODES = re.compile(rb"([0-9]{3})(?: ([245]\.[0-9]+\.[0-9]+))?")

#: The name of a listener -> where it listens now.
Find = Callable[[str], tuple[str, int]]


@dataclass(frozen=True)
class Sender:
    """
    One way to send.  door: "smtp" or "smtps".  sizes: least and most octets.  each: messages in one connection.
    pace: seconds of rest behind each message.
    """

    name: str
    door: str = "smtp"
    starttls: bool = False
    verb: str = "DATA"
    pipelined: bool = False
    recipients: int = 1
    sizes: tuple[int, int] = SMALL
    each: int = 100
    pace: float = 0.0


SENDERS = (
    Sender("kept", pipelined=True),
    Sender("kept, several recipients", recipients=3),
    Sender("new connections", each=1, pipelined=True),
    Sender("new connections, STARTTLS", starttls=True, each=1, recipients=2, verb="BDAT"),
    Sender("kept, TLS, BDAT", door="smtps", verb="BDAT", pipelined=True),
    Sender("medium, TLS", door="smtps", sizes=MEDIUM, recipients=2, pace=0.02),
    Sender("large", sizes=LARGE, recipients=2, each=5, pace=0.15),
    Sender("large, BDAT, STARTTLS", starttls=True, verb="BDAT", sizes=LARGE, each=3, pace=0.2),
)

_CONTEXT = ssl.create_default_context()
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE


class Wire:
    """One connection.  Every method raises OSError when it is lost (TimeoutError: when nothing comes)."""

    def __init__(self, address: tuple[str, int], sender: Sender) -> None:
        self._socket: socket.socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        try:
            if sender.door == "smtps":
                self._socket = _CONTEXT.wrap_socket(self._socket)
            self.reply()
            self.command(f"EHLO {HELO}")
            if sender.starttls:
                self.command("STARTTLS")
                self._socket = _CONTEXT.wrap_socket(self._socket)
                self.command(f"EHLO {HELO}")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Go without a word."""
        self._socket.close()

    def send(self, octets: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(octets)

    def reply(self) -> str:
        """The next reply: its code, and its enhanced code behind a space; of 250 the code alone."""
        while True:
            line, newline, rest = self._read.partition(b"\n")
            if not newline:
                block = self._socket.recv(64 * KIB)
                if not block:
                    raise ConnectionResetError("the server has closed the connection")
                self._read += block
                continue
            self._read = rest
            if line[3:4] == b"-":
                continue
            codes = _CODES.match(line)
            if codes is None:
                raise ConnectionAbortedError(f"no reply: {line!r}")
            if codes[1] == b"250":
                return ACKNOWLEDGED
            return b" ".join(code for code in codes.groups() if code).decode()

    def command(self, text: str) -> str:
        """Send a line and read its reply; ConnectionAbortedError when that is no 2yz or 3yz."""
        self.send(text.encode() + b"\r\n")
        reply = self.reply()
        if reply[0] not in "23":
            raise ConnectionAbortedError(f"{text}: {reply}")
        return reply

    def envelope(self, recipients: Sequence[str], last: str = "", *, pipelined: bool = False) -> str:
        """MAIL, RCPT and, if given, one command more; the first reply that says no, or else the last."""
        lines = [f"MAIL FROM:<{SENDER}> BODY=8BITMIME", *(f"RCPT TO:<{each}>" for each in recipients)]
        lines += [last] if last else []
        replies = []
        if pipelined:
            self.send("".join(f"{line}\r\n" for line in lines).encode())
            replies = [self.reply() for _ in lines]
        else:
            for line in lines:
                self.send(line.encode() + b"\r\n")
                replies.append(self.reply())
                if replies[-1][0] not in "23":
                    break
        refused = [each for each in replies if each[0] not in "23"]
        if refused and last == "DATA" and replies[-1].startswith("354"):
            self.send(b".\r\n")  # of a pipeline: some recipients were taken; nothing shall be sent to them
            self.reply()
        return refused[0] if refused else replies[-1]

    def text(self, message: Message) -> str:
        """The text behind a 354; its reply."""
        stuffed = message.text.replace(b"\r\n.", b"\r\n..")
        self.send((b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n")
        return self.reply()

    def chunks(self, message: Message) -> str:
        """The text in three BDAT chunks, the last of them empty for every other message; the reply that counts."""
        third = len(message.text) // 3
        cuts = (0, third, len(message.text) if len(message.text) % 2 else 2 * third, len(message.text))
        reply = ""
        for number in range(3):
            chunk = message.text[cuts[number] : cuts[number + 1]]
            self.send(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if number == 2 else b"") + chunk)
            reply = self.reply()
            if reply[0] != "2":
                break
        return reply

    def deliver(self, message: Message, sender: Sender, recipients: Sequence[str]) -> str:
        """One transaction; its final reply."""
        if sender.verb == "BDAT":
            reply = self.envelope(recipients, pipelined=sender.pipelined)
            reply = self.chunks(message) if reply == ACKNOWLEDGED else reply
        else:
            reply = self.envelope(recipients, "DATA", pipelined=sender.pipelined)
            reply = self.text(message) if reply.startswith("354") else reply
        return reply


class Load:
    """
    Senders at work.  find: see `Find`.  mailboxes: the addresses that get the mail.  seed: of all that is random.
    """

    def __init__(
        self, find: Find, notes: Notes, mailboxes: Sequence[str], *, seed: str, senders: Sequence[Sender] = SENDERS
    ) -> None:
        self._find = find
        self._notes = notes
        self._mailboxes = mailboxes
        self._seed = seed
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(each,), name=each.name) for each in senders]

    def start(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """End, each sender behind its message.  AssertionError when one does not."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                raise AssertionError(f"the sender {thread.name!r} does not end")

    def rest(self, seconds: float) -> None:
        """Let it run for so long."""
        self._ending.wait(seconds)

    def _send(self, sender: Sender) -> None:
        chance = random.Random(f"{self._seed} {sender.name}")
        count = 0
        while not self._ending.is_set():
            try:
                wire = Wire(self._find(sender.door), sender)
            except TimeoutError:
                self._notes.stuck(f"{sender.name}: no greeting")
                continue
            except OSError:
                self._ending.wait(AGAIN)
                continue
            with contextlib.closing(wire), contextlib.suppress(OSError):
                for _ in range(sender.each):
                    if self._ending.is_set():
                        break
                    count += 1
                    message = compose(
                        f"{self._seed}-{_slug(sender.name)}-{count}", chance.randint(*sender.sizes), chance
                    )
                    send_one(wire, self._notes, message, sender, chance.sample(self._mailboxes, sender.recipients))
                    self._ending.wait(sender.pace)


def send_one(wire: Wire, notes: Notes, message: Message, sender: Sender, recipients: Sequence[str]) -> str:
    """Send one message, with its notes; the reply.  OSError when the connection is lost."""
    notes.sending(message, recipients)
    try:
        reply = wire.deliver(message, sender, recipients)
    except TimeoutError:
        notes.stuck(f"{sender.name}: {message.id} gets no answer")
        raise
    notes.answered(message.id, reply)
    if reply != ACKNOWLEDGED:
        wire.command("RSET")
    return reply


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
