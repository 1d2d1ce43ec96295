"""
Encoded words (RFC 2047): text in header fields that is not ASCII.

In: what stands in a field, as octets.  Out: text.  Reading never fails: what is no encoded word stays as it is.

RFC 2047 2 (syntax), 6.2 (blanks between words); RFC 2231 5 (language); RFC 6532 (UTF-8 without encoding).
More is read than the RFC allows: a question mark in a word, words of any length, base64 without its padding, and
characters that were cut by the end of a word, as long as the next word has the same charset.
"""

from __future__ import annotations

import binascii
import re

from mailserver.mime.charsets import decode_text, guess_text
from mailserver.mime.transfer import decode_base64

#  encoded-word = "=?" charset "?" encoding "?" encoded-text "?="
_WORD_START = re.compile(rb"=\?([^?\s]++)\?([BbQq])\?")
#: A word ends at "?="; at a blank it never was one (RFC 2047 2: no blanks inside).
_WORD_END = re.compile(rb"\?=|[ \t\r\n]")
_LONE_EQUALS = re.compile(rb"=(?![0-9A-Fa-f]{2})")
#: What a decoded value never holds, so that it cannot end a field when it is written again.
_LINE_ENDS = str.maketrans({"\r": " ", "\n": " ", "\x00": " "})


def decode_8bit(octets: bytes) -> str:
    """Octets that nobody encoded: UTF-8 (RFC 6532), ISO-2022-JP if it has its escapes, else windows-1252."""
    return octets.decode("ascii") if octets.isascii() and b"\x1b" not in octets else guess_text(octets)


def decode_words(octets: bytes, problems: list[str] | None = None) -> str:
    """
    Text of a field, with its encoded words read.  CR, LF and NUL, also encoded ones, become blanks.

    `octets` are unfolded.  Takes linear time.  problems: gets the kinds of what was wrong with the words.
    """
    if b"=?" in octets:
        text = _decode(octets, [] if problems is None else problems)
    else:
        text = decode_8bit(octets)
    return text.translate(_LINE_ENDS) if "\r" in text or "\n" in text or "\x00" in text else text


def _decode(octets: bytes, problems: list[str]) -> str:
    found: list[str] = []
    run: list[bytes] = []  # what adjacent words of one charset hold
    charset = ""
    done = 0  # everything before it is in `found` or `run`
    position = 0
    while start := _WORD_START.search(octets, position):
        end = _WORD_END.search(octets, start.end())
        if end is None:
            break
        if end[0] != b"?=":
            position = end.end()
            continue
        word_charset = start[1].partition(b"*")[0].decode("ascii", "replace").lower()
        between = octets[done : start.start()]
        # RFC 2047 6.2: blanks between two words are not shown.
        adjacent = bool(run) and not between.strip(b" \t\r\n")
        if not adjacent or word_charset != charset:
            if run:
                found.append(_text(run, charset, problems))
                run = []
            if not adjacent:
                found.append(decode_8bit(between))
        run.append(_decode_word(start[2], octets[start.end() : end.start()]))
        charset = word_charset
        done = position = end.end()
    if run:
        found.append(_text(run, charset, problems))
    found.append(decode_8bit(octets[done:]))
    return "".join(found)


def _text(run: list[bytes], charset: str, problems: list[str]) -> str:
    text, problem = decode_text(b"".join(run), charset)
    if problem:
        problems.append(problem)
    return text


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"Bb":
        return decode_base64(text)
    if b"=" in text:
        # What is not two digits is text; binascii would drop an "=" at the end, as a soft line break.
        text = _LONE_EQUALS.sub(b"=3D", text)
    return binascii.a2b_qp(text, header=True)
