"""
The server's side of TLS: which versions and ciphers, which certificate for which name, renewed ones while running.

In: pairs of files (see certificates.py).  Out: `CertificateSet`, which makes connections for Twisted's TLS, on ports
with implicit TLS and for STARTTLS alike; `TLSInfo` about a connection; `Finding`s about the files.
Failures: `CertificateProblem` while a set is made; a set that runs never fails, it keeps the certificate it had.

TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only (RFC 9325 4.1, 4.2; RFC 8996), no compression (3.3), no
renegotiation (3.5); session tickets (RFC 5077, RFC 8446 2.2); server names (RFC 6066 3), wildcards (RFC 6125 6.4.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.certificates import CertificateProblem, Finding, LoadedPair, Pair, inspect_pair
from mailserver.envelope import TLSInfo

__all__ = ["CertificateProblem", "CertificateSet", "CertificateWatch", "Finding", "check_pair", "tls_info"]

#: TLS 1.2: the ciphers of RFC 9325 4.2, and ChaCha20 (RFC 7905).
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
#: TLS 1.3: RFC 8446 9.1.
CIPHERS_13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#: The value of `minimum_version` -> OpenSSL's.
MINIMUM_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

# A session belongs to the whole server: without a common value, clients that ask for a name could not resume.
_SESSION_CONTEXT = b"mailserver"
_SERVER_NAME = re.compile(rb"[A-Za-z0-9_.\-]{1,255}\Z")

_Stamp = tuple[int, int, int] | None


def check_pair(certificate: Path, key: Path, *, now: datetime | None = None) -> list[Finding]:
    """
    Everything that is wrong with a pair: files missing, not readable, not PEM, empty, damaged; key encrypted or of
    another certificate; both too weak for OpenSSL.  Warnings: expired, not valid yet, key open to every user.
    now: aware; None for the clock's.
    """
    return _examine((certificate, key), SSL.TLS1_2_VERSION, now or _clock())[1]


def _clock() -> datetime:
    return datetime.now(UTC)


@implementer(IOpenSSLServerConnectionCreator)
class CertificateSet:
    """
    The certificates of a server, one of which is chosen for each connection by the server name (SNI).

    The exact name wins, then a wildcard for its first label, then the first pair; so does no name, or a strange one.
    """

    def __init__(
        self, pairs: Sequence[Pair], *, minimum_version: str = "1.2", now: Callable[[], datetime] = _clock
    ) -> None:
        """
        pairs: (certificate, key), the default first; at least one.  minimum_version: "1.2" or "1.3".
        now: an aware time, for warnings.
        Raises CertificateProblem for a pair that cannot be used; ValueError without pairs, or for another version.
        """
        if not pairs:
            raise ValueError("a certificate set needs at least one pair of files")
        if minimum_version not in MINIMUM_VERSIONS:
            raise ValueError(f"{minimum_version!r} is no TLS version to start from; 1.2 and 1.3 are")
        self._minimum = MINIMUM_VERSIONS[minimum_version]
        self._now = now
        self._pairs: tuple[Pair, ...] = ()
        self._usable: dict[Pair, _Usable] = {}
        for finding in self.reload(pairs):
            if not finding.warning:
                raise CertificateProblem(finding.path, finding.text)
        # Every connection begins in this context.  It is never replaced, because the keys of the session tickets are
        # its own: a reload must not make the sessions of all clients worthless.
        self._front = _make_context(self._minimum)
        self._front.set_tlsext_servername_callback(self._server_named)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted asks for it
        """The server's side of a new connection, with the default certificate until the client names a server."""
        connection = SSL.Connection(self._front, None)
        # The C library calls `_server_named` through the front context, which must live as long as its connections.
        connection.set_app_data(self)
        connection.set_context(self._default)
        return connection

    def reload(self, pairs: Sequence[Pair] | None = None) -> list[Finding]:
        """
        Read all files again; with `pairs`, those instead of the old ones (no pairs at all change nothing).

        A pair that cannot be used keeps what it had before, and is a finding; a new one is left out.  Warnings are
        findings too.  New connections, and those that have not sent their server name yet, get the new certificates
        all at once.  Running connections and their sessions go on.
        """
        wanted = tuple(pairs) if pairs else self._pairs
        # Taken before reading: what is written meanwhile will be seen by `changed`.
        stamps = {path: _stamp(path) for pair in wanted for path in pair}
        findings: list[Finding] = []
        usable: dict[Pair, _Usable] = {}
        for pair in wanted:
            fresh, found = _examine(pair, self._minimum, self._now())
            findings += found
            kept = fresh or self._usable.get(pair)
            if kept is not None:
                usable[pair] = kept
        self._pairs, self._stamps = wanted, stamps
        if usable:
            self._usable = usable
            self._by_name: dict[str, SSL.Context] = {}
            for each in usable.values():
                for name in each.names:
                    self._by_name.setdefault(name, each.context)
            self._default = next(iter(usable.values())).context
        return findings

    def changed(self) -> bool:
        """Did a file change (time of modification, size, inode) since it was read last?"""
        return any(_stamp(path) != before for path, before in self._stamps.items())

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The names of each certificate, in the order of the pairs."""
        return tuple(each.names for each in self._usable.values())

    @property
    def expires(self) -> datetime:
        """When the first of the certificates ends (aware)."""
        return min(each.expires for each in self._usable.values())

    def _server_named(self, connection: SSL.Connection) -> None:
        connection.set_context(self._find(connection.get_servername()))

    def _find(self, server_name: bytes | None) -> SSL.Context:
        """The context for what a client sent: any octets, or nothing.  Never raises."""
        if not server_name or not _SERVER_NAME.match(server_name):
            return self._default
        name = server_name.decode("ascii").lower().removesuffix(".")
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._default


class CertificateWatch(Service):
    """
    Looks after a `CertificateSet` while the server runs: renews and reloads what changed, and logs each outcome once.
    """

    log = Logger()

    def __init__(
        self, certificates: CertificateSet, clock: Any, interval: float, renew: Callable[[], bool] | None = None
    ) -> None:
        """
        clock: `IReactorTime`.  interval: seconds between two looks; 0: never (`reload` still works).
        renew: called before each look; writes new files when it is time to, and returns whether it did.
        """
        self._certificates = certificates
        self._interval = interval
        self._renew = renew
        self._told: frozenset[str] = frozenset()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look from now on, the first time after one interval."""
        super().startService()
        if self._interval > 0:
            self._loop.start(self._interval, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def reload(self, pairs: Sequence[Pair] | None = None) -> list[Finding]:
        """Reload now (SIGHUP): `CertificateSet.reload`, with its log."""
        findings = self._certificates.reload(pairs)
        self._tell(findings)
        self.log.info(
            "certificates in use: {names}; the first ends on {expires}",
            names="; ".join(", ".join(names) for names in self._certificates.names),
            expires=f"{self._certificates.expires:%Y-%m-%d}",
        )
        return findings

    def _look(self) -> None:
        try:
            if self._is_renewed() or self._certificates.changed():
                self.reload()
        except Exception:  # noqa: BLE001 - whatever it was, the next renewal must still be seen
            self.log.failure("the certificates could not be looked after; tried again later")

    def _is_renewed(self) -> bool:
        try:
            return self._renew is not None and self._renew()
        except OSError as error:
            self._tell([Finding(Path(error.filename or "."), f"the certificate cannot be renewed: {error.strerror}")])
            return False

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            if str(finding) in self._told:
                continue
            if finding.warning:
                self.log.warn("{path}: {text}", path=str(finding.path), text=finding.text)  # noqa: G010 - Twisted
            else:
                self.log.error("{path}: {text}; the old stays in use", path=str(finding.path), text=finding.text)
        self._told = frozenset(map(str, findings))


def tls_info(connection: SSL.Connection) -> TLSInfo:
    """What a connection has negotiated.  Call it when its handshake is done."""
    name = connection.get_servername() or b""
    return TLSInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        # The client chose it, and it goes to the log and into a header field.
        server_name=name.decode("ascii").lower() if _SERVER_NAME.match(name) else "",
        resumed=_is_resumed(connection),
    )


