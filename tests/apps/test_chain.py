"""The chain: the order of several apps, and what is no answer."""

from __future__ import annotations

import ipaddress
from typing import Any

from zope.interface.verify import verifyObject

from mailserver.apps.app import App
from mailserver.apps.avatar import Surroundings
from mailserver.apps.chain import AppChain, login_of
from mailserver.interfaces import ISessionPolicies
from mailserver.reply import Reply
from mailserver.sasl import BearerLogin, PlainLogin, VerifiedLogin
from tests.apps.line import EHLO, AppLine, settings_of
from tests.apps.test_installed import session
from tests.smtp.test_server import LogCase


class OrderTests(LogCase):
    def test_it_is_a_policy(self) -> None:
        surroundings = Surroundings("mx", lambda: 0.0, lambda: None)  # type: ignore[arg-type, return-value]
        verifyObject(ISessionPolicies, AppChain((), session(), surroundings, self.events.append))  # type: ignore[arg-type]

    def test_the_last_banner_counts_and_a_refusal_ends_it(self) -> None:
        asked: list[str] = []

        class One(App):
            options: Any

            def connected(self) -> Any:
                asked.append(self.name)
                return {"a": "first", "b": None, "c": Reply(220, "", "whole"), "d": Reply(554, "5.7.1", "go")}[
                    self.name
                ]

        def line(names: str) -> AppLine:
            asked.clear()
            return AppLine(*(settings_of(One, name=name) for name in names))

        self.assertEqual(line("ab").last, "220 mx.example.org first")
        self.assertEqual(line("ac").last, "220 whole")
        self.assertEqual(line("da").last, "554 5.7.1 go")
        self.assertEqual(asked, ["d"])

    def test_an_extension_that_cannot_be_told_is_temporary_and_has_a_name(self) -> None:
        for bad in ({"SIZE": 5}, {"X\r\nY": None}, {"X": "1\r\n2"}, {7: None}, {"size": "much"}, {"": None}):

            class Offers(App):
                told: dict[Any, Any] = bad

                def helo(self, name: str, extensions: dict[str, str | None]) -> dict[str, str | None]:
                    return self.told

            line = AppLine(Offers).say(EHLO)
            self.assertTrue(line.last.startswith("451"), (bad, line.last))
            self.assertEqual(self.named("app-failed")[-1]["app"], "Offers")
        self.assertEqual(len(self.named("app-failed")), 6)

    def test_each_gets_the_extensions_that_the_one_before_has_left(self) -> None:
        seen: list[list[str]] = []

        class Edits(App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> dict[str, str | None]:
                seen.append(list(extensions))
                return {**extensions, f"X-{self.name}": None}

        AppLine(settings_of(Edits, name="ONE"), settings_of(Edits, name="TWO")).say(EHLO)
        self.assertNotIn("X-ONE", seen[0])
        self.assertEqual(seen[1][-1], "X-ONE")

    def test_what_is_no_answer_is_trouble_with_a_name(self) -> None:
        class Bad(App):
            def connected(self) -> Any:
                return 7

        line = AppLine(Bad)
        self.assertTrue(line.last.startswith("451"), line.last)
        (event,) = self.named("app-failed")
        self.assertEqual((event["app"], event["callback"]), ("Bad", "connected"))

    def test_an_app_is_asked_about_its_networks_only(self) -> None:
        class Banner(App):
            def connected(self) -> str:
                return self.name

        ours, others = ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("198.51.100.0/24")
        line = AppLine(
            settings_of(Banner, name="ours", networks=(ours,)), settings_of(Banner, name="others", networks=(others,))
        )
        self.assertEqual(line.last, "220 mx.example.org ours")


class LoginTests(LogCase):
    def test_what_an_app_sees_of_credentials(self) -> None:
        login = login_of("PLAIN", PlainLogin(user="u", password="p", authzid=""))
        self.assertEqual((login.user, login.password, login.token), ("u", "p", None))
        login = login_of("XOAUTH2", BearerLogin(user="u", token="t"))
        self.assertEqual((login.user, login.password, login.token), ("u", None, "t"))
        login = login_of("EXTERNAL", VerifiedLogin(user="u", authzid=""))
        self.assertEqual((login.user, login.password, login.token), ("u", None, None))
