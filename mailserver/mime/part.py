"""
A part of a mail, and so a mail: what it is, what it holds, and the parts in it.

In: a place in a mail that was decoded (`decode.py`), or what a program says.
Out: headers, content, text, attachments, defects.
Nothing is read before it is asked for: content of a mail on disk stays there.
Failures: none for bad mail, `defects` has what was wrong; OSError of the file in which the mail is.

RFC 2045, 2046 (media types), 2183 (Content-Disposition), 2392 (Content-ID).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

from mailserver.mime.charsets import decode_text
from mailserver.mime.extents import Extent, examine, find_bare_newlines, read_encoding
from mailserver.mime.headers import Headers
from mailserver.mime.parameters import parse_disposition
from mailserver.mime.source import BLOCK
from mailserver.mime.transfer import decode_blocks, find_uuencoded, is_plain
from mailserver.mime.values import Defect, Disposition
from mailserver.mime.words import decode_8bit

#: What a program may give as content.
Content = str | bytes | BinaryIO | Callable[[], BinaryIO]

#: Types of which the content is another mail.
MESSAGE_TYPES = ("message/rfc822", "message/global", "message/news")

#: HTML says its charset itself, where the mail does not (HTML 4.2.5.4; the first 1,024 octets).
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


class Part:
    """
    One part.  type, subtype: lower case.  parts: those of a multipart, or the one message in a message/rfc822; of all
    other types empty.

    type, parameters, disposition and encoding are what was read, or given; changing `headers` does not change them.
    """

    __slots__ = (
        "_content",
        "_disposition",
        "_encoding",
        "_headers",
        "_parameters",
        "_start",
        "extent",
        "parts",
        "subtype",
        "type",
    )

    def __init__(
        self,
        type: str = "text",  # noqa: A002 - the standard's term
        subtype: str = "plain",
        *,
        content: Content = b"",
        parameters: dict[str, str] | None = None,
        headers: Headers | Iterable[tuple[str, str | bytes]] = (),
        disposition: Disposition | str | None = None,
        parts: Sequence[Part] = (),
        encoding: str | None = None,
    ) -> None:
        """
        A part that a program makes.

        content: text, octets, a file object (from where it stands), or something that opens one each time.
        encoding: the transfer encoding to write it with; None leaves the choice to the writer.
        Raises ValueError for headers that are none, see `Headers.add`.
        """
        self.type = type.lower()
        self.subtype = subtype.lower()
        self.parts = list(parts)
        self.extent: Extent | None = None
        self._content: Content | None = content
        self._start = 0
        if not isinstance(content, str | bytes) and not callable(content) and content.seekable():
            self._start = content.tell()
        self._parameters: dict[str, str] | None = {name.lower(): value for name, value in (parameters or {}).items()}
        self._headers: Headers | None = headers if isinstance(headers, Headers) else Headers(headers)
        # True: not read yet.
        self._disposition: Disposition | bool | None = (
            Disposition(disposition.lower()) if isinstance(disposition, str) else disposition
        )
        self._encoding: str | bool | None = encoding.lower() if encoding else None

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def content_type(self) -> str:
        """For example "text/plain"."""
        return f"{self.type}/{self.subtype}"

    @property
    def is_multipart(self) -> bool:
        """Is it a multipart, of whatever kind?"""
        return self.type == "multipart"

    @property
    def is_message(self) -> bool:
        """Does it hold another mail?"""
        return bool(self.parts) and self.type == "message"

    @property
    def parameters(self) -> dict[str, str]:
        """Those of Content-Type: keys in lower case, values decoded."""
        if self._parameters is None:
            self._parameters = self.extent.type.parameters if self.extent else {}
        return self._parameters

    @property
    def headers(self) -> Headers:
        """The header section."""
        if self._headers is None:
            assert self.extent is not None
            self._headers = self.extent.headers()
        return self._headers

    @property
    def disposition(self) -> Disposition | None:
        """Content-Disposition; None where there is none."""
        if self._disposition is True:
            field = self.headers.find("content-disposition")
            self._disposition = None if field is None else parse_disposition(field.body)[0]
        assert not isinstance(self._disposition, bool)
        return self._disposition

    @property
    def encoding(self) -> str | None:
        """The transfer encoding as it was declared, in lower case; None where none was."""
        if self._encoding is True:
            field = self.headers.find("content-transfer-encoding")
            self._encoding = None if field is None else read_encoding(field.body)
        assert not isinstance(self._encoding, bool)
        return self._encoding

    @property
    def filename(self) -> str:
        """
        The disposition's `filename`, else the `name` of Content-Type, else "".

        It is what the sender wrote, with any `/` and `..`: never use it as the name of a file as it is.
        """
        disposition = self.disposition
        name = disposition.parameters.get("filename", "") if disposition else ""
        return name or self.parameters.get("name", "")

    @property
    def content_id(self) -> str:
        """Content-ID without its angle brackets; "" where there is none."""
        return (self.headers.get("content-id") or "").strip().removeprefix("<").removesuffix(">").strip()

    def __repr__(self) -> str:
        return f"<Part {self.content_type}, {len(self.parts)} parts>"  # nothing of its text

    # -- what it holds ---------------------------------------------------------------------------------------------

    @property
    def given(self) -> Content | None:
        """What a program gave as the content; None for a part that was read."""
        return self._content if self.extent is None else None

    @property
    def raw(self) -> bytes:
        """The octets of the part as they stood, header section and all; b"" if a program made it."""
        extent = self.extent
        return b"" if extent is None else extent.source.read(extent.start, extent.end)

    @property
    def content(self) -> bytes:
        """
        What is behind the header section, without its transfer encoding.

        Of a message/rfc822 the message as it stood, of a multipart all that is between its header and its end.
        Kept, once it was asked for, if the mail is in memory; read again each time if it is on disk.
        """
        if isinstance(self._content, bytes):
            return self._content
        octets = b"".join(self._decoded(BLOCK))
        if self.extent is not None and self.extent.source.held:
            self._content = octets
        return octets

    @property
    def text(self) -> str:
        """
        The content as text: by its charset, else by a guess, with replacement characters where nothing fits.

        Lines end with LF.  Of a multipart it is "": ask `body()`.
        """
        if isinstance(self._content, str):
            text = self._content
        elif self.is_multipart:
            return ""
        else:
            octets = self.content
            text = decode_text(octets, self._charset(octets))[0]
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def _charset(self, octets: bytes) -> str:
        charset = self.parameters.get("charset", "")
        if not charset and self.subtype == "html" and (found := _HTML_CHARSET.search(octets[:1024])):
            charset = found[1].decode("ascii")
        return charset

    def blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """The content in blocks of 1 to `size` octets; memory is bounded by `size`."""
        if size < 1:
            raise ValueError("a block has at least one octet")
        for block in self._decoded(size):
            if len(block) <= size:
                yield block
            else:
                yield from (block[start : start + size] for start in range(0, len(block), size))

    def _decoded(self, size: int) -> Iterator[bytes]:
        content = self._content
        if isinstance(content, bytes):
            yield content
        elif isinstance(content, str):
            yield content.encode(self.parameters.get("charset", "utf-8"), "replace")
        elif content is None:
            extent = self.extent
            assert extent is not None
            octets = extent.blocks(size)
            plain = extent.verbatim or self.is_multipart or is_plain(self.encoding or "")
            yield from octets if plain else decode_blocks(octets, self.encoding or "")
        elif callable(content):
            with content() as file:
                yield from iter(lambda: file.read(size), b"")
        else:
            if content.seekable():
                content.seek(self._start)
            yield from iter(lambda: content.read(size), b"")

    # -- the parts in it -------------------------------------------------------------------------------------------

    def walk(self) -> Iterator[Part]:
        """This part and all in it, also those of messages in it, in the order in which they stand."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.parts))

    def _unwrapped(self) -> Part:
        """This part, or where it is a message itself, the mail in it."""
        part = self
        while part.is_message:
            part = part.parts[0]
        return part

    def body(self, preference: Sequence[str] = ("plain", "html")) -> Part | None:
        """
        The part with the text of the mail: the first text/... of the first subtype in `preference` that there is.

        Attachments, parts with a file name, and messages in the mail are not looked at.  None if there is none.
        """
        texts = [
            part
            for part, parent in _leaves(self._unwrapped())
            if part.type == "text" and (parent is None or not part.filename) and not _is_declared(part)
        ]
        for subtype in preference:
            for part in texts:
                if part.subtype == subtype:
                    return part
        return None

    @property
    def attachments(self) -> list[Part]:
        """
        The leaves that are attachments; a message in the mail is one, and what is in that message is not.

        An attachment is what says so, what has a file name, and what is no text.  Not: text without a name that is
        plain or HTML, or one of several alternatives; what stands in a multipart/related for its HTML to show, unless
        it says so.  Files that are uuencoded within plain text are attachments too, though they are no parts; their
        text stays where it is.
        """
        found: list[Part] = []
        for part, parent in _leaves(self._unwrapped()):
            if _is_attachment(part, parent):
                found.append(part)
            elif part.content_type == "text/plain" and part.extent is not None:
                found += [
                    Part(
                        "application",
                        "octet-stream",
                        content=octets,
                        disposition=Disposition("attachment", {"filename": decode_8bit(name)}),
                    )
                    for name, octets in find_uuencoded(part.content)
                ]
        return found

    # -- what is wrong with it -------------------------------------------------------------------------------------

    @property
    def defects(self) -> list[Defect]:
        """
        What is wrong with this part and all in it, in order of place; [] for what a program made.

        Structure was judged when the mail was decoded; headers and content are read for this, each time.
        """
        found: list[Defect] = []
        binary: list[tuple[int, int]] = []
        whole = self.extent
        for part in self.walk():
            extent = part.extent
            if extent is None:
                continue
            found += examine(extent, leaf=not part.parts)
            if whole is not None and extent.source is whole.source and (extent.verbatim or part.encoding == "binary"):
                binary.append((extent.body, extent.end))
        if whole is not None and whole.whole and whole.start == 0 and whole.source.anchor is None:
            found += find_bare_newlines(whole.source, binary)
        found.sort(key=lambda defect: defect.place)
        return found


