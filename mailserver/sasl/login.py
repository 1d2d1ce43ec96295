"""
LOGIN, the server's side (draft-murchison-sasl-login-00): two questions, two answers.

In: the user name (also as the initial response), then the password.  Out: a `PlainLogin` without authzid.
Failures: `Malformed` for an empty answer, NUL, octets that are not UTF-8.
"""

from __future__ import annotations

from typing import ClassVar

from mailserver.sasl.values import Challenge, Outcome, PlainLogin, decode_name, decode_text


class Login:
    """The mechanism LOGIN; implements `SaslServer`."""

    name: ClassVar[str] = "LOGIN"

    def __init__(self) -> None:
        self._user: str | None = None

    def start(self, initial: bytes | None) -> Outcome:
        """Ask for the user name, unless it came along."""
        # Section 2.2 of the draft: widespread clients go by these very words.
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        """The first answer is the user name, the second the password.  Raises Malformed."""
        if self._user is None:
            self._user = decode_name(response)
            return Challenge(b"Password:")
        return PlainLogin(self._user, decode_text(response))
