"""Records are found again whatever was done to the octets around them, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable.records import (
    BLOCK,
    RECORD_HEADER,
    Damage,
    Header,
    NoHeader,
    Record,
    decode_header,
    decode_records,
    encode_header,
    encode_record,
    names_of,
    new_mark,
    padding,
)

MARK = new_mark(b"12345678")
HEADER = Header(True, MARK, 7, b"boot-1", 1234.5)


def record(names: bytes, content: bytes, mark: bytes = MARK) -> bytes:
    return encode_record(mark, names, content) + content


def segment(*records: bytes) -> bytes:
    return encode_header(HEADER) + b"".join(each + bytes(padding(len(each))) for each in records)


class HeaderTests(SynchronousTestCase):
    def test_a_header_is_one_block_and_is_read_back(self) -> None:
        for header in (HEADER, replace(HEADER, in_use=False), Header(False, MARK, 2**64 - 1, b"x" * 32, 0.0)):
            block = encode_header(header)
            self.assertEqual((len(block), decode_header(block)), (BLOCK, header))

    def test_what_is_no_header_is_told(self) -> None:
        block = encode_header(HEADER)
        for octets, why in (
            (b"", "too short"),
            (block[:80], "too short"),
            (bytes(BLOCK), "not a journal segment"),
            (b"From a@example.org\n" * 300, "not a journal segment"),
            (block[:17] + b"\1" + block[18:], "damaged header"),
        ):
            with self.assertRaises(NoHeader) as raised:
                decode_header(octets)
            self.assertEqual(str(raised.exception), why)

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 200))
    def test_any_octets_are_a_header_or_none(self, octets: bytes, at: int) -> None:
        block = encode_header(HEADER)
        try:
            found = decode_header(block[:at] + octets)
        except NoHeader:
            return
        self.assertEqual(found, HEADER)


class RecordTests(SynchronousTestCase):
    def test_names_are_paths_below_the_root(self) -> None:
        paths = ["/m/d/u/new/1", "/m/d/v/new/1", "/m/d/\udcff/new/1"]
        self.assertEqual(names_of(paths, "/m/"), b"d/u/new/1\0d/v/new/1\0d/\xff/new/1")
        self.assertRaises(ValueError, names_of, ["/m/d/u/new/1", "/other/d/u/new/1"], "/m/")

    def test_too_many_names_are_refused(self) -> None:
        self.assertRaises(ValueError, encode_record, MARK, bytes((1 << 24) + 1), b"")

    def test_records_are_found_in_order_and_nothing_of_another_use(self) -> None:
        old = record(b"d/u/new/old", b"old text", new_mark(b"87654321"))
        octets = segment(record(b"a\0b", b"one"), old, record(b"c", b""))
        found = decode_records(MARK, octets)
        self.assertEqual(
            [(each.names, each.content) for each in found if isinstance(each, Record)],
            [((b"a", b"b"), b"one"), ((b"c",), b"")],
        )
        self.assertEqual([octets[each.at :][:12] for each in found], [MARK, MARK])

    def test_records_without_a_gap_are_found(self) -> None:
        found = decode_records(MARK, segment(record(b"a", b"1") + record(b"b\0c", b"") + record(b"d", b"3")))
        self.assertEqual([each.content for each in found if isinstance(each, Record)], [b"1", b"", b"3"])
        self.assertEqual([each.size for each in found if isinstance(each, Record)],
                         [RECORD_HEADER + size for size in (2, 3, 2)])  # fmt: skip

    def test_a_mark_within_a_message_begins_no_record(self) -> None:
        inner = record(b"forged", b"text")
        found = decode_records(MARK, segment(record(b"some/long/name", b"x" + inner)))
        self.assertEqual([each.names for each in found if isinstance(each, Record)], [(b"some/long/name",)])
        self.assertEqual(len(found), 1)

    def test_damage_in_the_middle_is_told_and_what_follows_is_found(self) -> None:
        octets = bytearray(segment(record(b"a", b"1"), record(b"b", b"2"), record(b"c", b"3")))
        octets[2 * BLOCK + RECORD_HEADER + 1] ^= 1
        found = decode_records(MARK, bytes(octets))
        self.assertEqual([type(each) for each in found], [Record, Damage, Record])
        self.assertEqual(found[1], Damage(2 * BLOCK, last=False))

    def test_a_torn_tail_is_the_last(self) -> None:
        octets = segment(record(b"a", b"1"), record(b"b", b"2" * 9000))
        for end in (2 * BLOCK + 12, 2 * BLOCK + 20, 2 * BLOCK + 100, 3 * BLOCK):
            found = decode_records(MARK, octets[:end])
            self.assertEqual(found[1:], [Damage(2 * BLOCK, last=True)], end)
        zeroed = octets[: 3 * BLOCK] + bytes(BLOCK * 2)
        self.assertEqual(decode_records(MARK, zeroed)[1:], [Damage(2 * BLOCK, last=True)])

    @settings(deadline=None, max_examples=200)
    @given(
        st.lists(st.tuples(st.lists(st.binary(min_size=1, max_size=9).filter(lambda n: b"\0" not in n), min_size=1,
                                    max_size=3), st.binary(max_size=300)), max_size=5),
        st.lists(st.tuples(st.integers(0, 30_000), st.binary(max_size=40)), max_size=5),
        st.integers(0, 40_000),
    )  # fmt: skip
    def test_whatever_is_done_to_a_segment_nothing_is_found_that_was_not_written(
        self, written: list[tuple[list[bytes], bytes]], blows: list[tuple[int, bytes]], end: int
    ) -> None:
        octets = bytearray(segment(*(record(b"\0".join(names), content) for names, content in written)))
        whole = [each for each in decode_records(MARK, bytes(octets)) if isinstance(each, Record)]
        self.assertEqual([(list(each.names), each.content) for each in whole], written)
        for at, blow in blows:
            octets[at : at + len(blow)] = blow
        for each in decode_records(MARK, bytes(octets[:end])):
            if isinstance(each, Record):
                self.assertIn((list(each.names), each.content), written)

    @settings(deadline=None)
    @given(st.lists(st.one_of(st.just(MARK), st.binary(max_size=60))))
    def test_any_octets_can_be_read(self, pieces: list[bytes]) -> None:
        found = decode_records(MARK, bytes(BLOCK) + b"".join(pieces))
        self.assertEqual([each for each in found if isinstance(each, Record) and each.size < RECORD_HEADER], [])
