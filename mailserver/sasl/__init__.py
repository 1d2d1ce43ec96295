"""
SASL mechanisms without I/O (RFC 4422), the server's side: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256 with and without
channel binding, EXTERNAL, OAUTHBEARER, XOAUTH2.

In: decoded octets.  Out: a challenge to send, a question for a user's keys, or a login for somebody to verify.
A new mechanism is one new file with a class of `SaslServer`'s shape.
"""

from __future__ import annotations

from mailserver.sasl.cram_md5 import CramMD5, make_challenge
from mailserver.sasl.external import External
from mailserver.sasl.login import Login
from mailserver.sasl.oauth import OAuthBearer, XOAuth2
from mailserver.sasl.plain import Plain
from mailserver.sasl.scram import Scram
from mailserver.sasl.values import (
    BearerLogin,
    Challenge,
    CramLogin,
    Credentials,
    ExternalLogin,
    Lookup,
    LookupServer,
    Malformed,
    Outcome,
    PlainLogin,
    RefusableServer,
    SaslServer,
    ScramKeys,
    VerifiedLogin,
    WrongProof,
    authzid_allowed,
)

__all__ = [
    "BearerLogin",
    "Challenge",
    "CramLogin",
    "CramMD5",
    "Credentials",
    "External",
    "ExternalLogin",
    "Login",
    "Lookup",
    "LookupServer",
    "Malformed",
    "OAuthBearer",
    "Outcome",
    "Plain",
    "PlainLogin",
    "RefusableServer",
    "SaslServer",
    "Scram",
    "ScramKeys",
    "VerifiedLogin",
    "WrongProof",
    "XOAuth2",
    "authzid_allowed",
    "make_challenge",
]
