"""`mailserver spool`: lists, releases and deletes messages that wait; leaves alone what somebody is at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.with_accounts import AccountsCommandCase
from tests.spool.messages import ANNA, BOB, NOW, HeldOnDisk, held


class SpoolTests(AccountsCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.disk = HeldOnDisk(str(self.data))

    def test_without_messages_there_is_nothing_to_tell(self) -> None:
        self.assertEqual(self.works("spool", "list"), "No message waits.\n")
        shutil.rmtree(self.data / "spool")
        self.assertEqual(self.works("spool", "list", "--format", "json"), "[]\n")

    def test_what_is_told_of_each(self) -> None:
        self.disk.put(held(id="one", release=NOW))
        self.disk.put(
            held(id="two", release=NOW + 1, attempts=2, next_try=NOW + 601, trouble="452 4.2.2 Mailbox full")
        )
        rows = json.loads(self.works("spool", "list", "--format", "json"))
        self.assertEqual(
            [(row["id"], row["sender"], row["recipients"]) for row in rows],
            [(i, ANNA, [BOB]) for i in ("one", "two")],
        )
        self.assertEqual((rows[0]["release"], rows[1]["attempts"]), ("2023-11-14T22:13:20+00:00", 2))
        text = self.works("spool", "list")
        self.assertIn("one  2023-11-14T22:13:20+00:00  <anna@example.org> -> bob@example.org\ntwo ", text)
        self.assertIn("2 tries, the next at 2023-11-14T22:23:21+00:00: 452 4.2.2 Mailbox full", text)

    def test_a_damaged_one_does_not_hide_the_others(self) -> None:
        entry = self.disk.put(held(id="one"))
        self.disk.put(held(id="two"))
        Path(entry.path).write_bytes(b"x\n")
        text = self.works("spool", "list")
        self.assertIn("damaged: the first line cannot be read", text)
        self.assertIn("two ", text)
        self.assertIn("cannot be read", self.fails("spool", "delete", "one"))

    def test_released_it_is_due(self) -> None:
        self.disk.put(held(id="one", release=9e9, attempts=3, trouble="x"))
        self.assertEqual(self.works("spool", "release", "one"), "one is released\n")
        [entry] = self.disk.folder.entries()[0]
        found = self.disk.folder.read(entry)
        self.assertEqual((found.release, found.attempts), (found.next_try, 0))
        self.assertLess(found.release, 9e9)

    def test_a_failed_one_is_tried_again(self) -> None:
        entry = self.disk.put(held(id="one", lost=(BOB,)))
        claim = self.disk.folder.claim(entry)
        assert claim is not None
        claim.fail(claim.held)
        claim.close()
        self.assertIn("there is no message one", self.fails("spool", "release", "one"))
        self.assertIn("one ", self.works("spool", "list", "--failed"))
        self.works("spool", "release", "--failed", "one")
        self.assertEqual((len(self.disk.names()), self.disk.names("failed")), (1, []))
        [entry] = self.disk.folder.entries()[0]
        self.assertEqual(self.disk.folder.read(entry).lost, ())

    def test_deleted_it_is_gone(self) -> None:
        self.disk.put(held(id="one"))
        self.assertEqual(self.works("spool", "delete", "one"), "one is deleted\n")
        self.assertEqual(self.disk.names(), [])
        self.assertIn("there is no message one", self.fails("spool", "delete", "one"))

    def test_what_the_server_is_at_is_left_alone(self) -> None:
        entry = self.disk.put(held(id="one"))
        claim = self.disk.folder.claim(entry)
        assert claim is not None
        for command in ("release", "delete"):
            self.assertIn("one is just being delivered", self.fails("spool", command, "one"))
        claim.close()
        self.assertEqual(len(self.disk.names()), 1)
