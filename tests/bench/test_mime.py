"""bench/mime.py: the mails are the same each time, and all three read them alike."""

from __future__ import annotations

import email
import io
from contextlib import redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import mime
from mailserver.mime import decode


class MailsTests(SynchronousTestCase):
    def test_they_are_the_same_each_time_and_well_formed(self) -> None:
        mails = mime.make_mails(10)
        self.assertEqual(mails, mime.make_mails(10))
        for octets in mails:
            decode(octets, strict=True)

    def test_others_see_the_same_parts_in_them(self) -> None:
        for octets in mime.make_mails(5):
            theirs = [part.get_content_type() for part in email.message_from_bytes(octets).walk()]
            self.assertEqual([part.content_type for part in decode(octets).walk()], theirs)

    def test_the_large_ones_are_well_formed_and_hold_the_same(self) -> None:
        mails = [decode(octets, strict=True) for octets in mime.large_mails()]
        self.assertEqual(len({part.text for part in mails[:6]}), 1)
        self.assertEqual([part.content_type for part in mails[6].attachments], ["application/pdf"])
        self.assertGreater(min(len(part.content) for part in mails), 50_000)

    def test_the_odd_ones_are_those_of_the_tests(self) -> None:
        self.assertGreater(len(mime.odd_mails()), 300)


class NewMailTests(SynchronousTestCase):
    def test_both_write_the_same_mail(self) -> None:
        ours, theirs = decode(mime.new_of_ours()), decode(mime.new_of_theirs())
        self.assertEqual(
            [(part.content_type, part.filename, part.text) for part in ours.walk() if part.type == "text"],
            [(part.content_type, part.filename, part.text) for part in theirs.walk() if part.type == "text"],
        )
        self.assertEqual(ours.attachments[0].content, theirs.attachments[0].content)
        for name in ("from", "to", "subject"):
            self.assertEqual(ours.headers[name], theirs.headers[name])


class CommandTests(SynchronousTestCase):
    def run_it(self, *words: str) -> str:
        with redirect_stdout(io.StringIO()) as output:
            mime.main([*words, "--rounds", "2"])
        return output.getvalue()

    def test_it_prints_a_row_for_each_kind_of_work_and_the_memory(self) -> None:
        output = self.run_it("--count", "5", "--megabytes", "1")
        for row in (
            "| structure |",
            "| content |",
            "| text |",
            "| written again |",
            "\nnew: ",
            "5 mails",
            "MiB for a mail of 1 MiB on disk",
        ):
            self.assertIn(row, output)

    def test_files_of_a_folder_are_taken(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.assertRaises(SystemExit, self.run_it, "--folder", str(folder))
        (folder / "a.eml").write_bytes(b"Subject: x\r\n\r\ny")
        output = self.run_it("--folder", str(folder), "--megabytes", "0")
        self.assertIn("1 mails, 15 octets each", output)
        self.assertNotIn("memory", output)
