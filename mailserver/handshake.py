"""
What a TLS handshake has brought: version and cipher, who the client is, and what binds other proofs to the channel.

In: a connection whose handshake is done.  Out: `TLSInfo`, channel bindings (type -> octets).
Failures: none; what cannot be told is empty or missing.
Security: a client's name is told only when its certificate was verified, and only when it is printable.
RFC 6066 3 (server names), RFC 5280 4.2.1.6 (names of clients), RFC 9266 (tls-exporter), RFC 5929 4
(tls-server-end-point).
"""

from __future__ import annotations

import re
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from mailserver.envelope import TLSInfo

#: A server name (SNI) that may go into logs and header fields, and by which certificates are looked up.
SERVER_NAME = re.compile(rb"[A-Za-z0-9_.\-]{1,255}\Z")
#: Characters of a client's name; no mail address and no host name is longer.
MAX_NAME = 255
#: RFC 9266 2 and 4.1.
_EXPORTER_LABEL, _EXPORTER_OCTETS = b"EXPORTER-Channel-Binding", 32


def tls_info(connection: SSL.Connection) -> TLSInfo:
    """What a connection has negotiated.  Call it when its handshake is done."""
    name = connection.get_servername() or b""
    client = _verified_client(connection)
    return TLSInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        # The client chose it, and it goes to the log and into a header field.
        server_name=name.decode("ascii").lower() if SERVER_NAME.match(name) else "",
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


def client_name(certificate: x509.Certificate) -> str:
    """
    Whom a client's certificate is for: the first mail address among its alternative names (RFC 5280 4.2.1.6), else
    the first host name, else the first common name.  "" when there is none, or one that is empty, longer than 255
    characters, or not printable: it goes to logs and header fields.
    """
    try:
        found = _alternative_names(certificate)
        if not found:
            common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            found = [each.value for each in common if isinstance(each.value, str)]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # OpenSSL is content with more than the reader of names.
        return ""
    name = found[0] if found else ""
    return name if len(name) <= MAX_NAME and name.isprintable() else ""


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.RFC822Name), *names.get_values_for_type(x509.DNSName)]


def end_point_hash(certificate: x509.Certificate) -> bytes | None:
    """
    The channel binding `tls-server-end-point` of a connection with this certificate (RFC 5929 4.1): its hash by the
    hash of its signature, SHA-256 instead of MD5 and SHA-1.  None for a signature without such a hash (Ed25519).
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    return certificate.fingerprint(hashes.SHA256() if algorithm.name in ("md5", "sha1") else algorithm)


def _verified_client(connection: SSL.Connection) -> x509.Certificate | None:
    """The client's certificate, when it showed one and it was verified."""
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    except ValueError:  # verified by OpenSSL, and yet not to be read
        return None
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
