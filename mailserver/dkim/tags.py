"""
Lists of `tag=value; tag=value`: what a DKIM-Signature field and a key record are written in, and the forms of values.

In: octets of a field's value, or of a TXT record.  Out: tags and values; decoded values.
Failures: `BadTags`, with the reason in words that hold nothing of the input.  The grammar is taken strictly, as
RFC 6376 6.1.1 asks: what two readers could read in two ways is refused.

RFC 6376 2.8 (FWS), 2.10 (base64), 2.11 (dkim-quoted-printable), 3.2 (tag lists); RFC 8616 4 (UTF-8 in values).
"""

from __future__ import annotations

import base64
import binascii
import re

#: Tags of a list; signatures have some 15.
MOST_TAGS = 100

#: VALCHAR, blanks between them, and UTF-8.
_VALUE = re.compile(rb"[\t !-:<-~\x80-\xff]*\Z")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*\Z")
_BLANKS = " \t"
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_QUOTED = re.compile(r"=([0-9A-F]{2})")
_SAFE = re.compile(r"(?:[!-:<>-~\u0080-\U0010ffff]|=[0-9A-F]{2})*\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")


class BadTags(ValueError):  # noqa: N818 - named for what the list is
    """The list, or a value in it, is not what the grammar asks for; `str()` says why, in words of our own."""


def parse_tags(text: bytes) -> dict[str, str]:
    """
    The tags of a list in their order; values without the blanks around them, and unfolded.

    text: with its folds, with or without a CRLF at its end.  Raises BadTags, also for a tag that comes twice.
    """
    tags: dict[str, str] = {}
    specs = _FOLD.sub(b"", text.removesuffix(b"\r\n")).split(b";")
    if len(specs) > 1 and not specs[-1].strip(b" \t"):
        specs.pop()  # the semicolon at the end is allowed
    if len(specs) > MOST_TAGS:
        raise BadTags(f"more than {MOST_TAGS} tags")
    for spec in specs:
        name, equals, value = spec.partition(b"=")
        name = name.strip(b" \t")
        if not equals or not _NAME.match(name):
            raise BadTags("something in the list is no tag with a value")
        if not _VALUE.match(value):
            raise BadTags("a value has a character that is not allowed")
        key = name.decode("ascii")
        if key in tags:
            raise BadTags("a tag stands in the list twice")
        try:
            tags[key] = value.strip(b" \t").decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadTags("a value is not UTF-8") from error
    return tags


def without_signature(field: bytes) -> bytes:
    """
    A DKIM-Signature field without the value of its `b=`, and without CRLF at its end (RFC 6376 3.7, step 2).

    field: one whose tags `parse_tags` has taken.  Blanks around the value go with it.
    """
    name, colon, value = field.removesuffix(b"\r\n").partition(b":")
    specs = value.split(b";")
    for position, spec in enumerate(specs):
        tag, equals, _ = spec.partition(b"=")
        if tag.strip(b" \t\r\n") == b"b":
            specs[position] = tag + equals
            break
    return name + colon + b";".join(specs)


def parse_list(value: str) -> tuple[str, ...]:
    """The words of a list with colons, blanks around them taken away.  Raises BadTags for an empty word."""
    words = tuple(word.strip(_BLANKS) for word in value.split(":"))
    if not all(words):
        raise BadTags("a list has an empty place")
    return words


def parse_base64(value: str) -> bytes:
    """The octets of a base64 value; blanks in it count for nothing.  Raises BadTags for what is none."""
    text = value.replace(" ", "").replace("\t", "")
    if not _BASE64.match(text):
        raise BadTags("a value is not base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadTags("a value is not base64") from error


def parse_number(value: str, digits: int) -> int:
    """A number of 1 to `digits` ASCII digits, nothing else that `int()` would take.  Raises BadTags."""
    if not (value.isascii() and value.isdigit() and len(value) <= digits):
        raise BadTags(f"a number is not one of 1 to {digits} digits")
    return int(value)


def decode_quoted(value: str) -> str:
    """
    The text of a dkim-quoted-printable value; blanks in it count for nothing (RFC 6376 2.11).

    Raises BadTags, also when the decoded octets are not UTF-8.
    """
    text = value.replace(" ", "").replace("\t", "")
    if not _SAFE.match(text):
        raise BadTags("a value is not in DKIM's quoted-printable")
    # UTF-8 octets may stand plain or quoted: one decoding for both.
    octets = _QUOTED.sub(lambda match: chr(int(match[1], 16)), _latin(text))
    try:
        return octets.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadTags("a quoted-printable value is not UTF-8") from error


def _latin(text: str) -> str:
    """Each octet of the UTF-8 text as the character of the same number."""
    return text.encode("utf-8").decode("latin-1")


def encode_quoted(text: str) -> str:
    """
    `text` in dkim-quoted-printable, ASCII alone: other characters, blanks and what separates things are quoted.

    The result is safe in a tag's value, whatever `text` holds.
    """
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.@-_+")
    return "".join(chr(octet) if octet in plain else f"={octet:02X}" for octet in text.encode("utf-8"))
