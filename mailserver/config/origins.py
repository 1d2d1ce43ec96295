"""
Names, lines and origins of configuration keys.

In: key paths, and where they stand in the file.  Out: the name by which a key is spoken of, problems with their line,
and for `mailserver config show` every key's effective value and where that came from.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mailserver.config.lines import KeyPath, Lines
from mailserver.config.problems import Problem
from mailserver.config.quantities import toml_key
from mailserver.limits import Limits

if TYPE_CHECKING:
    from mailserver.config.classes import Table

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Effective:
    """
    One key as it is in force.

    key: as in problems.  value: str, int, float, bool, list or None (nothing set).
    origin: "default", "FILE:LINE", or "[server] hostname" and the like where another key is inherited.
    """

    key: str
    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Places:
    """
    Where things stand in one file.

    names: of listeners and domains, by their path (`("listener", 0)`); they are spoken of by name.
    """

    file: str
    lines: Lines
    names: dict[KeyPath, str] = field(default_factory=dict)

    def key(self, path: KeyPath) -> str:
        """The name of a key: `listener.smtp-25.limits.errors`, `tls.certificate[1].key`."""
        text = ""
        for end, part in enumerate(path, 1):
            if isinstance(part, str):
                text += "." * bool(text) + toml_key(part)
            elif name := self.names.get(path[:end]):
                text += "." + toml_key(name)
            else:
                text += f"[{part + 1}]"
        return text

    def problem(self, path: KeyPath, text: str, *, warning: bool = False) -> Problem:
        """A problem with its line; a key that is not in the file stands at the line of its table."""
        return Problem(self.file, self.lines.of(path), self.key(path), text, warning)

    def origin(self, path: KeyPath, otherwise: str = DEFAULT) -> str:
        """ "FILE:LINE" when the key is in the file, else what else is said."""
        return f"{self.file}:{self.lines.of(path)}" if path in self.lines else otherwise


# What stands under such a key is nobody's business who looks over the operator's shoulder.
_SECRET = re.compile(r"(?i)secret|password|passwd|token|authorization|api_?key|headers")


def shown(value: object) -> object:
    """A value as JSON and TOML can write it."""
    if isinstance(value, tuple):
        return [shown(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {key: "***" if _SECRET.search(key) else shown(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return {key: shown(getattr(value, key)) for key in type(value).model_fields if getattr(value, key)}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return str(value)  # paths and addresses


def of_table(table: Table, prefix: str, origins: Mapping[str, str]) -> Iterator[Effective]:
    """The keys of a table.  Lists of tables and limits are told by whoever knows their names."""
    for name, about in type(table).model_fields.items():
        value = getattr(table, name)
        if name in table.not_in_file or isinstance(value, Limits) or about.alias:
            continue
        key = f"{prefix}.{name}"
        yield Effective(key, shown(value), origins.get(key, DEFAULT))


def of_limits(
    limits: Limits, prefix: str, origins: Mapping[str, str], base: Limits | None = None
) -> Iterator[Effective]:
    """The keys of limits; with a base, only those that are not the same there or stand in the file."""
    for about in dataclasses.fields(Limits):
        key, value = f"{prefix}.{about.name}", getattr(limits, about.name)
        if base is None or key in origins or value != getattr(base, about.name):
            yield Effective(key, value, origins.get(key, DEFAULT))
