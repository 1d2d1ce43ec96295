"""
What the author of an app writes against: `App`, `Changes`, `Login`, and the exceptions that say no.

In: the callbacks of a connection, one at a time.  Out: a value, a Deferred or a coroutine from each.
One object is made for each connection, so what a callback keeps on `self` is there in the next one.  What all
connections of a process share is made by `setup`, and stands in `self.shared`.
RFC 5321 (the stages); the callbacks are those of gen_smtp, with what they could not see (docs/gen_smtp.md).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.logger import Logger
from zope.interface import implementer

from mailserver.address import Address
from mailserver.envelope import Envelope, Parameters
from mailserver.interfaces import Answer, ISessionPolicy
from mailserver.reply import Refusal, Reply

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mailserver.apps.message import Message
    from mailserver.apps.view import AppAddress, Session

#: What `message` may answer: nothing or a text (250), a Reply, or one of them (or a Refusal) for each recipient.
MessageAnswer = Reply | str | None | Mapping[Any, "Reply | Refusal | str | None"]


class Disconnect(Exception):  # noqa: N818 - it is a wish, not an error
    """Raised by a callback: close the connection now, without a reply."""


@dataclass(frozen=True, slots=True)
class Login:
    """
    An attempt to log in.

    mechanism: "PLAIN", "LOGIN", "CRAM-MD5", "OAUTHBEARER" or "XOAUTH2".  user: the name that was given.  password:
    of PLAIN and LOGIN, else None.  token: of the last two, else None.  Neither is ever shown by `repr`.
    """

    mechanism: str
    user: str
    password: str | None = None
    token: str | None = None
    _digest_of: Callable[[str], bool] | None = None

    def __repr__(self) -> str:
        return f"Login(mechanism={self.mechanism!r}, user={self.user!r})"

    def check(self, password: str) -> bool:
        """Is this the password that the client knows?  Works for PLAIN, LOGIN and CRAM-MD5."""
        if self._digest_of is not None:
            return self._digest_of(password)
        if self.password is None:
            return False
        return hmac.compare_digest(self.password.encode(), password.encode())


@dataclass(frozen=True, slots=True)
class CramProof:
    """What a CRAM-MD5 client has proved: digest is the HMAC-MD5 of the challenge under its password (RFC 2195 2)."""

    challenge: bytes
    digest: str = field(repr=False)

    def __call__(self, password: str) -> bool:
        """Is it this password?"""
        return hmac.compare_digest(hmac.new(password.encode(), self.challenge, "md5").hexdigest(), self.digest)


@dataclass(frozen=True, slots=True)
class Changes:
    """
    What `filter` wants to be different in a message.

    add: fields put on top of the header section, the first one topmost: (name, value), or the octets of a whole field
    with its folds and CRLF, as a DKIM signature needs it.  remove: names of fields that
    go, all of them.  message: the whole message in the place of what came, CRLF line ends, as octets or as a
    `Message`; or None.
    """

    add: Sequence[tuple[str, str] | bytes] = ()
    remove: Sequence[str] = ()
    message: bytes | Message | None = None


@implementer(ISessionPolicy)
class App:
    """
    The base class of apps.  Every callback is optional, and may be a plain method or a coroutine.

    To say no, `self.refuse(550, "5.1.1", "no such ticket")` or `raise Refusal(...)`.  None means: go on.  Any other
    exception is a mistake of the app: the client gets 451, and the log has the traceback with the app's name.
    """

    #: A pydantic model for the `options` of the configuration; None: the app has none.
    Options: ClassVar[type[BaseModel] | None] = None
    #: SASL mechanisms that `authenticate` judges, in addition to those of the accounts.
    mechanisms: ClassVar[Sequence[str]] = ()
    #: Verbs that `command` answers; "*": all that the server itself does not know.
    verbs: ClassVar[Sequence[str]] = ()
    #: ESMTP parameters of MAIL and of RCPT that the app understands, beside those of the server.
    mail_parameters: ClassVar[Sequence[str]] = ()
    rcpt_parameters: ClassVar[Sequence[str]] = ()

    #: The name in the configuration.
    name: str = ""
    #: An instance of `Options`; None when there is no such model.
    options: Any = None
    #: What `setup` returned.
    shared: Any = None
    #: What is known of the connection.
    session: Session
    #: Writes to the server's log under the app's name.
    log: Logger

    def refuse(self, code: int, enhanced: str, text: str) -> NoReturn:
        """Say no: `raise Refusal(Reply(code, enhanced, text))`.  Raises ValueError when that is no refusal."""
        raise Refusal(Reply(code, enhanced, text))

    # -- the life of an app ----------------------------------------------------------------------------------------

    @classmethod
    def setup(cls, options: Any) -> Answer[Any]:  # noqa: ARG003 - for those who override it
        """Once for each process, before the first connection: open what all connections share."""
        return None

    @classmethod
    def teardown(cls, shared: Any) -> Answer[None]:  # noqa: ARG003
        """Once, when the process stops: close it."""
        return None

    # -- a connection ----------------------------------------------------------------------------------------------

    def connected(self) -> Answer[str | Reply | None]:
        """A client is there; behind implicit TLS the handshake is done.  A text stands in the banner."""
        return None

    def helo(
        self,
        name: str,  # noqa: ARG002
        extensions: dict[str, str | None],  # noqa: ARG002
    ) -> Answer[Mapping[str, str | None] | None]:
        """
        EHLO, LHLO or HELO.  extensions: keyword -> its value or None, in their order; it may be changed in place, or
        another one returned.  What is left out does not work; "SIZE" sets the limit of this connection in octets
        ("0" for none).  For HELO it has "SIZE" only, which is not told but holds.
        """
        return None

    def secured(self) -> Answer[None]:
        """STARTTLS is done; `session.tls` says how.  All that the client said before is forgotten (RFC 3207 4.2)."""
        return None

    def authenticate(self, login: Login) -> Answer[bool | str | None]:  # noqa: ARG002
        """AUTH: True or an identity (text) lets the client in, False does not, None leaves it to the accounts."""
        return None

    def mail(self, sender: Address | None, parameters: Parameters) -> Answer[Address | str | None]:  # noqa: ARG002
        """MAIL.  sender: None for <>.  An address in return stands in the place of the sender."""
        return None

    def rcpt(
        self,
        recipient: AppAddress,  # noqa: ARG002
        parameters: Parameters,  # noqa: ARG002
    ) -> Answer[Address | str | None]:
        """RCPT.  An address in return stands in the place of the recipient from here on."""
        return None

    def filter(self, envelope: Envelope, message: Message) -> Answer[Changes | None]:  # noqa: ARG002
        """A whole message, before it goes to those that take it: refuse it, or change it."""
        return None

    def message(self, envelope: Envelope, message: Message) -> Answer[MessageAnswer]:  # noqa: ARG002
        """
        A whole message for those recipients of `envelope` that the app matches.  An app that defines this takes it:
        when it returns, the client gets 250, so the message must be safe by then.  A text is told behind the 250.
        A mapping gives each recipient (an address or its text) its own answer: None, a text, or a Refusal.
        """
        return None

    def reset(self) -> Answer[None]:
        """The transaction was given up: by RSET, EHLO, STARTTLS, or the end of the connection."""
        return None

    def verify(self, address: Address) -> Answer[Reply | str | None]:  # noqa: ARG002
        """VRFY.  A text is told with 250."""
        return None

    def command(self, verb: str, argument: str) -> Answer[Reply | str | None]:  # noqa: ARG002
        """One of `verbs`.  A text is told with 250; None: 500, the command is unknown."""
        return None

    def error(self, kind: str, detail: str) -> Answer[None]:  # noqa: ARG002
        """
        Something went wrong.  kind: "command" (a reply that the client has earned by a mistake), "message" (a message
        was refused), "timeout", "tls" (a handshake failed), "connection" (it broke).  detail: which, for a log.
        """
        return None

    def disconnected(self, reason: str) -> Answer[None]:  # noqa: ARG002
        """The connection is over.  The last callback."""
        return None
