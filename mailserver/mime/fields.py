"""
One field of a header section, as it is written: encoded where it must be, folded, and nothing but one field.

In: a name and a value (text, addresses, identifiers, or a value with parameters).  Out: the field's lines with their
CRLFs.  Failures: `EncodeError`, which names the field and the value.
RFC 5322 2.1.1 (lines: 78 if possible, never over 998), 2.2.3 (folding); RFC 2047 (encoded words: 76 in a line);
RFC 6532 3.2 (utf8: nothing is encoded).
Security: every value ends here.  A CR, LF or NUL never gets through, wherever it comes from: in text and names it is
encoded, in names of fields, identifiers and addresses it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailserver.mime.addresses import Group, NamedAddress, format_name
from mailserver.mime.parameters import encode_parameters
from mailserver.mime.words import MOST_IN_A_WORD, encode_words

#: RFC 5322 2.1.1, without the CRLF.
USUAL_LINE, LONGEST_LINE = 78, 998
#: RFC 2047 2: a line with an encoded word in it.
_LINE_WITH_WORDS = 76
#: Less room than this at the end of a line is not worth a word of its own.
_LEAST_WORD = 30
_MOST_QUOTED = 120


class EncodeError(ValueError):
    """
    A mail cannot be written as it was given.

    field: the name of the header field, or what else it is about.  value: the text that does not go.  reason: why.
    """

    def __init__(self, field: str, value: str, reason: str) -> None:
        quoted = value if len(value) <= _MOST_QUOTED else value[:_MOST_QUOTED] + "..."
        super().__init__(f"{field}: {reason}: {quoted!r}")
        self.field = field
        self.value = value
        self.reason = reason


#: Fields that hold addresses (RFC 5322 3.6.2, 3.6.3, 3.6.6; RFC 8098 2.1), in lower case.
ADDRESS_FIELDS = frozenset(
    {"from", "sender", "reply-to", "to", "cc", "bcc", "disposition-notification-to", "mail-followup-to"}
    | {f"resent-{name}" for name in ("from", "sender", "reply-to", "to", "cc", "bcc")}
)
# Fields for programs: an encoded word would be no encoded word there.
_STRUCTURED = re.compile(
    r"(?:resent-)?(?:message-id|date)\Z|in-reply-to\Z|references\Z|received\Z|return-path\Z|auto-submitted\Z|precedence\Z"
    r"|mime-version\Z|content-(?:id|type|transfer-encoding|disposition|location|base|language|md5|duration)\Z"
    r"|list-(?:help|unsubscribe|unsubscribe-post|subscribe|post|owner|archive)\Z"
    r"|dkim-signature\Z|arc-|authentication-results\Z|autocrypt\Z|tls-required\Z"
)
# Fields that people read: a long word is encoded, so that lines stay short.  In others it may be a key or an URL.
_PROSE = frozenset({"subject", "comments", "content-description", "thread-topic"})

#  field-name = 1*ftext                         ftext = %d33-57 / %d59-126
_NAME = re.compile(r"[!-9;-~]{1,200}\Z")
_UNITS = re.compile(r"[ \t]*+[^ \t]++|[ \t]++\Z")
# U+2028 and U+2029 end lines for some programs; half a surrogate pair has no UTF-8.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LINE_END = re.compile(r"[\r\n\0]")
#: A run of blanks as long as this is encoded: it could make a line of blanks only.
_MOST_BLANKS = 40


def encode_field(name: str, value: str, *, utf8: bool = False) -> bytes:
    """
    A field of whatever name with a text as its value: as text, or for programs (RFC 5322 3.6.4 and others).

    For fields of addresses there is `address_field`.  Raises EncodeError.
    """
    return structured_field(name, value, utf8=utf8) if is_structured(name) else text_field(name, value, utf8=utf8)


def is_structured(name: str) -> bool:
    """Is this a field in which nothing may be encoded?"""
    return _STRUCTURED.match(name.lower()) is not None


def text_field(name: str, text: str, *, utf8: bool = False) -> bytes:
    """
    Unstructured text (RFC 5322 3.2.5), decoded by its reader to exactly `text`.

    From the first word to the last that cannot stand there as it is, all is in encoded words; the rest is readable.
    Text that looks like an encoded word is encoded too, so that it stays what it is.
    """
    lines = _Lines(name)
    most = _LINE_WITH_WORDS if name.lower() in _PROSE else 900
    units = _UNITS.findall(text)
    odd = [at for at, unit in enumerate(units) if _must_be_encoded(unit, most, utf8=utf8)]
    if text[:1] in (" ", "\t"):
        odd.insert(0, 0)  # the blank behind the colon is nobody's
    if not odd:
        for at, unit in enumerate(units):
            lines.add(unit if at else " " + unit)
        return lines.field()
    first, last = odd[0], odd[-1]
    while first and (units[first] == " " or not units[first].startswith(" ")):
        first -= 1  # what parts an encoded word from the word before it is a blank
    for at, unit in enumerate(units[:first]):
        lines.add(unit if at else " " + unit)
    encoded = "".join(units[first : last + 1])
    lines.add_encoded(encoded[1:] if first else encoded)
    for unit in units[last + 1 :]:
        lines.add(unit)
    return lines.field()


def _must_be_encoded(unit: str, most: int, *, utf8: bool) -> bool:
    if not (utf8 or unit.isascii()) or "=?" in unit or _CONTROL.search(unit):
        return True
    word = unit.lstrip(" \t")
    return not word or len(word) > most or len(unit) - len(word) > _MOST_BLANKS


def structured_field(name: str, value: str, *, utf8: bool = False) -> bytes:
    """
    A value for programs, folded at its blanks and never encoded: identifiers, URLs, keywords.

    Raises EncodeError for control characters, for a character beyond ASCII (without utf8), and for a word too long.
    """
    if _CONTROL.search(value):
        raise EncodeError(name, value, "a control character")
    if not (utf8 or value.isascii()):
        raise EncodeError(name, value, "characters beyond ASCII (utf8=True allows them)")
    lines = _Lines(name)
    for at, word in enumerate(value.split()):
        # Some programs lose an identifier that is not in the line of the field's name.
        lines.add(" " + word, stay=not at)
    return lines.field()


def address_field(name: str, addresses: Iterable[NamedAddress | Group], *, utf8: bool = False) -> bytes:
    """
    A list of addresses (RFC 5322 3.4), folded between them, names encoded where they must be.

    Domains go as A-labels (RFC 5890), unless utf8.  Raises EncodeError for what is no address, and for a local part
    beyond ASCII without utf8.
    """
    lines = _Lines(name)
    values = list(addresses)
    for at, each in enumerate(values):
        end = "" if at == len(values) - 1 else ","
        if isinstance(each, Group):
            _add_group(lines, each, end, utf8=utf8)
        else:
            _add_mailbox(lines, each, end, utf8=utf8)
    return lines.field()


def _add_group(lines: _Lines, group: Group, end: str, *, utf8: bool) -> None:
    if _add_name(lines, group.name or "group", ":", utf8=utf8):
        lines.add(" :")  # RFC 2047 5 (3): a blank between an encoded word and a special
    for at, member in enumerate(group.members):
        _add_mailbox(lines, member, ";" + end if at == len(group.members) - 1 else ",", utf8=utf8)
    if not group.members:
        lines.append(";" + end)


def _add_mailbox(lines: _Lines, mailbox: NamedAddress, end: str, *, utf8: bool) -> None:
    text = address_text(lines.name, mailbox, utf8=utf8)
    if mailbox.name:
        _add_name(lines, mailbox.name, "", utf8=utf8)
        text = f"<{text}>"
    lines.add(f" {text}{end}")


def _add_name(lines: _Lines, name: str, end: str, *, utf8: bool) -> bool:
    """Add a display name; True when it went as encoded words, then without the end."""
    name = _CONTROL.sub(" ", name)
    written = format_name(name)
    # A blank at either end, or a name that is only blanks, is safe in an encoded word only.
    if "=?" in name or not (utf8 or name.isascii()) or len(written) > _LINE_WITH_WORDS - 2 or not name.strip():
        lines.add_encoded(name)
        return True
    words = [written] if written.startswith('"') else written.split(" ")
    for at, word in enumerate(words):
        lines.add(f" {word}{end if at == len(words) - 1 else ''}")
    return False


def address_text(field: str, mailbox: NamedAddress, *, utf8: bool) -> str:
    """The address as it goes into a field.  Raises EncodeError with the field's name and the address."""
    address = mailbox.address
    if address is None:
        raise EncodeError(field, mailbox.text, "not an address")
    if utf8 or address.is_ascii:
        return str(address)
    if not address.local.isascii():
        raise EncodeError(field, mailbox.text, "a local part beyond ASCII (utf8=True allows it, over SMTPUTF8)")
    return f"{str(address).rpartition('@')[0]}@{address.ascii_domain}"


