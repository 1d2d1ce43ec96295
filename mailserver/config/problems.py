"""
What is wrong with a configuration, and where.

In: file, line, key, text.  Out: `Problem`, and `ConfigError`, which carries all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing that is wrong, as `file:line: key: what is wrong and what would be right`.

    file: as it was named by the user.  line: from 1.  key: "server.hostname", "listener.submission.tls" (a listener
    and a domain go by their names, other things of a list by their number, from 1).
    warning: True when the server can start with it.
    """

    file: str
    line: int
    key: str
    text: str
    warning: bool = False

    def __str__(self) -> str:
        mark = "warning: " if self.warning else ""
        return f"{self.file}:{self.line}: {self.key}: {mark}{self.text}"


class ConfigError(Exception):
    """
    A configuration that cannot be used.

    problems: everything that was found, warnings too, in the order of the lines.  `str()` has one line for each.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """The problems sorted by line, then by key, each only once."""
    return tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.key, p.text)))
