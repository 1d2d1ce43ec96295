"""
What a webhook posts: a message and its envelope as JSON, as it came, or as a form.

In: a message, who sent it and to whom, how much of it is wanted.  Out: `Body`: a file, its length and its type.
Memory is bounded for any message: what is large lies in an unnamed temporary file, and attachments go from block to
block.  What is over a limit is left out, and the body says so.  Runs in a thread; it touches nothing of the reactor.
Failures: OSError of the disk.

RFC 8259 (JSON), RFC 7578 (multipart/form-data), RFC 5322 (raw).  The fields of the form are those that users of
Mailgun and SendGrid know.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from mailserver.apps.arguments import parts_of
from mailserver.apps.message import IN_MEMORY, Message
from mailserver.envelope import Envelope, Recipient

if TYPE_CHECKING:
    from mailserver.mime import Part

#: Octets of a body that are held in memory.
HELD = 1024 * 1024
BLOCK = 64 * 1024
#: Attachments of which anything is told.
MAX_ATTACHMENTS = 1000
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What shall be in a body.  form: "json", "raw", "form".  raw: the whole message too, as base64.
    attachment_limit: octets of all attachments together; text_limit: of the text, and of the HTML.
    """

    form: str = "json"
    raw: bool = False
    attachment_limit: int = 10 * 1024 * 1024
    text_limit: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told beside the message.  recipients: those of this request.  seconds: now, since 1970."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    seconds: float
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """What is posted.  file: at its start, `length` octets long.  headers: further fields of the request."""

    file: IO[bytes]
    length: int
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def blocks(self) -> Iterator[bytes]:
        """All of it; the file is at its start again behind that."""
        self.file.seek(0)
        yield from iter(lambda: self.file.read(BLOCK), b"")
        self.file.seek(0)


class Source:
    """
    A message for a thread of its own: what the reactor does with the message meanwhile changes nothing here.

    Made in the reactor's thread, closed in the other one.  folder: where temporary files may be.
    """

    def __init__(self, message: Message) -> None:
        self.size = message.size
        self.folder: str | None = None
        self.file: IO[bytes]
        self._message = message
        if message.size > IN_MEMORY:
            self.folder = str(message.path.parent)
            self.file = message.path.open("rb")
        else:
            self.file = io.BytesIO(message.read())

    def part(self) -> Part:
        """The message, decoded once for all requests with it."""
        return self._message.mime

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """The message as it came."""
        self.file.seek(0)
        yield from iter(lambda: self.file.read(size), b"")


def body_of(wanted: Wanted, facts: Facts, source: Source) -> Body:
    """The body.  Raises OSError."""
    if wanted.form == "raw":
        return Body(source.file, source.size, "message/rfc822", raw_headers(facts))
    file: Any = tempfile.SpooledTemporaryFile(HELD, dir=source.folder)  # noqa: SIM115 - closed by who posts it
    try:
        if wanted.form == "form":
            boundary = "form-" + hashlib.sha256(identifier(facts, source).encode()).hexdigest()[:32]
            _write(file, _form(boundary, wanted, facts, source))
            kind = f"multipart/form-data; boundary={boundary}"
        else:
            _write(file, _json(wanted, facts, source))
            kind = "application/json"
        length = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    finally:
        source.file.close()
    return Body(file, length, kind)


def identifier(facts: Facts, source: Source) -> str:
    """
    The webhook-id: the same for the same message to the same recipients, so that the receiver knows it when the
    sender tries again, although that is another transaction.
    """
    digest = hashlib.sha256()
    for word in (facts.envelope.sender or "", *(each.address.key for each in facts.recipients)):
        digest.update(str(word).encode() + b"\0")
    for block in source.blocks():
        digest.update(block)
    return "msg_" + digest.hexdigest()[:32]


def _write(file: IO[bytes], blocks: Iterable[bytes]) -> None:
    for block in blocks:
        file.write(block)


# -- what is told of the envelope -----------------------------------------------------------------------------------


