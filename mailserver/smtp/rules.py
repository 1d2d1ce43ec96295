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

from mailserver.envelope import Peer
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
    CHUNK = "behind BDAT"
    CHUNKS = "between two chunks"
    TLS = "in a TLS handshake"
    CLOSED = "over"

    #: Each is one object: there is no need to ask for its name, as `Enum` does in Python, several times a command.
    __hash__ = object.__hash__


#: Where commands may be given at all, but not between the chunks of a message.
GREETABLE = frozenset({State.CONNECTED, State.READY, State.MAIL, State.RCPT})
_COMMAND_STATES = frozenset({State.CONNECTED, State.READY, State.MAIL, State.RCPT, State.CHUNKS})
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
    # Everywhere: its octets follow it whether it is allowed or not (RFC 3030 2).
    b"BDAT": _COMMAND_STATES,
    b"XCLIENT": frozenset({State.CONNECTED, State.READY}),
}
#: LMTP (RFC 2033 4.1): the same with LHLO in place of EHLO and HELO.
ALLOWED_LMTP: Mapping[bytes, frozenset[State]] = {
    **{verb: states for verb, states in ALLOWED.items() if verb not in (b"EHLO", b"HELO")},
    b"LHLO": _COMMAND_STATES,
}
#: RFC 3207 4: what may be said before TLS where TLS is required; BDAT judges itself, for its octets follow anyway.
BEFORE_TLS = frozenset({b"EHLO", b"LHLO", b"NOOP", b"QUIT", b"STARTTLS", b"BDAT"})
#: Known verbs that we do not do: 502 (RFC 5321 4.2.4), not 500.
NOT_DONE = frozenset({b"EXPN", b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML"})
#: Commands that move no mail; too many between two messages end the connection.
IDLE = frozenset({b"EHLO", b"HELO", b"LHLO", b"NOOP", b"RSET", b"HELP", b"VRFY"})
#: What a browser says first.
HTTP = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")

#: All that EHLO can announce, in the order in which it does.
EXTENSIONS = (
    "SIZE",
    "8BITMIME",
    "PIPELINING",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "STARTTLS",
    "AUTH",
    "REQUIRETLS",
    "LIMITS",
    "FUTURERELEASE",
    "XCLIENT",
)


@dataclass(frozen=True, slots=True)
class LoginContext:
    """What a SASL mechanism may know of the connection.  bindings: channel binding data by type (RFC 5929, 9266)."""

    peer: Peer
    bindings: Mapping[str, bytes]


MechanismFactory = Callable[[LoginContext], SaslServer]


def _beginning() -> float:
    """The time where nobody has to know it."""
    return 0.0


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """
    What a listener gives to each of its sessions.

    hostname: ours, in the banner and in EHLO.  banner: the text behind it.  listener: its name, for the envelope.
    mechanisms: SASL name -> a new exchange; empty: AUTH is off.  auth_required: MAIL only after AUTH.
    insecure_auth: AUTH also without TLS.  starttls: offer it.  tls_required: RFC 3207 4, nothing without TLS.
    off: extensions (of `EXTENSIONS`) that are not announced and do not work.  xclient: the peer may use XCLIENT.
    lmtp: the conversation is LMTP.  banner_delay: seconds that a client must wait for the banner; who talks before it
    is refused.  vrfy: VRFY tells who exists.  hold: FUTURERELEASE (RFC 4865) for at most so many seconds; 0: not
    offered.  now: seconds since 1970, for that.  verbs: commands beyond ours that somebody answers, b"*" for all of
    them.  mail_parameters, rcpt_parameters: ESMTP parameters beyond ours that somebody understands.  tell_mistakes:
    tell of each mistake of the client.
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
    off: frozenset[str] = frozenset()
    xclient: bool = False
    lmtp: bool = False
    banner_delay: float = 0.0
    vrfy: bool = False
    hold: int = 0
    now: Callable[[], float] = _beginning
    verbs: frozenset[bytes] = frozenset()
    mail_parameters: frozenset[str] = frozenset()
    rcpt_parameters: frozenset[str] = frozenset()
    tell_mistakes: bool = False
    _working: dict[bool, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def working(self, *, tls: bool) -> frozenset[str]:
        """The extensions that work with or without TLS."""
        known = self._working.get(tls)
        if known is None:
            known = self._working[tls] = self._find_working(tls=tls)
        return known

    def _find_working(self, *, tls: bool) -> frozenset[str]:
        off = set(self.off)
        if not tls:
            off.add("REQUIRETLS")  # RFC 8689 2: announced only under TLS
        if tls or not self.starttls:
            off.add("STARTTLS")
        if not self.mechanisms:
            off.add("AUTH")
        if not self.hold:
            off.add("FUTURERELEASE")
        if not self.xclient:
            off.add("XCLIENT")
        if "CHUNKING" in off:
            off.add("BINARYMIME")  # RFC 3030 3: it can be sent with BDAT only
        return frozenset(EXTENSIONS) - off

    def offers(self, extension: str) -> bool:
        """Is this extension switched on?"""
        return extension not in self.off
