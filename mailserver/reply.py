"""
What a server says: the reply as a value, the one exception by which anybody says no, and the catalogue.

In: a code, an enhanced code and a text.  Out: bytes for the wire, whole lines only.
RFC 5321 4.2 (replies), 4.5.3.1.5 (a line of at most 512 octets); RFC 2034 and 3463 (enhanced codes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: RFC 5321 4.5.3.1.5: the octets of one reply line, CRLF included.
MAX_REPLY_LINE = 512
#: How much of what a peer sent may be quoted back to it (octets).
MAX_ECHO = 60

_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\Z")


@dataclass(frozen=True, slots=True)
class Reply:
    """
    One SMTP reply.

    code: 200 to 599.  enhanced: "" or "C.S.D" of the same class (RFC 3463).  text: its lines, separated by "\\n".
    Raises ValueError for a code, or an enhanced code, that RFC 5321 and RFC 3463 do not allow.
    """

    code: int
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"{self.code} is not a reply code")
        if self.enhanced:
            if not _ENHANCED.match(self.enhanced):
                raise ValueError(f"{self.enhanced!r} is not an enhanced status code")
            if self.enhanced[0] != str(self.code)[0]:
                raise ValueError(f"{self.code} does not go with {self.enhanced}")

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"

    @property
    def positive(self) -> bool:
        """True for 2yz and 3yz."""
        return self.code < 400

    def encode(self, *, enhanced: bool = True) -> bytes:
        """
        The reply as it crosses the wire: one or more lines with CRLF.

        A byte that could end a line, or is no printable ASCII, becomes "?"; a line is cut to 512 octets, so that no
        text, wherever it came from, can make a second reply.
        """
        # Nearly every reply is one of the catalogue.
        return _with_code(self) if enhanced else _without_code(self)

    def _wire(self, *, enhanced: bool) -> bytes:
        code = b"%d" % self.code
        prefix = self.enhanced.encode() + b" " if enhanced and self.enhanced else b""
        lines = self.text.split("\n") if "\n" in self.text else [self.text]
        wire = []
        for number, line in enumerate(lines, 1):
            between = b" " if number == len(lines) else b"-"
            whole = code + between + prefix + _printable(line)
            wire.append(whole[: MAX_REPLY_LINE - 2] + b"\r\n")
        return b"".join(wire)


@lru_cache(maxsize=512)
def _with_code(reply: Reply) -> bytes:
    return reply._wire(enhanced=True)  # noqa: SLF001 - its other half


@lru_cache(maxsize=512)
def _without_code(reply: Reply) -> bytes:
    return reply._wire(enhanced=False)  # noqa: SLF001


def _printable(line: str) -> bytes:
    raw = line.encode("ascii", "replace")
    if raw.isascii() and line.isprintable():
        return raw
    return bytes(byte if 32 <= byte < 127 else 63 for byte in raw)


def echo(raw: bytes) -> str:
    """What the peer sent, made safe to be quoted back: printable ASCII, escaped, at most `MAX_ECHO` characters."""
    octets = raw[:MAX_ECHO].decode("latin-1")
    text = "".join(c if " " <= c <= "~" and c != "\\" else c.encode("unicode_escape").decode() for c in octets)
    return text[:MAX_ECHO]


class Refusal(Exception):  # noqa: N818 - it is a no, not an error
    """
    The one exception by which anybody says no: `raise Refusal(MAILBOX_FULL) from cause`.

    The reply goes to the peer; the cause, and `detail`, go to the log only.
    Raises ValueError for a positive reply: a refusal cannot mean yes.
    """

    def __init__(self, reply: Reply, detail: str = "") -> None:
        if reply.positive:
            raise ValueError(f"a refusal cannot carry {reply.code}")
        super().__init__(str(reply) + (f" ({detail})" if detail else ""))
        self.reply = reply
        self.detail = detail


# The catalogue.  The text is generic on purpose: the cause belongs into the log.
OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
GO_AHEAD_TLS = Reply(220, "2.0.0", "Ready to start TLS")
BYE = Reply(221, "2.0.0", "Bye")
AUTHENTICATED = Reply(235, "2.7.0", "Authentication successful")
CANNOT_VERIFY = Reply(252, "2.5.0", "Cannot VRFY user, but will take mail for it")
START_INPUT = Reply(354, "", "End data with <CR><LF>.<CR><LF>")

SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again later")
TOO_MANY_CONNECTIONS = Reply(421, "4.3.2", "Too many connections, try again later")
TOO_MANY_OF_CLIENT = Reply(421, "4.7.0", "Too many connections from your network, try again later")
CONNECTING_TOO_FAST = Reply(421, "4.7.0", "Connecting too fast, try again later")
SENDING_TOO_FAST = Reply(421, "4.7.0", "Too many messages from your network, try again later")
ADDRESSING_TOO_FAST = Reply(421, "4.7.0", "Too many recipients from your network, try again later")
IDLE_TOO_LONG = Reply(421, "4.4.2", "Timeout, closing connection")
TOO_SLOW = Reply(421, "4.4.2", "Message arrives too slowly, closing connection")
SESSION_TOO_LONG = Reply(421, "4.4.2", "Connection open for too long, try again")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing connection")
TOO_MANY_UNKNOWN = Reply(421, "4.7.0", "Too many unknown recipients, closing connection")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "Too many messages in one connection, connect again")
TOO_MANY_IDLE_COMMANDS = Reply(421, "4.7.0", "Too many commands without a message, closing connection")
TOO_MANY_AUTH_FAILURES = Reply(421, "4.7.0", "Too many failed authentications, try again later")
NEED_MAIL = Reply(503, "5.5.1", "Need MAIL command first")
LINE_WITHOUT_END = Reply(421, "4.5.2", "Line too long, closing connection")

LOCAL_TROUBLE = Reply(451, "4.3.0", "Temporary local problem, try again later")
NO_QUEUE_YET = Reply(451, "4.3.0", "Mail for other servers cannot be taken now, try again later")
DISK_FULL = Reply(452, "4.3.1", "Insufficient system storage")
MAILBOX_FULL = Reply(452, "4.2.2", "Mailbox full")
TOO_MANY_HELD = Reply(452, "4.3.1", "Too many messages are held for this account, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available due to temporary reason")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")

UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognized")
BAD_LINE = Reply(500, "5.5.2", "Line with a control character that is not allowed")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
AUTH_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
BAD_SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters or arguments")
BAD_BASE64 = Reply(501, "5.5.2", "Cannot decode base64")
AUTH_CANCELLED = Reply(501, "5.0.0", "Authentication cancelled")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
HELLO_FIRST = Reply(503, "5.5.1", "Send EHLO or HELO first")
NO_SECOND_AUTH = Reply(503, "5.5.1", "Already authenticated")
UNKNOWN_MECHANISM = Reply(504, "5.5.4", "Unrecognized authentication type")
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
STARTTLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
BAD_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
ENCRYPTION_NEEDED = Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
UNKNOWN_USER = Reply(550, "5.1.1", "No such user here")
BARE_NEWLINE = Reply(550, "5.5.2", "Message with a bare CR or LF refused")
RELAYING_DENIED = Reply(550, "5.7.1", "Relaying denied")
MESSAGE_TOO_BIG = Reply(552, "5.3.4", "Message exceeds the size limit")
UTF8_NEEDED = Reply(553, "5.6.7", "Address needs SMTPUTF8")
TEXT_LINE_TOO_LONG = Reply(554, "5.6.0", "Message with a line that is too long refused")
HEADER_TOO_BIG = Reply(554, "5.6.0", "Message with too large a header section refused")
MAIL_LOOP = Reply(554, "5.4.6", "Too many Received fields: mail loop")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized or not implemented")
