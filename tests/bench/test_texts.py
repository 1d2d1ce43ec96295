"""bench/texts.py: a message that is not as it was sent is noticed."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.load import SOURCE
from bench.texts import LINE, DamagedError, compose, identify, verify

TRACE = b"Return-Path: <sender@example.com>\nReceived: from bench.example.org\n\tby mail.example.org\n"


def stored(number: int, size: int = 1000) -> bytes:
    """As a Maildir has it."""
    return TRACE + compose(number, size, "bench").replace(b"\r\n", b"\n")


class TextsTests(SynchronousTestCase):
    def test_a_message_has_about_the_size_asked_for(self) -> None:
        for size in (500, 4096, 51_200, 2**20):
            self.assertLess(abs(len(compose(7, size, "bench")) - size), 2 * LINE)

    def test_the_generator_writes_the_same_lines(self) -> None:
        source = SOURCE.read_text()
        head = compose(5, 0, "%s").partition(b"X-Bench: ")[0].decode().replace("example.org", "%s")
        self.assertIn(head.replace("\r\n", "\\r\\n"), source)
        self.assertIn(f"while (size + {LINE} < length)", source)
        self.assertIn(f"memset(text + size, 'a' + number % 26, {LINE - 2})", source)

    def test_a_whole_message_tells_its_number(self) -> None:
        self.assertEqual(identify(stored(123_456), 1000, "bench"), 123_456)
        self.assertEqual(identify(TRACE.replace(b"\n", b"\r\n") + compose(8, 1000, "bench"), 1000, "bench"), 8)

    def test_a_damaged_message_is_noticed(self) -> None:
        whole = stored(30)
        for damaged in (
            whole[:-20],
            whole.replace(b"eee", b"eef", 1),
            whole.replace(b"e" * 70 + b"\n", b"", 1),
            stored(31).replace(b"X-Bench: 31", b"X-Bench: 30"),
            whole + b"more\n",
            b"",
        ):
            with self.assertRaises(DamagedError):
                identify(damaged, 1000, "bench")

    def folder(self, *numbers: int) -> list[Path]:
        """Files with these messages."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for position, number in enumerate(numbers):
            (folder / str(position)).write_bytes(stored(number))
        return list(folder.iterdir())

    def test_each_message_must_be_there_as_often_as_it_has_recipients(self) -> None:
        verify(self.folder(0, 1, 2), 3, 1, 1000, "bench")
        verify(self.folder(0, 1, 0, 1), 2, 2, 1000, "bench")
        for numbers, copies in (((0, 2), 1), ((0, 1, 1, 2), 1), ((0, 1, 2, 3), 1), ((0, 0, 1, 1, 2), 2)):
            with self.assertRaises(DamagedError):
                verify(self.folder(*numbers), 3, copies, 1000, "bench")
