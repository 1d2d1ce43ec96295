"""What is known of a held message survives being written down; what is not ours is told."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address, parse_address
from mailserver.envelope import Envelope, Peer, Recipient
from mailserver.spool.held import Damaged, FileName, Held, mark, read_line
from tests.spool.messages import held


class LineTests(SynchronousTestCase):
    def test_it_is_read_as_it_was_written(self) -> None:
        for message in (
            held(),
            held("a@example.org", '"a b\\"c"@example.org', "grün@exämple.org", "x@[192.0.2.1]"),
            held(sender=None, attempts=7, trouble="452 full\n", lost=("x@example.org",), release=1.25),
            Held(Envelope("a", None, (Recipient(Address("postmaster", "")),), peer=Peer("")), "u", 0.0, 0.0, 0.0),
        ):
            line = message.line()
            self.assertEqual(read_line(line), message)
            self.assertEqual((line.count(b"\n"), line[-1:], line.isascii()), (1, b"\n", True))

    def test_what_stands_around_it_too(self) -> None:
        message = read_line(held().line()).envelope
        self.assertEqual(message, held().envelope)
        self.assertEqual([dict(each.parameters) for each in message.recipients], [{"NOTIFY": "FAILURE,DELAY"}])
        self.assertEqual(dict(message.parameters), {"HOLDFOR": "60", "REQUIRETLS": None})

    def test_every_loss_is_told(self) -> None:
        told = json.loads(held().line())
        texts = ("id", "unique", "protocol", "body", "listener", "trouble")
        good = [*((key, "x") for key in texts), *(("smtputf8", value) for value in (None, [], {}, "x"))]
        good += [("sender", None), ("size", None), ("parameters", {}), ("recipients", []), ("lost", [])]
        for key in told:
            for value in (None, [], {}, "x"):
                changed = json.dumps({**told, key: value}).encode()
                try:
                    read_line(changed)
                except Damaged:
                    continue
                # Such a value may stand there.
                self.assertIn((key, value), good)
            del_key = json.dumps({name: told[name] for name in told if name != key}).encode()
            self.assertRaises(Damaged, read_line, del_key)

    def test_a_later_version_is_not_guessed_at(self) -> None:
        told = json.loads(held().line())
        with self.assertRaisesRegex(Damaged, "version 2"):
            read_line(json.dumps({**told, "version": 2}).encode())

    @given(st.binary() | st.text().map(str.encode))
    def test_nothing_else_is_raised(self, line: bytes) -> None:
        self.assertRaises(Damaged, read_line, line)

    @given(st.data())
    def test_nor_for_a_line_with_a_damaged_octet(self, data: st.DataObject) -> None:
        line = bytearray(held().line())
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = read_line(bytes(line))
        except Damaged:
            return
        self.assertIsInstance(found, Held)


class NameTests(SynchronousTestCase):
    def test_it_tells_the_release_the_account_and_the_size(self) -> None:
        message = held(release=1_700_000_000.5)
        name = message.name(77)
        # The second behind it: whoever looks at it then finds it due.
        self.assertTrue(name.startswith("001700000001.abc23456."), name)
        found = FileName.read(name)
        self.assertEqual((found.id, found.mark, found.octets), ("abc23456", mark("anna@example.org"), 77))
        self.assertEqual(found.text, name)

    def test_it_stays_the_same_for_all_tries(self) -> None:
        message = held()
        later = dataclasses.replace(message, attempts=3, next_try=message.next_try + 600, trouble="x")
        self.assertEqual(later.name(7), message.name(7))

    def test_times_out_of_all_range_are_cut(self) -> None:
        for release, first in ((-5.0, "000000000000."), (1e15, "999999999999.")):
            self.assertTrue(held(release=release).name(1).startswith(first))

    def test_others_are_not_ours(self) -> None:
        good = held().name(7)
        for name in (
            "",
            "x",
            good + "x",
            "1" + good,
            good.replace(".S=", ".T="),
            good.upper(),
            good + "\n",
            "../" + good,
        ):
            self.assertRaises(Damaged, FileName.read, name)

    def test_accounts_have_different_marks(self) -> None:
        self.assertNotEqual(mark(str(parse_address("a@example.org"))), mark("b@example.org"))
