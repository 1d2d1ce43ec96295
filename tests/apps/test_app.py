"""The base class: every callback says yes, refusing is short, and a login shows no secret."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

import mailserver
from mailserver.apps.app import App, CramProof, Login
from mailserver.apps.installed import CALLBACKS
from mailserver.interfaces import ISessionPolicy
from mailserver.reply import Refusal


class AppTests(SynchronousTestCase):
    def test_it_provides_the_interface_and_has_all_callbacks(self) -> None:
        verifyClass(ISessionPolicy, App)
        self.assertEqual(set(CALLBACKS), set(ISessionPolicy.names()))

    def test_every_callback_says_yes(self) -> None:
        app = App()
        for name, arguments in (
            ("connected", 0),
            ("helo", 2),
            ("mail", 2),
            ("message", 2),
            ("error", 2),
            ("verify", 1),
        ):
            self.assertIsNone(getattr(app, name)(*[None] * arguments), name)

    def test_to_refuse_is_to_raise(self) -> None:
        refusal = self.assertRaises(Refusal, App().refuse, 550, "5.1.1", "no such ticket")
        self.assertEqual(str(refusal.reply), "550 5.1.1 no such ticket")
        self.assertRaises(ValueError, App().refuse, 250, "2.0.0", "that is a yes")

    def test_the_package_gives_what_programs_need(self) -> None:
        for name in mailserver.__all__:
            self.assertIsNotNone(getattr(mailserver, name), name)
        self.assertRaises(AttributeError, getattr, mailserver, "Nothing")


class LoginTests(SynchronousTestCase):
    def test_it_shows_neither_password_nor_token(self) -> None:
        login = Login("PLAIN", "user", password="s3cret", token="t0ken")
        self.assertEqual(repr(login), "Login(mechanism='PLAIN', user='user')")

    def test_it_checks_a_password_it_was_given(self) -> None:
        login = Login("PLAIN", "user", password="pässword")
        self.assertTrue(login.check("pässword"))
        self.assertFalse(login.check("password"))

    def test_without_a_password_none_is_right(self) -> None:
        self.assertFalse(Login("XOAUTH2", "user", token="t").check(""))

    def test_a_proof_of_cram_md5_is_the_one_of_its_rfc(self) -> None:
        # The example of RFC 2195 2.
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        proof = CramProof(challenge, "b913a602c7eda7a495b4e6e7334d3890")
        self.assertTrue(proof("tanstaaftanstaaf"))
        self.assertFalse(proof("tanstaaf"))
        self.assertNotIn("b913", repr(proof))

    def test_a_digest_is_asked_where_there_is_one(self) -> None:
        login = Login("CRAM-MD5", "user", _digest_of=lambda password: password == "right")
        self.assertTrue(login.check("right"))
        self.assertFalse(login.check("wrong"))
