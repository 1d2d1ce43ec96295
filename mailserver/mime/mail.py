"""
A mail to be written: who to whom, a subject, texts, files.  `encode` writes it; here it becomes a tree of parts.

In: plain Python values.  Out: `Mail`, whose `part()` is the tree: alternative within related within mixed, and none
of them where one part is enough.
Failures: `EncodeError` when the mail is made, with the name of the field and the value: an address that is none, a
header that is given twice, a name with a line end in it.

RFC 5322 3.6 (fields), 6854 (groups); RFC 2046 5.1 (multipart); RFC 2387 (related), RFC 2392 (cid: URLs), RFC 2183.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import cast

from mailserver.address import Address
from mailserver.mime.addresses import (
    AddressListError,
    Group,
    NamedAddress,
    format_addresses,
    mailboxes,
    parse_addresses,
)
from mailserver.mime.fields import ADDRESS_FIELDS, EncodeError, encode_field
from mailserver.mime.part import Content as GivenContent
from mailserver.mime.part import Part
from mailserver.mime.stamps import format_date
from mailserver.mime.values import Disposition

#: What a caller may give where addresses are wanted: text is read by `parse_addresses(strict=True)`.
Addresses = str | Address | NamedAddress | Group | Sequence["str | Address | NamedAddress | Group"]
#: The octets or the text of a part: also a path, a file that is open for octets, or what opens one.
Content = GivenContent | os.PathLike[str] | Part

#: RFC 5322 3.6: at most one of each.  Those of MIME are written by us.
_SINGLE = frozenset(
    {"date", "from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject"}
    | {"return-path"}
)
_OURS = frozenset({"mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#  What may stand between the brackets of Content-ID, and behind `cid:` (RFC 2392).
_CONTENT_ID = re.compile(r"[!-;=?-Z^-~]{1,200}\Z")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+\-]{1,127}/[A-Za-z0-9!#$&^_.+\-]{1,127}\Z")
# The types that Python knows, without those of this machine: the same everywhere.
_TYPES = mimetypes.MimeTypes(filenames=())


@dataclass(frozen=True, slots=True)
class Attachment:
    """
    A file in a mail.

    name: the file's name without folders, or "".  content: octets, text (written as UTF-8), a path, a file that is
    open for octets (it is read once, when the mail is encoded), what opens one, or a `Part` to be sent as a message.
    type: "image/png"; guessed from the name when it is "".  content_id: by which HTML names it, `cid:logo`; for
    `inline` of `Mail` the name where it is "".  description: Content-Description.
    Raises EncodeError for a name with control characters, a type or a content id that is none.
    """

    name: str
    content: Content = field(repr=False)
    type: str = ""
    _: KW_ONLY
    content_id: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if _CONTROL.search(self.name):
            raise EncodeError("attachment", self.name, "a control character in the name")
        if self.type and (not _TYPE.match(self.type) or self.type.lower().startswith("multipart/")):
            raise EncodeError("attachment", self.type, "not a media type of a file")
        if self.content_id and not _CONTENT_ID.match(self.content_id):
            raise EncodeError("Content-ID", self.content_id, "not a content id")

    def part(self, kind: str = "attachment") -> Part:
        """The part for it.  kind: "attachment" or "inline"."""
        media_type, _, subtype = (self.type or self._guess()).lower().partition("/")
        headers: list[tuple[str, str]] = []
        content_id = self.content_id
        if kind == "inline" and not content_id and _CONTENT_ID.match(self.name):
            content_id = self.name
        if content_id:
            headers.append(("Content-ID", f"<{content_id}>"))
        if self.description:
            headers.append(("Content-Description", self.description))
        disposition = Disposition(kind, {"filename": self.name} if self.name else {})
        if isinstance(self.content, Part):
            return Part("message", "rfc822", headers=headers, disposition=disposition, parts=[self.content])
        parameters = {"charset": "utf-8"} if isinstance(self.content, str) else {}
        return Part(
            media_type,
            subtype,
            content=_readable(self.content),
            parameters=parameters,
            headers=headers,
            disposition=disposition,
        )

    def _guess(self) -> str:
        if isinstance(self.content, Part):
            return "message/rfc822"
        guessed, packed = _TYPES.guess_type(self.name, strict=False)
        if guessed and not packed and not guessed.startswith("multipart/"):
            return guessed
        return "text/plain" if isinstance(self.content, str) else "application/octet-stream"


def _readable(content: GivenContent | os.PathLike[str]) -> GivenContent:
    if isinstance(content, os.PathLike):
        path = os.fspath(content)
        return lambda: open(path, "rb")
    return content


@dataclass(frozen=True, slots=True, repr=False)
class Mail:
    """
    A mail.  All is checked when it is made; `encode` and `encode_blocks` write it.

    from_, to, cc, bcc, reply_to: text as in a field ("Jo <jo@example.org>, team: a@example.org;"), `Address`,
    `NamedAddress`, `Group`, or a sequence of these; kept as tuples of the last two.  bcc is never written unless
    asked.  subject, text, html: any text.  attachments: files behind the text.  inline: files in the HTML (`cid:`).
    headers: further fields, a mapping or pairs, written behind the usual ones; one of these (Date, Sender...)
    replaces what would have been made.  date: seconds since 1970, or a datetime.  message_id: with its brackets.
    in_reply_to, references: identifiers with their brackets; a sequence or a text.
    Raises EncodeError.
    """

    from_: Addresses
    to: Addresses = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    attachments: Sequence[Attachment] = ()
    inline: Sequence[Attachment] = ()
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    _: KW_ONLY
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    date: datetime | float | None = None
    message_id: str = ""
    in_reply_to: str | Sequence[str] = ()
    references: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("from_", "to", "cc", "bcc", "reply_to"):
            object.__setattr__(self, name, _addresses(_FIELDS[name], getattr(self, name)))
        if not mailboxes(self._list("from_")):
            raise EncodeError("From", "", "the author is missing")
        if any(isinstance(each, Group) for each in self._list("from_")):
            raise EncodeError("From", format_addresses(self._list("from_")), "a group is no author")
        for name in ("in_reply_to", "references"):
            object.__setattr__(self, name, _identifiers(_FIELDS[name], getattr(self, name)))
        if self.message_id:
            identifiers = _identifiers("Message-ID", self.message_id)
            if len(identifiers) != 1:
                raise EncodeError("Message-ID", self.message_id, "not one identifier in angle brackets")
            object.__setattr__(self, "message_id", identifiers[0])
        _no_line_end("Subject", self.subject)
        given = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        object.__setattr__(self, "headers", tuple(self._checked(given)))
        object.__setattr__(self, "attachments", tuple(self.attachments))
        object.__setattr__(self, "inline", tuple(self.inline))

    def _list(self, name: str) -> tuple[NamedAddress | Group, ...]:
        found: tuple[NamedAddress | Group, ...] = getattr(self, name)
        return found

    def _checked(self, given: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
        seen = {_FIELDS[name].lower() for name in _FIELDS if getattr(self, name)}
        if self.date is not None:
            seen.add("date")
        if self.subject:
            seen.add("subject")
        for name, value in given:
            lower = name.lower()
            if lower in _OURS:
                raise EncodeError(name, value, "is written from the parts of the mail, it cannot be given")
            if lower in _SINGLE and lower in seen:
                raise EncodeError(name, value, "is given twice")
            seen.add(lower)
            if lower in ADDRESS_FIELDS:
                value = format_addresses(_addresses(name, value))
            else:
                _no_line_end(name, value)
                encode_field(name, value, utf8=True)
            yield name, value

    def __repr__(self) -> str:
        return f"<Mail from {self.sender} to {len(self.recipients)}, {len(self.attachments)} attachments>"  # no text

    @property
    def recipients(self) -> tuple[Address, ...]:
        """Everybody in To, Cc and Bcc, each once: the envelope's recipients."""
        found = mailboxes((*self._list("to"), *self._list("cc"), *self._list("bcc")))
        return tuple(dict.fromkeys(each.address for each in found if each.address is not None))

    @property
    def sender(self) -> Address:
        """The first author: the envelope's sender, if there is no other."""
        address = mailboxes(self._list("from_"))[0].address
        assert address is not None  # _addresses has seen to it
        return address

    def part(self) -> Part:
        """
        The tree, with the header fields that the mail has, Bcc among them; `encode` adds those that it must have.
        """
        part = self._body()
        for at, (name, value) in enumerate(self._fields()):
            part.headers.insert(at, name, value)
        return part

    def _fields(self) -> Iterable[tuple[str, str]]:
        given = cast("tuple[tuple[str, str], ...]", self.headers)  # __post_init__ has made it so
        names = {name.lower() for name, _ in given}
        if self.date is not None:
            yield "Date", format_date(self.date)
        yield "From", format_addresses(self._list("from_"))
        if len(self._list("from_")) > 1 and "sender" not in names:
            yield "Sender", str(self.sender)  # RFC 5322 3.6.2: several authors need one
        for name in ("reply_to", "to", "cc", "bcc"):
            if self._list(name):
                yield _FIELDS[name], format_addresses(self._list(name))
        if self.subject:
            yield "Subject", self.subject
        if self.message_id:
            yield "Message-ID", self.message_id
        if self.in_reply_to:
            yield "In-Reply-To", " ".join(self.in_reply_to)
        references = [*self.references, *(each for each in self.in_reply_to if each not in self.references)]
        if references and "references" not in names:
            yield "References", " ".join(references)
        yield from given

    def _body(self) -> Part:
        inline = [each.part("inline") for each in self.inline]
        bodies: list[Part] = []
        if self.text is not None or self.html is None:
            bodies.append(_text_part("plain", self.text or ""))
        if self.html is not None:
            html = _text_part("html", self.html)
            if inline:
                html = Part("multipart", "related", parameters={"type": "text/html"}, parts=[html, *inline])
                inline = []
            bodies.append(html)
        body = bodies[0] if len(bodies) == 1 else Part("multipart", "alternative", parts=bodies)
        files = [*inline, *(each.part() for each in self.attachments)]
        if not files:
            return body
        if self.text is None and self.html is None:
            return Part("multipart", "mixed", parts=files)
        return Part("multipart", "mixed", parts=[body, *files])