def _is_resumed(connection: SSL.Connection) -> bool:
    # pyOpenSSL has no name for this; the binding below it has.  Should that go away, we only know less.
    binding: Any = getattr(SSL, "_lib", None)
    try:
        return bool(binding.SSL_session_reused(connection._ssl))  # noqa: SLF001
    except AttributeError:
        return False


@dataclass(frozen=True, slots=True)
class _Usable:
    """A pair, ready for connections."""

    names: tuple[str, ...]
    expires: datetime
    context: SSL.Context


def _examine(pair: Pair, minimum: int, now: datetime) -> tuple[_Usable | None, list[Finding]]:
    loaded, findings = inspect_pair(*pair, now=now)
    if loaded is None:
        return None, findings
    try:
        context = _make_context(minimum, loaded)
    except SSL.Error as error:
        return None, [*findings, Finding(pair[0], f"OpenSSL does not take the certificate: {_reason(error)}")]
    return _Usable(loaded.names, loaded.chain[0].not_valid_after_utc, context), findings


def _make_context(minimum: int, pair: LoadedPair | None = None) -> SSL.Context:
    """A context of our kind, with or without a certificate.  Raises SSL.Error for one that OpenSSL refuses."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(minimum)
    context.set_cipher_list(CIPHERS.encode("ascii"))
    context.set_tls13_ciphersuites(CIPHERS_13.encode("ascii"))
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection takes some 34 KiB less
    context.set_session_id(_SESSION_CONTEXT)
    # Tickets keep a session on the client's side; the cache would hold up to 20,480 of them in our memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if pair is not None:
        context.use_certificate(pair.chain[0])
        for issuer in pair.chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(pair.key)
        context.check_privatekey()
    return context


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(reason for _, _, reason in queue if reason) or "no reason given"


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
