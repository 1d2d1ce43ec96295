"""Envelopes: the `with` values of RFC 3848 and RFC 6531, and values that nobody can change."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.envelope import NO_PARAMETERS, Envelope, Peer, Recipient, TLSInfo, with_protocol

#: extended, tls, authenticated, utf8, lmtp -> with
WITH = [
    ((0, 0, 0, 0, 0), "SMTP"),
    ((1, 0, 0, 0, 0), "ESMTP"),
    ((1, 0, 1, 0, 0), "ESMTPA"),
    ((1, 1, 0, 0, 0), "ESMTPS"),
    ((1, 1, 1, 0, 0), "ESMTPSA"),
    ((1, 0, 0, 0, 1), "LMTP"),
    ((1, 0, 1, 0, 1), "LMTPA"),
    ((1, 1, 0, 0, 1), "LMTPS"),
    ((1, 1, 1, 0, 1), "LMTPSA"),
    ((1, 0, 0, 1, 0), "UTF8SMTP"),
    ((1, 0, 1, 1, 0), "UTF8SMTPA"),
    ((1, 1, 0, 1, 0), "UTF8SMTPS"),
    ((1, 1, 1, 1, 0), "UTF8SMTPSA"),
    ((1, 0, 0, 1, 1), "UTF8LMTP"),
    ((1, 0, 1, 1, 1), "UTF8LMTPA"),
    ((1, 1, 0, 1, 1), "UTF8LMTPS"),
    ((1, 1, 1, 1, 1), "UTF8LMTPSA"),
    # There is no SMTPS in the registry: HELO within TLS is written as the nearest value that tells of the TLS.
    ((0, 1, 0, 0, 0), "ESMTPS"),
]


class EnvelopeTests(SynchronousTestCase):
    def test_the_with_values_are_those_of_the_registry(self) -> None:
        for (extended, tls, authenticated, utf8, lmtp), value in WITH:
            found = with_protocol(
                extended=bool(extended),
                tls=bool(tls),
                authenticated=bool(authenticated),
                utf8=bool(utf8),
                lmtp=bool(lmtp),
            )
            self.assertEqual(found, value)

    def test_all_values_are_frozen(self) -> None:
        address = parse_address("a@example.org")
        for value in (TLSInfo("TLSv1.3", "X", 256), Peer(""), Recipient(address), Envelope("1", address)):
            with self.assertRaises(dataclasses.FrozenInstanceError):
                setattr(value, dataclasses.fields(value)[0].name, "changed")

    def test_nobody_can_add_to_the_parameters_that_all_share(self) -> None:
        with self.assertRaises(TypeError):
            NO_PARAMETERS["SIZE"] = "1"  # type: ignore[index]

    def test_the_null_sender_is_none_and_the_rest_has_defaults(self) -> None:
        envelope = Envelope("1", None)
        self.assertEqual((envelope.recipients, envelope.size, envelope.body), ((), None, "7BIT"))
        self.assertEqual((envelope.peer.host, envelope.peer.user, envelope.peer.tls), ("", "", None))
