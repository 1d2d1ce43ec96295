"""
A passwd file of Dovecot, read for import (its manual, "Passwd-file").

In: lines `user:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields`, of which we use the user, the hash, and of the
extra fields the quota rule and `nologin`.  Out: rows to add, and the problems with their line numbers.
Failures: none; a line that cannot be used is a problem, and the others go on.
Security: a password in plain text is hashed here; no problem's text holds a password or a hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mailserver.accounts.passwords import BadHash, BadPassword, hash_password, recognise
from mailserver.address import Address, AddressError, parse_address

_PLAIN = re.compile(r"\{(?:PLAIN|CLEARTEXT|CLEAR)\}(.*)\Z", re.IGNORECASE)
_QUOTA_FIELD = re.compile(r"(?:userdb_)?quota_rule\d*\Z")
_SIZE = re.compile(r"([0-9]{1,15})([bkmgt]?)i?b?\Z", re.IGNORECASE)
#: A number without a unit is in KiB, says the manual.
_UNITS = {"b": 1, "": 2**10, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SHELL_AND_BEFORE = 7


@dataclass(frozen=True, slots=True)
class PasswdRow:
    """One user.  line: its number, from 1.  quota: octets, 0 for no limit, None when the file does not say."""

    line: int
    address: Address
    hashes: tuple[str, ...] = field(repr=False)
    quota: int | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that cannot be used.  line: its number, from 1.  text: what is wrong."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text}"


def import_passwd_file(
    lines: Iterable[str],
    *,
    default_domain: str = "",
    hash_plain: Callable[[str], tuple[str, ...]] = hash_password,
) -> tuple[tuple[PasswdRow, ...], tuple[Problem, ...]]:
    """
    The rows of a passwd file, and its problems.

    default_domain: for users without one; "" makes them a problem.  hash_plain: password -> hashes to keep, for
    passwords in plain text; may raise BadPassword.
    """
    rows: dict[str, PasswdRow] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        line = line.strip("\r\n")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            row = _row(number, line, default_domain, hash_plain)
            if (earlier := rows.get(row.address.key)) is not None:
                raise _UnusableError(f"{row.address} stands on line {earlier.line} already")
        except (_UnusableError, BadHash, BadPassword) as error:
            problems.append(Problem(number, str(error)))
        else:
            rows[row.address.key] = row
    return tuple(rows.values()), tuple(problems)


class _UnusableError(ValueError):
    """The line cannot be used; `str()` says why."""


def _row(number: int, line: str, default_domain: str, hash_plain: Callable[[str], tuple[str, ...]]) -> PasswdRow:
    fields = line.split(":", _SHELL_AND_BEFORE)
    if len(fields) < 2:
        raise _UnusableError("no colon: user:{SCHEME}hash:... was expected")
    user, password = fields[0].strip(), fields[1]
    try:
        address = parse_address(f"{user}@{default_domain}" if default_domain and "@" not in user else user)
    except AddressError as error:
        raise _UnusableError(f"the user is no address: {error}") from error
    extra = dict(_extra_fields(fields[_SHELL_AND_BEFORE] if len(fields) > _SHELL_AND_BEFORE else ""))
    if "nopassword" in extra:
        raise _UnusableError("nopassword: an account without a password is not taken")
    return PasswdRow(number, address, _hashes(password, hash_plain), _quota(extra), "nologin" not in extra)


def _hashes(password: str, hash_plain: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    if not password:
        raise _UnusableError("no password")
    if password[0] in "*!":
        raise _UnusableError("the password is locked")
    if plain := _PLAIN.match(password):
        return hash_plain(plain[1])
    return (recognise(password),)


def _extra_fields(text: str) -> Iterator[tuple[str, str]]:
    for word in text.split():
        name, _equals, value = word.partition("=")
        yield name.lower(), value


def _quota(extra: dict[str, str]) -> int | None:
    """From `quota_rule=*:storage=1G`; rules of single folders, and the number of messages, are not ours."""
    for name, value in extra.items():
        root, _colon, rule = value.partition(":")
        if not _QUOTA_FIELD.match(name) or root != "*":
            continue
        for part in rule.split(":"):
            kind, _equals, size = part.partition("=")
            if kind == "ignore":
                return 0
            if kind in ("storage", "bytes"):
                return _octets(size, kind)
    return None


def _octets(text: str, kind: str) -> int:
    if (form := _SIZE.match(text)) is None:
        raise _UnusableError(f"a quota of {kind}={text[:20]!r} is not understood")
    number, unit = int(form[1]), form[2].lower()
    return number if kind == "bytes" and not unit else number * _UNITS[unit]
