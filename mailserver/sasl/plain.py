"""
PLAIN, the server's side (RFC 4616): one message with up to three fields, separated by NUL.

In: `[authzid] NUL user NUL password`, or the `user NUL password` of some old clients.  Out: a `PlainLogin`.
Failures: `Malformed` for another number of fields, an empty user or password, octets that are not UTF-8.
"""

from __future__ import annotations

from typing import ClassVar

from mailserver.sasl.values import Challenge, Malformed, Outcome, PlainLogin, decode_name, decode_text


class Plain:
    """The mechanism PLAIN; implements `SaslServer`."""

    name: ClassVar[str] = "PLAIN"

    def start(self, initial: bytes | None) -> Outcome:
        """Without an initial response: an empty challenge (RFC 4954 4)."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        """Take the message apart.  Raises Malformed."""
        # RFC 4616 2: message = [authzid] UTF8NUL authcid UTF8NUL passwd
        fields = response.split(b"\0")
        if len(fields) == 2:
            fields.insert(0, b"")
        if len(fields) != 3:
            raise Malformed("not two or three fields")
        authzid, user, password = fields
        return PlainLogin(decode_name(user), decode_text(password), decode_name(authzid) if authzid else "")
