"""
Encoded words (RFC 2047): text in header fields that is not ASCII.

In: what stands in a field, as octets.  Out: text.  Reading never fails: what is no encoded word stays as it is.
And back: text into encoded words in UTF-8, each of at most 75 characters, none with half a character (5 (3)).

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
    found = [] if problems is None else problems
    text = _decode(octets, found) if b"=?" in octets else decode_8bit(octets)
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


# -- writing ---------------------------------------------------------------------------------------------------------

#: RFC 2047 2.
MOST_IN_A_WORD = 75
_OVERHEAD = len("=?utf-8?q??=")
# What may stand as it is in a Q word anywhere, also in a phrase (RFC 2047 5 (3)).
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = tuple(chr(octet) if octet in _SAFE else "_" if octet == 32 else f"={octet:02X}" for octet in range(256))
_READABLE = frozenset(map(chr, _SAFE | {32}))


def encode_words(text: str, *, first: int = MOST_IN_A_WORD) -> list[str]:
    """
    The text as encoded words, to be written with a blank or a fold between.

    first: how many characters the first word may have; at least 24, which is room for one character of any length.
    Q where at least half of the characters can be read then, else B.  "" gives [].
    """
    if sum(character in _READABLE for character in text) * 2 >= len(text):
        return [f"=?utf-8?q?{word}?=" for word in _q_words(text, first)]
    return [f"=?utf-8?b?{word}?=" for word in _b_words(text, first)]


def _q_words(text: str, first: int) -> list[str]:
    room = first - _OVERHEAD
    words: list[str] = []
    pieces: list[str] = []
    length = 0
    for character in text:
        piece = "".join([_Q[octet] for octet in character.encode("utf-8", "replace")])
        if length + len(piece) > room and pieces:
            words.append("".join(pieces))
            pieces, length, room = [], 0, MOST_IN_A_WORD - _OVERHEAD
        pieces.append(piece)
        length += len(piece)
    return [*words, "".join(pieces)] if pieces else words


def _b_words(text: str, first: int) -> list[str]:
    room = (first - _OVERHEAD) // 4 * 3
    words: list[str] = []
    octets = bytearray()
    for character in text:
        piece = character.encode("utf-8", "replace")
        if len(octets) + len(piece) > room and octets:
            words.append(_base64(octets))
            octets, room = bytearray(), (MOST_IN_A_WORD - _OVERHEAD) // 4 * 3
        octets += piece
    return [*words, _base64(octets)] if octets else words


def _base64(octets: bytes | bytearray) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")
