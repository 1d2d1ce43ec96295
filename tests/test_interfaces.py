"""The interfaces: each of our classes that says so really has what its interface asks for."""

from __future__ import annotations

import inspect
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.interface import InterfaceClass, Method
from zope.interface.verify import verifyClass, verifyObject

from mailserver import interfaces
from mailserver.accounts.database import Account, AccountsDatabase
from mailserver.address import Address
from mailserver.delivery.inbound import MailAvatar, Rooms
from mailserver.delivery.transaction import Transaction
from mailserver.interfaces import (
    AccountEntry,
    IAdmission,
    IDelivery,
    IDirectory,
    IMailAvatar,
    IRouter,
    IVersionedDirectory,
)
from mailserver.limits import DEFAULT_LIMITS
from mailserver.maildir.delivery import MaildirDelivery
from mailserver.policy.clients import ClientLimits
from mailserver.reply import OK
from mailserver.routing import DevelopmentRouter, Router
from mailserver.routing_cache import CachedRouter

OURS = {
    name: value
    for name, value in vars(interfaces).items()
    if isinstance(value, InterfaceClass) and value is not Interface and value.__module__ == interfaces.__name__
}


class InterfacesTests(SynchronousTestCase):
    def test_our_classes_have_the_methods_of_their_interfaces(self) -> None:
        for interface, kind in [
            (IDelivery, Transaction),
            (IDelivery, MaildirDelivery),
            (IDirectory, AccountsDatabase),
            (IVersionedDirectory, AccountsDatabase),
            (IAdmission, ClientLimits),
            (IRouter, Router),
            (IRouter, DevelopmentRouter),
            (IRouter, CachedRouter),
        ]:
            self.assertTrue(verifyClass(interface, kind), kind)

    def test_our_objects_have_their_attributes(self) -> None:
        rooms = Rooms("mail.example.org", None, None, lambda: 0.0)  # type: ignore[arg-type]
        for interface, thing in [
            (AccountEntry, Account(Address("a", "example.org"), 0, True, None, 0)),
            (IAdmission, ClientLimits(DEFAULT_LIMITS, lambda: 0.0, lambda: 0.5)),
            (IMailAvatar, MailAvatar(rooms, "", submission=False)),
            (IDelivery, Transaction([], OK)),
            (IVersionedDirectory, AccountsDatabase(Path(self.mktemp()))),
        ]:
            self.assertTrue(verifyObject(interface, thing), thing)

    def test_every_interface_and_every_method_has_its_contract_written_down(self) -> None:
        self.assertIn("IDelivery", OURS)
        for name, interface in OURS.items():
            self.assertTrue(inspect.getdoc(interface), name)
            for member, what in interface.namesAndDescriptions():
                self.assertTrue(what.getDoc(), f"{name}.{member}")

    def test_no_method_takes_a_self(self) -> None:
        for name, interface in OURS.items():
            for member, what in interface.namesAndDescriptions():
                if isinstance(what, Method):
                    self.assertNotIn("self", what.getSignatureInfo()["positional"], f"{name}.{member}")
