"""Whose turn it is."""

from __future__ import annotations

import ipaddress

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.apps.matching import Match

ALICE = Address("alice", "example.org")


class MatchTests(SynchronousTestCase):
    def test_nothing_said_is_everything(self) -> None:
        match = Match()
        self.assertTrue(match.listener("smtp-25"))
        self.assertTrue(match.client("") and match.client("192.0.2.1"))
        self.assertTrue(match.sender(None) and match.sender(ALICE))
        self.assertTrue(match.recipient(ALICE))

    def test_a_listener_is_named(self) -> None:
        match = Match(listeners=("smtp-25", "lmtp"))
        self.assertTrue(match.listener("lmtp"))
        self.assertFalse(match.listener("submission-587"))

    def test_a_client_is_in_a_network(self) -> None:
        match = Match(networks=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")))
        self.assertTrue(match.client("192.0.2.9") and match.client("2001:db8::9"))
        self.assertFalse(match.client("198.51.100.1"))
        self.assertFalse(match.client(""), "a Unix socket is in no network")

    def test_the_null_sender_is_named_by_its_brackets(self) -> None:
        self.assertTrue(Match(senders=("<>",)).sender(None))
        self.assertFalse(Match(senders=("<>",)).sender(ALICE))
        self.assertFalse(Match(senders=("*@example.org",)).sender(None))
        self.assertTrue(Match(senders=("<>", "*@example.org")).sender(ALICE))

    def test_a_recipient_fits_one_of_the_patterns(self) -> None:
        match = Match(recipients=("bob@*", "alice@example.org"))
        self.assertTrue(match.recipient(ALICE))
        self.assertFalse(match.recipient(Address("carol", "example.org")))

    def test_a_bad_pattern_is_an_error(self) -> None:
        self.assertRaises(ValueError, Match, recipients=("nobody",))
