"""
What a test wants its server to be.

In: the arguments of `MailServer`.  Out: `Settings`, checked, with every default.
Limits are wide: a test that makes a hundred mistakes shall not be told to wait for its next reply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, get_args

from mailserver.address_patterns import compile_pattern
from mailserver.limits import DEFAULT_LIMITS, Limits
from mailserver.smtp.data import BareNewlines
from mailserver.smtp.rules import EXTENSIONS

TLSMode = Literal[False, "starttls", "implicit", "both"]

#: As for a server, but nobody is held up or sent away.
WIDE = dataclasses.replace(
    DEFAULT_LIMITS,
    unknown_recipients=100_000,
    messages_per_connection=10_000_000,
    errors_before_delay=100_000,
    errors=100_000,
    idle_commands=1_000_000,
    auth_failures=1000,
    decision_timeout=3600.0,
    closing_timeout=1.0,
)
#: What is offered for the passwords of `auth`, and for any password.
MECHANISMS = ("SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5")
MECHANISMS_FOR_ANY = ("PLAIN", "LOGIN", "CRAM-MD5")
TLS_MODES = (False, "starttls", "implicit", "both")


class Options(TypedDict, total=False):
    """The arguments of a server, for type checkers; `Settings` says what they mean."""

    host: str
    port: int
    hostname: str
    tls: TLSMode
    lmtp: bool
    auth: Mapping[str, str] | Literal["any"] | None
    auth_required: bool
    insecure_auth: bool | None
    mechanisms: Sequence[str] | None
    inboxes: Sequence[str] | None
    size_limit: int
    extensions_off: Sequence[str]
    bare_newlines: BareNewlines
    limits: Mapping[str, Any]
    apps: Any


@dataclass(frozen=True, slots=True)
class Settings:
    """
    host: the address to listen on, "127.0.0.1" or "::1" mostly.  port: 0 for any free one.
    hostname: the name in the banner and in EHLO.
    tls: False; "starttls": `port` offers STARTTLS; "implicit": `port` speaks TLS from the first octet on; "both": as
    "starttls", and `tls_port` speaks TLS from the first octet on.
    lmtp: listen for LMTP too, on `lmtp_port`.
    auth: user -> password; "any" believes everybody; None: AUTH is not offered.  auth_required: no MAIL without it.
    insecure_auth: AUTH without TLS; None: where there is no TLS to be had.  mechanisms: of SASL, None for the usual
    ones; for OAUTHBEARER and XOAUTH2 the password is the token.
    inboxes: addresses or patterns ("*@example.org") that exist, all others are refused with 550; None: all exist.
    size_limit: octets of a message, as announced by SIZE.
    extensions_off: keywords of EHLO that are neither announced nor work.
    bare_newlines: "reject", "fix", "strip" or "ignore", as in the configuration.
    limits: other limits of `mailserver.limits.Limits`, by their names.
    apps: apps (`mailserver.App`) that are under test, as for `mailserver.listen`; what they do not take goes to the
    inboxes.

    Raises ValueError: which argument, and what is wrong; TypeError for limits that do not exist.
    """

    host: str = "127.0.0.1"
    port: int = 0
    hostname: str = "localhost"
    tls: TLSMode = False
    lmtp: bool = False
    auth: Mapping[str, str] | Literal["any"] | None = None
    auth_required: bool = False
    insecure_auth: bool | None = None
    mechanisms: Sequence[str] | None = None
    inboxes: Sequence[str] | None = None
    size_limit: int = DEFAULT_LIMITS.message_size
    extensions_off: Sequence[str] = ()
    bare_newlines: BareNewlines = "reject"
    limits: Mapping[str, Any] = field(default_factory=dict)
    apps: Any = None

    def __post_init__(self) -> None:
        if self.tls not in TLS_MODES:
            raise ValueError(f'tls: {self.tls!r}; write False, "starttls", "implicit" or "both"')
        if self.auth_required and self.auth is None:
            raise ValueError("auth_required: nobody can log in; give auth too")
        if self.bare_newlines not in get_args(BareNewlines):
            raise ValueError(f"bare_newlines: {self.bare_newlines!r}; one of {', '.join(get_args(BareNewlines))}")
        unknown = [each for each in self.extensions_off if each.upper() not in EXTENSIONS]
        if unknown:
            raise ValueError(f"extensions_off: {', '.join(unknown)}; known are {', '.join(EXTENSIONS)}")
        for name in ("inboxes", "extensions_off", "mechanisms"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: write a list")  # noqa: TRY004 - one kind of error for all that is wrong
        for pattern in self.inboxes or ():
            try:
                compile_pattern(pattern)
            except ValueError as error:
                raise ValueError(f"inboxes: {error}") from error

    @property
    def offered_mechanisms(self) -> tuple[str, ...]:
        """The names of SASL mechanisms, upper case."""
        if self.auth is None:
            return ()
        if self.mechanisms is not None:
            return tuple(name.upper() for name in self.mechanisms)
        return MECHANISMS_FOR_ANY if self.auth == "any" else MECHANISMS

    @property
    def all_limits(self) -> Limits:
        """Every limit.  Raises TypeError for one that does not exist."""
        return dataclasses.replace(WIDE, **{"message_size": self.size_limit, **self.limits})
