"""
Pieces of which mails are made for the tests: parts, multiparts, encoded files.

Mails are written with LF, and become CRLF.
"""

from __future__ import annotations

import base64

#: name, the mail, its tree, the texts of its leaves, kinds of defects, file names of its attachments.
Row = tuple[str, bytes, str, tuple[str, ...] | None, tuple[str, ...], tuple[str, ...] | None]

FROM = "From: Ann <ann@example.org>\nTo: bob@example.net\nSubject: odd\n"
PLAIN = "This message contains only plain text.\n"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 4
RTF = b"{\\rtf1\\ansi This is rich text.}\r\n"


def crlf(text: str) -> bytes:
    """Text as it is sent."""
    return text.replace("\n", "\r\n").encode()


def mail(kind: str, body: str, *, version: bool = True) -> bytes:
    """A mail with this Content-Type."""
    return crlf(FROM + ("MIME-Version: 1.0\n" if version else "") + f"Content-Type: {kind}\n\n{body}")


def part(kind: str, body: str, *fields: str) -> str:
    """A part behind its delimiter line."""
    return "\n".join([f"Content-Type: {kind}", *fields, "", body])


def multipart(boundary: str, *parts: str, end: str = "--", before: str = "", after: str = "") -> str:
    """The body of a multipart."""
    pieces = [f"--{boundary}\n{inner}\n" for inner in parts]
    return before + "".join(pieces) + (f"--{boundary}{end}\n" if end else "") + after


def encoded(octets: bytes) -> str:
    """base64 in lines."""
    return base64.encodebytes(octets).decode()


def file_part(kind: str, octets: bytes, name: str, disposition: str = "attachment") -> str:
    """A part with a file."""
    return part(
        f'{kind}; name="{name}"',
        encoded(octets),
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: {disposition}; filename="{name}"',
    )


TEXT = part("text/plain; charset=us-ascii", "plain")
HTML = part("text/html; charset=us-ascii", "<b>html</b>")
ALTERNATIVE = "multipart/alternative; boundary=alt"
BOTH = multipart("alt", TEXT, HTML)
MIXED = "multipart/mixed; boundary=mix"
INNER = FROM + "\ninner\n"


def nested(depth: int, boundary: str = "b%d") -> bytes:
    """`depth` multiparts within each other, with a text in the innermost; all are ended."""
    text = "".join(
        f'Content-Type: multipart/mixed; boundary="{boundary % level}"\n\n--{boundary % level}\n'
        for level in range(depth)
    )
    ends = "".join(f"\n--{boundary % level}--\n" for level in reversed(range(depth)))
    return crlf("MIME-Version: 1.0\n" + text + "Content-Type: text/plain\n\ndeep" + ends)
