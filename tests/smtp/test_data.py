"""The text of a message: where it ends, however it is cut; what the policies do; the header's limits."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import CleanText
from mailserver.limits import Limits
from mailserver.reply import BARE_NEWLINE, DISK_FULL, HEADER_TOO_BIG, MAIL_LOOP, MESSAGE_TOO_BIG
from mailserver.smtp.data import BareNewlines, ChunkReceiver, HeaderWatch, TextReceiver

quick = settings(deadline=None, max_examples=200)
PIECES = st.sampled_from(
    [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"Received: x", b"\0", b"..", b"x" * 70]
)
POLICIES: list[BareNewlines] = ["reject", "fix", "strip", "ignore"]


def receive(
    chunks: list[bytes], policy: BareNewlines = "ignore", limits: Limits | None = None
) -> tuple[bytes, bytes | None, TextReceiver]:
    """All of the text, what stands behind its end (None: no end), and the receiver."""
    receiver = TextReceiver(limits or Limits(), policy)
    text, rest = b"", None
    for chunk in chunks:
        if rest is not None:
            rest += chunk
            continue
        block, rest = receiver.receive(chunk)
        text += block
    return text, rest, receiver


def model(stream: bytes) -> tuple[bytes, bytes | None]:
    """RFC 5321 4.5.2 read aloud: lines end in CRLF; a line of one dot ends it; a first dot goes."""
    lines = re.split(rb"(?<=\r\n)", stream)
    text, used = b"", 0
    for line in lines:
        used += len(line)
        if line == b".\r\n":
            return text, stream[used:]
        text += line[1:] if line.startswith(b".") else line
    return text, None


class EndTests(SynchronousTestCase):
    @quick
    @given(st.lists(PIECES, max_size=30))
    def test_it_ends_where_the_rfc_says_and_nowhere_else(self, pieces: list[bytes]) -> None:
        stream = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
        text, rest, _ = receive([stream])
        self.assertEqual((text, rest), model(stream))

    @quick
    @given(st.lists(PIECES, max_size=30), st.sampled_from(POLICIES))
    def test_chunks_make_no_difference_under_any_policy(self, pieces: list[bytes], policy: BareNewlines) -> None:
        stream = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
        limits = Limits(text_line=998, header_lines=100, received_fields=10)
        whole_text, whole_rest, whole = receive([stream], policy, limits)
        cut_text, cut_rest, cut = receive(pieces + [bytes([octet]) for octet in b"\r\n.\r\nQUIT\r\n"], policy, limits)
        self.assertEqual(cut.failure, whole.failure)
        self.assertEqual(cut_rest, whole_rest)
        if whole.failure is None:
            self.assertEqual(cut_text, whole_text)
            self.assertEqual(cut.size, whole.size)

    @quick
    @given(st.lists(PIECES, max_size=30))
    def test_no_policy_moves_the_end(self, pieces: list[bytes]) -> None:
        stream = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
        rests = {receive([stream], policy)[1] for policy in POLICIES}
        self.assertEqual(len(rests), 1)

    def test_the_terminator_over_two_or_more_segments(self) -> None:
        """gen_smtp D3: it costs it 1.25 s, or the message."""
        for cut in range(1, 5):
            self.assertEqual(receive([b"hi", b"\r\n.\r\n"[:cut], b"\r\n.\r\n"[cut:]])[:2], (b"hi\r\n", b""))
        self.assertEqual(receive([b"hi", b"\r", b"\n", b".", b"\r", b"\n"])[:2], (b"hi\r\n", b""))


class PolicyTests(SynchronousTestCase):
    #: gen_smtp TS22, with the ends that a stream has.
    TABLE = (
        (b"foo", b"foo", b"foo"),
        (b"foo\n", b"foo\r\n", b"foo"),
        (b"fo\ro\n", b"fo\r\no\r\n", b"foo"),
        (b"fo\ro\n\r", b"fo\r\no\r\n\r\n", b"foo"),
        (b"\nfoo", b"\r\nfoo", b"foo"),
        (b"a\r\n\nb", b"a\r\n\r\nb", b"a\r\nb"),
        (b"a\r\r\nb", b"a\r\n\r\nb", b"a\r\nb"),
    )

    def test_what_each_makes_of_bare_newlines(self) -> None:
        for sent, fixed, stripped in self.TABLE:
            stream = sent + b"\r\n.\r\n"
            self.assertEqual(receive([stream], "fix")[0], fixed + b"\r\n", sent)
            self.assertEqual(receive([stream], "strip")[0], stripped + b"\r\n", sent)
            self.assertEqual(receive([stream], "ignore")[0], sent + b"\r\n", sent)
            failure = receive([stream], "reject")[2].failure
            self.assertEqual(failure, None if sent == b"foo" else BARE_NEWLINE, sent)

    @quick
    @given(st.lists(PIECES, max_size=30), st.sampled_from(["fix", "strip"]))
    def test_what_is_fixed_or_stripped_has_none(self, pieces: list[bytes], policy: BareNewlines) -> None:
        text = receive([b"".join(pieces) + b"\r\n.\r\n"], policy)[0]
        self.assertEqual(text.count(b"\r"), text.count(b"\r\n"))
        self.assertEqual(text.count(b"\n"), text.count(b"\r\n"))


class CleanTests(SynchronousTestCase):
    @quick
    @given(st.lists(PIECES, max_size=30), st.sampled_from(POLICIES), st.booleans())
    def test_a_block_that_is_called_clean_is_clean_by_itself(
        self, pieces: list[bytes], policy: BareNewlines, chunked: bool
    ) -> None:
        receiver: Any = TextReceiver(Limits(), policy)
        if chunked:
            receiver = ChunkReceiver(Limits(), policy, binary=False)
            receiver.begin(sum(map(len, pieces)), last=True)
        for piece in pieces:
            block, rest = receiver.receive(piece)
            if isinstance(block, CleanText):
                self.assertEqual(re.sub(rb"\r\n", b"", block).translate(None, b"\r\n"), re.sub(rb"\r\n", b"", block))
                self.assertNotEqual(policy, "ignore")
            if rest is not None:
                break


class FailureTests(SynchronousTestCase):
    def test_after_a_failure_no_text_comes_and_the_end_is_found(self) -> None:
        limits = Limits(message_size=65536)
        text, rest, receiver = receive([b"x" * 65537, b"more\r\n.\r\nNOOP\r\n"], limits=limits)
        self.assertEqual((text, rest, receiver.failure), (b"", b"NOOP\r\n", MESSAGE_TOO_BIG))

    def test_the_first_failure_stays(self) -> None:
        receiver = TextReceiver(Limits(), "reject")
        receiver.fail(DISK_FULL)
        receiver.receive(b"a\nb")
        self.assertEqual(receiver.failure, DISK_FULL)

    def test_a_long_line_is_found_wherever_it_is_cut(self) -> None:
        stream = b"a\r\n" + b"x" * 999 + b"\r\n.\r\n"
        for size in (1, 7, 500, 1001, 2000):
            chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
            self.assertIsNotNone(receive(chunks, limits=Limits(text_line=998))[2].failure, size)
            self.assertIsNone(receive(chunks, limits=Limits(text_line=999))[2].failure, size)

    def test_lines_up_to_a_mebibyte_arrive_whole(self) -> None:
        line = b"x" * 2**20 + b"\r\n"
        text, _, receiver = receive([b"\r\n", line, b".\r\n"])
        self.assertTrue(text == b"\r\n" + line)
        self.assertIsNone(receiver.failure)
        self.assertIsNotNone(receive([b"\r\nx" + line, b".\r\n"])[2].failure)


class HeaderWatchTests(SynchronousTestCase):
    def judge(self, chunks: list[bytes], **limits: int) -> list[object]:
        watch = HeaderWatch(Limits(**limits))
        found = []
        for chunk in chunks:
            if watch.over:
                break
            found.append(watch.receive(chunk))
        return [each for each in found if each is not None][:1]

    def test_received_is_counted_once_however_it_is_cut(self) -> None:
        header = b"Received: from x\r\n\tby y\r\n" * 11 + b"\r\n"
        for size in (1, 2, 9, 25, 1000):
            chunks = [header[at : at + size] for at in range(0, len(header), size)]
            self.assertEqual(self.judge(chunks, received_fields=10), [MAIL_LOOP], size)
            self.assertEqual(self.judge(chunks, received_fields=11), [], size)

    def test_other_fields_are_not(self) -> None:
        header = b"X-Received: a\r\nReceivedx: b\r\n Received: c\r\n" * 20 + b"\r\n"
        self.assertEqual(self.judge([header], received_fields=10), [])

    def test_one_endless_line_is_measured(self) -> None:
        chunks = [b"A: " + b"x" * 997] + [b"x" * 1000] * 9
        self.assertEqual(self.judge(chunks, header_size=10_000), [])
        self.assertEqual(self.judge([*chunks, b"x"], header_size=10_000), [HEADER_TOO_BIG])

    def test_a_message_that_begins_with_an_empty_line_has_no_header(self) -> None:
        watch = HeaderWatch(Limits())
        watch.receive(b"\r\nReceived: x\r\n")
        self.assertTrue(watch.over)
