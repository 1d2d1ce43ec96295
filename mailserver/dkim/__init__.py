"""
DKIM (RFC 6376): signing mail, and verifying what others have signed.

Signing: `load_private_key`, `SigningOptions`, `Signer` or `sign`.  Verifying: `Verifier` or `verify`, a `Resolver`.
docs/dkim.md shows both.  Nothing here reads a file, asks the DNS or looks at a clock.
"""

from mailserver.dkim.canonical import Canonicalization
from mailserver.dkim.keys import Algorithm, BadKey, PrivateKey, load_private_key, new_private_key
from mailserver.dkim.results import Outcome, Result, Verification, Weakness
from mailserver.dkim.signer import OVERSIGNED, SIGNED, Signer, SigningOptions, Unsignable, sign
from mailserver.dkim.verifier import KeyUnavailable, Resolver, Verifier, VerifyingOptions, verify

__all__ = [
    "OVERSIGNED",
    "SIGNED",
    "Algorithm",
    "BadKey",
    "Canonicalization",
    "KeyUnavailable",
    "Outcome",
    "PrivateKey",
    "Resolver",
    "Result",
    "Signer",
    "SigningOptions",
    "Unsignable",
    "Verification",
    "Verifier",
    "VerifyingOptions",
    "Weakness",
    "load_private_key",
    "new_private_key",
    "sign",
    "verify",
]
