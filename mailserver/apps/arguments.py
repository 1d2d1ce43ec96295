"""
Arguments in an address: run+ticket=42+colour=dark%20blue@example.org hands over ticket and colour.

In: the detail of a recipient's address.  Out: a dict of texts, or `ArgumentsError` that names what is wrong.
The form is that of Windmill's email triggers ("+key=value", any number of them), with "%" and two hexadecimal digits
for what cannot stand in an address or would be taken for a separator (RFC 3986 2.1).  Whoever writes to the address
chooses the values: they are bounded, hold no control characters, and their names cannot be those of anything else.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from mailserver.address import Address
from mailserver.apps.view import AppAddress

#: What separates user and detail where the address does not say it.
SEPARATOR = "+"
#: Arguments of an address; the local part has 64 octets at most, so this is hard to reach.
MAX_ARGUMENTS = 16
#: Characters of a name.
MAX_NAME = 32

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class ArgumentsError(ValueError):
    """The address has arguments that cannot be taken; `str()` says why, in words that hold nothing of the values."""


def script_arguments(address: Address) -> dict[str, str]:
    """
    The arguments that stand in the detail of an address: name -> value, in their order.

    A piece without "=" is no argument: of run+42+a=1@example.org they are {"a": "1"}.  Raises ArgumentsError for a
    name that is none or stands twice (case does not count), for a "%" without two hexadecimal digits, for a value
    that is no UTF-8 or holds a control character, and for more than `MAX_ARGUMENTS`.
    """
    _user, separator, detail = parts_of(address)
    found: dict[str, str] = {}
    seen: set[str] = set()
    if not detail:
        return found
    for piece in detail.split(separator):
        name, equals, raw = piece.partition("=")
        if not equals:
            continue
        if len(name) > MAX_NAME or not _NAME.match(name):
            raise ArgumentsError("the name of an argument has letters, digits and _ only, a letter first")
        if name.upper() in seen:
            raise ArgumentsError(f"argument {name} stands twice")
        if len(seen) == MAX_ARGUMENTS:
            raise ArgumentsError(f"more than {MAX_ARGUMENTS} arguments")
        seen.add(name.upper())
        found[name] = _decoded(name, raw)
    return found


def parts_of(address: Address) -> tuple[str, str, str]:
    """(user, separator, detail) of an address: of tickets+42@example.org ("tickets", "+", "42")."""
    separator = address.separator if isinstance(address, AppAddress) else SEPARATOR
    base, detail = address.split_detail(separator)
    return base.local, separator, detail


def _decoded(name: str, raw: str) -> str:
    if _ESCAPE.search(raw):
        raise ArgumentsError(f"argument {name} has a % without two hexadecimal digits")
    try:
        value = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentsError(f"argument {name} is no UTF-8") from error
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise ArgumentsError(f"argument {name} has a control character")
    return value
