"""
OpenSSL's contexts as we use them: versions, ciphers, one certificate of many by the server name, certificates of
clients.

In: pairs of certificate and key that were loaded, authorities that may sign for clients.
Out: `ByName`, `ClientCertificates`, which make connections for Twisted's TLS.
Failures: SSL.Error for a pair that OpenSSL refuses; `CertificateProblem` only as a `Finding`.

TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only (RFC 9325 4.1, 4.2; RFC 8996), no compression (3.3), no
renegotiation (3.5); session tickets (RFC 5077, RFC 8446 2.2); server names (RFC 6066 3), wildcards (RFC 6125 6.4.3).
Lists of revoked client certificates are not read: take the authority out of its file, or issue for short times.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailserver.certificates import CertificateProblem, Finding, LoadedPair, load_chain
from mailserver.handshake import SERVER_NAME

#: TLS 1.2: the ciphers of RFC 9325 4.2, and ChaCha20 (RFC 7905).
CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
#: TLS 1.3: RFC 8446 9.1.
CIPHERS_13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#: The first list that OpenSSL knows is taken.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
#: The value of `minimum_version` -> OpenSSL's.
MINIMUM_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

#: The value of `client_certificates` -> how OpenSSL asks.  A certificate that is shown and is not valid ends the
#: handshake in both modes: its owner believes to be known by it, and must hear that this is not so.
CLIENT_CERTIFICATES = {
    "off": SSL.VERIFY_NONE,
    "request": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}

# A session belongs to the whole server: without a common value, clients that ask for a name could not resume.
_SESSION_CONTEXT = b"mailserver"
# Never taken for one of a client that was asked for its certificate.
_CLIENT_SESSION_CONTEXT = b"mailserver, clients"

Stamp = tuple[int, int, int] | None


class ByName:
    """
    Makes connections, each with the certificate for the server name (SNI) that its client sends.

    front: where every connection begins.  The keys of the session tickets are its own, so a reload does not replace
    it (that would make the sessions of all clients worthless), but `begin_in` does, once a week.
    """

    def __init__(self, front: SSL.Context) -> None:
        self._fronts: list[SSL.Context] = []
        self.begin_in(front)

    def begin_in(self, front: SSL.Context) -> None:
        """
        New connections begin in this context, with ticket keys of its own: RFC 9325 3.4 wants them changed, for who
        steals them can read all sessions that were resumed with them.
        """
        front.set_tlsext_servername_callback(self._server_named)
        # The old ones live on for the connections that began in them: OpenSSL calls back through them.
        self._fronts = [*self._fronts[-3:], front]
        self._front = front

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002 - Twisted asks for it
        """The server's side of a new connection, with the default certificate until the client names a server."""
        return self._connection(None)

    def server_connection_on(self, connected: socket.socket) -> SSL.Connection:
        """The same for the lean transport: one that reads and writes the socket itself."""
        return self._connection(connected)

    def _connection(self, connected: socket.socket | None) -> SSL.Connection:
        connection = SSL.Connection(self._front, connected)
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
        if not server_name or not SERVER_NAME.match(server_name):
            return self._default
        name = server_name.decode("ascii").lower().removesuffix(".")
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._default


@implementer(IOpenSSLServerConnectionCreator)
class ClientCertificates(ByName):
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
        self._stamp: Stamp = None
        super().__init__(self._context(None))

    def reload(self, pairs: Sequence[LoadedPair]) -> list[Finding]:
        """Take these pairs, and read the authorities again; a file that cannot be used keeps those of before."""
        self._stamp = stamp(self._path)
        findings = []
        try:
            self._authorities = load_chain(self._path)
        except CertificateProblem as problem:
            findings.append(Finding(problem.path, problem.text))
        self._take([(pair.names, self._context(pair)) for pair in pairs])
        return findings

    def changed(self) -> bool:
        """Did the file of authorities change since it was read last?"""
        return stamp(self._path) != self._stamp

    def _context(self, pair: LoadedPair | None) -> SSL.Context:
        context = make_context(self._minimum, pair)
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


def make_context(minimum: int, pair: LoadedPair | None = None) -> SSL.Context:
    """A context of our kind, with or without a certificate.  Raises SSL.Error for one that OpenSSL refuses."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(minimum)
    context.set_cipher_list(CIPHERS.encode("ascii"))
    context.set_tls13_ciphersuites(CIPHERS_13.encode("ascii"))
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    _set_groups(context)
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


def _set_groups(context: SSL.Context) -> None:
    """
    The groups for key exchange of RFC 9325 4.2.1, and before them the hybrid one against quantum computers where
    OpenSSL has it.  pyOpenSSL has no public name for this; should the private ones go, OpenSSL's own list stays.
    """
    library, inner = getattr(SSL, "_lib", None), getattr(context, "_context", None)
    choose = getattr(library, "SSL_CTX_set1_curves_list", None)
    if choose is None or inner is None:
        return
    for groups in GROUPS:
        if choose(inner, groups) == 1:
            return


def stamp(path: Path) -> Stamp:
    """What a file that was changed differs in: time of modification (ns), size, inode; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
