"""
Signatures of webhooks: who gets a request can tell that it is ours, whole, and new.

In: a secret, an id, a time, the octets of a body.  Out: the three header fields, or whether they are right.
The form is that of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com/): HMAC-SHA256 over id, time and body,
with "." between them; libraries in many languages check it, and `verify_signature` does for Python.
Failures: ValueError for a secret that is none; its text is in no error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping, Sequence

PREFIX = "whsec_"
#: Octets of a secret that the specification allows.
LEAST, MOST = 24, 64
#: Seconds that a signature may be old, or ahead.
TOLERANCE = 300.0
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
#: Signatures of one request that are looked at; senders have one, or two while a secret changes.
_MOST_SIGNATURES = 16


def read_secret(text: str) -> bytes:
    """The key in "whsec_" and base64.  Raises ValueError."""
    encoded = text.strip()
    if not encoded.startswith(PREFIX):
        raise ValueError(f'a secret is "{PREFIX}" and the base64 of {LEAST} to {MOST} random octets')
    try:
        key = base64.b64decode(encoded.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f'behind "{PREFIX}" a secret is base64') from error
    if not LEAST <= len(key) <= MOST:
        raise ValueError(f"a secret has {LEAST} to {MOST} octets, not {len(key)}")
    return key


def signed_headers(keys: Sequence[bytes], identifier: str, seconds: float, blocks: Iterable[bytes]) -> dict[str, str]:
    """
    The header fields for a body.  keys: the newest first; each signs, so that a receiver may know any of them.
    identifier: without ".".  seconds: since 1970.
    """
    stamp = str(int(seconds))
    digests = [hmac.new(key, f"{identifier}.{stamp}.".encode(), hashlib.sha256) for key in keys]
    for block in blocks:
        for digest in digests:
            digest.update(block)
    signatures = ["v1," + base64.b64encode(digest.digest()).decode("ascii") for digest in digests]
    return {ID: identifier, TIMESTAMP: stamp, SIGNATURE: " ".join(signatures)}


def verify_signature(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> bool:
    """
    Is this request from somebody who knows the secret, unchanged, and not older than `tolerance` seconds?

    headers: of the request, in whatever case.  now: seconds since 1970; default: the clock.
    Raises ValueError for a secret that is none; never for what stands in the request.
    To take each request once, remember the values of webhook-id for as long as `tolerance`.
    """
    key = read_secret(secret)
    given = {name.lower(): value for name, value in headers.items()}
    identifier, stamp, signatures = (given.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not identifier or not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        return False
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        return False
    try:
        signed = f"{identifier}.{stamp}.".encode()
    except UnicodeEncodeError:
        return False
    expected = hmac.digest(key, signed + body, "sha256")
    found = False
    for each in signatures.split(" ")[:_MOST_SIGNATURES]:
        version, _, value = each.partition(",")
        if version == "v1":
            found |= hmac.compare_digest(_decoded(value), expected)
    return found


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
