"""
Every interface that somebody outside may implement, with its contract.

A value, a Deferred or a coroutine is always a fine answer where a method is said to return an `Answer`.
Whoever says no raises `Refusal`; any other exception is trouble of ours, is logged, and costs the peer a 451.
twisted.mail's `IMessageDelivery`, `IMessageDeliveryFactory` and `IMessage`, and cred's `IRealm` and
`ICredentialsChecker`, are extension points too and are used as they are.
"""

# mypy: disable-error-code="empty-body, misc"
from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from twisted.cred.credentials import ICredentials
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from mailserver.address import Address
    from mailserver.envelope import Envelope, Peer, Recipient
    from mailserver.reply import Reply
    from mailserver.sasl import ScramKeys

T = TypeVar("T")
#: A value, or something to wait for that brings it.
Answer: TypeAlias = T | Awaitable[T]


class IMailAvatar(Interface):
    """
    Who decides about the mail of one connection, and takes it: the avatar that a realm gives for `IMailAvatar`.

    One object serves one login; a connection asks it one question at a time.
    """

    user = Attribute('str: the account that logged in, as it is logged and routed; "" for nobody.')

    def mail(envelope: Envelope) -> Answer[Reply | None]:  # type: ignore[empty-body]
        """May this sender (with these parameters) start a transaction?  None: yes.  Raises Refusal."""

    def rcpt(envelope: Envelope, recipient: Recipient) -> Answer[Reply | None]:
        """May this recipient be added to it?  `envelope` holds those before it.  None: yes.  Raises Refusal."""

    def data(envelope: Envelope) -> Answer[IDelivery]:
        """The text is about to come: a delivery to all recipients of the envelope.  Raises Refusal."""

    def verify(address: Address) -> Answer[Reply]:
        """VRFY, where the listener allows it: 250 with the mailbox, 550 when there is none, 252 when nobody knows."""

    def reset() -> None:
        """The transaction was given up: by RSET, EHLO, STARTTLS, or the end of the connection."""

    def logout() -> None:
        """The connection is over, or somebody else logged in on it.  Called once."""


class IDelivery(Interface):
    """
    One message on its way to its destination, in two phases.

    The caller writes, prepares, commits - or aborts, at any time, also after a failure of the others, also twice.
    """

    def write(block: bytes) -> Answer[None]:
        """
        Take the next octets of the message (CRLF line ends, no dot-stuffing, no trace fields yet).
        While the answer is open no further block comes: this is the back-pressure.  Raises Refusal or OSError.
        """

    def prepare() -> Answer[None]:
        """Hold the whole message where nobody sees it yet.  Raises Refusal (quota, content) or OSError."""

    def commit() -> Answer[Reply | tuple[Reply, ...] | None]:
        """
        Make it durable and show it; the reply is for the peer (None: 250 with the envelope's id).  For LMTP it may
        be a tuple with a reply for each recipient, in the order of the envelope.
        Raises only for trouble with the disk; then nothing of it is visible.
        """

    def abort() -> None:
        """Forget everything; at any time, also twice.  Never raises."""


class ISessionPolicy(Interface):
    """
    The callbacks of an app, for one connection; `mailserver.App` is its base class and documents each.

    None is always a yes.  Whoever says no raises Refusal; any other exception costs the client a 451.
    """

    def connected() -> Answer[Any]:
        """A client is there."""

    def helo(name: str, extensions: dict[str, str | None]) -> Answer[Any]:
        """EHLO, LHLO or HELO; the extensions may be changed."""

    def secured() -> Answer[None]:
        """STARTTLS is done."""

    def authenticate(login: Any) -> Answer[Any]:
        """AUTH has come to its end."""

    def mail(sender: Address | None, parameters: Any) -> Answer[Any]:
        """MAIL."""

    def rcpt(recipient: Any, parameters: Any) -> Answer[Any]:
        """RCPT."""

    def filter(envelope: Envelope, message: Any) -> Answer[Any]:
        """A whole message, on its way to others."""

    def message(envelope: Envelope, message: Any) -> Answer[Any]:
        """A whole message, for the app itself."""

    def reset() -> Answer[None]:
        """The transaction was given up."""

    def verify(address: Address) -> Answer[Any]:
        """VRFY."""

    def command(verb: str, argument: str) -> Answer[Any]:
        """A verb that the server does not know."""

    def error(kind: str, detail: str) -> Answer[None]:
        """Something went wrong."""

    def disconnected(reason: str) -> Answer[None]:
        """The connection is over."""


class ISessionPolicies(Interface):
    """All policies of one connection as one, as the SMTP server asks them.  What they raise becomes a reply."""

    def connected() -> Answer[Reply | None]:
        """A client is there: a positive reply is the banner, any other turns it away."""

    def hello(name: str, extensions: dict[str, str | None]) -> Answer[Mapping[str, str | None] | None]:
        """EHLO, LHLO or HELO.  The extensions in return are those that are offered; None: as they were."""

    def secured() -> Answer[None]:
        """STARTTLS is done."""

    def authenticate(mechanism: str, credentials: Any) -> Answer[str | bool | None]:
        """The name of who logged in, False for wrong credentials, None: others may know."""

    def avatar(inner: Any) -> Any:
        """An `IMailAvatar` that asks the policies, and then this one."""

    def command(verb: str, argument: str) -> Answer[Reply | None]:
        """A verb of `SessionSettings.verbs`; None: it is unknown after all."""

    def error(kind: str, detail: str) -> None:
        """Something went wrong: "command", "message", "timeout", "tls", "connection".  Never raises."""

    def disconnected(reason: str) -> None:
        """The connection is over.  Called once, never raises."""


