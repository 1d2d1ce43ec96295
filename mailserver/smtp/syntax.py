"""
Command lines, paths and ESMTP parameters: how they are written, and nothing about what they mean.

In: one command line without its CRLF, or a part of it, as bytes.  Out: values, or `BadSyntax` with the reason.
RFC 5321 4.1.1 (commands), 4.1.2 (arguments); RFC 6531 3.3 (UTF-8 in paths); RFC 3461 4 (xtext).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailserver.address import Address, AddressError, parse_address


class BadSyntax(ValueError):  # noqa: N818 - it names what the peer sent
    """The bytes are not what the grammar asks for; `str()` says why in words of our own."""


class Command(NamedTuple):
    """verb: upper case.  argument: what follows it, without the blanks at either end."""

    verb: bytes
    argument: bytes


# Repeats are possessive (`*+`): what they have taken they never give back, so that no input costs more than one pass.
_QUOTED_OR_TAB = re.compile(rb'"(?:[^"\\]|\\.)*+"?|\t')
# A command line may hold printable ASCII, blanks, tabs, and octets above 127 (UTF-8; RFC 6531).
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def parse_command(line: bytes) -> Command:
    """
    Split a command line into verb and argument (RFC 5321 4.1.1; trailing blanks are tolerated as 4.1.1 asks).

    A tab counts as a blank, save in a Quoted-string: there it is for the address to refuse, not for us to change.
    Raises BadSyntax for control characters: a bare CR or LF in a line never becomes the end of a command.
    """
    if _FORBIDDEN.search(line):
        raise BadSyntax("control character in a command line")
    if b"\t" in line:
        line = _QUOTED_OR_TAB.sub(lambda match: b" " if match[0] == b"\t" else match[0], line)
    verb, _, argument = line.strip(b" ").partition(b" ")
    return Command(verb.upper(), argument.strip(b" "))


#  Path         = "<" [ A-d-l ":" ] Mailbox ">"
# Quoted strings may hold angle brackets, so that the end is not simply the first ">".
_BRACKETED = re.compile(rb'<((?:"(?:[^"\\]|\\.)*+"|[^"<>])*+)>')
_BARE = re.compile(rb'(?:"(?:[^"\\]|\\.)*+"|[^"<> ])++')
#  A-d-l        = At-domain *( "," At-domain )          At-domain = "@" Domain
_SOURCE_ROUTE = re.compile(rb"@(?:\[[^\]]*+\]|[^:,@\[\] ]++)(?:,@(?:\[[^\]]*+\]|[^:,@\[\] ]++))*+:")


def parse_path(text: bytes, *, null: bool, postmaster: bool) -> tuple[Address | None, bytes]:
    """
    The path that `text` starts with, and what stands behind it (the parameters, without blanks at either end).

    null: is `<>` allowed (RFC 5321 4.5.5)?  It gives None.  postmaster: is a `<postmaster>` without a domain allowed?
    A source route is read and forgotten (RFC 5321 appendix C).  Brackets may be missing, as gen_smtp allows.
    UTF-8 is taken; whether it was allowed is for the caller to judge, from `Address.is_ascii`.
    Raises BadSyntax.
    """
    text = text.strip(b" ")
    if text.startswith(b"<"):
        match = _BRACKETED.match(text)
        if match is None:
            raise BadSyntax("path without its closing bracket")
        path = match.group(1)
    else:
        match = _BARE.match(text)
        if match is None:
            raise BadSyntax("path is missing, or has a bracket or a quote in the wrong place")
        path = match.group()
    rest = text[match.end() :]
    if rest and not rest.startswith(b" "):
        raise BadSyntax("something stands right behind the path")
    if not path and null:
        return None, rest.strip(b" ")
    if path.startswith(b"@"):
        route = _SOURCE_ROUTE.match(path)
        if route is None:
            raise BadSyntax("source route without its colon")
        path = path[route.end() :]
    try:
        address = parse_address(path.decode("utf-8"), need_domain=not postmaster)
    except UnicodeDecodeError as error:
        raise BadSyntax("address is not UTF-8") from error
    except AddressError as error:
        raise BadSyntax(str(error)) from error
    return address, rest.strip(b" ")


#  esmtp-param    = esmtp-keyword ["=" esmtp-value]
#  esmtp-keyword  = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
#  esmtp-value    = 1*(%d33-60 / %d62-126)              ; RFC 6531 3.3 adds UTF8-non-ascii
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?\Z")


def parse_parameters(text: bytes) -> dict[str, str | None]:
    """
    The ESMTP parameters behind a path: upper-case keyword -> value, None where no "=" stood; in the order given.

    Raises BadSyntax for what the grammar does not allow, and for a keyword that comes twice.
    """
    parameters: dict[str, str | None] = {}
    if not text:
        return parameters
    try:
        words = text.decode("utf-8").split(" ")
    except UnicodeDecodeError as error:
        raise BadSyntax("parameter is not UTF-8") from error
    for word in words:
        if not word:
            continue
        match = _PARAMETER.match(word)
        if match is None:
            raise BadSyntax("malformed parameter")
        keyword = match.group(1).upper()
        if keyword in parameters:
            raise BadSyntax(f"parameter {keyword} given twice")
        parameters[keyword] = match.group(2)
    return parameters


_NUMBER = re.compile(r"[0-9]{1,20}\Z", re.ASCII)


def parse_number(text: str | None) -> int:
    """
    A number in a parameter: 1 to 20 ASCII digits (RFC 1870 3), nothing else that `int()` would take.

    Raises BadSyntax.
    """
    if text is None or not _NUMBER.match(text):
        raise BadSyntax("not a number of 1 to 20 digits")
    return int(text)


_HELLO_NAME = re.compile(rb"[!-~]{1,255}\Z")


def parse_hello_name(argument: bytes) -> str:
    """
    The name a client gives to EHLO, HELO or LHLO: one word of printable ASCII, at most 255 octets.

    RFC 5321 4.1.4 forbids to refuse mail because the name is not a right one; so it is only made safe to write down.
    Raises BadSyntax.
    """
    if not _HELLO_NAME.match(argument):
        raise BadSyntax("no name, or not one word of printable ASCII")
    return argument.decode("ascii")


_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")


def decode_xtext(text: str) -> str:
    """
    Undo xtext (RFC 3461 4): "+" and two upper-case hex digits stand for an octet; the octets are UTF-8.

    Raises BadSyntax.
    """
    if not _XTEXT.match(text):
        raise BadSyntax("not xtext")
    raw = re.sub(rb"\+([0-9A-F]{2})", lambda match: bytes([int(match.group(1), 16)]), text.encode("ascii"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSyntax("xtext that is not UTF-8") from error
