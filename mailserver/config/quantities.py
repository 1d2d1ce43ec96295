"""
Sizes and times as people write them.

In: a number, or text such as "50 MiB", "1GB", "5 min", "2h".  Out: octets (int), seconds (float), or ValueError with
what would be right; and back again, for the sample and for `config show`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

#: Unit -> octets.  Compared without case.
SIZES = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
#: Unit -> seconds.
TIMES = {
    "ms": 0.001,
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip

_SIZES = {unit.lower(): octets for unit, octets in SIZES.items()}
# ASCII digits only: `\d` would take the digits of every script.
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) *([A-Za-z]+)\Z")
_SIZE_HINT = 'a number of octets, or text such as "50 MiB" or "1 GB"'
_TIME_HINT = 'a number of seconds, or text such as "30 s", "5 min" or "2 h"'
_SHOWN = 60


def parse_size(value: object) -> int:
    """Octets.  Raises ValueError for anything but a whole number or a size in text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    octets = _parse(value, _SIZES, _SIZE_HINT)
    if octets != int(octets):
        raise ValueError(f"{show(value)} is not a whole number of octets")
    return int(octets)


def parse_duration(value: object) -> float:
    """Seconds.  Raises ValueError for anything but a finite number or a time in text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"must be {_TIME_HINT}, not {show(value)}")
        return float(value)
    return _parse(value, TIMES, _TIME_HINT)


def _parse(value: object, units: dict[str, int] | dict[str, float], hint: str) -> float:
    match = _QUANTITY.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be {hint}, not {show(value)}")
    number, unit = match.groups()
    if (factor := units.get(unit.lower())) is None:
        raise ValueError(f'"{unit}" is no unit here; write {hint}')
    # Whole numbers stay exact: a float has 53 bits only.
    return int(number) * factor if "." not in number else float(number) * factor


@dataclass(frozen=True, slots=True)
class Range:
    """
    The allowed range of a number, both ends included; calling it gives the number back or raises ValueError.

    unit: "octets", "seconds" or "" for a count.
    """

    least: float
    most: float
    unit: str = ""

    def __call__(self, number: float) -> float:
        if not self.least <= number <= self.most:
            raise ValueError(f"must be from {self}, not {with_unit(number, self.unit)}")
        return number

    def __str__(self) -> str:
        return f"{with_unit(self.least, self.unit)} to {with_unit(self.most, self.unit)}"


def with_unit(number: float, unit: str) -> str:
    """A number for a reader.  unit: "octets", "seconds" or ""."""
    if unit == "octets":
        return render_size(int(number))
    if unit == "seconds":
        return render_duration(number)
    return f"{number:,}"


def render_size(octets: int) -> str:
    """Octets for a reader: "50 MiB", or "1,000 octets" where no binary unit fits exactly."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if octets >= SIZES[unit] and octets % SIZES[unit] == 0:
            return f"{octets // SIZES[unit]:,} {unit}"
    return f"{octets:,} octets"


def render_duration(seconds: float) -> str:
    """Seconds for a reader: "2 h", "5 min", "1.5 s"."""
    for unit in ("d", "h", "min"):
        if seconds >= TIMES[unit] and seconds % TIMES[unit] == 0:
            return f"{seconds // TIMES[unit]:,.0f} {unit}"
    return f"{seconds:,.0f} s" if seconds == int(seconds) else f"{seconds:,} s"


def show(value: object) -> str:
    """A value of a TOML file as it is quoted in a problem: as TOML writes it, on one line, cut to 60 characters."""
    text = toml(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def toml(value: object) -> str:
    """A value as TOML writes it (on one line).  Raises TypeError for what TOML has no form for."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(map(_escape, value)) + '"'
        case int() | float():
            return str(value)
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
        case dict():
            return "{ " + ", ".join(f"{toml_key(k)} = {toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if hasattr(value, "isoformat"):  # dates and times, which TOML writes as ISO 8601
        return str(value.isoformat())
    raise TypeError(f"TOML has no form for {type(value).__name__}")


def toml_key(key: str) -> str:
    """A key as TOML writes it: quoted only where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
