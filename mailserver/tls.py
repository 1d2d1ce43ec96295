"""
The server's side of TLS: which versions and ciphers, which certificate for which name, renewed ones while running.

In: pairs of files (see certificates.py).  Out: `CertificateSet`, which makes connections for Twisted's TLS, on ports
with implicit TLS and for STARTTLS alike, and `ClientCertificates`, which also asks clients for theirs; `TLSInfo` and
channel bindings of a connection; `Finding`s about the files.
Failures: `CertificateProblem` while a set is made; a set that runs never fails, it keeps the certificate it had.

TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only (RFC 9325 4.1, 4.2; RFC 8996), no compression (3.3), no
renegotiation (3.5); session tickets (RFC 5077, RFC 8446 2.2); server names (RFC 6066 3), wildcards (RFC 6125 6.4.3).
Channel bindings: tls-exporter (RFC 9266), tls-server-end-point (RFC 5929 4).  Lists of revoked client certificates
are not read: take the authority's certificate out of the file, or issue for short times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.application.service import Service
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.certificates import (
    CertificateProblem,
    Finding,
    LoadedPair,
    Pair,
    client_name,
    end_point_hash,
    inspect_pair,
    load_chain,
)
from mailserver.envelope import TLSInfo

__all__ = [
    "CLIENT_CERTIFICATES",
    "CertificateProblem",
    "CertificateSet",
    "CertificateWatch",
    "ClientCertificates",
    "Finding",
    "channel_bindings",
    "check_pair",
    "tls_info",
]

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

#: The value of `client_certificates` -> how OpenSSL asks.  A certificate that is shown and is not valid ends the
#: handshake in both modes: its owner believes to be known by it, and must hear that this is not so.
CLIENT_CERTIFICATES = {
    "off": SSL.VERIFY_NONE,
    "request": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
#: RFC 9266 2 and 4.1.
_EXPORTER_LABEL, _EXPORTER_OCTETS = b"EXPORTER-Channel-Binding", 32

# A session belongs to the whole server: without a common value, clients that ask for a name could not resume.
_SESSION_CONTEXT = b"mailserver"
# Never taken for one of a client that was asked for its certificate.
_CLIENT_SESSION_CONTEXT = b"mailserver, clients"
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


class _ByName:
    """
    Makes connections, each with the certificate for the server name (SNI) that its client sends.

    front: where every connection begins; it is never replaced, as the keys of the session tickets are its own: a
    reload must not make the sessions of all clients worthless.
    """

    def __init__(self, front: SSL.Context) -> None:
        self._front = front
        self._front.set_tlsext_servername_callback(self._server_named)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted asks for it
        """The server's side of a new connection, with the default certificate until the client names a server."""
        connection = SSL.Connection(self._front, None)
        # The C library calls `_server_named` through the front context, which must live as long as its connections.
        connection.set_app_data(self)
        connection.set_context(self._default)
        return connection

    def _take(self, contexts: Sequence[tuple[tuple[str, ...], SSL.Context]]) -> None:
        """From now on these: names and context of each certificate, the default first."""
        by_name: dict[str, SSL.Context] = {}
        for names, context in contexts:
            for name in names:
                by_name.setdefault(name, context)
        self._by_name, self._default = by_name, contexts[0][1]

    def _server_named(self, connection: SSL.Connection) -> None:
        connection.set_context(self._find(connection.get_servername()))

    def _find(self, server_name: bytes | None) -> SSL.Context:
        """The context for what a client sent: any octets, or nothing.  Never raises."""
        if not server_name or not _SERVER_NAME.match(server_name):
            return self._default
        name = server_name.decode("ascii").lower().removesuffix(".")
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._default


