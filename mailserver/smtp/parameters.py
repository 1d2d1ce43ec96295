"""
The ESMTP parameters of MAIL and RCPT: which there are, and what their values mean.

In: the octets behind a path.  Out: checked values, or `Unacceptable` with the reply: 501 for a malformed one, 504 for
a value that we do not do, 552 for a size over the limit, 555 for an unknown keyword.
RFC 5321 4.1.1.11 (555), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 6531 3.4 (SMTPUTF8), RFC 4954 5 (AUTH).
"""

from __future__ import annotations

from dataclasses import dataclass

from mailserver import reply as replies
from mailserver.address import AddressError, parse_address
from mailserver.envelope import Parameters
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


def mail_parameters(text: bytes, limits: Limits, *, auth: bool) -> MailParameters:
    """The parameters behind MAIL's path.  auth: is AUTH= known on this listener?  Raises Unacceptable."""
    given = _parse(text)
    size, body, smtputf8 = None, "7BIT", False
    for keyword, value in given.items():
        if keyword == "SIZE":
            size = _size(value, limits)
        elif keyword == "BODY":
            body = _body(value)
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise Unacceptable(Reply(501, "5.5.4", "SMTPUTF8 takes no value"))
            smtputf8 = True
        elif keyword == "AUTH" and auth:
            _check_auth(value)
        else:
            raise Unacceptable(_unknown(keyword))
    return MailParameters(given, size, body, smtputf8)


def rcpt_parameters(text: bytes) -> Parameters:
    """The parameters behind RCPT's path.  Raises Unacceptable: none is known here yet."""
    given = _parse(text)
    for keyword in given:
        raise Unacceptable(_unknown(keyword))
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


def _body(value: str | None) -> str:
    body = (value or "").upper()
    if body in ("7BIT", "8BITMIME"):
        return body
    if value is None:
        raise Unacceptable(Reply(501, "5.5.4", "BODY needs a value"))
    raise Unacceptable(Reply(504, "5.5.4", "BODY value not implemented"))


def _check_auth(value: str | None) -> None:
    # RFC 4954 5: an xtext mailbox or "<>".  We trust no client to speak for another; it is read and not used.
    try:
        if value is None:
            raise BadSyntax("no mailbox")
        if value != "<>":
            parse_address(decode_xtext(value))
    except (BadSyntax, AddressError) as error:
        raise Unacceptable(Reply(501, "5.5.4", f"Bad AUTH: {error}")) from error


def _unknown(keyword: str) -> Reply:
    return Reply(555, "5.5.4", f"Unsupported option: {echo(keyword.encode())}")
