"""Trace fields: they say what they should, Python's email reads them back, and no envelope can add a field."""

from __future__ import annotations

import dataclasses
import email.utils
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address, parse_address
from mailserver.delivery import trace
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo, with_protocol

NOW = 1_700_000_000.9
DATE = "Tue, 14 Nov 2023 22:13:20 +0000"
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
JOE = Recipient(parse_address("joe+x@example.org"))
ANN = Recipient(parse_address("ann@example.org"))
ENVELOPE = Envelope(
    "id7",
    parse_address("a@example.com"),
    (JOE,),
    peer=Peer("192.0.2.1", 1025, "client.example.com"),
    protocol="ESMTP",
)


def received(envelope: Envelope) -> bytes:
    return trace.received(envelope, hostname="mail.example.org", now=NOW)


def parsed(raw: bytes) -> Message:
    return BytesParser(policy=compat32).parsebytes(raw + b"\r\nbody\r\n")


class ReceivedTests(SynchronousTestCase):
    def test_a_plain_connection_with_one_recipient(self) -> None:
        expected = (
            "Received: from client.example.com ([192.0.2.1])\r\n"
            "\tby mail.example.org with ESMTP id id7\r\n"
            f"\tfor <joe+x@example.org>; {DATE}\r\n"
        )
        self.assertEqual(received(ENVELOPE), expected.encode())

    def test_tls_and_several_recipients(self) -> None:
        peer = dataclasses.replace(ENVELOPE.peer, host="2001:db8::1", tls=TLS, user="a@example.org")
        envelope = dataclasses.replace(ENVELOPE, peer=peer, recipients=(JOE, ANN), protocol="ESMTPSA")
        expected = (
            "Received: from client.example.com ([IPv6:2001:db8::1])\r\n"
            "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256 bits))\r\n"
            "\tby mail.example.org with ESMTPSA id id7;\r\n"
            f"\t{DATE}\r\n"
        )
        self.assertEqual(received(envelope), expected.encode())

    def test_it_names_a_recipient_only_when_there_is_one(self) -> None:
        for recipients, named in [((), False), ((JOE,), True), ((JOE, JOE), False), ((JOE, ANN), False)]:
            field = received(dataclasses.replace(ENVELOPE, recipients=recipients))
            self.assertIs(b" for " in field.replace(b"\t", b" "), named)
            self.assertIs(b"joe" in field, named)
            self.assertNotIn(b"ann", field)

    def test_it_does_not_tell_who_logged_in(self) -> None:
        peer = dataclasses.replace(ENVELOPE.peer, user="secret@example.org")
        self.assertNotIn(b"secret", received(dataclasses.replace(ENVELOPE, peer=peer)))

    def test_names_that_are_no_host_names_are_not_repeated(self) -> None:
        for helo, told in [
            ("client.example.com", b"client.example.com"),
            ("a_b-c.", b"a_b-c."),
            ("[192.0.2.9]", b"[192.0.2.9]"),
            ("[IPv6:2001:db8::9]", b"[IPv6:2001:db8::9]"),
            ("", b"unknown"),
            ("-x", b"unknown"),
            ("(comment", b"unknown"),
            ("a;b", b"unknown"),
            ("a b", b"unknown"),
            ("a\r\nX: y", b"unknown"),
            ("a\n", b"unknown"),
            ("\u00e4", b"unknown"),
        ]:
            envelope = dataclasses.replace(ENVELOPE, peer=dataclasses.replace(ENVELOPE.peer, helo=helo))
            self.assertTrue(received(envelope).startswith(b"Received: from " + told + b" (["), helo)

    def test_a_unix_socket_has_no_address(self) -> None:
        envelope = dataclasses.replace(ENVELOPE, peer=Peer("", 0, "localhost"))
        self.assertTrue(received(envelope).startswith(b"Received: from localhost (local socket)\r\n"))

    def test_all_with_values_are_written(self) -> None:
        flags = [(e, t, a, u) for e in (0, 1) for t in (0, 1) for a in (0, 1) for u in (0, 1)]
        for extended, tls, authenticated, utf8 in flags:
            value = with_protocol(
                extended=bool(extended), tls=bool(tls), authenticated=bool(authenticated), utf8=bool(utf8)
            )
            field = parsed(received(dataclasses.replace(ENVELOPE, protocol=value)))["Received"]
            self.assertIn(f" with {value} id id7", field.replace("\t", " "))

    def test_an_international_recipient_is_written_in_utf8(self) -> None:
        envelope = dataclasses.replace(
            ENVELOPE, recipients=(Recipient(parse_address("j\u00f6rg@b\u00fccher.example.org")),)
        )
        self.assertIn("for <j\u00f6rg@b\u00fccher.example.org>;".encode(), received(envelope))


