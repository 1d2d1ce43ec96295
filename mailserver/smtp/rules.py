"""
The rules of the conversation: its states, which command is allowed in which, and what a listener may set.

In: nothing.  Out: tables and values that `smtp/session` reads, and with it tests and manuals.
RFC 5321 4.1.4 (order of commands), 4.2.4 (502); RFC 3207 4 and RFC 4954 4 (STARTTLS, AUTH).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mailserver.limits import DEFAULT_LIMITS, Limits
from mailserver.sasl import SaslServer
from mailserver.smtp.data import BareNewlines


class State(enum.Enum):
    """Where the conversation stands."""

    START = "before the banner"
    CONNECTED = "before EHLO"
    READY = "between transactions"
    MAIL = "sender given"
    RCPT = "at least one recipient accepted"
    AUTH = "in an AUTH exchange"
    TEXT = "behind DATA"
    TLS = "in a TLS handshake"
    CLOSED = "over"


_COMMAND_STATES = frozenset({State.CONNECTED, State.READY, State.MAIL, State.RCPT})
_GREETED = frozenset({State.READY, State.MAIL, State.RCPT})

#: verb -> states in which it is allowed: the whole of RFC 5321 4.1.4.
ALLOWED: Mapping[bytes, frozenset[State]] = {
    b"EHLO": _COMMAND_STATES,
    b"HELO": _COMMAND_STATES,
    b"NOOP": _COMMAND_STATES,
    b"QUIT": _COMMAND_STATES,
    b"RSET": _COMMAND_STATES,
    b"HELP": _COMMAND_STATES,
    b"VRFY": _COMMAND_STATES,
    b"STARTTLS": _GREETED,
    b"AUTH": frozenset({State.READY}),
    b"MAIL": frozenset({State.READY}),
    b"RCPT": frozenset({State.MAIL, State.RCPT}),
    b"DATA": frozenset({State.MAIL, State.RCPT}),
}
#: Known verbs that we do not do: 502 (RFC 5321 4.2.4), not 500.
NOT_DONE = frozenset({b"EXPN", b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"})
#: Commands that move no mail; too many between two messages end the connection.
IDLE = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"HELP", b"VRFY"})
#: What a browser says first.
HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")

MechanismFactory = Callable[[], SaslServer]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """
    What a listener gives to each of its sessions.

    hostname: ours, in the banner and in EHLO.  banner: the text behind it.  listener: its name, for the envelope.
    mechanisms: SASL name -> a new exchange; empty: AUTH is off.  auth_required: MAIL only after AUTH.
    insecure_auth: AUTH also without TLS.  starttls: offer it.  tls_required: MAIL only under TLS.
    """

    hostname: str
    banner: str = "ESMTP"
    listener: str = ""
    limits: Limits = DEFAULT_LIMITS
    mechanisms: Mapping[str, MechanismFactory] = field(default_factory=dict)
    auth_required: bool = False
    insecure_auth: bool = False
    starttls: bool = False
    tls_required: bool = False
    bare_newlines: BareNewlines = "reject"
