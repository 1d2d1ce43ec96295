"""
What was sent, and what the server answered: the memory of the driver, which outlives every blow.

In: each message before it is sent, each reply as soon as it is read.  Out: which messages must be there.
Every line is in a file before the driver goes on, so that a person can read afterwards what happened.
An id is sent once only: a client that repeats what it got no answer for would hide doubles of the server.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.crash.messages import Message

ACKNOWLEDGED = "250"


@dataclass
class Entry:
    """
    One message. reply: code and enhanced code of the last reply, "250" when it was taken; None as long as, or because,
    there was none.  settled: the reply was looked at, and was right at its time.
    """

    digest: str
    recipients: tuple[str, ...]
    reply: str | None = None
    settled: bool = False


class Notes:
    """Every method may be called in any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._entries: dict[str, Entry] = {}
        self._stuck: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def sending(self, message: Message, recipients: Sequence[str]) -> None:
        """Before the first octet leaves."""
        with self._lock:
            self._file.write(f"sending {message.id} {message.digest} {' '.join(recipients)}\n")
            self._entries[message.id] = Entry(message.digest, tuple(recipients))

    def answered(self, name: str, reply: str) -> None:
        """After the reply to a message, before anything else."""
        with self._lock:
            self._file.write(f"answered {name} {reply}\n")
            self._entries[name].reply = reply

    def stuck(self, what: str) -> None:
        """The server lives, but does not answer."""
        with self._lock:
            self._file.write(f"stuck {what}\n")
            self._stuck.append(what)

    def remark(self, what: str) -> None:
        """For the person who reads the file."""
        with self._lock:
            self._file.write(f"-- {what}\n")

    def entries(self) -> dict[str, Entry]:
        """A copy of all, by id."""
        with self._lock:
            return {name: replace(each) for name, each in self._entries.items()}

    def acknowledged(self) -> frozenset[str]:
        """The ids that were answered 250 up to now."""
        with self._lock:
            return frozenset(name for name, each in self._entries.items() if each.reply == ACKNOWLEDGED)

    def replies(self) -> dict[str, int]:
        """How often each reply was given since `settle`."""
        counts: dict[str, int] = {}
        for each in self.entries().values():
            if each.reply is not None and not each.settled:
                counts[each.reply] = counts.get(each.reply, 0) + 1
        return counts

    def settle(self) -> None:
        """Refusals up to now were as they should be; what was refused may still not be there."""
        with self._lock:
            for each in self._entries.values():
                each.settled = each.reply is not None

    def troubles(self) -> list[str]:
        """What the server did not answer in time."""
        with self._lock:
            return list(self._stuck)

    def only(self, kept: Collection[str]) -> None:
        """The power was cut when these were acknowledged: of all that came later nobody was promised anything."""
        with self._lock:
            for name, each in self._entries.items():
                if each.reply == ACKNOWLEDGED and name not in kept:
                    each.reply = None
            self._file.write(f"-- power cut: {len(kept)} acknowledged before it\n")
