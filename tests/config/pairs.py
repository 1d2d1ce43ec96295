"""
Certificates with their keys, for configurations that name some; and the folder in which the test files are loaded.
"""

from __future__ import annotations

import pwd
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@cache
def pem_pair(name: str, days: int) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key in PEM; days: how long it is valid from now, negative: expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def ordinary_user() -> str:
    """The name of a user of this machine who is not root."""
    return next(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid)


def make_folder(path: Path) -> Path:
    """
    A folder with what the test configurations name: good.pem and good.key, expired.pem and expired.key, open.key (of
    good.pem, for everybody to read), text.pem (no PEM), file (no folder), link (to a folder), data (a folder).
    """
    path.mkdir()
    good, good_key = pem_pair("mail.example.org", 90)
    expired, expired_key = pem_pair("old.example.org", -90)
    files = {
        "good.pem": good, "good.key": good_key, "expired.pem": expired, "expired.key": expired_key,
        "open.key": good_key, "text.pem": b"no PEM\n", "file": b"",
    }  # fmt: skip
    for name, content in files.items():
        (path / name).write_bytes(content)
        (path / name).chmod(0o644 if name == "open.key" else 0o600)
    (path / "data").mkdir(mode=0o700)
    (path / "link").symlink_to("data")
    return path
