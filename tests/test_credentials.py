"""Tests of mailserver.credentials: they are what their interfaces ask for, and show no token."""

from __future__ import annotations

from twisted.cred.credentials import ICredentials
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.credentials import BearerToken, VerifiedUser
from mailserver.interfaces import IBearerToken, IVerifiedUser


class CredentialsTests(SynchronousTestCase):
    def test_they_are_credentials(self) -> None:
        for interface, thing in [
            (IVerifiedUser, VerifiedUser(b"alice@example.org")),
            (IBearerToken, BearerToken(b"alice@example.org", "tanstaaf", "XOAUTH2")),
        ]:
            self.assertTrue(verifyObject(interface, thing))
            self.assertTrue(ICredentials.providedBy(thing))

    def test_a_token_opens_no_door_for_verified_users(self) -> None:
        self.assertFalse(IVerifiedUser.providedBy(BearerToken(b"alice@example.org", "tanstaaf", "XOAUTH2")))

    def test_no_repr_shows_the_token(self) -> None:
        shown = repr(BearerToken(b"alice@example.org", "tanstaaf", "XOAUTH2"))
        self.assertIn("alice@example.org", shown)
        self.assertNotIn("tanstaaf", shown)