class OtherFieldTests(SynchronousTestCase):
    def test_return_path(self) -> None:
        for sender, field in [
            (None, b"Return-Path: <>\r\n"),
            (parse_address("a@example.com"), b"Return-Path: <a@example.com>\r\n"),
            (parse_address('"a\\"> <b"@example.com'), b'Return-Path: <"a\\"> <b"@example.com>\r\n'),
        ]:
            self.assertEqual(trace.return_path(sender), field)

    def test_delivered_to(self) -> None:
        self.assertEqual(trace.delivered_to(JOE.address), b"Delivered-To: joe+x@example.org\r\n")
        self.assertEqual(trace.delivered_to(Address("postmaster", "")), b"Delivered-To: postmaster\r\n")


class DateTests(SynchronousTestCase):
    def test_dates_are_those_of_rfc_5322(self) -> None:
        for now, text in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (NOW, DATE),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (4_102_444_799.999, "Thu, 31 Dec 2099 23:59:59 +0000"),
        ]:
            self.assertEqual(trace.date(now), text)

    @given(st.floats(0, 250_000_000_000))
    @settings(deadline=None, max_examples=150)
    def test_a_date_is_read_as_the_second_it_was_written_for(self, now: float) -> None:
        moment = email.utils.parsedate_to_datetime(trace.date(now))
        self.assertEqual(moment.timestamp(), int(now))


HOSTILE = st.one_of(
    st.text(max_size=40),
    st.text('a\r\n\t :;<>()"\\\0\x0b\x0c\x1c\x85\u2028\u2029\ud800@.', max_size=40),
    st.sampled_from(["\r\nX-Evil: 1", "a\nX-Evil: 1", "a\r\n\r\nbody", "\rX-Evil: 1"]),
)


def hostile_address(local: str, domain: str) -> Address:
    """An address that no parser would give."""
    address = Address(local, "example.org")
    object.__setattr__(address, "domain", domain)
    return address


class InjectionTests(SynchronousTestCase):
    @given(st.lists(HOSTILE, min_size=9, max_size=9), st.booleans())
    @example(["\r\nX-Evil: 1"] * 9, True)
    @example(["\u2028X-Evil: 1"] * 9, False)
    @settings(deadline=None, max_examples=250)
    def test_nothing_that_a_peer_says_makes_a_field(self, words: list[str], single: bool) -> None:
        helo, host, version, cipher, server, *parts = words
        sender, recipient = hostile_address(parts[0], parts[1]), hostile_address(parts[2], parts[3])
        recipients: Any = (Recipient(recipient),) if single else (Recipient(recipient), JOE)
        peer = Peer(host, 1, helo, TLSInfo(version, cipher, 1, server), "u")
        envelope = dataclasses.replace(ENVELOPE, sender=sender, recipients=recipients, peer=peer)
        fields = trace.return_path(sender) + trace.delivered_to(recipient) + received(envelope)

        message = parsed(fields)
        self.assertEqual(message.keys(), ["Return-Path", "Delivered-To", "Received"])
        self.assertEqual(message.get_payload(), "body\r\n")
        self.assertEqual(message.defects, [])
        # Lines for whatever takes Unicode's separators for line ends, too.
        lines = fields.decode().splitlines()
        self.assertEqual(len(lines), 2 + fields.count(b"\r\n\t") + 1)
        for line in lines:
            self.assertRegex(line, r"\A(Return-Path: |Delivered-To: |Received: from |\t)")
            self.assertLessEqual(len(line.encode()), 998)
        date = str(message["Received"]).rpartition(";")[2].strip()
        self.assertEqual(date, DATE)

    def test_the_longest_names_and_addresses_fit_a_line(self) -> None:
        address = Address('"' * 64, ".".join(["d" * 62] * 4))
        peer = Peer("2001:db8::1", 1, "x" * 255, TLS)
        envelope = dataclasses.replace(ENVELOPE, sender=address, recipients=(Recipient(address),), peer=peer)
        for line in (trace.return_path(address) + trace.delivered_to(address) + received(envelope)).split(b"\r\n"):
            self.assertLess(len(line), 998)
