"""
From a tree of parts, or a `Mail`, to the octets of a mail.

In: a `Part` that a program made or `decode` gave, or a `Mail`.  Out: octets, whole or block by block: CRLF line ends,
no line over 998 octets, 7 bits unless more is asked for.  Files are read while they are written out, never as a
whole.
Failures: `EncodeError` before the first block, for what cannot be written as it was given; never for a part
that was read.  OSError of a file, when its turn comes.

Headers keep their order and their duplicates; a field that was read goes as it stood, where that may go.  What
describes a part (Content-Type, Content-Transfer-Encoding, Content-Disposition, boundaries) is written anew.
RFC 5322 2.1, 3.6; RFC 2045 (MIME), RFC 2046 5.1 (multipart), 5.2.1 (message/rfc822), RFC 1847 2.1 (signed parts),
RFC 6532 (utf8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from mailserver.mime.decode import decode
from mailserver.mime.fields import EncodeError
from mailserver.mime.mail import Mail
from mailserver.mime.part import MESSAGE_TYPES, Part
from mailserver.mime.sections import Section, Style
from mailserver.mime.stamps import generate_boundary, random_token
from mailserver.mime.transfer import BLOCK, UNKNOWN_ENCODING, choose, encode_transfer, make_decoder, survey

#: Parts within parts; what `decode` gives is at most 100 deep, and a mail around it adds a few.
MOST_DEPTH = 200


def encode(
    mail: Part | Mail,
    *,
    utf8: bool = False,
    eight_bit: bool = False,
    bcc: bool = False,
    complete: bool = False,
    now: float | None = None,
    token: Callable[[], str] = random_token,
    domain: str = "",
) -> bytes:
    """The whole mail.  The arguments are those of `Style`.  Raises EncodeError, and OSError of a file."""
    return b"".join(blocks_in_style(mail, Style(utf8, eight_bit, bcc, complete, now, token, domain)))


def encode_blocks(
    mail: Part | Mail,
    *,
    utf8: bool = False,
    eight_bit: bool = False,
    bcc: bool = False,
    complete: bool = False,
    now: float | None = None,
    token: Callable[[], str] = random_token,
    domain: str = "",
) -> Iterator[bytes]:
    """
    The same in blocks, in memory that does not grow with the files in it.  The arguments are those of `Style`.

    Text files that can be read twice are read twice: first to choose their transfer encoding.
    Raises EncodeError at once, and OSError of a file when its turn comes.
    """
    return blocks_in_style(mail, Style(utf8, eight_bit, bcc, complete, now, token, domain))


def blocks_in_style(mail: Part | Mail, style: Style) -> Iterator[bytes]:
    """What `encode_blocks` gives, with its arguments as one value."""
    if isinstance(mail, Mail):
        mail = mail.part()
        style = replace(style, complete=True)
    tree = _Tree(style)
    tree.add(mail, whole=True)
    return tree.blocks()


@dataclass(frozen=True, slots=True)
class _Body:
    """A body that is yet to be read.  encoding: as it is to be written."""

    blocks: Callable[[], Iterable[bytes]]
    encoding: str


class _Tree:
    """The pieces of the mail in their order: octets, and bodies."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._pieces: list[bytes | _Body] = []

    def blocks(self) -> Iterator[bytes]:
        """What the pieces are, with neighbours that are in memory put together."""
        waiting: list[bytes] = []
        for piece in self._pieces:
            if isinstance(piece, bytes):
                waiting.append(piece)
                continue
            if waiting:
                yield b"".join(waiting)
                waiting = []
            yield from encode_transfer(piece.blocks(), piece.encoding)
        last = self._pieces[-1]
        if last.endswith(b"--") if isinstance(last, bytes) else last.encoding == "base64":
            waiting.append(b"\r\n")  # in a part the next delimiter brings it
        if waiting:
            yield b"".join(waiting)

    def add(self, part: Part, *, whole: bool, in_digest: bool = False, depth: int = 1) -> bool:
        """
        Add a part, and all in it.  whole: is it a mail?  in_digest: then message/rfc822 need not be said.

        True when it has octets above 127, so that what is around it must say 8bit (RFC 2045 6.4).
        """
        if depth > MOST_DEPTH:
            raise EncodeError("parts", part.content_type, f"more than {MOST_DEPTH} of them within each other")
        part = self._message_taken_apart(part)
        section = Section(part, self._style, whole=whole, in_digest=in_digest)
        place = len(self._pieces)
        self._pieces.append(b"")
        if part.is_multipart and part.parts:
            signed = self._signed(part, section)
            eight_bit = self._multipart(part, section, depth) if signed is None else signed
        elif part.type == "message" and part.parts:
            eight_bit = self._message(part, section, depth)
        else:
            eight_bit = self._leaf(part, section)
        octets = section.octets()
        self._pieces[place] = octets
        return eight_bit or not octets.isascii()

    def _message_taken_apart(self, part: Part) -> Part:
        """
        A message that a program gave as octets, and that cannot go as they are: its parts are encoded instead, as it
        must not be itself (RFC 2046 5.2.1).
        """
        if part.content_type not in MESSAGE_TYPES or part.parts or part.extent is not None:
            return part
        found = None if _once(part) else survey(part.blocks(BLOCK))
        if found is not None and found.plain and (found.ascii or self._style.eight_bit):
            return part
        return Part(
            part.type,
            part.subtype,
            parameters=part.parameters,
            headers=part.headers,
            disposition=part.disposition,
            parts=[decode(part.content)],
        )

    def _signed(self, part: Part, section: Section) -> bool | None:
        """
        Add a signed multipart that was read as it stood, if it may go so: any other octet would break its signature
        (RFC 1847 2.1).  None when it was not added, else True when it has octets above 127.
        """
        if part.subtype != "signed" or part.extent is None or not part.parameters.get("boundary"):
            return None
        found = survey(part.blocks(BLOCK))
        if not found.plain or not (found.ascii or self._style.eight_bit):
            return None
        section.encoding = "7bit" if found.ascii else "8bit"
        section.boundary = part.parameters["boundary"]
        self._pieces.append(_Body(lambda: part.blocks(BLOCK), section.encoding))
        return not found.ascii

    def _multipart(self, part: Part, section: Section, depth: int) -> bool:
        section.boundary = generate_boundary(self._style.token())
        delimiter = b"--" + section.boundary.encode("ascii")
        eight_bit = False
        for at, inner in enumerate(part.parts):
            self._pieces.append((b"\r\n" if at else b"") + delimiter + b"\r\n")
            eight_bit |= self.add(inner, whole=False, in_digest=part.subtype == "digest", depth=depth + 1)
        self._pieces.append(b"\r\n" + delimiter + b"--")
        section.encoding = "8bit" if eight_bit else "7bit"
        return eight_bit

    def _message(self, part: Part, section: Section, depth: int) -> bool:
        outer = self._style
        # A message in a message is what it is: nothing is added to it, nothing asked of it, Bcc stays.  Fields in
        # UTF-8 are for message/global (RFC 6532 3.7).
        self._style = replace(outer, utf8=outer.utf8 and part.subtype == "global", complete=False, bcc=True)
        try:
            eight_bit = self.add(part.parts[0], whole=True, depth=depth + 1)
        finally:
            self._style = outer
        section.encoding = "8bit" if eight_bit else "7bit"
        return eight_bit

    def _leaf(self, part: Part, section: Section) -> bool:
        if part.is_multipart:
            return self._empty(part, section)
        given = part.given
        if isinstance(given, str):
            octets, section.charset = text_octets(given, part.parameters.get("charset", ""), text=part.type == "text")
            blocks = _always([octets])
        else:
            blocks = _blocks_of(part)
        section.encoding = self._encoding(part, blocks)
        self._pieces.append(_Body(blocks, section.encoding))
        return section.encoding == "8bit"

    def _empty(self, part: Part, section: Section) -> bool:
        """Add a multipart without parts: nothing that `decode` could make a part of, but maybe text before an end."""
        if part.extent is None:
            raise EncodeError("parts", part.content_type, "has none")
        found = survey(part.blocks(BLOCK))
        if found.plain and (found.ascii or self._style.eight_bit):
            section.encoding = "7bit" if found.ascii else "8bit"
            self._pieces.append(_Body(_blocks_of(part), section.encoding))
            return not found.ascii
        section.boundary = generate_boundary(self._style.token())
        self._pieces.append(f"--{section.boundary}--".encode("ascii"))
        return False

    def _encoding(self, part: Part, blocks: Callable[[], Iterable[bytes]]) -> str:
        """The transfer encoding for a leaf: the one that was declared, if it can be, else what the octets need."""
        declared = part.encoding or ""
        if declared in ("base64", "quoted-printable") and part.type != "message":
            return declared
        text = part.type in ("text", "message")
        may_be_plain = text or part.extent is not None or declared in ("7bit", "8bit", "binary")
        if not may_be_plain or _once(part):
            return "base64"
        found = survey(blocks())
        if found.plain and (found.ascii or self._style.eight_bit):
            if part.extent is not None and found.ascii and _is_unknown(declared):
                return declared  # nobody knows what it means, so it is said on
            return "7bit" if found.ascii else "8bit"
        return choose(found, text=text, eight_bit=self._style.eight_bit)


#  token, as far as anybody has ever named an encoding
_ENCODING_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,60}\Z")


def _is_unknown(encoding: str) -> bool:
    return make_decoder(encoding).problem == UNKNOWN_ENCODING and _ENCODING_NAME.match(encoding) is not None


def _once(part: Part) -> bool:
    """Can its content be read once only?"""
    given = part.given
    return given is not None and not isinstance(given, str | bytes) and not callable(given) and not given.seekable()


def _always(blocks: list[bytes]) -> Callable[[], Iterable[bytes]]:
    return lambda: blocks


def _blocks_of(part: Part) -> Callable[[], Iterable[bytes]]:
    return lambda: part.blocks(BLOCK)


def text_octets(given: str, charset: str, *, text: bool) -> tuple[bytes, str]:
    """
    What a program gave as text, as octets, and their charset: the one it wants if that has all of the characters,
    else UTF-8.  text: is it of type text?  Then its lines end with CRLF (RFC 2046 4.1.1).
    """
    if text:
        given = given.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    try:
        return given.encode(charset or "us-ascii"), charset or "us-ascii"
    except (LookupError, UnicodeError):
        return given.encode("utf-8", "replace"), "utf-8"
