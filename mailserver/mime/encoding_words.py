"""
Encoded words (RFC 2047): how text beyond ASCII is written into a header field.

In: text.  Out: encoded words in UTF-8, each at most 75 characters, none with half a character (RFC 2047 5 (3)).
Failures: none; half a surrogate pair becomes "?".
"""

from __future__ import annotations

import binascii

#: RFC 2047 2.
MOST_IN_A_WORD = 75
_OVERHEAD = len("=?utf-8?q??=")
# What may stand as it is in a Q word anywhere, also in a phrase (RFC 2047 5 (3)).
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = tuple(chr(octet) if octet in _SAFE else "_" if octet == 32 else f"={octet:02X}" for octet in range(256))
_NEEDS_NO_ESCAPE = bytes(sorted(_SAFE | {32}))


def encode_words(text: str, *, first: int = MOST_IN_A_WORD) -> list[str]:
    """
    The text as encoded words, to be written with a blank or a fold between.

    first: how many characters the first word may have; at least 24, which is room for one character of any length.
    Q where at most a third of the octets must be escaped, because it can be read; else B.  "" gives [].
    """
    octets = text.encode("utf-8", "replace")
    escapes = len(octets.translate(None, _NEEDS_NO_ESCAPE))
    if escapes * 3 <= len(octets):
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
