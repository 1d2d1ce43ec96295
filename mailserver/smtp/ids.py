"""
Ids for connections and transactions, as they stand in replies, trace fields and the log.

In: nothing.  Out: 8 letters and digits, 40 random bits, which nobody can guess.  The system is asked for the bits of
many ids at once: one by one they would be a system call for each message.  Safe in any thread, and after a fork.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

#: So many are drawn at once: five octets each.
DRAWN = 128


class RandomIds:
    """Call it for an id.  random_octets: what brings so many octets."""

    def __init__(self, random_octets: Callable[[int], bytes] = os.urandom) -> None:
        self._random_octets = random_octets
        self._drawn: list[str] = []
        # A forked process must not give the ids of its parent.
        os.register_at_fork(after_in_child=self._drawn.clear)

    def __call__(self) -> str:
        try:
            return self._drawn.pop()
        except IndexError:
            letters = base64.b32encode(self._random_octets(5 * DRAWN)).decode("ascii").lower()
            first, *others = (letters[at : at + 8] for at in range(0, len(letters), 8))
            self._drawn.extend(others)
            return first


new_id = RandomIds()
