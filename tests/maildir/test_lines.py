"""The file on the disk, read as its first line says, is the message; however the message was cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import CleanText
from mailserver.maildir.lines import LineEndings, to_crlf, to_lf

TABLE = [
    # what was sent, what is on the disk
    (b"a\r\nb\r\n", b"a\nb\n"),
    (b"a\r\nb", b"a\nb"),
    (b"a\r\n\r\n\r\n", b"a\n\n\n"),
    (b"a\r\n\0\xff\r\n", b"a\n\0\xff\n"),
    (b"a\r\nbare \n lf\r\n", b"a\r\nbare \n lf\r\n"),
    (b"a\r\nbare \r cr\r\n", b"a\r\nbare \r cr\r\n"),
    (b"a\r\nb\r\r\n", b"a\r\nb\r\r\n"),
    (b"a\r\n\n\r", b"a\r\n\n\r"),
    (b"a\r\nends with cr\r", b"a\r\nends with cr\r"),
    (b"a\r\nlf and cr balance \n\r, \r\n", b"a\r\nlf and cr balance \n\r, \r\n"),
    (b"", b""),
]


def converted(blocks: list[bytes], *, crlf: bool = False) -> tuple[bytes, LineEndings]:
    """What a caller that keeps the contract has on its disk."""
    lines, disk = LineEndings(crlf=crlf), b""
    for step in [*(lambda block=block: lines.feed(block) for block in blocks), lines.finish]:
        before = lines.crlf
        new = step()
        disk = (to_crlf(disk) if lines.crlf and not before else disk) + new
    return disk, lines


def read_back(disk: bytes) -> bytes:
    """The message in a file, as a reader sees it: the end of the first line tells."""
    return disk if disk.partition(b"\n")[0].endswith(b"\r") else to_crlf(disk)


def cut(text: bytes, at: list[int]) -> list[bytes]:
    ends = sorted(min(end, len(text)) for end in at)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


class LineEndingsTests(SynchronousTestCase):
    def test_the_table_whole_and_octet_by_octet(self) -> None:
        for sent, stored in TABLE:
            for blocks in ([sent], cut(sent, list(range(len(sent))))):
                with self.subTest(sent=sent, blocks=len(blocks)):
                    disk, lines = converted(blocks)
                    self.assertEqual(disk, stored)
                    self.assertEqual((lines.stored, lines.virtual), (len(stored), len(sent)))
                    self.assertEqual(lines.crlf, stored == sent and sent != b"")

    def test_by_choice_everything_is_kept_as_it_came(self) -> None:
        for sent, _ in TABLE:
            disk, lines = converted(cut(sent, [1, 2]), crlf=True)
            self.assertEqual((disk, lines.stored, lines.virtual), (sent, len(sent), len(sent)))

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(st.sampled_from([b"\r\n", b"text", b"\r", b"\n", b"\0", b"\xff", b"\r\n\r\n"]), max_size=20),
        st.lists(st.integers(0, 60), max_size=8),
    )
    def test_any_cutting_gives_the_same_file_and_the_file_gives_the_message(
        self, parts: list[bytes], at: list[int]
    ) -> None:
        sent = b"Received: x\r\n" + b"".join(parts)
        disk, lines = converted(cut(sent, at))
        self.assertEqual(disk, converted([sent])[0])
        self.assertEqual(read_back(disk), sent)
        self.assertEqual((lines.stored, lines.virtual), (len(disk), len(sent)))

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.sampled_from([b"\r\n", b"text", b"\0", b"."]), max_size=20))
    def test_without_bare_line_ends_the_file_has_lf(self, parts: list[bytes]) -> None:
        sent = b"".join(parts)
        disk, lines = converted([sent])
        self.assertEqual((disk, lines.crlf), (to_lf(sent), False))
        self.assertNotIn(b"\r", disk)


class CleanTests(SynchronousTestCase):
    """Text of which somebody has said that it is clean."""

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.lists(st.sampled_from([b"a", b"\r\n", b".", b"bc"])), st.booleans())), st.booleans())
    def test_it_is_stored_as_if_it_had_been_looked_at(
        self, blocks: list[tuple[list[bytes], bool]], crlf: bool
    ) -> None:
        texts = [b"".join(pieces) for pieces, _ in blocks]
        marked = [CleanText(text) if clean else text for text, (_, clean) in zip(texts, blocks, strict=True)]
        plain, looked = converted(texts, crlf=crlf)
        quick, believed = converted(marked, crlf=crlf)
        self.assertEqual(quick, plain)
        self.assertEqual((believed.stored, believed.virtual), (looked.stored, looked.virtual))

    def test_behind_a_block_that_was_not_clean_it_is_kept_as_that_was(self) -> None:
        disk, lines = converted([b"a\r\nbare \n lf\r\n", CleanText(b"b\r\n")])
        self.assertEqual((disk, lines.crlf), (b"a\r\nbare \n lf\r\nb\r\n", True))
        disk, _ = converted([b"a\r\nb\r", b"\n", CleanText(b"c\r\n")])
        self.assertEqual(disk, b"a\nb\nc\n")
