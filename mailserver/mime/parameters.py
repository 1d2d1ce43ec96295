"""
Fields with parameters: Content-Type and Content-Disposition.

In: the body of such a field, unfolded, as octets.  Out: values, and what was wrong with the field.
Reading never fails: comments are left out, quotes may be missing, a `;` in quotes is text, what cannot be read is
skipped and told.  And back: names and values into pieces between which a field can be folded.

RFC 2045 5.1 (Content-Type), RFC 2183 2 (Content-Disposition), RFC 2231 3 and 4 (continuations, charsets), RFC 5322
3.2.2 (comments).  Encoded words in parameters are against RFC 2047 5, and common: they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailserver.mime.charsets import decode_text
from mailserver.mime.values import Disposition
from mailserver.mime.words import decode_8bit, decode_words

BAD_CONTENT_TYPE = "bad-content-type"
BAD_DISPOSITION = "bad-disposition"
BAD_PARAMETER = "bad-parameter"
TOO_MANY_PARAMETERS = "too-many-parameters"

#: (name, value) as they stand, without quotes: the name in lower case.
Pairs = Sequence[tuple[bytes, bytes]]

#  token = 1*<any CHAR except SPACE, CTLs, or tspecials>                          RFC 2045 5.1
_TOKEN = rb"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]++"
_SIMPLE_TYPE = re.compile(rb"[ \t]*+(" + _TOKEN + rb")/(" + _TOKEN + rb")[ \t]*+(?:;|\Z)")
_SIMPLE_KIND = re.compile(rb"[ \t]*+(" + _TOKEN + rb")[ \t]*+(?:;|\Z)")
#: A parameter as nearly all are; what this does not match is read with care.
_SIMPLE_PARAMETER = re.compile(
    rb'[ \t]*+([!#$&+.0-9A-Z^_`a-z{|}~-]++)[ \t]*+=[ \t]*+(?:"([^"\\]*+)"|(' + _TOKEN + rb"))[ \t]*+(?:;|\Z)"
)

_TYPE = re.compile(rb'["<]?(' + _TOKEN + rb")\s*+[/\\]\s*+(" + _TOKEN + rb')[">]?')
_BLANKS = re.compile(rb"[ \t\r\n]*+")
_NAME = re.compile(rb"[^=;(]*+")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
#: Only what has to be escaped is unescaped: "C:\temp" in quotes is a path, not a strange way to write "C:temp".
_ESCAPED = re.compile(rb'\\(["\\])')
_HEAD = re.compile(rb"[^;(]*+")
_NO_COMMENT = re.compile(rb'[^"(\\]*+(?:\\.[^"(\\]*+)*+\\?', re.DOTALL)
_TO_SEMICOLON = re.compile(rb"[^;]*+")
#  comment = "(" *([FWS] ccontent) [FWS] ")"                                       RFC 5322 3.2.2
_COMMENT_PIECE = re.compile(rb"[^()\\]*+(?:\\.[^()\\]*+)*+([()]|\\?\Z)", re.DOTALL)
#  RFC 2231 7: attribute, section number, "*" for an encoded section
_SECTION = re.compile(rb"([^*]+)(?:\*([0-9]{1,5}))?(\*)?")
_CHARSET_LANGUAGE = re.compile(rb"([^']*+)'([^']*+)'")
_LINE_ENDS = str.maketrans({"\r": " ", "\n": " ", "\x00": " "})


class ContentType(NamedTuple):
    """
    type, subtype: lower case.  pairs: parameters as they stand.  problems: (kind, detail) of each.

    A field that cannot be read is text/plain (RFC 2045 5.2).
    """

    type: str
    subtype: str
    pairs: Pairs = ()
    problems: Sequence[tuple[str, str]] = ()

    @property
    def parameters(self) -> dict[str, str]:
        """Decoded, keys in lower case; a new dict each time."""
        return decode_parameters(self.pairs)[0] if self.pairs else {}

    @property
    def boundary(self) -> bytes | None:
        """Without the blanks at its end, which no delimiter line shows; None if there is none, or an empty one."""
        for name, value in self.pairs:
            if name == b"boundary":
                return value.rstrip(b" \t") or None
        if any(name.startswith(b"boundary*") for name, _ in self.pairs):
            return self.parameters.get("boundary", "").rstrip(" \t").encode() or None
        return None


#: RFC 2045 5.2, and RFC 2046 5.1.5 for the parts of a multipart/digest.
PLAIN_TEXT = ContentType("text", "plain")
MESSAGE = ContentType("message", "rfc822")


def parse_content_type(body: bytes, most: int = 1_000) -> ContentType:
    """The value of a Content-Type field.  most: how many parameters are read."""
    simple = _SIMPLE_TYPE.match(body)
    problems: list[tuple[str, str]] = []
    if simple:
        # Names are ASCII here.
        kind, subtype = simple[1].lower().decode(), simple[2].lower().decode()
        return ContentType(kind, subtype, _read_pairs(body, simple.end(), most, problems), problems)
    head, position = _read_head(body, problems)
    found = _TYPE.match(head)
    if found is None:
        problems.append((BAD_CONTENT_TYPE, "no type/subtype"))
        kind, subtype = "text", "plain"
    else:
        kind, subtype = found[1].lower().decode(), found[2].lower().decode()
        rest = head[found.end() :].strip(b" \t\r\n,:")
        if any(odd in found[0] for odd in (b"\\", b'"', b"<", b">")) or head[found.end() :]:
            problems.append((BAD_CONTENT_TYPE, "something else than type/subtype before the parameters"))
        if b"=" in rest:  # its semicolon is missing
            return ContentType(kind, subtype, _read_pairs(rest + b";" + body[position:], 0, most, problems), problems)
    return ContentType(kind, subtype, _read_pairs(body, position, most, problems), problems)


def parse_disposition(body: bytes, most: int = 1_000) -> tuple[Disposition, list[tuple[str, str]]]:
    """The value of a Content-Disposition field, and its problems: (kind, detail).  most: parameters that are read."""
    problems: list[tuple[str, str]] = []
    simple = _SIMPLE_KIND.match(body)
    if simple:
        kind, position = simple[1].lower().decode(), simple.end()
    else:
        head, position = _read_head(body, problems)
        words = head.strip(b' \t\r\n"').split(None, 1)
        if not words or b"=" in words[0]:
            # RFC 2183 2.8: what is not known is an attachment; without any kind it is as if it were not there.
            problems.append((BAD_DISPOSITION, "no disposition type"))
            kind = "attachment" if words else "inline"
            position = 0 if words else position
        else:
            kind = decode_8bit(words[0]).lower()
            if len(words) > 1:
                problems.append((BAD_DISPOSITION, "something else than a disposition type before the parameters"))
    parameters, found = decode_parameters(_read_pairs(body, position, most, problems))
    problems += found
    return Disposition(kind, parameters), problems


def _read_head(body: bytes, problems: list[tuple[str, str]]) -> tuple[bytes, int]:
    """What stands before the first `;` that is in no comment, without comments, and the place behind it."""
    pieces = []
    position = 0
    while position < len(body):
        match = _HEAD.match(body, position)
        assert match is not None
        pieces.append(match[0])
        position = match.end()
        if body[position : position + 1] != b"(":
            position += 1
            break
        position = _skip_comment(body, position, problems)
        pieces.append(b" ")
    return b"".join(pieces).strip(b" \t\r\n"), position


def _skip_comment(body: bytes, position: int, problems: list[tuple[str, str]]) -> int:
    """The place behind the comment that begins at `position`: they nest, and a backslash escapes."""
    depth = 0
    while position < len(body):
        match = _COMMENT_PIECE.match(body, position)
        assert match is not None
        position = match.end()
        depth += {b"(": 1, b")": -1}.get(match[1], 0)
        if match[1] == b"(" or match[1] == b")":
            if depth == 0:
                return position
            continue
        break
    problems.append((BAD_PARAMETER, "a comment without its end"))
    return len(body)


def strip_comments(text: bytes) -> bytes:
    """`text` without its comments (RFC 5322 3.2.2); in quotes are none.  One without its end is all the rest."""
    pieces = []
    position = 0
    quotes = True
    while position < len(text):
        match = _NO_COMMENT.match(text, position)
        assert match is not None
        pieces.append(match[0])
        position = match.end()
        if position == len(text):
            break
        if text[position : position + 1] == b"(":
            position = _skip_comment(text, position, [])
            continue
        quoted = _QUOTED.match(text, position) if quotes else None
        quotes = quoted is not None  # when one has no end, no later one has
        pieces.append(quoted[0] if quoted else b'"')
        position += len(pieces[-1])
    return b"".join(pieces)


def _read_pairs(body: bytes, position: int, most: int, problems: list[tuple[str, str]]) -> Pairs:
    """The parameters from `position` on."""
    found: list[tuple[bytes, bytes]] = []
    size = len(body)
    quotes = True
    while position < size:
        if len(found) >= most:
            problems.append((TOO_MANY_PARAMETERS, f"more than {most} parameters"))
            break
        simple = _SIMPLE_PARAMETER.match(body, position)
        if simple:
            value = simple[2]
            found.append((simple[1].lower(), simple[3] if value is None else value))
            position = simple.end()
            continue
        name, position = _read_name(body, position, problems)
        if position >= size or body[position : position + 1] != b"=":
            if name:
                problems.append((BAD_PARAMETER, "a parameter without a value"))
            position += 1
            continue
        value, position, quotes = _read_value(body, position + 1, problems, quotes=quotes)
        if name:
            found.append((name, value))
        else:
            problems.append((BAD_PARAMETER, "a parameter without a name"))
    return found


def _read_name(body: bytes, position: int, problems: list[tuple[str, str]]) -> tuple[bytes, int]:
    pieces = []
    while True:
        match = _NAME.match(body, position)
        assert match is not None
        pieces.append(match[0])
        position = match.end()
        if body[position : position + 1] != b"(":
            return b"".join(pieces).strip(b' \t\r\n"').lower(), position
        position = _skip_comment(body, position, problems)


def _read_value(
    body: bytes,
    position: int,
    problems: list[tuple[str, str]],
    *,
    quotes: bool,
) -> tuple[bytes, int, bool]:
    """The value at `position`, the place behind its `;`, and whether a quote may still have its end."""
    position = _skip_blanks(body, position, problems)
    if quotes and body[position : position + 1] == b'"':
        quoted = _QUOTED.match(body, position)
        if quoted:
            value = _ESCAPED.sub(rb"\1", quoted[1]) if b"\\" in quoted[1] else quoted[1]
            position = _skip_blanks(body, quoted.end(), problems)
            rest = _TO_SEMICOLON.match(body, position)
            assert rest is not None
            if rest[0]:
                problems.append((BAD_PARAMETER, "something stands behind a quoted value"))
            return value, rest.end() + 1, True
        quotes = False
        problems.append((BAD_PARAMETER, "a quote without its end"))
        position += 1
    match = _TO_SEMICOLON.match(body, position)
    assert match is not None
    value = match[0].strip(b" \t\r\n")
    token, bracket, _ = value.partition(b"(")
    if bracket:
        # A comment behind the value is none of it; but where more follows, somebody forgot the quotes around
        # a file name with brackets.
        found: list[tuple[str, str]] = []
        end = _skip_blanks(value, len(token), found)
        if token and end >= len(value):
            value = token.rstrip(b" \t\r\n")
            problems += found
    elif b" " in value or b"\t" in value:
        problems.append((BAD_PARAMETER, "a value with blanks, and no quotes around it"))
    return value, match.end() + 1, quotes


def _skip_blanks(body: bytes, position: int, problems: list[tuple[str, str]]) -> int:
    """The place behind blanks and comments."""
    while True:
        match = _BLANKS.match(body, position)
        assert match is not None
        position = match.end()
        if body[position : position + 1] != b"(":
            return position
        position = _skip_comment(body, position, problems)


def decode_parameters(pairs: Pairs) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """
    Names and decoded values, and the problems.

    Of two parameters with one name the first counts.  A value in pieces (`name*0`, `name*1*`) is put together in the
    order of the numbers; one with a charset (`name*`) counts more than a plain one, which is there for old readers.
    """
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    problems = []
    for name, value in pairs:
        match = _SECTION.fullmatch(name) if b"*" in name else None
        if match is None or not (match[2] or match[3]):
            key = decode_8bit(name).lower()
            if key in plain:
                problems.append((BAD_PARAMETER, f"two parameters with the name {key}"))
            else:
                plain[key] = decode_words(value)
            continue
        key = decode_8bit(match[1]).lower()
        pieces = sections.setdefault(key, {})
        number = int(match[2] or 0)
        if number in pieces:
            problems.append((BAD_PARAMETER, f"two parameters with the name {decode_8bit(name)}"))
        else:
            pieces[number] = (value, match[3] is not None)
    for key, pieces in sections.items():
        plain[key] = _join(key, pieces, problems).translate(_LINE_ENDS)
    return plain, problems


def _join(key: str, pieces: dict[int, tuple[bytes, bool]], problems: list[tuple[str, str]]) -> str:
    """One value of its sections (RFC 2231 3 and 4.1)."""
    numbers = sorted(pieces)
    if numbers != list(range(len(numbers))):
        problems.append((BAD_PARAMETER, f"a piece of the parameter {key} is missing"))
    charset = ""
    octets = []
    for place, number in enumerate(numbers):
        value, encoded = pieces[number]
        if encoded and place == 0:
            match = _CHARSET_LANGUAGE.match(value)
            if match:
                charset = match[1].decode("ascii", "replace")
                value = value[match.end() :]
            else:
                problems.append((BAD_PARAMETER, f"the parameter {key} has no charset"))
        octets.append(unquote_to_bytes(value) if encoded else value)
    joined = b"".join(octets)
    if not any(encoded for _, encoded in pieces.values()):
        return decode_words(joined)
    text, problem = decode_text(joined, charset)
    if problem:
        problems.append((problem, f"the parameter {key}"))
    return text


# -- writing ---------------------------------------------------------------------------------------------------------

#  attribute-char of RFC 2231 7: a token's without * ' %.  A value with one of these goes in quotes too: some programs
# take ' for a quote.
_ATTRIBUTE = re.compile(r"[A-Za-z0-9!#$&+.^_`{|}~\-]+\Z")
_ATTRIBUTE_OCTETS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+.^_`{|}~-")
_PERCENT = tuple(chr(octet) if octet in _ATTRIBUTE_OCTETS else f"%{octet:02X}" for octet in range(256))
_PRINTABLE = re.compile(r"[ -~]*\Z")
_PRINTABLE_UTF8 = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*\Z")

#: A parameter as long as this, with the blank before and the semicolon behind it, still fits into a line of 78.
MOST_IN_A_LINE = 76
#: These are short, and must be understood by programs that know nothing of RFC 2231.
_WHOLE = frozenset({"boundary", "charset"})


def encode_parameters(parameters: Iterable[tuple[str, str]], *, utf8: bool = False) -> list[str]:
    """
    " name=value" for each, or several pieces where it is long.  A field can be folded in front of each; between them
    belong semicolons.

    A value is a token or a quoted string where that is possible and fits a line; else it is cut into continuations,
    and percent-encoded UTF-8 when it has characters beyond printable ASCII (RFC 2231 3 and 4).
    utf8: write those as they are, in quotes (RFC 6532 3.2).
    """
    written: list[str] = []
    for name, value in parameters:
        if not _ATTRIBUTE.match(name):
            raise ValueError(f"not a name of a parameter: {name!r}")
        written += _parameter(name, value, utf8=utf8)
    return [f" {each}" for each in written]


def _parameter(name: str, value: str, *, utf8: bool) -> list[str]:
    printable = _PRINTABLE_UTF8 if utf8 else _PRINTABLE
    # What looks like an encoded word would be decoded by lenient readers; percent signs keep it what it is.
    if not printable.match(value) or "=?" in value:
        return _extended(name, value)
    whole = value if _ATTRIBUTE.match(value) else _in_quotes(value)
    if len(name) + 1 + len(whole) <= MOST_IN_A_LINE or (name in _WHOLE and len(whole) < 900):
        return [f"{name}={whole}"]
    return _continued(name, value)


def _in_quotes(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _continued(name: str, value: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    while start < len(value):
        prefix = f"{name}*{len(pieces)}="
        room = max(MOST_IN_A_LINE - len(prefix) - 2, 8)
        end = start
        while end < len(value):
            cost = 2 if value[end] in '"\\' else 1
            if cost > room:
                break
            room -= cost
            end += 1
        pieces.append(prefix + _in_quotes(value[start:end]))
        start = end
    return pieces


def _extended(name: str, value: str) -> list[str]:
    characters = ["".join([_PERCENT[octet] for octet in each.encode("utf-8", "replace")]) for each in value]
    whole = f"{name}*=utf-8''{''.join(characters)}"
    if len(whole) <= MOST_IN_A_LINE:
        return [whole]
    pieces: list[str] = []
    line = f"{name}*0*=utf-8''"
    empty = True
    for character in characters:
        if len(line) + len(character) > MOST_IN_A_LINE and not empty:
            pieces.append(line)
            line, empty = f"{name}*{len(pieces)}*=", True
        line += character
        empty = False
    return [*pieces, line]