@implementer(IOpenSSLServerConnectionCreator)
class CertificateSet(_ByName):
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
        self._for_clients: dict[tuple[str, Path], ClientCertificates] = {}
        super().__init__(_make_context(self._minimum))
        for finding in self.reload(pairs):
            if not finding.warning:
                raise CertificateProblem(finding.path, finding.text)

    def for_clients(self, mode: str, authorities: Path | None = None) -> CertificateSet | ClientCertificates:
        """
        What makes the connections of a listener that asks its clients for certificates: the same certificates of
        ours, the same reload.

        mode: "off" (the set itself), "request" or "require".  authorities: PEM file of those who may sign.
        Raises CertificateProblem for a file that cannot be used; ValueError for another mode, or without a file.
        """
        if mode not in CLIENT_CERTIFICATES:
            raise ValueError(f"{mode!r} is no way to ask for client certificates; off, request and require are")
        if mode == "off":
            return self
        if authorities is None:
            raise ValueError(f"client certificates: {mode!r} needs a file of authorities")
        key = (mode, authorities)
        if key not in self._for_clients:
            found = ClientCertificates(mode, authorities, self._minimum)
            for finding in found.reload([each.pair for each in self._usable.values()]):
                raise CertificateProblem(finding.path, finding.text)
            self._for_clients[key] = found
        return self._for_clients[key]

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
            self._take([(each.pair.names, each.context) for each in usable.values()])
        for clients in self._for_clients.values():
            findings += clients.reload([each.pair for each in self._usable.values()])
        return findings

    def changed(self) -> bool:
        """Did a file change (time of modification, size, inode) since it was read last?"""
        return any(_stamp(path) != before for path, before in self._stamps.items()) or any(
            clients.changed() for clients in self._for_clients.values()
        )

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The names of each certificate, in the order of the pairs."""
        return tuple(each.pair.names for each in self._usable.values())

    @property
    def expires(self) -> datetime:
        """When the first of the certificates ends (aware)."""
        return min(each.pair.chain[0].not_valid_after_utc for each in self._usable.values())


@implementer(IOpenSSLServerConnectionCreator)
class ClientCertificates(_ByName):
    """
    The certificates of a `CertificateSet` for a listener that asks clients for theirs; made by its `for_clients`.

    A certificate must be signed by one of the authorities, be valid now, and not be for servers only.  One that is
    not ends the handshake.  Without one, a handshake ends in mode "require" and goes on in mode "request".
    No session is ever resumed here: each connection is judged by the authorities and the clock of its own moment.
    """

    def __init__(self, mode: str, authorities: Path, minimum: int) -> None:
        """mode: "request" or "require".  minimum: OpenSSL's number of the TLS version.  `reload` before any use."""
        self._path = authorities
        self._minimum = minimum
        self._flags = CLIENT_CERTIFICATES[mode]
        self._authorities: tuple[x509.Certificate, ...] = ()
        self._stamp: _Stamp = None
        super().__init__(self._context(None))

    def reload(self, pairs: Sequence[LoadedPair]) -> list[Finding]:
        """Take these pairs, and read the authorities again; a file that cannot be used keeps those of before."""
        self._stamp = _stamp(self._path)
        findings = []
        try:
            self._authorities = load_chain(self._path)
        except CertificateProblem as problem:
            findings.append(Finding(problem.path, problem.text))
        self._take([(pair.names, self._context(pair)) for pair in pairs])
        return findings

    def changed(self) -> bool:
        """Did the file of authorities change since it was read last?"""
        return _stamp(self._path) != self._stamp

    def _context(self, pair: LoadedPair | None) -> SSL.Context:
        context = _make_context(self._minimum, pair)
        context.set_verify(self._flags)
        context.set_session_id(_CLIENT_SESSION_CONTEXT)
        context.set_options(SSL.OP_NO_TICKET)
        store = context.get_cert_store()
        for authority in self._authorities:
            if store is not None:
                store.add_cert(crypto.X509.from_cryptography(authority))
            # Tells clients which of their certificates to show (RFC 8446 4.2.4).
            context.add_client_ca(authority)
        return context


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
    client = _verified_client(connection)
    return TLSInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        # The client chose it, and it goes to the log and into a header field.
        server_name=name.decode("ascii").lower() if _SERVER_NAME.match(name) else "",
        resumed=_is_resumed(connection),
        client_name=client_name(client) if client is not None else "",
        client_fingerprint=client.fingerprint(hashes.SHA256()).hex() if client is not None else "",
    )


def channel_bindings(connection: SSL.Connection) -> dict[str, bytes]:
    """
    The channel bindings of a connection whose handshake is done: type -> data, the best first.

    tls-exporter is there with TLS 1.3, and with 1.2 when the extended master secret was used (RFC 9266 3);
    tls-server-end-point unless our certificate's signature has no hash (RFC 5929 4.1).
    """
    found: dict[str, bytes] = {}
    if (
        connection.get_protocol_version() >= SSL.TLS1_3_VERSION
        or _ask_library(connection, "SSL_get_extms_support") == 1
    ):
        found["tls-exporter"] = connection.export_keying_material(_EXPORTER_LABEL, _EXPORTER_OCTETS)
    own = connection.get_certificate(as_cryptography=True)
    end_point = end_point_hash(own) if own is not None else None
    if end_point is not None:
        found["tls-server-end-point"] = end_point
    return found


def _verified_client(connection: SSL.Connection) -> x509.Certificate | None:
    """The client's certificate, when it showed one and it was verified."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None or not connection.get_verify_mode() & SSL.VERIFY_PEER:
        return None
    # X509_V_OK is 0.  Our own contexts let nothing else through; somebody else's may.
    return certificate if _ask_library(connection, "SSL_get_verify_result") == 0 else None


def _is_resumed(connection: SSL.Connection) -> bool:
    return bool(_ask_library(connection, "SSL_session_reused"))


def _ask_library(connection: SSL.Connection, function: str) -> int | None:
    # pyOpenSSL has no names for these; the binding below it has.  Should that go away, we only know less: None.
    binding: Any = getattr(SSL, "_lib", None)
    try:
        return int(getattr(binding, function)(connection._ssl))  # noqa: SLF001
    except AttributeError:
        return None


@dataclass(frozen=True, slots=True)
class _Usable:
    """A pair, ready for connections."""

    pair: LoadedPair
    context: SSL.Context


def _examine(pair: Pair, minimum: int, now: datetime) -> tuple[_Usable | None, list[Finding]]:
    loaded, findings = inspect_pair(*pair, now=now)
    if loaded is None:
        return None, findings
    try:
        context = _make_context(minimum, loaded)
    except SSL.Error as error:
        return None, [*findings, Finding(pair[0], f"OpenSSL does not take the certificate: {_reason(error)}")]
    return _Usable(loaded, context), findings


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