def envelope_of(facts: Facts) -> dict[str, Any]:
    """The envelope, as JSON has it."""
    envelope = facts.envelope
    return {
        "sender": str(envelope.sender or ""),
        "recipients": [_recipient(each) for each in facts.recipients],
        "parameters": dict(envelope.parameters),
        "body": envelope.body,
        "smtputf8": envelope.smtputf8,
    }


def _recipient(recipient: Recipient) -> dict[str, Any]:
    address = recipient.address
    user, _separator, detail = parts_of(address)
    told: dict[str, Any] = {"address": str(address), "local": address.local, "domain": address.domain}
    return {**told, "user": user, "detail": detail, "parameters": dict(recipient.parameters)}


def client_of(facts: Facts) -> dict[str, Any]:
    """The client."""
    peer = facts.envelope.peer
    tls = peer.tls and {
        "version": peer.tls.version,
        "cipher": peer.tls.cipher,
        "bits": peer.tls.bits,
        "server_name": peer.tls.server_name,
        "client_name": peer.tls.client_name,
    }
    told = {"address": peer.host, "port": peer.port, "helo": peer.helo, "tls": tls, "identity": peer.user}
    return {**told, "protocol": facts.envelope.protocol, "listener": facts.envelope.listener}


def raw_headers(facts: Facts) -> dict[str, str]:
    """The envelope as header fields of the request, for a body that is the message as it came."""
    envelope, peer = facts.envelope, facts.envelope.peer
    told = {
        "X-Envelope-Id": envelope.id,
        "X-Envelope-From": str(envelope.sender or ""),
        "X-Envelope-To": ", ".join(str(each.address) for each in facts.recipients),
        "X-Client-Address": peer.host,
        "X-Client-Helo": peer.helo,
        "X-Client-Protocol": envelope.protocol,
        "X-Client-Identity": peer.user,
        "X-Client-Tls": f"{peer.tls.version} {peer.tls.cipher}" if peer.tls else "",
        "X-Listener": envelope.listener,
    }
    if facts.arguments:
        told["X-Arguments"] = _encode(dict(facts.arguments))
    return {name: "".join(c for c in value if c.isprintable()) for name, value in told.items()}


def _time(facts: Facts) -> str:
    return datetime.fromtimestamp(facts.seconds, UTC).isoformat(timespec="milliseconds")


# -- what is told of the message ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment.  number: from 1.  kept: is its content in the body?"""

    number: int
    part: Part
    size: int
    kept: bool

    def told(self) -> dict[str, Any]:
        """What is said of it."""
        disposition = self.part.disposition
        return {
            "name": self.part.filename,
            "type": self.part.content_type,
            "size": self.size,
            "disposition": disposition.kind if disposition else "",
            "content_id": self.part.content_id,
            "left_out": not self.kept,
        }


def attachments_of(part: Part, limit: int) -> list[Attachment]:
    """The attachments; content is kept as long as all that is kept is within the limit."""
    found: list[Attachment] = []
    total = 0
    for number, each in enumerate(part.attachments[:MAX_ATTACHMENTS], 1):
        size = sum(len(block) for block in each.blocks())
        kept = total + size <= limit
        total += size if kept else 0
        found.append(Attachment(number, each, size, kept))
    return found


def text_of(part: Part, subtype: str, limit: int) -> tuple[str | None, bool]:
    """The text of this subtype, None when there is none; and whether it was left out for its size."""
    found = part.body((subtype,))
    if found is None:
        return None, False
    size = 0
    for block in found.blocks():  # the whole of it is not held to learn that it is too large
        size += len(block)
        if size > limit:
            return None, True
    return found.text, False


