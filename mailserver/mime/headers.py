"""
Header sections: an ordered list of fields in which a name may stand more than once.

In: octets of a mail, or names and values of a program.  Out: fields, raw and decoded.
Reading never fails; what a program adds is refused with a ValueError if it could end a field or begin another one.

RFC 5322 2.2 (fields, folding), 3.6 (names); RFC 2047 (encoded words); RFC 6532 (UTF-8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mailserver.mime.words import decode_words

#: A field: name, ":", and lines up to the next one that does not begin with a blank (RFC 5322 2.2.3).  A blank before
#: the colon is obsolete (RFC 5322 4.5) and read.  Possessive repeats: one pass.
FIELD = re.compile(rb"[!-9;-~]++[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?")
#: A whole header section.
SECTION = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z))*+")
#: Unfolding takes away the line end and leaves the blank (RFC 5322 2.2.3): "a\r\n b" is "a b".
#: Looking back keeps the time linear: of a run of CRs only the first can begin a match.
_FOLD = re.compile(rb"(?<!\r)\r*+\n")

_NAME = re.compile(r"[!-9;-~]+")
_FORBIDDEN = re.compile(r"[\r\n\x00]")


class Field:
    """
    One field.

    name: as it was written.  raw: the octets as they stood, with folds and line end; b"" if it was made by a program.
    body: what is behind the colon, unfolded, without the blanks around it.  value: that as text.
    """

    __slots__ = ("_body", "_value", "name", "raw")

    def __init__(self, name: str, value: str | bytes) -> None:
        """Raises ValueError for a name that is none, and for CR, LF and NUL in either."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a name for a header field: {name[:80]!r}")
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if _FORBIDDEN.search(text):
            raise ValueError(f"the value of the header field {name} has a CR, LF or NUL")
        self.name = name
        self.raw = b""
        self._value: str | None = None
        if isinstance(value, bytes):
            self._body = value.strip(b" \t")
            return
        try:
            self._body = value.encode().strip(b" \t")
        except UnicodeEncodeError:
            raise ValueError(f"the value of the header field {name} has half a surrogate pair") from None
        self._value = value

    @property
    def body(self) -> bytes:
        """What is behind the colon, unfolded."""
        return self._body

    @property
    def value(self) -> str:
        """The body as text: encoded words decoded, other octets as UTF-8 or windows-1252; no CR, LF or NUL in it."""
        if self._value is None:
            self._value = decode_words(self.body)
        return self._value

    def __repr__(self) -> str:
        return f"<Field {self.name}>"  # no value: it is text of a message


class _ReadField(Field):
    """A field as it stands in a mail; `octets` match FIELD, `raw` stood there."""

    __slots__ = ()

    def __init__(self, octets: bytes, raw: bytes) -> None:
        name, _, body = octets.partition(b":")
        self.name = name.rstrip(b" \t").decode("ascii")
        self.raw = raw
        self._body = unfold(body)
        self._value = None


def unfold(body: bytes) -> bytes:
    """What stands behind the colon, on one line, without the blanks around it (RFC 5322 2.2.3)."""
    body = body.strip(b" \t\r\n")
    return _FOLD.sub(b"", body) if b"\n" in body else body


