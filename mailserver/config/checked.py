"""
The types of configuration values: what a text must look like to be a host name, a mailbox, a path.

In: a value as `tomllib` gave it.  Out: the value in the form that the other rooms use, or ValueError with what would
be right.  Nothing here looks at the machine; that is `ground`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path

from pydantic import ValidationInfo

from mailserver.address import AddressError, normal_domain, parse_address
from mailserver.address_patterns import NULL_SENDER, compile_pattern
from mailserver.config.quantities import show
from mailserver.limits import Limits
from mailserver.sockets import ListenAddress, Network, parse_network

#: Characters of a greeting's text: with the longest host name it still fits a reply line (RFC 5321 4.5.3.1.5).
MAX_BANNER = 200
#: Processes that serve; more than any machine has processors to gain by them.
MAX_WORKERS = 64
#: SASL mechanisms that the server knows.
MECHANISMS = (
    "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL", "OAUTHBEARER", "XOAUTH2"
)  # fmt: skip
#: EHLO keywords that a listener can leave out.
EXTENSIONS = (
    "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "DSN", "STARTTLS", "AUTH",
    "REQUIRETLS", "LIMITS", "FUTURERELEASE", "XCLIENT", "SIZE",
)  # fmt: skip

_MODE = re.compile(r"0?[0-7]{3}\Z")
# useradd(8) and the directories behind NSS are not of one mind about names; these characters no name has.
_OWNER = re.compile(r"[^:\s\0]+(?::[^:\s\0]+)?\Z")
_LISTENER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
# A separator must be able to stand in a dot-string (RFC 5321 4.1.2), the dot included.
_SEPARATOR = re.compile(r"[!#$%&'*+\-./=?^_`{|}~]\Z")


def machine_name() -> str:
    """The name of this machine as the system knows it, in its normal form; "localhost" when that is no name."""
    try:
        return hostname(socket.gethostname())
    except ValueError:
        return "localhost"


def hostname(text: str) -> str:
    """A host name in its normal form: lower case, A-labels, no trailing dot."""
    if not text:
        raise ValueError('must not be empty; write a name such as "mail.example.org"')
    try:
        name = normal_domain(text)
    except AddressError as error:
        raise ValueError(f"{show(text)} is not a host name: {error}") from error
    if name.startswith("[") or _is_ip(name):
        raise ValueError(f'{show(text)} is an IP address; write a name such as "mail.example.org"')
    return name


def mail_domain(text: str) -> str:
    """A mail domain in its normal form; an address literal ("[192.0.2.1]") is one too."""
    if not text:
        raise ValueError('must not be empty; write a domain such as "example.org"')
    try:
        name = normal_domain(text)
    except AddressError as error:
        raise ValueError(f"{show(text)} is not a domain: {error}") from error
    if _is_ip(name):
        raise ValueError(f'{show(text)} is an IP address; write a domain such as "example.org"')
    return name


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def mailbox(text: str) -> str:
    """An address with a domain, as it was written."""
    try:
        parse_address(text)
    except AddressError as error:
        raise ValueError(f"{show(text)} is not an address: {error}; write one such as user@example.org") from error
    return text


def separator(text: str) -> str:
    """What stands between user and detail: one character, or "" for none."""
    if text and not _SEPARATOR.match(text):
        raise ValueError(f'must be one character such as "+" or "-", or "" for none, not {show(text)}')
    return text


def mechanism(text: str) -> str:
    """The name of a SASL mechanism, in upper case."""
    if text.upper() not in MECHANISMS:
        raise ValueError(f"{show(text)} is not available; use {one_of(MECHANISMS)}")
    return text.upper()


def extension(text: str) -> str:
    """The keyword of an extension, in upper case."""
    if text.upper() not in EXTENSIONS:
        raise ValueError(f"{show(text)} is no extension of ours; use {one_of(EXTENSIONS)}")
    return text.upper()


def network(value: object) -> Network:
    """An IP network, or one address."""
    if isinstance(value, Network):
        return value
    if not isinstance(value, str):
        problem = f'must be a network in quotes such as "192.0.2.0/24", not {show(value)}'
        raise ValueError(problem)  # noqa: TRY004 - pydantic collects ValueError
    return parse_network(value)


def unix_mode(text: str) -> str:
    """The mode of a Unix socket as four octal digits.  Its owner must be able to connect."""
    if not _MODE.match(text):
        raise ValueError(f'must be an octal mode such as "0660", not {show(text)}')
    if text[-3] not in "67":
        raise ValueError(f'{show(text)} would keep out the owner of the socket; write one such as "0600" or "0660"')
    return text.zfill(4)


def unix_owner(text: str) -> str:
    """The owner of a Unix socket: "user:group" or "user"."""
    if not _OWNER.match(text):
        raise ValueError(f'must be "user:group" or "user", not {show(text)}')
    return text


def worker_count(value: object) -> int | str:
    """How many processes serve: a number, or "auto"."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS):
        return value
    raise ValueError(f'must be a whole number from 1 to {MAX_WORKERS}, or "auto", not {show(value)}')


