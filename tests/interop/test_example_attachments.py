"""The example of an attachment store (examples/attachments.py), with a real client."""

from __future__ import annotations

import hashlib
import os
import sys
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from tests.interop.app_wire import AppTestCase, example, submit


def mail(*files: tuple[str, bytes]) -> bytes:
    """A mail with these attachments, by the standard library."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "me@example.net", "files@example.org", "files"
    made.set_content("See below.")
    for name, octets in files:
        made.add_attachment(octets, maintype="application", subtype="octet-stream", filename=name)
    return made.as_bytes(policy=SMTP)


class AttachmentsTests(AppTestCase):
    def setUp(self) -> None:
        self.app = example("attachments.py:Attachments")
        self.module = sys.modules[self.app.__module__]
        self.store = self.folder() / "store"
        options = {"folder": self.store, "largest": 300_000, "most": 3}
        self.port = self.serve(self.app, options=options, threaded=True).ports[0]

    async def submit(self, *files: tuple[str, bytes]) -> str:
        return str(await self.in_thread(submit, self.port, "files@example.org", mail(*files)))

    def kept(self, said: str) -> dict[str, bytes]:
        """What a message has left, by the reply to it."""
        folder = self.store / "mails" / said.rpartition(" ")[2]
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def contents(self) -> list[str]:
        return sorted(path.name for path in (self.store / "content").rglob("*") if path.is_file())

    async def test_attachments_are_kept_octet_by_octet(self) -> None:
        large = os.urandom(299_999)  # more than is held in memory
        said = await self.submit(("report.pdf", b"\x00\xff\r\n.\r\n"), ("Straße.bin", large))
        self.assertRegex(said, r"\A250 2\.0\.0 2 attachments kept as \w+\Z")
        self.assertEqual(self.kept(said), {"report.pdf": b"\x00\xff\r\n.\r\n", "Straße.bin": large})

    async def test_what_is_the_same_lies_there_once(self) -> None:
        first = await self.submit(("a.txt", b"same"), ("a.txt", b"same"))
        second = await self.submit(("b.txt", b"same"))
        self.assertEqual(self.kept(first), {"a.txt": b"same", "a-2.txt": b"same"})
        self.assertEqual(self.kept(second), {"b.txt": b"same"})
        self.assertEqual(self.contents(), [hashlib.sha256(b"same").hexdigest()])

    async def test_what_is_too_much_is_refused_and_leaves_nothing(self) -> None:
        too_large = await self.submit(("small.txt", b"small"), ("large.bin", b"x" * 300_001))
        too_many = await self.submit(*((f"{number}.txt", b"x") for number in range(4)))
        self.assertEqual(too_large, "552 5.3.4 An attachment has more than 300000 octets")
        self.assertEqual(too_many, "552 5.3.4 More than 3 attachments")
        self.assertEqual(list((self.store / "mails").iterdir()), [])
        self.assertEqual(self.contents(), [hashlib.sha256(b"small").hexdigest()])

    async def test_no_name_leads_out_of_the_folder(self) -> None:
        said = await self.submit(("../../../escaped.txt", b"1"), (".bashrc", b"2"), ("..", b"3"))
        self.assertEqual(sorted(self.kept(said)), ["bashrc", "escaped.txt", "unnamed"])
        outside = [path for path in self.store.parent.rglob("*") if "escaped" in path.name]
        self.assertEqual(outside, [path for path in outside if self.store in path.parents])

    def test_names(self) -> None:
        for name, safe in (
            ("report.pdf", "report.pdf"),
            ("", "unnamed"),
            ("...", "unnamed"),
            ("a/b\\c.txt", "c.txt"),
            ("C:\\autoexec.bat", "autoexec.bat"),
            ("a\nb\x00c;rm -rf $HOME", "a_b_c_rm -rf _HOME"),
            ("Zeugnis äöü.docx", "Zeugnis äöü.docx"),
            (" .hidden", "hidden"),
            ("\u202egnp.exe", "_gnp.exe"),
        ):
            self.assertEqual(self.module.safe_name(name), safe, repr(name))
        long = self.module.safe_name("x" * 500 + ".pdf")
        self.assertTrue(long.endswith("x.pdf"))
        self.assertLessEqual(len(long), 100)

    def test_a_second_file_of_a_name_gets_a_number(self) -> None:
        folder: Path = self.folder()
        for expected in ("a.tar", "a-2.tar", "a-3.tar"):
            name = self.module.free_name(folder, "a.tar")
            (folder / name).write_bytes(b"")
            self.assertEqual(name, expected)
