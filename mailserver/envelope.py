"""
What stands around a message: who sent it, to whom, from where, over which kind of line.

In: values that a session has checked.  Out: frozen values that every room passes on.
RFC 5321 2.3.1 (envelope); RFC 3848 and RFC 6531 4.3 (the `with` values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mailserver.address import Address

#: ESMTP parameters as they were given: upper-case keyword -> value as text, or None where there was no "=".
Parameters = Mapping[str, str | None]
NO_PARAMETERS: Parameters = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """
    The TLS layer of a connection, after its handshake.

    version: "TLSv1.3".  cipher: OpenSSL's name.  bits: of the cipher.  server_name: the SNI the client sent, or "".
    resumed: True when the session was taken up from an earlier one.
    client_name: of the client's certificate, only when that was verified, else "": the first mail address among its
    alternative names, else the first host name, else its common name; printable.  client_fingerprint: SHA-256 of that
    certificate, 64 lower-case hexadecimal digits, or "".
    """

    version: str
    cipher: str
    bits: int
    server_name: str = ""
    resumed: bool = False
    client_name: str = ""
    client_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """
    The other end of a connection, as known by now.

    host: its IP address, or "" for a Unix socket.  port: 0 for a Unix socket.  helo: the name it gave, or "".
    tls: None on a plain connection.  user: the account it logged in to, "" for nobody.
    """

    host: str
    port: int = 0
    helo: str = ""
    tls: TLSInfo | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT that was accepted, with its parameters."""

    address: Address
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Envelope:
    """
    One mail transaction.

    id: ours, unique, in the reply, the trace field and the log.  sender: None for `<>`.
    protocol: the `with` value of RFC 3848 ("ESMTPSA").  size: what SIZE declared (octets), or None.
    body: "7BIT" or "8BITMIME".  smtputf8: the SMTPUTF8 parameter was given (RFC 6531).
    listener: the listener's name.  local_host, local_port: our end.
    """

    id: str
    sender: Address | None
    recipients: tuple[Recipient, ...] = ()
    parameters: Parameters = field(default_factory=lambda: NO_PARAMETERS)
    peer: Peer = field(default_factory=lambda: Peer(""))
    protocol: str = "SMTP"
    size: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    listener: str = ""
    local_host: str = ""
    local_port: int = 0

    def with_recipient(self, recipient: Recipient) -> Envelope:
        """The same, with one more recipient; ten times as quick as `dataclasses.replace`."""
        return Envelope(
            self.id,
            self.sender,
            (*self.recipients, recipient),
            self.parameters,
            self.peer,
            self.protocol,
            self.size,
            self.body,
            self.smtputf8,
            self.listener,
            self.local_host,
            self.local_port,
        )


class CleanText(bytes):
    """
    A block of a message's text in which every CR and LF is that of a CRLF, and that does not end between the two.
    Whoever has checked that says so by this type, and nobody has to look again.  What is cut from it is plain bytes.
    """

    __slots__ = ()


def with_protocol(*, extended: bool, tls: bool, authenticated: bool, utf8: bool, lmtp: bool = False) -> str:
    """
    The `with` value of a Received field: RFC 3848 (SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA, LMTP...), and RFC 6531 4.3
    (UTF8SMTP...) for a message that was sent with SMTPUTF8.
    """
    suffix = ("S" if tls else "") + ("A" if authenticated else "")
    if lmtp:
        return ("UTF8LMTP" if utf8 else "LMTP") + suffix
    if utf8:
        return "UTF8SMTP" + suffix
    return "ESMTP" + suffix if extended or suffix else "SMTP"
