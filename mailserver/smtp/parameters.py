"""
The ESMTP parameters of MAIL and RCPT: which there are, and what their values mean.

In: the octets behind a path.  Out: checked values, or `Unacceptable` with the reply: 501 for a malformed one, 504 for
a value that we do not do, 552 for a size over the limit, 555 for an unknown keyword.
RFC 5321 4.1.1.11 (555), RFC 1870 (SIZE), RFC 6152 and 3030 (BODY), RFC 6531 3.4 (SMTPUTF8), RFC 4954 5 (AUTH),
RFC 3461 (RET, ENVID, NOTIFY, ORCPT), RFC 8689 (REQUIRETLS), RFC 4865 (HOLDFOR, HOLDUNTIL).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mailserver import reply as replies
from mailserver.address import AddressError, parse_address
from mailserver.envelope import NO_PARAMETERS, Parameters
from mailserver.limits import Limits
from mailserver.reply import Reply, echo
from mailserver.smtp.syntax import BadSyntax, decode_xtext, parse_number, parse_parameters


class Unacceptable(Exception):  # noqa: N818 - it carries a reply
    """These parameters are refused with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailParameters:
    """The parameters of one MAIL.  given: all of them, as they were given.  size: declared octets, or None."""

    given: Parameters
    size: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False


#: Of a MAIL without parameters.
NOTHING_WANTED = MailParameters(NO_PARAMETERS)


