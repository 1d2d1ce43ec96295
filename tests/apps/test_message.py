"""A message as an app gets it: the same from memory and from a file, and nothing left behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.message import IN_MEMORY, Message


class MessageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.message = Message(lambda: self.folder)
        self.addCleanup(self.message.close)

    def read(self, size: int) -> list[bytes]:
        async def collect() -> list[bytes]:
            return [block async for block in self.message.blocks(size)]

        return self.successResultOf(ensureDeferred(collect()))

    def files(self) -> list[str]:
        return os.listdir(self.folder)

    def test_a_small_one_is_in_memory(self) -> None:
        self.message.write(b"Subject: x\r\n")
        self.message.write(b"\r\nhello\r\n")
        self.assertEqual((self.message.size, len(self.message)), (21, 21))
        self.assertEqual(self.read(8), [b"Subject:", b" x\r\n\r\nhe", b"llo\r\n"])
        self.assertEqual(self.files(), [])

    def test_a_large_one_is_in_a_file_that_others_cannot_read(self) -> None:
        block = bytes(range(256)) * 256
        for _ in range(6):
            self.message.write(block)
        self.assertEqual(self.message.size, 6 * len(block))
        self.assertGreater(self.message.size, IN_MEMORY)
        (name,) = self.files()
        self.assertEqual(stat.S_IMODE(os.stat(self.folder / name).st_mode), 0o600)
        self.assertEqual(self.message.read(), block * 6)
        self.assertEqual(b"".join(self.read(1000)), block * 6)

    def test_what_comes_after_a_look_is_there_too(self) -> None:
        self.message.write(b"a" * (IN_MEMORY + 1))
        self.assertEqual(len(self.message.read()), IN_MEMORY + 1)
        self.message.write(b"b")
        self.assertEqual(self.message.read()[-1:], b"b")

    def test_a_closed_one_is_an_error_and_no_empty_message(self) -> None:
        for size in (5, IN_MEMORY + 1):
            message = Message(lambda: self.folder)
            message.write(b"a" * size)
            message.close()
            with self.assertRaisesRegex(ValueError, "over"):
                message.read()
            for name in ("path", "mime"):
                with self.assertRaisesRegex(ValueError, "over"):
                    getattr(message, name)
        self.assertEqual(self.files(), [])

    def test_who_reads_while_it_is_closed_gets_the_rest_of_it_and_nothing_of_another_one(self) -> None:
        self.message.write(b"a" * (IN_MEMORY + 1))
        reading = self.message.iter_blocks(IN_MEMORY)
        self.assertEqual(next(reading), b"a" * IN_MEMORY)
        self.message.close()
        other = Message(lambda: self.folder)
        self.addCleanup(other.close)
        other.write(b"b" * (IN_MEMORY + 2))  # it gets the descriptor that has just become free
        self.assertEqual(b"".join(reading), b"a")

    def test_what_was_not_written_yet_is_written_when_the_server_says_so(self) -> None:
        self.message.write(b"a" * (IN_MEMORY + 1))
        self.message.write(b"b")
        self.message.flush()
        (name,) = self.files()
        self.assertEqual((self.folder / name).stat().st_size, IN_MEMORY + 2)

    def test_the_path_of_a_small_one_is_made_when_it_is_asked_for(self) -> None:
        self.message.write(b"hello")
        self.assertEqual(self.message.path.read_bytes(), b"hello")
        self.assertEqual(self.message.path, self.message.path)
        self.assertEqual(self.message.read(), b"hello")

    def test_nothing_is_left_when_it_is_closed(self) -> None:
        self.message.write(b"a" * (IN_MEMORY + 1))
        self.message.close()
        self.message.close()
        self.assertEqual(self.files(), [])

    def test_a_file_of_somebody_else_stays(self) -> None:
        path = self.folder / "kept.eml"
        path.write_bytes(b"Subject: kept\r\n\r\n")
        message = Message.at(path)
        self.assertEqual((message.size, message.read()), (17, b"Subject: kept\r\n\r\n"))
        message.close()
        self.assertTrue(path.exists())

    def test_a_file_that_was_made_for_us_goes(self) -> None:
        path = self.folder / "new.eml"
        path.write_bytes(b"Subject: new\r\n\r\n")
        message = Message.taken(path)
        self.assertEqual((message.size, message.read(), message.path), (16, b"Subject: new\r\n\r\n", path))
        message.close()
        self.assertFalse(path.exists())

    def test_what_was_made_for_us_is_a_file_and_no_way_to_another(self) -> None:
        other = self.folder / "other"
        other.write_bytes(b"secret")
        (self.folder / "link").symlink_to(other.absolute())
        os.mkfifo(self.folder / "pipe")
        for name in ("link", "pipe", "none", "."):
            with self.assertRaises(OSError):
                Message.taken(self.folder / name)
        self.assertEqual(other.read_bytes(), b"secret")

    def test_one_for_tests(self) -> None:
        self.assertEqual(Message.of(b"hello").read(), b"hello")
        self.assertEqual(repr(Message.of(b"hello")), "<Message of 5 octets>")
