"""
The fields that we put on top of a message: Return-Path, Delivered-To, Received.

In: an envelope.  Out: header lines with CRLF.  Everything that came from a peer is made safe first: no octet of a
name, an address or a parameter can start a line or a field.
RFC 5321 4.4 (trace), RFC 3848 and 6531 4.3 (`with`), RFC 5322 3.3 (date), RFC 8314 4.3 (what is told of TLS).
"""

from __future__ import annotations

import re
import time
from functools import lru_cache

from mailserver.address import Address
from mailserver.envelope import Envelope, Peer

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# ASCII and C1 control characters, and what Unicode calls line and paragraph separators.
_LINE_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A domain or an address literal, loosely; anything else a client calls itself is not repeated.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z|\[[A-Za-z0-9:.]+\]\Z")


def return_path(sender: Address | None) -> bytes:
    """`Return-Path: <sender>` for final delivery; `<>` for the null sender."""
    return b"Return-Path: <" + _safe(sender) + b">\r\n"


def delivered_to(address: Address) -> bytes:
    """`Delivered-To: address`, the mailbox that the message came to; the loop check of RFC 5321 6.3 reads it."""
    return b"Delivered-To: " + _safe(address) + b"\r\n"


def received(envelope: Envelope, *, hostname: str, now: float) -> bytes:
    """
    The Received field for this transaction, as three or four lines.

    hostname: ours.  now: seconds since 1970.  The `for` clause stands only when there is one recipient: otherwise it
    would tell each of the others (RFC 5321 7.6).
    """
    head = b"%s\tby %s with %s id %s" % (
        _from(envelope.peer),
        hostname.encode(),
        envelope.protocol.encode(),
        envelope.id.encode(),
    )
    stamp = _date(int(now)).encode()
    if len(envelope.recipients) == 1:
        return b"%s\r\n\tfor <%s>; %s\r\n" % (head, _safe(envelope.recipients[0].address), stamp)
    return b"%s;\r\n\t%s\r\n" % (head, stamp)


@lru_cache(maxsize=256)
def _from(peer: Peer) -> bytes:
    """The lines that are the same for all messages of a connection."""
    line = f"Received: from {_helo(peer)} ({_address(peer)})\r\n"
    tls = peer.tls
    if tls is not None:
        line += f"\t(using {_word(tls.version)} with cipher {_word(tls.cipher)} ({tls.bits} bits))\r\n"
    return line.encode()


def date(now: float) -> str:
    """A date-time of RFC 5322 3.3, in UTC."""
    return _date(int(now))


@lru_cache(maxsize=4)
def _date(now: int) -> str:
    at = time.gmtime(now)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d}"
        f" {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
    )


def _helo(peer: Peer) -> str:
    return peer.helo if _NAME.match(peer.helo) else "unknown"


def _address(peer: Peer) -> str:
    if not peer.host:
        return "local socket"
    host = re.sub(r"[^A-Za-z0-9.:%_-]", "_", peer.host)
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def _safe(address: Address | None) -> bytes:
    # Addresses are parsed without control characters; this is the second lock on the same door.
    return b"" if address is None else _LINE_BREAKING.sub("?", str(address)).encode("utf-8", "replace")
