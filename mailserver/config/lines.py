"""
On which line does a key of a TOML file stand?

In: the text of a file that `tomllib` has accepted.  Out: `Lines`, key path -> line number, from 1.
tomllib tells no lines, so this scanner walks over the same text.  It trusts that the text is valid TOML, and so only
has to know where things end: strings, arrays, inline tables, comments.  A key path is a tuple of keys and indexes,
such as `("listener", 1, "limits", "errors")`.

TOML 1.0.0 (https://toml.io/en/v1.0.0); line ends inside inline tables (TOML 1.1) do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: Keys of tables (str) and indexes of arrays (int), from the root down.
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
# Line ends and comments too: what may stand between statements, and between the items of an array.
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A number, a date or a boolean.  A date may hold one blank ("1979-05-27 07:32:00"): its second half is skipped too.
_PLAIN = re.compile(r"[^,\]}#\n]+")
# In multi-line strings up to two quotes may stand right before the closing three.
_STRINGS = (
    ('"""', re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL)),
    ("'''", re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL)),
    ('"', re.compile(r'"(?:[^"\\\n]|\\.)*"')),
    ("'", re.compile(r"'[^'\n]*'")),
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|.)")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of all keys, tables and array items of one file."""

    table: Mapping[KeyPath, int]

    def __contains__(self, path: object) -> bool:
        return path in self.table

    def of(self, path: KeyPath) -> int:
        """The line of this key; when it is not in the file, that of the nearest table around it; else 1."""
        while path:
            if (line := self.table.get(path)) is not None:
                return line
            path = path[:-1]
        return 1


def scan(text: str) -> Lines:
    """
    The lines of `text`, which must be valid TOML.

    Raises ValueError when it is not and the scanner noticed, RecursionError for thousands of nested brackets.
    """
    scanner = _Scanner(text)
    scanner.document()
    return Lines(scanner.found)


class _Scanner:
    """One walk over one text.  `at` is the index of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        self._counted = 0  # index up to which line ends are counted
        self._line = 1
        self._tables_of: dict[KeyPath, int] = {}  # array of tables -> how many tables it has so far

    def document(self) -> None:
        """Statements up to the end: `[table]`, `[[array of tables]]`, `key = value`."""
        table: KeyPath = ()
        self._skip(_SPACE)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SPACE)

    def _header(self) -> KeyPath:
        line = self._line_here()
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        *parents, last = self._key()
        self._expect("]]" if double else "]")
        path: KeyPath = ()
        for part in parents:
            path = self._inside((*path, part))
            self.found.setdefault(path, line)
        path = (*path, last)
        if double:
            number = self._tables_of.get(path, 0)
            self._tables_of[path] = number + 1
            self.found.setdefault(path, line)
            path = (*path, number)
        # A table that only was a parent so far stands, after all, here.
        self.found[path] = line
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """The path itself, or, for an array of tables, that of its last table."""
        number = self._tables_of.get(path, 0)
        return (*path, number - 1) if number else path

    def _pair(self, table: KeyPath) -> None:
        line = self._line_here()
        path = table
        for part in self._key():
            path = (*path, part)
            self.found.setdefault(path, line)
        self._expect("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        first = self.text[self.at : self.at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in ('"', "'"):
            self._string()
        else:
            self._take(_PLAIN, "a value")

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        number = 0
        while not self._ends("]"):
            item = (*path, number)
            self.found[item] = self._line_here()
            self._value(item)
            number += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while not self._ends("}"):
            self._pair(path)

    def _ends(self, bracket: str) -> bool:
        """Steps over the comma before the next item, or over the closing bracket: then True."""
        self._skip(_SPACE)
        if self.text.startswith(",", self.at):
            self.at += 1
            self._skip(_SPACE)
        if self.text.startswith(bracket, self.at):
            self.at += 1
            return True
        return False

    def _key(self) -> list[str]:
        """A key, as its dotted parts."""
        parts = [self._key_part()]
        self._skip(_BLANK)
        while self.text.startswith(".", self.at):
            self.at += 1
            parts.append(self._key_part())
            self._skip(_BLANK)
        return parts

    def _key_part(self) -> str:
        self._skip(_BLANK)
        quote = self.text[self.at : self.at + 1]
        if quote == '"':
            return _ESCAPE.sub(_unescape, self._string()[1:-1])
        if quote == "'":
            return self._string()[1:-1]
        return self._take(_BARE_KEY, "a key")

    def _string(self) -> str:
        """A string with its quotes.  A quote is known to stand here."""
        pattern = next(pattern for opening, pattern in _STRINGS if self.text.startswith(opening, self.at))
        return self._take(pattern, "the end of a string")

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"line {self._line_here()}: expected {what}")
        self.at = match.end()
        return match.group()

    def _expect(self, token: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(token, self.at):
            raise ValueError(f"line {self._line_here()}: expected {token}")
        self.at += len(token)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._take(pattern, "blanks")  # of which there may be none

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)
