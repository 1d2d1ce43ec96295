"""The table of the conversation holds together."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.rules import ALLOWED, ALLOWED_LMTP, HTTP, IDLE, NOT_DONE, SessionSettings, State
from mailserver.smtp.session import SMTPSession


class TableTests(SynchronousTestCase):
    def test_every_verb_has_something_done_about_it(self) -> None:
        self.assertEqual(set(ALLOWED) | set(ALLOWED_LMTP), set(SMTPSession._COMMANDS))

    def test_no_verb_is_both_done_and_not(self) -> None:
        self.assertFalse(set(ALLOWED) & NOT_DONE)
        self.assertLessEqual(IDLE, set(ALLOWED) | set(ALLOWED_LMTP))

    def test_nothing_is_allowed_in_text_exchange_or_handshake(self) -> None:
        for verb, states in ALLOWED.items():
            self.assertFalse(states & {State.START, State.TEXT, State.AUTH, State.TLS, State.CLOSED}, verb)

    def test_no_verb_of_ours_looks_like_http(self) -> None:
        for verb in (*ALLOWED, *NOT_DONE):
            self.assertIsNone(HTTP.match(verb + b" x"))

    def test_settings_are_careful_by_default(self) -> None:
        settings = SessionSettings("mx.example.org")
        self.assertEqual(
            (settings.insecure_auth, settings.bare_newlines, dict(settings.mechanisms)), (False, "reject", {})
        )