def banner(text: str) -> str:
    """The text behind the host name in a greeting."""
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII on one line")
    if len(text) > MAX_BANNER:
        raise ValueError(f"must not be longer than {MAX_BANNER} characters, these are {len(text)}")
    return text


def listener_name(text: str) -> str:
    """The name of a listener."""
    if not _LISTENER_NAME.match(text):
        raise ValueError('must be letters, digits, "-", "_" and ".", at most 64, as in "submission"')
    return text


def file_path(value: object, info: ValidationInfo) -> Path:
    """An absolute path; a relative one starts at the validation context's `folder`, where there is one."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be a path in quotes, not {show(value)}")  # noqa: TRY004 - pydantic collects ValueError
    if not value or "\0" in value:
        raise ValueError("must be a path; it is empty or has a NUL character")
    if value.startswith("~"):
        raise ValueError(f"{show(value)}: nothing stands in for ~ here; write the path in full")
    return Path(os.path.normpath(_folder(info) / value))


def listen_address(value: object, info: ValidationInfo) -> ListenAddress:
    """An address to listen on; the relative path of a Unix socket starts at the context's `folder`."""
    return value if isinstance(value, ListenAddress) else parse_listen_address(value, _folder(info))


def parse_listen_address(value: object, folder: Path) -> ListenAddress:
    """The address of a value of the file.  Raises ValueError: what would be right."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        problem = f'must be text such as "127.0.0.1:2525", or a port, not {show(value)}'
        raise ValueError(problem)  # noqa: TRY004 - pydantic collects ValueError
    if isinstance(value, str) and value.startswith("unix:") and value[5:] and not value.startswith("unix:/"):
        value = f"unix:{os.path.normpath(folder / value[5:])}"
    return ListenAddress.parse(value)


def _folder(info: ValidationInfo) -> Path:
    return Path(info.context["folder"]) if info.context else Path()


def app_name(text: str) -> str:
    """The name of an app."""
    if not _LISTENER_NAME.match(text):
        raise ValueError('must be letters, digits, "-", "_" and ".", at most 64, as in "tickets"')
    return text


def address_pattern(text: str) -> str:
    """A pattern of addresses, as it was written."""
    compile_pattern(text)
    return text


def sender_pattern(text: str) -> str:
    """The same, or "<>"."""
    return text if text == NULL_SENDER else address_pattern(text)


def one_or_many(value: object) -> tuple[object, ...]:
    """A text, or a list of them, as a tuple."""
    return (value,) if isinstance(value, str) else as_tuple(value)


def as_tuple(value: object) -> tuple[object, ...]:
    """A list of TOML as a tuple: frozen classes hold no lists."""
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError(f"must be a list in brackets, not {show(value)}")


def instance_of_limits(value: object) -> Limits:
    """Only whole `Limits` are taken here: `reading` makes them from the file's tables."""
    if isinstance(value, Limits):
        return value
    raise ValueError("must be Limits")


def one_of(words: tuple[str, ...], last: str = "or") -> str:
    """ "a", "b" or "c": words in quotes, for a sentence."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"
