"""A server on an in-memory wire: transport, clock, and an avatar that records and can be made to wait or fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker
from twisted.cred.portal import IRealm, Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITCPTransport, ITLSTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.interfaces import IDelivery, IMailAvatar
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.server import ESMTPServer, ESMTPServerFactory

PEER = IPv4Address("TCP", "192.0.2.1", 4711)
HOST = IPv4Address("TCP", "192.0.2.25", 25)


class Handle:
    """What pyOpenSSL's Connection tells after a handshake."""

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_protocol_version(self) -> int:
        return 0x304

    def get_cipher_name(self) -> str:
        return "TLS_AES_128_GCM_SHA256"

    def get_cipher_bits(self) -> int:
        return 128

    def get_servername(self) -> bytes:
        return b"mx.example.org"

    def get_peer_certificate(self, *, as_cryptography: bool) -> None:
        return None

    def get_certificate(self, *, as_cryptography: bool) -> None:
        return None

    def export_keying_material(self, label: bytes, length: int, context: bytes | None = None) -> bytes:
        return b"k" * length


@implementer(ITCPTransport, ITLSTransport)
class Wire(StringTransport):
    """Counts writes, remembers what was asked of it; `startTLS` leaves the handshake to the test."""

    def __init__(self) -> None:
        super().__init__(hostAddress=HOST, peerAddress=PEER)
        self.writes: list[bytes] = []
        self.no_delay = self.keep_alive = False
        self.tls: Any = None
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled

    def startTLS(self, context: Any) -> None:
        self.tls = context

    def getHandle(self) -> Handle:
        return Handle()

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


@implementer(ISSLTransport)
class SecureWire(Wire):
    """Implicit TLS; the handshake is left to the test."""

    def getPeerCertificate(self) -> None:
        return None


@implementer(IDelivery)
class Recording:
    """
    A delivery.  Each step does what `steps` holds for its name: a Deferred is returned, an exception is raised.
    """

    def __init__(self, steps: dict[str, Any]) -> None:
        self.steps = steps
        self.text = b""
        self.done: list[str] = []

    def _step(self, name: str) -> Any:
        self.done.append(name)
        step = self.steps.get(name)
        if isinstance(step, Exception):
            raise step
        return step

    def write(self, block: bytes) -> Any:
        self.text += block
        return self._step("write")

    def prepare(self) -> Any:
        return self._step("prepare")

    def commit(self) -> Any:
        return self._step("commit")

    def abort(self) -> None:
        self._step("abort")


@implementer(IMailAvatar)
class Avatar:
    """Yes to everything, but for what `steps` says ("mail", "rcpt", "data", and those of `Recording`)."""

    def __init__(self, user: str, steps: dict[str, Any]) -> None:
        self.user = user
        self.steps = steps
        self.deliveries: list[Recording] = []
        self.calls: list[str] = []

    def _step(self, name: str) -> Any:
        self.calls.append(name)
        step = self.steps.get(name)
        if isinstance(step, Exception):
            raise step
        return step

    def mail(self, envelope: Any) -> Any:
        return self._step("mail")

    def rcpt(self, envelope: Any, recipient: Any) -> Any:
        return self._step("rcpt")

    def data(self, envelope: Any) -> Any:
        step = self._step("data")
        if step is not None:
            return step
        self.deliveries.append(Recording(self.steps))
        return self.deliveries[-1]

    def reset(self) -> None:
        self.calls.append("reset")

    def logout(self) -> None:
        self.calls.append("logout")


@implementer(IRealm)
class Realm:
    """Gives an `Avatar` and keeps it."""

    def __init__(self, steps: dict[str, Any]) -> None:
        self.steps = steps
        self.avatars: list[Avatar] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        assert IMailAvatar in interfaces
        user = avatarId.decode() if isinstance(avatarId, bytes) else ""
        self.avatars.append(Avatar(user, self.steps))
        return IMailAvatar, self.avatars[-1], lambda: None


class Line:
    """One connection to a server."""

    def __init__(
        self,
        settings: SessionSettings | None = None,
        steps: dict[str, Any] | None = None,
        *,
        checkers: tuple[ICredentialsChecker, ...] = (),
        protocol: type[ESMTPServer] | None = None,
        connect: bool = True,
        wire: Wire | None = None,
        kind: Callable[..., ESMTPServerFactory] = ESMTPServerFactory,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1e9)  # a clock is not at 0 when a server starts
        self.steps: dict[str, Any] = steps if steps is not None else {}
        self.realm = Realm(self.steps)
        portal = Portal(self.realm, [AllowAnonymousAccess(), *checkers])
        self.factory = kind(
            portal, settings=settings or SessionSettings("mx.example.org"), clock=self.clock, **options
        )
        if protocol is not None:
            self.factory.protocol = protocol
        self.wire = wire or Wire()
        self.server = self.factory.buildProtocol(PEER)
        if connect:
            self.server.makeConnection(self.wire)

    def say(self, *lines: bytes) -> Line:
        """Send lines (CRLF is added), in one segment."""
        self.server.dataReceived(b"".join(line + b"\r\n" for line in lines))
        return self

    @property
    def codes(self) -> str:
        lines = self.wire.value().decode("ascii").split("\r\n")[:-1]
        return " ".join(line[:3] for line in lines if line[3:4] == " ")

    @property
    def last(self) -> str:
        return self.wire.value().decode("ascii").split("\r\n")[-2]

    @property
    def avatar(self) -> Avatar:
        return self.realm.avatars[-1]

    @property
    def delivery(self) -> Recording:
        return self.avatar.deliveries[-1]

    def lose(self) -> None:
        """The connection is lost."""
        self.server.connectionLost(Failure(ConnectionDone()))


def waiting() -> Deferred[Any]:
    """Something that is not decided yet."""
    return Deferred()