class IDestination(Interface):
    """Where mail can go: a mailbox store, an app, the queue."""

    def start(envelope: Envelope, recipients: tuple[Recipient, ...]) -> Answer[IDelivery]:
        """Open a delivery of this envelope's message to these of its recipients.  Raises Refusal or OSError."""


class IDirectory(Interface):
    """Which accounts, aliases and domains exist.  Reads are quick (well below a millisecond) and see every change."""

    def account(address: Address) -> AccountEntry | None:
        """The account of exactly this address (compared by `Address.key`), or None.  Disabled accounts are found."""

    def alias(address: Address) -> tuple[Address, ...]:
        """The targets of an alias of exactly this address (compared by key); () when there is none."""

    def catch_all(domain: str) -> tuple[Address, ...]:
        """The targets of the domain's catch-all; () when there is none.  domain: in its normal form."""

    def has_domain(domain: str) -> bool:
        """Was this domain (in its normal form) added beside those of the configuration?"""

    def any_account() -> bool:
        """Is there at least one account?"""

    def may_send_as(account: Address, sender: Address, separator: str) -> bool:
        """
        May this account send mail from this address?  Yes for its own address, an alias that has the account among
        its targets, each of them also with a detail behind the separator (of the sender's domain; "" for none), and
        for what it was allowed: single addresses and whole domains.  A catch-all alone allows nothing.  All
        addresses are compared by `Address.key`.
        """


class IVersionedDirectory(IDirectory):
    """A directory that can tell whether anything has changed: its answers may be kept.  Those of others never are."""

    def version() -> object | None:
        """
        Equal to what it was before only if every answer is still the same, whoever may have changed what: accounts,
        quotas, aliases, domains.  None: that cannot be told now.  It is asked for each recipient, so it takes a few
        microseconds at most.
        """


class AccountEntry(Interface):
    """What a directory tells about an account."""

    address = Attribute("`Address`: the account's own.")
    quota = Attribute("int: octets its mailbox may hold; 0: no limit.")
    enabled = Attribute("bool: may it log in and receive?")


class ICramMD5Response(ICredentials):
    """
    Credentials: the answer to a CRAM-MD5 challenge, for a checker that keeps the password's contexts (RFC 2195 2).
    """

    username = Attribute("bytes: the user name, UTF-8.")
    challenge = Attribute("bytes: the challenge as it was sent, with its angle brackets.")
    digest = Attribute("str: the peer's HMAC-MD5 of it, 32 lower-case hexadecimal digits.")


class IVerifiedUser(ICredentials):
    """
    Credentials: a user who has been verified already, by SCRAM or by a client certificate.

    A checker only looks whether they may come in.  Raises UnauthorizedLogin when not.
    """

    username = Attribute("bytes: the user name, UTF-8.")


class IBearerToken(ICredentials):
    """
    Credentials: an OAuth 2 bearer token (RFC 6750), for a checker that an app brings.

    The checker verifies the token (its signature or by asking who issued it, its audience, its expiry), and that it
    is for this user.  Raises UnauthorizedLogin when not; LoginFailed when it cannot be told now.
    """

    username = Attribute('bytes: whose mailbox, UTF-8; b"" when only the token says so.')
    token = Attribute("str: the token; never to be logged.")
    mechanism = Attribute('str: "OAUTHBEARER" or "XOAUTH2".')


class IScramKeys(Interface):
    """
    Knows the SCRAM-SHA-256 keys of users.  A checker that provides this, and takes `IVerifiedUser`, makes SCRAM
    possible.
    """

    def scram_keys(user: str) -> Answer[ScramKeys]:
        """
        The keys of a user.  Never tells that there is none: somebody unknown, disabled or without keys gets made up
        ones, whose salt and iterations are the same whenever and wherever they are asked for, and with which no proof
        is right.  user: as the client sent it, after SASLprep.
        """


class IAdmission(Interface):
    """Who may connect, and how long a failed login waits: limits across connections."""

    def connected(peer: Peer) -> Reply | None:
        """A connection was accepted; a reply (4yz) turns it away.  A turned away connection is not counted."""

    def disconnected(peer: Peer) -> None:
        """A connection that was let in is over."""

    def busy() -> bool:
        """Are over 80 % of the connections in use?"""

    def may_send(peer: Peer) -> Reply | None:
        """At MAIL; a reply (4yz) says that this client has sent enough for now."""

    def may_address(peer: Peer) -> Reply | None:
        """At RCPT; a reply (4yz) says that this client has addressed enough recipients for now."""

    def may_authenticate(peer: Peer) -> Reply | None:
        """Before a login is tried; a reply (421) ends the connection.  After a None `auth_judged` must follow."""

    def auth_judged(peer: Peer) -> None:
        """The login that `may_authenticate` let in was judged, or is over."""

    def auth_failed(peer: Peer, user: str) -> float:
        """A login failed.  Returns how long the answer shall wait, in seconds.  user: the name that was tried."""

    def auth_answered(peer: Peer) -> None:
        """The wait that `auth_failed` asked for is over."""

    def auth_succeeded(peer: Peer, user: str) -> None:
        """A login succeeded."""


class IRouter(Interface):
    """Where the mail for a recipient goes."""

    def route(recipient: Address, *, may_relay: bool) -> Answer[tuple[object, ...]]:
        """
        The targets (`routing.Local`, `routing.Remote`) of a recipient; never empty.
        may_relay: did the peer log in where that allows to send anywhere?  Raises Refusal.
        """
