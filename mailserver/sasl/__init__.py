"""
SASL mechanisms without I/O (RFC 4422): PLAIN, LOGIN and CRAM-MD5, the server's side.

In: decoded octets.  Out: a challenge to send, or a login for somebody with passwords to verify.
A new mechanism is one new file with a class of `SaslServer`'s shape.
"""

from __future__ import annotations

from mailserver.sasl.cram_md5 import CramMD5, make_challenge
from mailserver.sasl.login import Login
from mailserver.sasl.plain import Plain
from mailserver.sasl.values import (
    Challenge,
    CramLogin,
    Malformed,
    Outcome,
    PlainLogin,
    SaslServer,
    authzid_allowed,
)

__all__ = [
    "Challenge",
    "CramLogin",
    "CramMD5",
    "Login",
    "Malformed",
    "Outcome",
    "Plain",
    "PlainLogin",
    "SaslServer",
    "authzid_allowed",
    "make_challenge",
]