def parameter_field(name: str, value: str, parameters: Iterable[tuple[str, str]], *, utf8: bool = False) -> bytes:
    """
    A value with parameters, as in Content-Type.  Raises EncodeError for a value or a parameter's name that is none.
    """
    if not _TOKENS.match(value):
        raise EncodeError(name, value, "not a value for this field")
    try:
        pieces = encode_parameters(parameters, utf8=utf8)
    except ValueError as error:
        raise EncodeError(name, value, str(error)) from None
    lines = _Lines(name)
    for at, piece in enumerate([f" {value}", *pieces]):
        lines.add(piece + (";" if at < len(pieces) else ""))
    return lines.field()


#  type "/" subtype, or a disposition-type
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]+(?:/[A-Za-z0-9!#$%&'*+.^_`{|}~\-]+)?\Z")


class _Lines:
    """The lines of one field.  Pieces begin with the blanks at which the field may be folded in front of them."""

    def __init__(self, name: str) -> None:
        if not _NAME.match(name):
            raise EncodeError(name, name, "not a name of a header field")
        self.name = name
        self._lines: list[str] = []
        self._line = f"{name}:"
        self._most = USUAL_LINE

    def add(self, piece: str, *, stay: bool = False) -> None:
        """
        Add a piece in this line or the next.  stay: not in the next, unless the line would be too long for mail.
        """
        length = len(self._line) + len(piece)
        first = not self._lines and len(self._line) == len(self.name) + 1
        if length > (LONGEST_LINE if stay or (first and len(piece) > self._most) else self._most):
            self._lines.append(self._line)
            self._line = piece
        else:
            self._line += piece

    def append(self, end: str) -> None:
        """Add something that must not be parted from what stands before it."""
        self._line += end

    def add_encoded(self, text: str) -> None:
        """Add text as encoded words."""
        self._most = _LINE_WITH_WORDS
        room = _LINE_WITH_WORDS - len(self._line) - 1
        for word in encode_words(text, first=room if _LEAST_WORD <= room < MOST_IN_A_WORD else MOST_IN_A_WORD):
            self.add(" " + word)

    def field(self) -> bytes:
        """The field, with its CRLFs."""
        lines = [line.encode("utf-8") for line in (*self._lines, self._line)]
        for line in lines:
            # The last gate: whatever came in, what goes out is this field and nothing else.
            if len(line) > LONGEST_LINE or _LINE_ENDS.search(line):
                raise EncodeError(self.name, line.decode("utf-8", "replace"), "does not fit into lines of 998 octets")
        return b"\r\n".join([*lines, b""])


_LINE_ENDS = re.compile(rb"[\r\n\0]")
