"""
Canonicalisation: what of a message is hashed, so that what relays do to blanks and folds need not break a signature.

In: header fields, whole; the body in blocks, cut anywhere.  Out: canonical octets, and SHA-256 digests of the body.
Failures: none; every sequence of octets has a canonical form.
Lines end with CRLF.  A bare CR or LF is an octet like others (RFC 6376 3.4 wants them gone before: 5.3).
The body is never held: what is kept back is a count of empty lines and at most one blank and one CR.

RFC 6376 3.4 (the algorithms), 3.7 (the hash), 5.3.1 (`l=` counts canonical octets).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

#: Octets that are canonicalised at once, however large the block is: bounds the copies.
_PIECE = 256 * 1024
_CRLF = b"\r\n"


class Canonicalization(StrEnum):
    """The two algorithms, with their names in `c=`."""

    SIMPLE = "simple"
    RELAXED = "relaxed"


def canonical_field(canonicalization: Canonicalization, field: bytes) -> bytes:
    """
    A header field as it is hashed (RFC 6376 3.4.1, 3.4.2), with CRLF at its end.

    field: name, colon, value with its folds; with or without the CRLF at its end.
    """
    field = field.removesuffix(_CRLF)
    if canonicalization is Canonicalization.SIMPLE:
        return field + _CRLF
    name, _, value = field.replace(_CRLF, b"").partition(b":")
    return name.strip(b" \t").lower() + b":" + _collapse(value).strip(b" ") + _CRLF


def _collapse(text: bytes) -> bytes:
    """Each run of blanks and tabs becomes one blank."""
    text = text.replace(b"\t", b" ")
    # A run halves with each turn, so this is done after the logarithm of the longest one.
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


class BodyHash:
    """
    SHA-256 of a body, canonicalised while it streams (RFC 6376 3.4.3, 3.4.4).

    lengths: the numbers of canonical octets that are wanted (`l=`); None is all of them.  One pass serves them all.
    `update` takes blocks; after `finish`, `digest` tells the hashes and `length` the canonical octets.
    """

    def __init__(self, canonicalization: Canonicalization, lengths: Iterable[int | None] = (None,)) -> None:
        self._relaxed = canonicalization is Canonicalization.RELAXED
        self._hash = hashlib.sha256()
        self._digests: dict[int | None, bytes] = {}
        # The smallest last, to be popped.
        self._wanted = sorted({length for length in lengths if length is not None}, reverse=True)
        self._held = b""  # the end of what came that cannot be judged yet: "", "\r", and if relaxed " " or " \r"
        self._empty_lines = 0  # CRLFs that count only if something follows
        self.length = 0

    def update(self, block: bytes) -> None:
        """The next octets of the body."""
        if len(block) <= _PIECE:
            self._take(self._held + block)
            return
        view = memoryview(block)
        for start in range(0, len(block), _PIECE):
            self._take(self._held + bytes(view[start : start + _PIECE]))

    def finish(self) -> None:
        """The body has ended; nothing may follow.  May be called again."""
        if None in self._digests:
            return
        rest = self._held
        if rest and rest != b" ":  # that would be a blank at the end of a line
            self._hash_pending()
            self._hash_now(rest)
        # The last line gets its CRLF, and empty ones behind it are gone.  Without any line, 3.4.3 has one CRLF and
        # 3.4.4 has nothing.
        self._hash_now(_CRLF if self.length or not self._relaxed else b"")
        self._digests[None] = self._hash.digest()

    def digest(self, length: int | None = None) -> bytes | None:
        """
        The hash of the first `length` canonical octets, or of all.  None when the body is shorter.

        length: one of those given at the start; KeyError otherwise, also before `finish`.
        """
        if length in self._digests:
            return self._digests[length]
        if length in self._wanted:
            return None
        raise KeyError(length)

    # -- the lines ------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._relaxed:
            data = _collapse(data).replace(b" \r\n", _CRLF)
        keep = 1 if data.endswith(b"\r") else 0
        if self._relaxed and data.endswith(b" ", 0, len(data) - keep):
            keep += 1
        end = len(data) - keep
        self._held = data[end:]
        start = _start_of_empty_lines(data, end)
        if start:
            self._hash_pending()
            self._hash_now(data[:start])
        self._empty_lines += (end - start) // 2

    def _hash_pending(self) -> None:
        """The CRLFs that were held back belong to the body after all."""
        while self._empty_lines:
            number = min(self._empty_lines, _PIECE // 2)
            self._hash_now(_CRLF * number)
            self._empty_lines -= number

    def _hash_now(self, data: bytes) -> None:
        while self._wanted and self._wanted[-1] <= self.length + len(data):
            wanted = self._wanted.pop()
            part = wanted - self.length
            self._hash.update(data[:part])
            self.length = wanted
            self._digests[wanted] = self._hash.digest()
            data = data[part:]
        self._hash.update(data)
        self.length += len(data)


def _start_of_empty_lines(data: bytes, end: int) -> int:
    """
    Where the CRLFs begin with which data[:end] ends; `end` when there are none.

    Without a loop over the lines: a body of fifty million octets may be nothing but CRLF.
    """
    if not data.endswith(_CRLF, 0, end):
        return end
    start = len(data[:end].rstrip(_CRLF))
    # What lies behind is CR and LF in any order; the CRLFs begin behind the last place where two of a kind meet.
    start = max(start, data.rfind(b"\n\n", start, end) + 1, data.rfind(b"\r\r", start, end) + 1)
    return start + 1 if data[start : start + 1] == b"\n" else start
