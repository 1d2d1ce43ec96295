"""
OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, "OAuth 2.0 Mechanism"), the server's side: a token for a password.

In: OAUTHBEARER `n,a=user,^Ahost=...^Aport=...^Aauth=Bearer token^A^A`; XOAUTH2 `user=user^Aauth=Bearer token^A^A`.
Out: a `BearerLogin`; when it is refused an error in JSON (`refused`), and after the client's dummy answer a
`WrongProof`.  A token of no octets asks which tokens are wanted (RFC 7628 4.3) and gets that error at once.
Failures: `Malformed` for a message of another form.  Channel bindings are not defined for these: "p=" is malformed.
Security: a token is as good as a password; no repr and no error text holds it.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from mailserver.sasl.gs2 import parse_gs2_header
from mailserver.sasl.values import BearerLogin, Challenge, Malformed, Outcome, WrongProof, decode_name

#: RFC 6750 2.1, b64token; the scheme's name in any case (RFC 9110 11.1).
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)\Z")
# RFC 7628 3.1: kvpair = key "=" value
_PAIR = re.compile(rb"([A-Za-z]+)=([\x21-\x7e \t\r\n]*)\Z")
_PORT = re.compile(rb"[1-9][0-9]{0,4}\Z")
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_SEPARATOR = b"\x01"


class _Bearer:
    """What both mechanisms share: when the token is refused or missing, the error comes before the end."""

    def __init__(self) -> None:
        self._user = ""
        self._over = False

    def start(self, initial: bytes | None) -> Outcome:
        """Without an initial response: an empty challenge."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        """Take the message apart; after `refused` whatever comes ends the exchange.  Raises Malformed."""
        if self._over:
            return WrongProof(self._user, "the token was refused")
        login = self._login(response)
        self._user = login.user
        # Nobody need verify what is not there.
        return login if login.token else self.refused()

    def refused(self) -> Challenge:
        """See `RefusableServer`."""
        self._over = True
        return Challenge(json.dumps(self._error()).encode("ascii"))

    def _login(self, message: bytes) -> BearerLogin:
        raise NotImplementedError

    def _error(self) -> dict[str, str]:
        raise NotImplementedError


class OAuthBearer(_Bearer):
    """
    The mechanism OAUTHBEARER; implements `SaslServer` and `RefusableServer`.

    scope: that a token needs, "" for none.  openid_configuration: the https URL where a client learns how to get one,
    or "".  Both are told to a client whose token was refused (RFC 7628 3.2.2).
    """

    name: ClassVar[str] = "OAUTHBEARER"

    def __init__(self, *, scope: str = "", openid_configuration: str = "") -> None:
        super().__init__()
        self._scope = scope
        self._openid_configuration = openid_configuration

    def _login(self, message: bytes) -> BearerLogin:
        # RFC 7628 3.1: client-resp = gs2-header kvsep *kvpair kvsep
        start, found, rest = message.partition(_SEPARATOR)
        header, behind = parse_gs2_header(start)
        if not found or behind or header.binding is not None:
            raise Malformed("no GS2 header without channel binding before the fields")
        pairs = _pairs(rest)
        host, port = pairs.get(b"host", b""), pairs.get(b"port", b"")
        if host and not _HOST.match(host):
            raise Malformed("host is no host name")
        if port and not (_PORT.match(port) and int(port) <= 65_535):
            raise Malformed("port is no port")
        return BearerLogin(header.authzid, _token(pairs), host.decode("ascii"), int(port or 0))

    def _error(self) -> dict[str, str]:
        told = {"scope": self._scope, "openid-configuration": self._openid_configuration}
        return {"status": "invalid_token", **{key: value for key, value in told.items() if value}}


class XOAuth2(_Bearer):
    """The mechanism XOAUTH2; implements `SaslServer` and `RefusableServer`.  scope: that a token needs, or ""."""

    name: ClassVar[str] = "XOAUTH2"

    def __init__(self, *, scope: str = "") -> None:
        super().__init__()
        self._scope = scope

    def _login(self, message: bytes) -> BearerLogin:
        start, found, rest = message.partition(_SEPARATOR)
        if not found or not start.startswith(b"user="):
            raise Malformed("the message does not start with a user")
        return BearerLogin(decode_name(start.removeprefix(b"user=")), _token(_pairs(rest)))

    def _error(self) -> dict[str, str]:
        scope = {"scope": self._scope} if self._scope else {}
        return {"status": "401", "schemes": "bearer", **scope}


def _pairs(text: bytes) -> dict[bytes, bytes]:
    """The fields of `*kvpair kvsep`.  Raises Malformed, also for one that comes twice."""
    if text != _SEPARATOR and not text.endswith(_SEPARATOR * 2):
        raise Malformed("the message does not end with two separators")
    pairs: dict[bytes, bytes] = {}
    for field in text[:-2].split(_SEPARATOR) if text != _SEPARATOR else ():
        form = _PAIR.match(field)
        if form is None:
            raise Malformed("a field is not key=value")
        key = form[1].lower()
        if key in pairs:
            raise Malformed("a field comes twice")
        pairs[key] = form[2]
    return pairs


def _token(pairs: dict[bytes, bytes]) -> str:
    """The token of `auth=Bearer token`, "" for an empty `auth=`.  Raises Malformed without one."""
    auth = pairs.get(b"auth")
    if auth is None:
        raise Malformed("there is no auth field")
    if not auth:
        return ""
    form = _BEARER.match(auth)
    if form is None:
        raise Malformed("the auth field holds no bearer token")
    return form[1].decode("ascii")