def _json(wanted: Wanted, facts: Facts, source: Source) -> Iterator[bytes]:
    part = source.part()
    text, no_text = text_of(part, "plain", wanted.text_limit)
    html, no_html = text_of(part, "html", wanted.text_limit)
    header = part.headers
    told: dict[str, Any] = {
        "type": "message.received",
        "timestamp": _time(facts),
        "id": facts.envelope.id,
        "envelope": envelope_of(facts),
        "client": client_of(facts),
        "arguments": dict(facts.arguments),
        "size": source.size,
        "headers": [[name, value] for name, value in header],
        **{name: header.get(name, "") for name in ("from", "to", "cc", "subject", "date")},
        "message_id": header.get("message-id", ""),
        "text": text,
        "html": html,
        "left_out": [name for name, left in (("text", no_text), ("html", no_html)) if left],
    }
    yield _encode(told)[:-1].encode() + b',"attachments":['
    for attachment in attachments_of(part, wanted.attachment_limit):
        comma = b"," if attachment.number > 1 else b""
        yield comma + _encode(attachment.told())[:-1].encode() + b',"content":'
        if attachment.kept:
            yield b'"'
            yield from _base64(attachment.part.blocks(BLOCK))
            yield b'"}'
        else:
            yield b"null}"
    yield b"]"
    if wanted.raw:
        yield b',"raw":"'
        yield from _base64(source.blocks())
        yield b'"'
    yield b"}"


def _base64(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Base64 without line ends, a block at a time."""
    held = b""
    for block in blocks:
        held += block
        whole = len(held) - len(held) % 3
        yield base64.b64encode(held[:whole])
        held = held[whole:]
    yield base64.b64encode(held)


# -- the form -------------------------------------------------------------------------------------------------------


def _form(boundary: str, wanted: Wanted, facts: Facts, source: Source) -> Iterator[bytes]:
    part = source.part()
    attachments = attachments_of(part, wanted.attachment_limit)
    for name, value in _fields(wanted, facts, source, attachments):
        yield _opening(boundary, name) + b"\r\n" + value.encode("utf-8", "replace") + b"\r\n"
    for each in attachments:
        if each.kept:
            name = each.part.filename or f"attachment{each.number}"
            yield _opening(boundary, f"attachment{each.number}", name, each.part.content_type) + b"\r\n"
            yield from each.part.blocks(BLOCK)
            yield b"\r\n"
    if wanted.raw:
        yield _opening(boundary, "email", "message.eml", "message/rfc822") + b"\r\n"
        yield from source.blocks()
        yield b"\r\n"
    yield b"--" + boundary.encode() + b"--\r\n"


def _fields(wanted: Wanted, facts: Facts, source: Source, attachments: list[Attachment]) -> Iterator[tuple[str, str]]:
    part = source.part()
    header = part.headers
    for name in ("from", "to", "cc", "subject"):
        yield name, header.get(name, "") or ""
    for name, subtype in (("text", "plain"), ("html", "html")):
        text, left_out = text_of(part, subtype, wanted.text_limit)
        yield name, text or ""
        if left_out:
            yield f"{name}-left-out", "true"
    yield "sender", str(facts.envelope.sender or "")
    yield "recipient", ", ".join(str(each.address) for each in facts.recipients)
    addresses = [str(each.address) for each in facts.recipients]
    yield "envelope", _encode({"from": str(facts.envelope.sender or ""), "to": addresses, **envelope_of(facts)})
    yield "message-headers", _encode([[name, value] for name, value in header])
    yield "client", _encode(client_of(facts))
    yield "id", facts.envelope.id
    yield "timestamp", _time(facts)
    yield "arguments", _encode(dict(facts.arguments))
    yield "size", str(source.size)
    yield "attachments", str(len(attachments))
    yield "attachment-info", _encode({f"attachment{each.number}": each.told() for each in attachments})


def _opening(boundary: str, name: str, filename: str = "", kind: str = "") -> bytes:
    """The head of a part of the form.  Names are escaped as browsers do (HTML, "multipart/form-data")."""
    lines = f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"'
    if filename:
        lines += f'; filename="{_escaped(filename)}"\r\nContent-Type: {_printable(kind)}'
    return lines.encode("utf-8", "replace") + b"\r\n"


def _escaped(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _printable(kind: str) -> str:
    return kind if kind.isascii() and kind.isprintable() else "application/octet-stream"