def mail_parameters(
    text: bytes, limits: Limits, known: Collection[str], foreign: Collection[str] = ()
) -> MailParameters:
    """
    The parameters behind MAIL's path.  known: the extensions that work here.  foreign: keywords that somebody else
    understands, and judges.  Raises Unacceptable.
    """
    given = _parse(text)
    size, body, smtputf8 = None, "7BIT", False
    for keyword, value in given.items():
        if _EXTENSION_OF_MAIL.get(keyword) not in known:
            if keyword in foreign:
                continue
            raise Unacceptable(_unknown(keyword))
        if keyword == "SIZE":
            size = _size(value, limits)
        elif keyword == "BODY":
            body = _body(value, known)
        elif keyword == "SMTPUTF8":
            _no_value(keyword, value)
            smtputf8 = True
        else:
            _CHECKS[keyword](keyword, value)
    if "HOLDFOR" in given and "HOLDUNTIL" in given:
        # RFC 4865 5: one or the other.
        raise Unacceptable(Reply(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other"))
    return MailParameters(given, size, body, smtputf8)


def rcpt_parameters(text: bytes, known: Collection[str], foreign: Collection[str] = ()) -> Parameters:
    """The parameters behind RCPT's path; see `mail_parameters`.  Raises Unacceptable."""
    given = _parse(text)
    for keyword, value in given.items():
        if keyword not in ("NOTIFY", "ORCPT") or "DSN" not in known:
            if keyword in foreign:
                continue
            raise Unacceptable(_unknown(keyword))
        _CHECKS[keyword](keyword, value)
    return given


def _parse(text: bytes) -> dict[str, str | None]:
    try:
        return parse_parameters(text)
    except BadSyntax as error:
        raise Unacceptable(Reply(501, "5.5.4", f"Bad parameter: {error}")) from error


def _size(value: str | None, limits: Limits) -> int:
    try:
        size = parse_number(value)
    except BadSyntax as error:
        raise Unacceptable(Reply(501, "5.5.4", f"Bad SIZE: {error}")) from error
    if size > limits.message_size:
        raise Unacceptable(replies.MESSAGE_TOO_BIG)
    return size


def _body(value: str | None, known: Collection[str]) -> str:
    body = (value or "").upper()
    if body in ("7BIT", "8BITMIME") or (body == "BINARYMIME" and body in known):
        return body
    if value is None:
        raise Unacceptable(Reply(501, "5.5.4", "BODY needs a value"))
    raise Unacceptable(Reply(504, "5.5.4", "BODY value not implemented"))


def _no_value(keyword: str, value: str | None) -> None:
    if value is not None:
        raise Unacceptable(Reply(501, "5.5.4", f"{keyword} takes no value"))


def _bad(keyword: str) -> Unacceptable:
    return Unacceptable(Reply(501, "5.5.4", f"Bad {keyword}"))


def _check_auth(keyword: str, value: str | None) -> None:
    # RFC 4954 5: an xtext mailbox or "<>".  We trust no client to speak for another; it is read and not used.
    # curl puts the mailbox into angle brackets, and other servers take it.
    try:
        if value != "<>":
            text = decode_xtext(value or "")
            parse_address(text[1:-1] if text[:1] + text[-1:] == "<>" else text)
    except (BadSyntax, AddressError) as error:
        raise _bad(keyword) from error


def _check_ret(keyword: str, value: str | None) -> None:
    # RFC 3461 4.3.
    if (value or "").upper() not in ("FULL", "HDRS"):
        raise _bad(keyword)


def _check_envid(keyword: str, value: str | None) -> None:
    # RFC 3461 4.4: xtext of at most 100 characters, which holds printable ASCII.
    try:
        text = decode_xtext(value or "")
    except BadSyntax as error:
        raise _bad(keyword) from error
    if not text or len(value or "") > 100 or not (text.isascii() and text.isprintable()):
        raise _bad(keyword)


def _check_notify(keyword: str, value: str | None) -> None:
    # RFC 3461 4.1: NEVER alone, or a list of the others, each once.
    words = (value or "").upper().split(",")
    if words != ["NEVER"] and (len(set(words)) != len(words) or not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}):
        raise _bad(keyword)


_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+\Z")


def _check_orcpt(keyword: str, value: str | None) -> None:
    # RFC 3461 4.2: type ";" xtext, 500 characters at most; RFC 6533 3 adds the type utf-8 with a text of its own.
    kind, _, address = (value or "").partition(";")
    if not address or len(value or "") > 500 or not _ADDRESS_TYPE.match(kind):
        raise _bad(keyword)
    if kind.lower() != "utf-8":
        try:
            decode_xtext(address)
        except BadSyntax as error:
            raise _bad(keyword) from error


_EPOCH = datetime.fromtimestamp(0, UTC)
_SECONDS = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
#: RFC 4865 2 and RFC 3339 5.6, to the second.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)\Z", re.ASCII)


def _check_hold_for(keyword: str, value: str | None) -> None:
    if not _SECONDS.match(value or ""):
        raise _bad(keyword)


def _check_hold_until(keyword: str, value: str | None) -> None:
    try:
        real = bool(_TIME.match(value or "")) and datetime.fromisoformat(value or "")
    except ValueError:  # the 30th of February
        real = False
    if not real:
        raise _bad(keyword)


def release_time(given: Parameters, now: float) -> float | None:
    """
    When a message with these parameters, which `mail_parameters` has checked, shall be released; None: at once.

    now, and the result: seconds since 1970.  A HOLDUNTIL that is over, and HOLDFOR=0, ask for no hold.
    RFC 4865 4 and 5.
    """
    if (seconds := given.get("HOLDFOR")) is not None:
        release = now + int(seconds)
    elif (until := given.get("HOLDUNTIL")) is not None:
        release = (datetime.fromisoformat(until) - _EPOCH).total_seconds()
    else:
        return None
    return release if release > now else None


def date_time(at: float) -> str:
    """Seconds since 1970 as a date-time of RFC 3339 5.6 in UTC, to the second: the form of HOLDUNTIL."""
    return (_EPOCH + timedelta(seconds=int(at))).strftime("%Y-%m-%dT%H:%M:%SZ")


#: parameter of MAIL -> the extension that brings it.
_EXTENSION_OF_MAIL: Mapping[str, str] = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH",
    "RET": "DSN",
    "ENVID": "DSN",
    "REQUIRETLS": "REQUIRETLS",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
}
_CHECKS: Mapping[str, Callable[[str, str | None], None]] = {
    "AUTH": _check_auth,
    "RET": _check_ret,
    "ENVID": _check_envid,
    "NOTIFY": _check_notify,
    "ORCPT": _check_orcpt,
    "REQUIRETLS": _no_value,
    "HOLDFOR": _check_hold_for,
    "HOLDUNTIL": _check_hold_until,
}


def _unknown(keyword: str) -> Reply:
    return Reply(555, "5.5.4", f"Unsupported option: {echo(keyword.encode())}")
