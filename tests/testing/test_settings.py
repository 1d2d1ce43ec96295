"""What a server may be made with, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.testing.settings import MECHANISMS, MECHANISMS_FOR_ANY, Options, Settings


class SettingsTests(SynchronousTestCase):
    def test_type_checkers_know_every_argument(self) -> None:
        fields = {field.name: field.type for field in dataclasses.fields(Settings)}
        hints = {name: getattr(hint, "__forward_arg__", hint) for name, hint in Options.__annotations__.items()}
        self.assertEqual(hints, fields)

    def test_what_makes_no_sense_is_named(self) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"tls": "on"}, "tls: 'on'; write False"),
            ({"tls": True}, "tls: True"),
            ({"auth_required": True}, "auth_required: nobody can log in"),
            ({"bare_newlines": "keep"}, "bare_newlines: 'keep'; one of reject"),
            ({"extensions_off": ["PIPELINING", "NONSENSE"]}, "extensions_off: NONSENSE; known are"),
            ({"extensions_off": "SIZE"}, "extensions_off"),
            ({"inboxes": "a@example.org"}, "inboxes: write a list"),
            ({"inboxes": ["nobody"]}, 'inboxes: "nobody" has no "@"'),
        ]
        for options, words in cases:
            error = self.assertRaises(ValueError, Settings, **options)
            self.assertIn(words, str(error))

    def test_a_limit_that_does_not_exist_is_named(self) -> None:
        settings = Settings(limits={"errrors": 1})
        error = self.assertRaises(TypeError, lambda: settings.all_limits)
        self.assertIn("errrors", str(error))

    def test_limits_are_wide_unless_the_test_wants_them(self) -> None:
        limits = Settings(size_limit=1000, limits={"errors": 3}).all_limits
        self.assertEqual((limits.message_size, limits.errors), (1000, 3))
        self.assertGreater(Settings().all_limits.errors, 1000)

    def test_mechanisms_are_those_that_can_work(self) -> None:
        self.assertEqual(Settings().offered_mechanisms, ())
        self.assertEqual(Settings(auth={"anna": "secret"}).offered_mechanisms, MECHANISMS)
        self.assertEqual(Settings(auth="any").offered_mechanisms, MECHANISMS_FOR_ANY)
        self.assertEqual(Settings(auth="any", mechanisms=["xoauth2"]).offered_mechanisms, ("XOAUTH2",))
