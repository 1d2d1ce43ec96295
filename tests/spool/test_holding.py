"""The way into the spool: whole or not at all, bounded, durable before anybody is told."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.interfaces import IDelivery
from mailserver.reply import TOO_MANY_HELD, Refusal
from mailserver.spool.held import read_line
from tests.durable.disk import RecordingFiles, after_power_cut
from tests.spool.messages import NOW, RECEIVED, TEXT, HeldOnDisk, held


class HoldingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = RecordingFiles()
        self.disk = HeldOnDisk(self.mktemp(), self.files)

    def test_it_is_a_delivery(self) -> None:
        verifyObject(IDelivery, self.disk.spool.hold(held(), RECEIVED, 1))

    def test_a_message_of_every_size_is_one_file(self) -> None:
        for number, text in enumerate((b"", b"x", TEXT, b"y" * 1000)):
            entry = self.disk.put(held(id=f"id{number}"), text)
            line, _, rest = Path(entry.path).read_bytes().partition(b"\n")
            self.assertEqual((read_line(line).id, rest), (f"id{number}", RECEIVED + text))
            self.assertEqual(entry.name.octets, len(RECEIVED + text))
            self.assertEqual(Path(entry.path).stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.disk.names("tmp"), [])

    def test_the_release_is_told_when_it_is_there(self) -> None:
        self.disk.put(held(release=NOW + 7))
        self.assertEqual(self.disk.told, [NOW + 7])

    def test_an_account_has_so_many_and_no_more(self) -> None:
        for number in range(3):
            self.disk.put(held(id=f"id{number}"), most=3)
        with self.assertRaises(Refusal) as caught:
            self.disk.put(held(id="id3"), most=3)
        self.assertEqual(caught.exception.reply, TOO_MANY_HELD)
        self.assertEqual((len(self.disk.names()), self.disk.names("tmp")), (3, []))

    def test_aborted_it_leaves_nothing(self) -> None:
        delivery = self.disk.spool.hold(held(), RECEIVED, 1)
        delivery.write(b"x" * 1000)
        delivery.abort()
        delivery.abort()
        self.assertEqual((self.disk.names(), self.disk.names("tmp")), ([], []))

    def test_trouble_with_the_disk_is_told_and_leaves_nothing(self) -> None:
        for call in ("open", "write", "fsync", "link"):
            self.files.fail = {call}
            delivery = self.disk.spool.hold(held(), RECEIVED, 1)
            written = delivery.write(b"x" * (1 if call in ("fsync", "link") else 1000))
            if call in ("open", "write"):
                assert written is not None
                self.failureResultOf(written, OSError)
                delivery.abort()
            else:
                self.successResultOf(ensureDeferred(delivery.prepare()))
                self.failureResultOf(delivery.commit(), OSError)
            self.files.fail = set()
            self.assertEqual((self.disk.names(), self.disk.told), ([], []), call)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_what_was_accepted_is_there_after_a_power_cut(self, data: st.DataObject) -> None:
        """For every prefix of the operations, whatever of the unsynced is lost."""
        files = RecordingFiles()
        disk = HeldOnDisk(self.mktemp(), files)
        promised: dict[Path, tuple[int, bytes]] = {}
        for number in range(2):
            entry = disk.put(held(id=f"id{number}"), TEXT * (number + 1))
            promised[Path(entry.path)] = (len(files.operations), Path(entry.path).read_bytes())
        prefix = data.draw(st.integers(0, len(files.operations)))
        kept = data.draw(st.sets(st.integers(0, len(files.operations))))
        left = after_power_cut(files.operations[:prefix], kept.__contains__)
        for path, (acknowledged, content) in promised.items():
            if acknowledged <= prefix:
                self.assertEqual(left.get(path), content)
            elif path in left:
                self.assertEqual(left[path], content)
