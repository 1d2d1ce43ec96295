"""
The report to a sender whose message could not be delivered.

In: a held message, the recipients who do not get it, each with the reply that says why.  Out: the report as a mail.
RFC 3461 4.1 and 6 (who gets a report, what it holds), RFC 6522 (multipart/report), RFC 3464 (delivery status),
RFC 3834 (Auto-Submitted), RFC 4865 (Future-Release-Request), RFC 6533 (addresses beyond ASCII).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.address import Address
from mailserver.delivery import trace
from mailserver.envelope import Recipient
from mailserver.mime import Part, encode
from mailserver.reply import Reply
from mailserver.smtp.syntax import decode_xtext
from mailserver.spool.held import Held

#: A larger message is not sent back whole (octets): its header section stands for it.
MOST_RETURNED = 1024 * 1024

#: A recipient who does not get the message, and why.
Failed = tuple[Recipient, Reply]

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def wants_report(recipient: Recipient) -> bool:
    """Does the sender want to hear when this recipient does not get the message?  By default, yes."""
    notify = recipient.parameters.get("NOTIFY")
    return notify is None or "FAILURE" in notify.upper().split(",")


def wants_whole(held: Held, octets: int) -> bool:
    """Is the message sent back whole (RET=FULL, or nothing said), and not its header section alone?"""
    return (held.envelope.parameters.get("RET") or "FULL").upper() == "FULL" and octets <= MOST_RETURNED


def report(held: Held, failed: Sequence[Failed], returned: bytes, *, hostname: str, now: float, whole: bool) -> bytes:
    """
    The report.  returned: the message, or (not whole) its header section.  now: seconds since 1970.

    Raises BadSyntax when parameters are none that MAIL and RCPT would have taken.
    """
    sender = held.envelope.sender
    assert sender is not None
    names = ", ".join(str(recipient.address) for recipient, _ in failed)
    text = (
        f"This is the mail system at {hostname}.\n\n"
        f"You had sent a message to be delivered after {trace.date(held.release)}.\n"
        "It could not be delivered to:\n\n"
        + "".join(f"    {recipient.address}\n        {_line(str(reply))}\n" for recipient, reply in failed)
        + "\nThis is final: it will not be tried again.\n"
    )
    utf8 = not (names.isascii() and sender.is_ascii and returned.isascii())
    status = Part("message", f"{'global-' if utf8 else ''}delivery-status", content=_status(held, failed, hostname))
    kind = ("message", "global" if utf8 and held.envelope.smtputf8 else "rfc822")
    if not whole:
        kind = ("message", "global-headers") if utf8 and held.envelope.smtputf8 else ("text", "rfc822-headers")
    mail = Part(
        "multipart",
        "report",
        parameters={"report-type": "delivery-status"},
        headers=[
            ("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
            ("To", f"<{sender}>"),
            ("Subject", "Undelivered mail returned to sender"),
            ("Date", trace.date(now)),
            ("Message-ID", f"<{held.id}.{held.attempts}.{int(now)}@{hostname}>"),
            ("Auto-Submitted", "auto-replied"),
        ],
        parts=[Part(content=text), status, Part(*kind, content=returned)],
    )
    return encode(mail, utf8=utf8, eight_bit=True)


def _status(held: Held, failed: Sequence[Failed], hostname: str) -> bytes:
    """RFC 3464 2.1: fields of the message, then a group of fields for each recipient."""
    parameters = held.envelope.parameters
    lines = [f"Reporting-MTA: dns; {hostname}", f"Arrival-Date: {trace.date(held.received)}"]
    if (envid := parameters.get("ENVID")) is not None:
        lines.insert(0, f"Original-Envelope-Id: {_line(decode_xtext(envid))}")
    if (seconds := parameters.get("HOLDFOR")) is not None:
        lines.append(f"Future-Release-Request: for;{seconds}")
    elif (until := parameters.get("HOLDUNTIL")) is not None:
        lines.append(f"Future-Release-Request: until;{until}")
    for recipient, reply in failed:
        lines.append("")
        if (original := recipient.parameters.get("ORCPT")) is not None:
            kind, _, address = original.partition(";")
            readable = address if kind.lower() == "utf-8" else decode_xtext(address)
            lines.append(f"Original-Recipient: {kind}; {_line(readable)}")
        lines += [
            f"Final-Recipient: {_typed(recipient.address)}",
            "Action: failed",
            # It is over: a reply that asked for another try has a status of class 4, which says something else.
            f"Status: 5{(reply.enhanced or '5.0.0')[1:]}",
            f"Diagnostic-Code: smtp; {_line(str(reply))}",
        ]
    return "".join(line + "\r\n" for line in lines).encode("utf-8", "replace")


def _typed(address: Address) -> str:
    return f"{'rfc822' if address.is_ascii else 'utf-8'}; {_line(str(address))}"


def _line(text: str) -> str:
    """Nothing in it can begin another field."""
    return _BREAKS.sub(" ", text)
