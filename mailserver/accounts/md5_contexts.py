"""
HMAC-MD5 from its two half-done states, so that CRAM-MD5 works without keeping the password (RFC 2104 4, RFC 2195 2).

In: a password, or the stored contexts.  Out: Dovecot's `{CRAM-MD5}` form: 64 hexadecimal digits, the MD5 state after
the outer padded key, then the state after the inner one, each as four little-endian words.
Security: who holds the contexts can log in by CRAM-MD5, so they are kept like a password; they do not give the
password itself back.

hashlib cannot start from a state, so the compression function stands here (RFC 1321 3.4).
"""

from __future__ import annotations

import hashlib
import math
import struct

BLOCK = 64  # octets of an MD5 block
DIGEST = 16

State = tuple[int, int, int, int]

_START: State = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_MASK = 0xFFFFFFFF
# RFC 1321 3.4: T[i] is the integer part of 4294967296 times abs(sin(i)).
_SINES = [int(abs(math.sin(i + 1)) * 2**32) for i in range(64)]
_SHIFTS = [(7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)]
#: round -> the word that step i takes is (factor * i + offset) % 16
_WORDS = [(1, 0), (5, 1), (3, 5), (7, 0)]


def compress(state: State, block: bytes) -> State:
    """The MD5 state after one more block of 64 octets."""
    words = struct.unpack("<16I", block)
    a, b, c, d = state
    for step, sine in enumerate(_SINES):
        turn = step >> 4
        if turn == 0:
            mixed = (b & c) | (~b & d)
        elif turn == 1:
            mixed = (b & d) | (c & ~d)
        elif turn == 2:
            mixed = b ^ c ^ d
        else:
            mixed = c ^ (b | (~d & _MASK))
        factor, offset = _WORDS[turn]
        total = (a + mixed + words[(factor * step + offset) & 15] + sine) & _MASK
        shift = _SHIFTS[turn][step & 3]
        rotated = (total << shift | total >> (32 - shift)) & _MASK
        a, b, c, d = d, (b + rotated) & _MASK, b, c
    return (
        (state[0] + a) & _MASK,
        (state[1] + b) & _MASK,
        (state[2] + c) & _MASK,
        (state[3] + d) & _MASK,
    )


def finish(state: State, already: int, rest: bytes) -> bytes:
    """The digest (16 octets) of a text: `already` octets of it (whole blocks) are in `state`, then comes rest."""
    length = already + len(rest)
    padded = rest + b"\x80" + bytes(-(len(rest) + 9) % BLOCK) + struct.pack("<Q", length * 8)
    for at in range(0, len(padded), BLOCK):
        state = compress(state, padded[at : at + BLOCK])
    return struct.pack("<4I", *state)


def cram_contexts(password: bytes) -> str:
    """The 64 hexadecimal digits that are kept for a password."""
    # RFC 2104 2: a longer key is hashed first.
    key = hashlib.md5(password, usedforsecurity=False).digest() if len(password) > BLOCK else password
    key = key.ljust(BLOCK, b"\0")
    outer = compress(_START, bytes(byte ^ 0x5C for byte in key))
    inner = compress(_START, bytes(byte ^ 0x36 for byte in key))
    return struct.pack("<8I", *outer, *inner).hex()


def cram_digest(contexts: str, challenge: bytes) -> str:
    """
    The HMAC-MD5 of a challenge, 32 lower-case hexadecimal digits, from stored contexts.

    Raises ValueError when contexts are not 64 hexadecimal digits.
    """
    words = struct.unpack("<8I", _raw(contexts))
    inner = finish((words[4], words[5], words[6], words[7]), BLOCK, challenge)
    return finish((words[0], words[1], words[2], words[3]), BLOCK, inner).hex()


def _raw(contexts: str) -> bytes:
    try:
        raw = bytes.fromhex(contexts)
    except ValueError:
        raw = b""
    if len(raw) != 2 * DIGEST:
        # Not the text itself: it is as good as a password.
        raise ValueError("CRAM-MD5 contexts are 64 hexadecimal digits")
    return raw