class ReadPart(Part):
    """A part that was read from a mail, at `extent`."""

    __slots__ = ()

    def __init__(self, extent: Extent) -> None:
        self.type, self.subtype = extent.type.type, extent.type.subtype
        self.parts = []
        self.extent = extent
        self._content = self._headers = self._parameters = None
        self._disposition = self._encoding = True  # not read yet


def _leaves(part: Part) -> Iterator[tuple[Part, Part | None]]:
    """Parts that are no multiparts, and the multipart that each is in.  A message is one of them."""
    waiting: list[tuple[Part, Part | None]] = [(part, None)]
    while waiting:
        part, parent = waiting.pop()
        if part.is_multipart:
            waiting.extend((inner, part) for inner in reversed(part.parts))
        else:
            yield part, parent


def _is_declared(part: Part) -> bool:
    """Does it say that it is an attachment?  What is no disposition we know is one (RFC 2183 2.8)."""
    return part.disposition is not None and part.disposition.kind not in ("inline", "")


def _is_attachment(part: Part, parent: Part | None) -> bool:
    if _is_declared(part):
        return True
    within = parent.subtype if parent is not None else ""
    if within == "related":
        # What the HTML shows; a name alone makes no attachment of it.
        return False
    if part.type == "text":
        if parent is None:
            return False
        return bool(part.filename) or (within != "alternative" and part.subtype not in ("plain", "html", "enriched"))
    return True
