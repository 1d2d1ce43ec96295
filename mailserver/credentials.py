"""
Credentials for cred's checkers beyond passwords: a user whom the session has verified already, and a bearer token.

In: what a SASL exchange ended with.  Out: `IVerifiedUser`, `IBearerToken`, for the `ICredentialsChecker`s that take
them.
Security: a `VerifiedUser` opens an account without a password; only a server makes one, when an exchange has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zope.interface import implementer

from mailserver.interfaces import IBearerToken, IVerifiedUser


@implementer(IVerifiedUser)
@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A user who has proved to be one (SCRAM, a client certificate).  username: UTF-8."""

    username: bytes


@implementer(IBearerToken)
@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that nobody has verified yet.  username: UTF-8, b"" when only the token says whose it is."""

    username: bytes
    token: str = field(repr=False)
    mechanism: str
