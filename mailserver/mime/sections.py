"""
The header section of one part, as it is written.

In: a part, and what its body turned out to need.  Out: the fields in their order, with the empty line behind them.
Failures: `EncodeError` for what a program made and cannot be written.  What was read never fails: a field goes as it
stood where that may go, else it is written anew from what it says; one whose name fits no line is left out.

RFC 5322 3.6 (fields), RFC 2045 3 to 8 (those of MIME), RFC 6532 3 (utf8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mailserver.mime.addresses import AddressListError, Group, NamedAddress, mailboxes, parse_addresses
from mailserver.mime.fields import (
    ADDRESS_FIELDS,
    LONGEST_LINE,
    EncodeError,
    address_field,
    encode_field,
    is_structured,
    parameter_field,
    structured_field,
    text_field,
)
from mailserver.mime.headers import Field
from mailserver.mime.parameters import parse_content_type, parse_disposition
from mailserver.mime.part import Part
from mailserver.mime.stamps import format_date, generate_message_id, random_token
from mailserver.mime.words import decode_8bit


@dataclass(frozen=True, slots=True)
class Style:
    """
    How a mail is written.

    utf8: header fields in UTF-8 (RFC 6532), to be sent with SMTPUTF8 only.  eight_bit: bodies may go as 8bit, to be
    sent with 8BITMIME only.  bcc: Bcc and Resent-Bcc are written.  complete: a `Part` gets Date, Message-ID and
    MIME-Version if it has none, and must have From, as a `Mail` always does (RFC 5322 3.6).
    now: seconds since 1970, for Date and Message-ID; None: now.  token: gives 32 random characters, for boundaries
    and Message-ID.  domain: of Message-ID; that of the author when it is "".
    """

    utf8: bool = False
    eight_bit: bool = False
    bcc: bool = False
    complete: bool = False
    now: float | None = None
    token: Callable[[], str] = random_token
    domain: str = ""


_MIME_VERSION = "mime-version"
_TYPE, _ENCODING, _DISPOSITION = "content-type", "content-transfer-encoding", "content-disposition"
#: What we write anew; of several only the first counts.
_OURS = frozenset({_MIME_VERSION, _TYPE, _ENCODING, _DISPOSITION})
_BLIND = frozenset({"bcc", "resent-bcc"})
_IDENTIFIER = re.compile(r"<[^<>\s]+>")
_PARAMETER_NAME = re.compile(r"[A-Za-z0-9!#$&+.^_`{|}~\-]{1,60}\Z")
# A type of two of these fits into a line.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]{1,400}\Z")


class Section:
    """
    The header section of a part.  whole: of a mail.  in_digest: of a part of multipart/digest (RFC 2046 5.1.5).

    encoding, boundary, charset: set by whoever writes the body, before `octets` is asked for; "" leaves the part's
    own.
    """

    def __init__(self, part: Part, style: Style, *, whole: bool, in_digest: bool = False) -> None:
        self.encoding = "7bit"
        self.boundary = ""
        self.charset = ""
        self._part = part
        self._style = style
        self._whole = whole
        self._in_digest = in_digest

    def octets(self) -> bytes:
        """The fields, each with its CRLF, and the empty line.  Raises EncodeError."""
        written: list[bytes] = []
        seen: set[str] = set()
        for field in self._part.headers.fields:
            name = field.name.lower()
            if name in _OURS:
                if name not in seen:
                    written.append(self._ours(name, field))
            elif name not in _BLIND or self._style.bcc:
                written.append(self._other(field, name))
            seen.add(name)
        complete = self._whole and self._style.complete
        if complete:
            written += self._completed(seen)
        ours = [self._ours(name, None) for name in (_TYPE, _ENCODING, _DISPOSITION) if name not in seen]
        if self._whole and _MIME_VERSION not in seen:
            describes = any(ours) or any(name.startswith("content-") for name in seen)
            if complete or describes:
                written.append(b"MIME-Version: 1.0\r\n")
        return b"".join([*written, *ours, b"\r\n"])

    # -- fields that are not ours ----------------------------------------------------------------------------------

    def _other(self, field: Field, name: str) -> bytes:
        if field.raw:
            return as_it_stood(field, utf8=self._style.utf8) or self._again(field, name)
        utf8 = self._style.utf8
        # What a program gave as octets is what shall stand there; what it gave as text is what shall be meant.
        on_the_wire = field.body != field.value.strip(" \t").encode()
        if name in ADDRESS_FIELDS:
            try:
                addresses = parse_addresses(decode_8bit(field.body), strict=True)
            except AddressListError as error:
                raise EncodeError(field.name, field.value, error.reason) from None
            return address_field(field.name, addresses, utf8=utf8)
        if on_the_wire and field.body.isascii():
            return structured_field(field.name, field.body.decode("ascii"), utf8=utf8)
        return encode_field(field.name, field.value, utf8=utf8)

    def _again(self, field: Field, name: str) -> bytes:
        """A field that was read and cannot go as it stood."""
        utf8 = self._style.utf8
        try:
            if name in ADDRESS_FIELDS:
                addresses = _writable(parse_addresses(decode_8bit(field.body)), utf8=utf8)
                return address_field(field.name, addresses, utf8=utf8)
            if is_structured(name):
                return structured_field(field.name, decode_8bit(field.body), utf8=utf8)
        except EncodeError:
            pass  # then it is text, which always goes
        try:
            return text_field(field.name, field.value, utf8=utf8)
        except EncodeError:
            return b""

    def _completed(self, seen: set[str]) -> Iterable[bytes]:
        """What a mail must have (RFC 5322 3.6), and should have (3.6.4), if it has not."""
        headers, style = self._part.headers, self._style
        author = headers.find("from")
        if author is None:
            raise EncodeError("From", "", "is missing")
        if "date" not in seen:
            yield structured_field("Date", format_date(style.now))
        if "message-id" not in seen:
            found = mailboxes(parse_addresses(decode_8bit(author.body)))
            domains = [each.address.ascii_domain for each in found if each.address is not None]
            domain = style.domain or next(iter(domains), "localhost")
            try:
                made = generate_message_id(domain, now=style.now, token=style.token())
            except ValueError as error:
                raise EncodeError("Message-ID", domain, str(error)) from None
            yield structured_field("Message-ID", made)
        if "references" not in seen and (parent := headers.get("in-reply-to")):
            identifiers = dict.fromkeys(_IDENTIFIER.findall(parent))
            if identifiers:
                yield structured_field("References", " ".join(identifiers), utf8=style.utf8)

    # -- fields that describe the part -----------------------------------------------------------------------------

    def _ours(self, name: str, field: Field | None) -> bytes:
        if name == _TYPE:
            return self._type(field)
        if name == _DISPOSITION:
            return self._disposition(field)
        if name == _MIME_VERSION:
            return b"MIME-Version: 1.0\r\n"
        if field is None and self.encoding == "7bit":
            return b""  # RFC 2045 6.1: what is not said is 7bit
        return structured_field("Content-Transfer-Encoding", self.encoding)

    def _type(self, field: Field | None) -> bytes:
        part = self._part
        parameters = dict(part.parameters)
        if self.charset:
            parameters["charset"] = self.charset
        if self.boundary:
            parameters["boundary"] = self.boundary
        if field is None:
            plain = not parameters or {*parameters.items()} == {("charset", "us-ascii")}
            if plain and part.content_type == ("message/rfc822" if self._in_digest else "text/plain"):
                return b""  # RFC 2045 5.2, RFC 2046 5.1.5
        elif field.raw:
            said = parse_content_type(field.body)
            if (said.type, said.subtype, said.parameters) == (part.type, part.subtype, parameters):
                stood = as_it_stood(field, utf8=self._style.utf8)
                if stood:
                    return stood
        value = part.content_type
        if part.extent is not None:
            parameters = {key: each for key, each in parameters.items() if _PARAMETER_NAME.match(key)}
            if not (_TOKEN.match(part.type) and _TOKEN.match(part.subtype)):
                value = "multipart/mixed" if part.is_multipart else "application/octet-stream"
        return parameter_field("Content-Type", value, parameters.items(), utf8=self._style.utf8)

    def _disposition(self, field: Field | None) -> bytes:
        disposition = self._part.disposition
        if disposition is None:
            return b""
        if field is not None and field.raw and parse_disposition(field.body)[0] == disposition:
            stood = as_it_stood(field, utf8=self._style.utf8)
            if stood:
                return stood
        kind, parameters = disposition.kind, disposition.parameters
        if self._part.extent is not None:
            parameters = {key: each for key, each in parameters.items() if _PARAMETER_NAME.match(key)}
            kind = kind if _TOKEN.match(kind) else "attachment"
        return parameter_field("Content-Disposition", kind, parameters.items(), utf8=self._style.utf8)


def _writable(addresses: Iterable[NamedAddress | Group], *, utf8: bool) -> Iterator[NamedAddress | Group]:
    """
    The same, with an empty group in place of each mailbox that cannot be written, as RFC 6857 does.

    As text it could not stand there: what its encoded words hold could become an address that was none.
    """
    for each in addresses:
        members = each.members if isinstance(each, Group) else (each,)
        right = tuple(member for member in members if _goes(member, utf8=utf8))
        if isinstance(each, Group):
            yield Group(each.name, right)
        else:
            yield from right
        for member in members:
            if member not in right and (shown := f"{member.name} {member.text}".strip()):
                yield Group(shown)


def _goes(mailbox: NamedAddress, *, utf8: bool) -> bool:
    address = mailbox.address
    return address is not None and (utf8 or address.local.isascii())


# Looking back keeps the time linear: of a run of CRs only the first can begin a match.
_LINE_END = re.compile(rb"(?<!\r)\r*+\n")


def as_it_stood(field: Field, *, utf8: bool) -> bytes:
    """
    A field that was read, line by line as it stood, with CRLF; b"" if it may not go so: a line over 998 octets or of
    blanks only, a CR or NUL in it, a blank before the colon, octets above 127 (with utf8: that are no UTF-8).
    """
    raw = field.raw
    if not raw.isascii():
        if not utf8:
            return b""
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return b""
    if not raw.startswith(field.name.encode("ascii") + b":"):
        return b""
    lines = _LINE_END.split(raw.rstrip(b"\r\n"))
    for at, line in enumerate(lines):
        if len(line) > LONGEST_LINE or b"\r" in line or b"\0" in line or (at and not line.strip(b" \t")):
            return b""
    return b"\r\n".join([*lines, b""])
