"""
Parameters of Content-Type and Content-Disposition, as they are written (RFC 2045 5.1, RFC 2231).

In: names and values.  Out: pieces, each with its semicolon, between which a field may be folded.
Failures: `ValueError` for a name that is no token.  Any value can be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#  token  := 1*<any (US-ASCII) CHAR except SPACE, CTLs, or tspecials>
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]+\Z")
#  attribute-char of RFC 2231 7: a token's without * ' %
_ATTRIBUTE = re.compile(r"[A-Za-z0-9!#$&+.^_`{|}~\-]+\Z")
_ATTRIBUTE_OCTETS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+.^_`{|}~-")
_ESCAPED = tuple(chr(octet) if octet in _ATTRIBUTE_OCTETS else f"%{octet:02X}" for octet in range(256))
_PRINTABLE = re.compile(r"[ -~]*\Z")
_PRINTABLE_UTF8 = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*\Z")

#: A parameter as long as this, with the blank before and the semicolon behind it, still fits into a line of 78.
MOST_IN_A_LINE = 76
#: These are short, and must be understood by programs that know nothing of RFC 2231.
_WHOLE = frozenset({"boundary", "charset"})


def encode_parameters(parameters: Iterable[tuple[str, str]], *, utf8: bool = False) -> list[str]:
    """
    `; name=value` for each, as pieces that may be folded in front of their blank: [";", " name=value;", ...] joined so
    that each piece but the last ends with its semicolon.

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
    whole = value if _TOKEN.match(value) else _quoted(value)
    if len(name) + 1 + len(whole) <= MOST_IN_A_LINE or (name in _WHOLE and len(whole) < 900):
        return [f"{name}={whole}"]
    return _continued(name, value)


def _quoted(value: str) -> str:
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
        pieces.append(prefix + _quoted(value[start:end]))
        start = end
    return pieces


def _extended(name: str, value: str) -> list[str]:
    characters = ["".join([_ESCAPED[octet] for octet in each.encode("utf-8", "replace")]) for each in value]
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