_FIELDS = {
    "from_": "From",
    "to": "To",
    "cc": "Cc",
    "bcc": "Bcc",
    "reply_to": "Reply-To",
    "message_id": "Message-ID",
    "in_reply_to": "In-Reply-To",
    "references": "References",
}


def _text_part(subtype: str, text: str) -> Part:
    charset = "us-ascii" if text.isascii() else "utf-8"
    return Part("text", subtype, content=text, parameters={"charset": charset})


def _addresses(field_name: str, given: Addresses) -> tuple[NamedAddress | Group, ...]:
    """What a caller gave as addresses, checked."""
    if isinstance(given, str):
        if not given.strip():
            return ()
        try:
            return tuple(parse_addresses(given, strict=True))
        except AddressListError as error:
            raise EncodeError(field_name, given, f"{error.reason} ({error})") from None
    if isinstance(given, Address):
        given = NamedAddress("", str(given))
    if isinstance(given, Group):
        for member in given.members:
            _addresses(field_name, member)
        return (given,)
    if isinstance(given, NamedAddress):
        if given.address is None:
            raise EncodeError(field_name, given.text, "not an address")
        return (given,)
    found: list[NamedAddress | Group] = []
    for each in given:
        one = _addresses(field_name, each)
        if not one:
            raise EncodeError(field_name, str(each), "an empty address")
        found += one
    return tuple(found)


def _identifiers(field_name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Identifiers with their brackets, each once, in their order."""
    words = [word for each in ([given] if isinstance(given, str) else given) for word in each.split()]
    for word in words:
        if not _IDENTIFIER.match(word):
            raise EncodeError(field_name, word, "not an identifier in angle brackets")
    return tuple(dict.fromkeys(words))


#  msg-id = "<" id-left "@" id-right ">"; those of others, which we must quote, are often without the at sign.
_IDENTIFIER = re.compile(r"<[^\x00- <>\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,900}>\Z")


def _no_line_end(name: str, value: str) -> None:
    if re.search(r"[\r\n\0]", value):
        raise EncodeError(name, value, "a line end or NUL in a header field")
