"""
The server's side of one SMTP conversation, without sockets, clocks, files or Twisted.

In: octets from the peer (`receive`), answers (`answer`).  Out: events (`next_event`), octets for it (`data_to_send`).

The laws:
1. One question at a time.  While one is open (`waits_for_answer`) nothing more is parsed; so replies stay in order,
   and a peer that pipelines cannot run ahead of a decision.
2. One reply for each command, and for each message; a refused command leaves the state as it was.
3. A session never raises for what a peer sent, never logs, never waits.
4. Only CRLF ends a command, only CRLF "." CRLF ends a message.
5. What stands behind STARTTLS in clear text is dropped, and so is all that was known before it.
6. The same octets give the same events and replies, however they were cut into chunks.

Its parts: `conversation` (input, events, replies), `logins` (AUTH), `transactions` (mail), and here the other
commands; `lmtp` is the LMTP variant.
RFC 5321 (SMTP), 2034 and 3463 (enhanced codes), 3207 (STARTTLS), 9422 (LIMITS); limits: mailserver/limits.py.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from typing import ClassVar

from mailserver import reply as replies
from mailserver.envelope import Peer
from mailserver.reply import Reply, echo
from mailserver.smtp import events
from mailserver.smtp.conversation import refused
from mailserver.smtp.events import Answer
from mailserver.smtp.logins import LoginCommands
from mailserver.smtp.parameters import date_time
from mailserver.smtp.rules import (
    ALLOWED,
    BEFORE_TLS,
    EXTENSIONS,
    GREETABLE,
    IDLE,
    NOT_DONE,
    SessionSettings,
    State,
)
from mailserver.smtp.syntax import BadSyntax, decode_xtext, parse_command, parse_hello_name, parse_path
from mailserver.smtp.transactions import MailCommands


class SMTPSession(LoginCommands, MailCommands):
    """One SMTP conversation; see the module, and `Conversation` for what it is made with."""

    allowed: ClassVar[Mapping[bytes, frozenset[State]]] = ALLOWED
    #: What the listener offers, while something else is offered.
    _own_settings: SessionSettings | None = None

    def _command(self, line: bytes) -> None:
        try:
            verb, argument = parse_command(line)
        except BadSyntax:
            self._error(replies.BAD_LINE)
            return
        if verb in IDLE:
            self._idle_commands += 1
            if self._idle_commands > self._limits.idle_commands:
                self.abort(replies.TOO_MANY_IDLE_COMMANDS, "too many commands without a message")
                return
        states = self.allowed.get(verb)
        if self.settings.verbs and self._for_others(verb, known=states is not None):
            self._ask_others(verb, argument)
        elif states is None or (verb == b"XCLIENT" and not self.settings.xclient):
            self._error(self._unknown(verb))
        elif not self.allowed_by_tls and verb not in BEFORE_TLS:
            self._error(replies.STARTTLS_FIRST)
        elif self.state not in states:
            if not self._behind_refused_mail(verb):
                self._error(self._out_of_sequence(verb))
        else:
            self._COMMANDS[verb](self, argument)

    def _for_others(self, verb: bytes, *, known: bool) -> bool:
        """Does somebody else answer this verb, here and now?"""
        verbs = self.settings.verbs
        if not (verb in verbs or (b"*" in verbs and not known)) or not verb:
            return False
        return self.allowed_by_tls and self.state in GREETABLE

    def _ask_others(self, verb: bytes, argument: bytes) -> None:
        def answered(answer: Answer) -> None:
            self._refuse(answer if isinstance(answer, Reply) else self._unknown(verb))

        self._ask(events.Command(verb.decode("ascii", "replace"), argument), answered)

    def _unknown(self, verb: bytes) -> Reply:
        if verb in NOT_DONE:
            return replies.NOT_IMPLEMENTED
        return Reply(500, "5.5.1", f"Command not recognized: '{echo(verb)}'") if verb else replies.UNKNOWN_COMMAND

    def _out_of_sequence(self, verb: bytes) -> Reply:
        if self.state is State.CONNECTED:
            return Reply(503, "5.5.1", f"Send {self._hello_words()} first")
        if self.state is State.CHUNKS:
            return Reply(503, "5.5.1", "Only BDAT, RSET and NOOP may stand between chunks")
        if verb == b"MAIL":
            return Reply(503, "5.5.1", "Nested MAIL command")
        if verb in (b"AUTH", b"XCLIENT"):
            return Reply(503, "5.5.1", f"{verb.decode()} is not allowed in a transaction")
        return replies.NEED_MAIL

    def _hello_words(self) -> str:
        return "EHLO or HELO"

    def _line_too_long(self) -> None:
        if self.state is State.AUTH:
            self._auth_line_too_long()
        else:
            self._error(replies.LINE_TOO_LONG)

    # -- greeting --------------------------------------------------------------------------------------------------

    def _greet(self, answer: Answer) -> None:
        if (no := refused(answer)) is not None:
            # RFC 5321 3.1: 554 (or 421) instead of the banner; only QUIT would be left to say.
            self.abort(no, "turned away")
            return
        self.state = State.CONNECTED
        text = f"{self.settings.hostname} {self.settings.banner}".rstrip()
        self._reply(answer if isinstance(answer, Reply) else Reply(220, "", text))

    def _hello(self, verb: str, argument: bytes) -> None:
        try:
            name = parse_hello_name(argument)
        except BadSyntax:
            self._error(Reply(501, "5.5.4", f"Syntax: {verb} hostname"))
            return
        extended = verb != "HELO"

        before = (self.settings, self._limits, self._own_settings)

        def answered(answer: Answer) -> None:
            if (no := refused(answer)) is not None:
                self.settings, self._limits, self._own_settings = before
                self._refuse(no)
                return
            self._give_up()
            self.state = State.READY
            self._extended = extended
            peer = self.peer
            self.peer = Peer(peer.host, peer.port, name, peer.tls, peer.user)
            if isinstance(answer, events.Offer):
                self._offer(answer)
            lines = [self.settings.hostname]
            if extended:
                lines += self._offered_lines(answer)
            self._reply(Reply(250, "", "\n".join(lines)))

        self._offer(None)
        self._ask(events.Hello(name, extended), answered)

    def _offer(self, offer: events.Offer | None) -> None:
        """From now on what somebody else wants to be offered; None: what the listener offers."""
        if self._own_settings is not None:
            self.settings, self._own_settings = self._own_settings, None
            self._limits = self.settings.limits
        if offer is None:
            return
        self._own_settings = self.settings
        if self._extended:
            # STARTTLS that was left out must be gone, not only unsaid; a size that is not told still holds.
            off = self.working_extensions() - offer.extensions.keys() - {"SIZE"}
            told = (offer.extensions.get("AUTH") or "").split()
            mechanisms = {name: make for name, make in self.settings.mechanisms.items() if name in told}
            self.settings = dataclasses.replace(self.settings, off=self.settings.off | off, mechanisms=mechanisms)
        if offer.size is not None:
            self._limits = dataclasses.replace(self._limits, message_size=offer.size)

    def _offered_lines(self, answer: Answer) -> list[str]:
        if not isinstance(answer, events.Offer):
            return self.extensions()
        return [name if value is None else f"{name} {value}" for name, value in answer.extensions.items()]

    def extensions(self) -> list[str]:
        """The lines of the EHLO reply behind the first, in the order of `EXTENSIONS`; each only where it works."""
        hold = self.settings.hold
        values = {
            "SIZE": f"SIZE {self._limits.message_size}",
            # RFC 9422 4: what 452 and 421 would tell too late.
            "LIMITS": f"LIMITS MAILMAX={self._limits.messages_per_connection} RCPTMAX={self._limits.recipients}",
            # RFC 4865 4: how long, and until when, a message can be held.
            "FUTURERELEASE": f"FUTURERELEASE {hold} {date_time(self.settings.now() + hold)}",
            "XCLIENT": "XCLIENT NAME ADDR PORT PROTO HELO LOGIN",
            "AUTH": "AUTH " + " ".join(self.offered_mechanisms()),
        }
        works = self.working_extensions()
        if not self.offered_mechanisms():
            works -= {"AUTH"}
        return [values.get(name, name) for name in EXTENSIONS if name in works]

    # -- the other commands ----------------------------------------------------------------------------------------

    def _starttls(self, argument: bytes) -> None:
        if self.peer.tls is not None:
            self._error(Reply(503, "5.5.1", "TLS is already active"))
        elif not self.settings.starttls or not self.settings.offers("STARTTLS"):
            self._error(self._unknown(b"STARTTLS"))
        elif argument:
            self._error(Reply(501, "5.5.4", "Syntax: STARTTLS takes no parameter"))
        else:
            self._give_up()
            self._reply(replies.GO_AHEAD_TLS)
            # RFC 3207 4.2 and the command injection of 2011: no octet that came in clear text outlives this line.
            self._input.clear()
            self._searched = 0
            self.state = State.TLS
            self._events.append(events.StartTLS())

    def _rset(self, _argument: bytes) -> None:
        self._give_up()
        self._reply(replies.OK)

    def _noop(self, _argument: bytes) -> None:
        self._reply(replies.OK)

    def _quit(self, _argument: bytes) -> None:
        self._reply(replies.BYE)
        self._close("quit")

    def _vrfy(self, argument: bytes) -> None:
        if not argument:
            self._error(Reply(501, "5.5.4", "Syntax: VRFY address"))
            return
        if not self.settings.vrfy:
            # RFC 5321 3.5.3: it must not lie, and need not tell.
            self._reply(replies.CANNOT_VERIFY)
            return
        if b"@" not in argument:
            # RFC 5321 3.5.1: a name alone may be asked for; whose it is here, nobody says.
            self._reply(replies.CANNOT_VERIFY)
            return
        try:
            address, _ = parse_path(argument, null=False, postmaster=True)
        except BadSyntax as error:
            self._error(Reply(501, "5.1.3", f"Bad address syntax: {error}"))
            return
        assert address is not None
        if not address.is_ascii:
            # RFC 6531 3.7.4.2: without SMTPUTF8 the address cannot be written into a reply.
            self._reply(Reply(252, "2.6.8", "Cannot show that address, but will take mail for it"))
            return
        self._ask(
            events.Verify(address), lambda answer: self._refuse(answer if isinstance(answer, Reply) else replies.OK)
        )

    def _help(self, _argument: bytes) -> None:
        works = self.working_extensions()
        off = {extension.encode() for extension in ("STARTTLS", "AUTH", "XCLIENT") if extension not in works}
        off |= set() if "CHUNKING" in works else {b"BDAT"}
        verbs = [verb.decode() for verb in self.allowed if verb not in off]
        self._reply(Reply(214, "2.0.0", f"Commands: {' '.join(verbs)}\nSee RFC 5321"))

    def _ehlo(self, argument: bytes) -> None:
        self._hello("EHLO", argument)

    def _helo(self, argument: bytes) -> None:
        self._hello("HELO", argument)

    def _lhlo(self, argument: bytes) -> None:
        self._hello("LHLO", argument)

    def _xclient(self, argument: bytes) -> None:
        try:
            peer = xclient_peer(argument, self.peer)
        except BadSyntax as error:
            self._error(Reply(501, "5.5.4", f"Bad XCLIENT: {error}"))
            return

        def answered(answer: Answer) -> None:
            if (no := refused(answer)) is not None:
                self._refuse(no)
                return
            self._give_up()
            self.peer = peer
            self._extended = False
            self._ask(events.Connected(), self._greet)

        self._ask(events.XClient(peer), answered)

    #: verb -> what is done about it, once `allowed` has let it through.
    _COMMANDS: ClassVar[Mapping[bytes, Callable[[SMTPSession, bytes], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"LHLO": _lhlo,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"RSET": _rset,
        b"HELP": _help,
        b"VRFY": _vrfy,
        b"STARTTLS": _starttls,
        b"AUTH": LoginCommands._auth,  # noqa: SLF001 - our own part
        b"MAIL": MailCommands._mail,  # noqa: SLF001
        b"RCPT": MailCommands._rcpt,  # noqa: SLF001
        b"DATA": MailCommands._data,  # noqa: SLF001
        b"BDAT": MailCommands._bdat,  # noqa: SLF001
        b"XCLIENT": _xclient,
    }


_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
#: Postfix: what a front end does not know.
_UNKNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")


def xclient_peer(argument: bytes, peer: Peer) -> Peer:
    """
    The client as XCLIENT describes it (Postfix's XCLIENT_README): attributes with values in xtext; NAME, PROTO,
    DESTADDR and DESTPORT are read and not used.  The name and the login of the front end itself are forgotten.
    Raises BadSyntax.
    """
    changes: dict[str, str | int] = {"helo": "", "user": ""}
    try:
        words = argument.decode("ascii").split()
    except UnicodeDecodeError as error:
        raise BadSyntax("not ASCII") from error
    if not words:
        raise BadSyntax("no attribute")
    names = [word.partition("=")[0].upper() for word in words]
    if len(set(names)) != len(names):
        raise BadSyntax("an attribute is given twice")
    for word in words:
        name, equals, encoded = word.partition("=")
        value = decode_xtext(encoded)
        if not equals or name.upper() not in _ATTRIBUTES:
            raise BadSyntax("unknown attribute")
        if value.upper() in _UNKNOWN:
            continue
        changes |= _attribute(name.upper(), value)
    return dataclasses.replace(peer, **changes)  # type: ignore[arg-type]


def _attribute(name: str, value: str) -> dict[str, str | int]:
    if name == "ADDR":
        text = value[5:] if value[:5].lower() == "ipv6:" else value
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise BadSyntax("ADDR is no IP address") from error
        if "%" in text:  # behind it Python takes anything for a zone
            raise BadSyntax("ADDR with a zone")
        # RFC 4291 2.5.5.2: the same client has one name only.
        return {"host": str(getattr(address, "ipv4_mapped", None) or address)}
    if name == "PORT":
        if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
            raise BadSyntax("PORT is no port")
        return {"port": int(value)}
    if name == "HELO":
        return {"helo": parse_hello_name(value.encode("ascii", "replace"))}
    if name == "LOGIN":
        if not value.isprintable():
            raise BadSyntax("LOGIN is no name")
        return {"user": value}
    return {}