class Headers:
    """
    The fields of a part, in their order.  Names are the same in upper and lower case.

    Iterating gives (name, decoded value) of each field; `fields` gives the fields themselves.
    """

    __slots__ = ("_found", "_raw", "_section")

    def __init__(self, fields: Iterable[tuple[str, str | bytes]] = ()) -> None:
        """Raises ValueError, see `add`."""
        self._section = self._raw = b""
        #: None: nobody wanted them all yet.
        self._found: list[Field] | None = [Field(name, value) for name, value in fields]

    @classmethod
    def read(cls, section: bytes, raw: bytes | None = None) -> Headers:
        """
        The fields of a header section; `section` matches SECTION, an empty line may follow.

        raw: the same octets as they stood, where line ends were made LF to be read.
        """
        return _ReadHeaders(section, section if raw is None else raw)

    @property
    def _fields(self) -> list[Field]:
        if self._found is None:
            self._found = []
            position = 0
            while match := FIELD.match(self._section, position):
                end = match.end()
                self._found.append(_ReadField(match[0], self._raw[position:end]))
                position = end
        return self._found

    @property
    def fields(self) -> list[Field]:
        """The fields in their order; changing this list changes nothing."""
        return list(self._fields)

    def find(self, name: str) -> Field | None:
        """The first field of this name."""
        if self._found is None:
            # Most readers want two or three fields of thirty: those are looked for, and no other is taken apart.
            span = find_field(self._section, name.lower().encode("utf-8", "replace"))
            return None if span is None else _ReadField(self._section[slice(*span)], self._raw[slice(*span)])
        wanted = name.lower()
        for field in self._fields:
            if field.name.lower() == wanted:
                return field
        return None

    def get(self, name: str, default: str | None = None) -> str | None:
        """The decoded value of the first field of this name."""
        field = self.find(name)
        return default if field is None else field.value

    def get_all(self, name: str) -> list[str]:
        """The decoded values of all fields of this name."""
        wanted = name.lower()
        return [field.value for field in self._fields if field.name.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        field = self.find(name)
        if field is None:
            raise KeyError(name)
        return field.value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((field.name, field.value) for field in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(field.name for field in self._fields)}>"

    def add(self, name: str, value: str | bytes) -> None:
        """
        Add a field behind the others.

        A str is the text that is meant; bytes are a body as it stands on the wire.
        Raises ValueError, which names the field, for a bad name and for CR, LF and NUL in either.
        """
        self._fields.append(Field(name, value))

    def insert(self, position: int, name: str, value: str | bytes) -> None:
        """Add a field before the one at `position`; 0 is the top.  Raises ValueError, see `add`."""
        self._fields.insert(position, Field(name, value))

    def set(self, name: str, value: str | bytes) -> None:
        """Put a field in the place of the first of its name, and drop the others.  Raises ValueError, see `add`."""
        field = Field(name, value)
        wanted = name.lower()
        places = [place for place, old in enumerate(self._fields) if old.name.lower() == wanted]
        if not places:
            self._fields.append(field)
            return
        self._fields[places[0]] = field
        dropped = {*places[1:]}
        self._found = [old for place, old in enumerate(self._fields) if place not in dropped]

    def remove(self, name: str) -> None:
        """Drop all fields of this name; none is no error."""
        wanted = name.lower()
        self._found = [field for field in self._fields if field.name.lower() != wanted]


class _ReadHeaders(Headers):
    """The fields of a section; `raw` are its octets as they stood."""

    __slots__ = ()

    def __init__(self, section: bytes, raw: bytes) -> None:
        self._section = section
        self._raw = raw
        self._found = None


def find_field(section: bytes, name: bytes) -> tuple[int, int] | None:
    """Where the first field of this name stands in a header section.  name: in lower case."""
    lowered = section.lower()
    at = 0 if lowered.startswith(name) else lowered.find(b"\n" + name) + 1
    while at or lowered.startswith(name):
        field = FIELD.match(section, at)
        if field is not None and len(field[0].partition(b":")[0].rstrip(b" \t")) == len(name):
            return field.span()
        at = lowered.find(b"\n" + name, at) + 1
        if at == 0:
            break
    return None


def parse_headers(octets: bytes) -> tuple[Headers, bytes]:
    """The header section that `octets` start with, and what is behind the empty line that ends it."""
    end = section_end(octets)
    return Headers.read(octets[:end]), octets[end + blank_line(octets, end) :]


def section_end(octets: bytes) -> int:
    """Where the header section ends that begins at the first octet."""
    match = SECTION.match(octets)
    return match.end() if match else 0


_BLANK_LINE = re.compile(rb"\r*\n")


def blank_line(octets: bytes, position: int) -> int:
    """How long the empty line at `position` is; 0 if there is none."""
    match = _BLANK_LINE.match(octets, position)
    return match.end() - position if match else 0
