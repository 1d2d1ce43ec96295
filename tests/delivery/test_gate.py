"""The gate: the header is judged whole, the body flows, and how the text was cut makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.delivery.gate import HeaderGate, body_of, fields
from mailserver.interfaces import IDelivery
from mailserver.limits import Limits
from mailserver.reply import MAIL_LOOP, Refusal
from mailserver.smtp.data import HeaderWatch
from tests.answers import asked
from tests.delivery.test_transaction import FakeDelivery


def upper(header: bytes) -> bytes:
    return header.upper()


def added(header: bytes) -> bytes:
    return b"Added: 1\r\n" + header


#: message, what is judged, what goes on (judged: `upper`)
MESSAGES = [
    ("a message", b"a: b\r\nc: d\r\n\r\nbody\r\n", b"a: b\r\nc: d\r\n", b"A: B\r\nC: D\r\n\r\nbody\r\n"),
    ("folded", b"a: b\r\n c\r\n\td\r\n\r\nx", b"a: b\r\n c\r\n\td\r\n", b"A: B\r\n C\r\n\tD\r\n\r\nx"),
    ("all header", b"a: b\r\nc: d\r\n", b"a: b\r\nc: d\r\n", b"A: B\r\nC: D\r\n"),
    ("all header, no line end", b"a: b", b"a: b", b"A: B"),
    ("an empty body", b"a: b\r\n\r\n", b"a: b\r\n", b"A: B\r\n\r\n"),
    ("an empty header", b"\r\na: b\r\n\r\n", b"", b"\r\na: b\r\n\r\n"),
    ("nothing", b"", b"", b""),
    ("no header, but text", b"hello\r\nyou: too\r\n\r\nx\r\n", b"", b"\r\nhello\r\nyou: too\r\n\r\nx\r\n"),
    ("no header, one word", b"hello", b"", b"\r\nhello"),
    ("no header, blanks first", b" a: b\r\n\r\nx", b"", b"\r\n a: b\r\n\r\nx"),
    ("an obsolete blank before the colon", b"a : b\r\n\r\nx", b"a : b\r\n", b"A : B\r\n\r\nx"),
    ("an mbox line", b"From joe Mon\r\na: b\r\n\r\nx", b"From joe Mon\r\na: b\r\n", b"FROM JOE MON\r\nA: B\r\n\r\nx"),
    ("a bare LF is no line end", b"a: b\n\nc: d\r\n\r\nx", b"a: b\n\nc: d\r\n", b"A: B\n\nC: D\r\n\r\nx"),
    ("nor LF CRLF", b"a: b\n\r\nc: d\r\n\r\nx", b"a: b\n\r\nc: d\r\n", b"A: B\n\r\nC: D\r\n\r\nx"),
    ("nor CR CR LF", b"a: b\r\n\r\r\nc: d\r\n\r\nx", b"a: b\r\n\r\r\nc: d\r\n", b"A: B\r\n\r\r\nC: D\r\n\r\nx"),
    ("8-bit and NUL", b"a: \xff\0\r\n\r\n\xff\0", b"a: \xff\0\r\n", b"A: \xff\0\r\n\r\n\xff\0"),
]


class GateCase(SynchronousTestCase):
    def passed(self, message: bytes, cuts: list[int], *judges: Callable[[bytes], bytes], way: str = "plain") -> bytes:
        """What comes out behind the gate for the message, cut into pieces of these sizes."""
        inner = FakeDelivery(way=way)
        gate = HeaderGate(inner, judges)
        at = 0
        for cut in [*cuts, len(message)]:
            if message[at : at + cut]:
                self.wait(gate.write(message[at : at + cut]))
            at += cut
        self.wait(asked(gate.prepare))
        self.assertEqual(inner.done[-1], "prepare")
        return inner.text

    def wait(self, answer: Any) -> Any:
        return self.successResultOf(ensureDeferred(answer)) if answer is not None else None


class HeaderTests(GateCase):
    def test_it_is_a_delivery(self) -> None:
        verifyObject(IDelivery, HeaderGate(FakeDelivery(), ()))

    def test_the_header_is_judged_once_and_whole_however_it_was_cut(self) -> None:
        for name, message, judged, expected in MESSAGES:
            for size in (1, 2, 3, 5, 1000):
                for way in ("plain", "deferred", "coroutine"):
                    seen: list[bytes] = []

                    def judge(header: bytes, seen: list[bytes] = seen) -> bytes:
                        seen.append(header)
                        return upper(header)

                    passed = self.passed(message, [size] * (len(message) // size), judge, way=way)
                    self.assertEqual((seen, passed), ([judged], expected), f"{name} in pieces of {size}")

    def test_a_header_may_be_added_where_none_was(self) -> None:
        for message, expected in [
            (b"", b"Added: 1\r\n"),
            (b"hello\r\n", b"Added: 1\r\n\r\nhello\r\n"),
            (b"\r\nhello\r\n", b"Added: 1\r\n\r\nhello\r\n"),
        ]:
            self.assertEqual(self.passed(message, [1] * len(message), added), expected)

    def test_judges_are_asked_in_their_order(self) -> None:
        self.assertEqual(self.passed(b"a: b\r\n\r\nx", [], upper, added), b"Added: 1\r\nA: B\r\n\r\nx")
        self.assertEqual(self.passed(b"a: b\r\n\r\nx", [], added, upper), b"ADDED: 1\r\nA: B\r\n\r\nx")

    def test_without_judges_a_message_passes_as_it_is(self) -> None:
        self.assertEqual(self.passed(b"a: b\r\n\r\nx", [1, 1, 4]), b"a: b\r\n\r\nx")

    def test_a_huge_header_in_small_pieces(self) -> None:
        message = b"a: " + b"x" * 1_000_000 + b"\r\n\r\nbody"
        self.assertEqual(self.passed(message, [4096] * 250, added), b"Added: 1\r\n" + message)

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a: b", b" ", b"text", b"\r\n\r\n", b"\xff"]), max_size=20),
        st.lists(st.integers(1, 6), max_size=30),
    )
    def test_any_cut_gives_the_same(self, parts: list[bytes], cuts: list[int]) -> None:
        message = b"".join(parts)
        self.assertEqual(self.passed(message, cuts, upper, added), self.passed(message, [], upper, added))
        self.assertTrue(self.passed(message, cuts).endswith(message))

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(
            st.sampled_from([b"\r\n", b"\n", b"a: b", b"\n\r\n", b"\r\r\n", b"\r\n\r\n", b"x" * 70]), max_size=12
        )
    )
    def test_the_limits_of_the_session_are_for_the_same_header(self, parts: list[bytes]) -> None:
        """Else a header that is over for one and goes on for the other would be held without a limit."""
        message = b"".join(parts)
        watch, inner = HeaderWatch(Limits()), FakeDelivery()
        gate = HeaderGate(inner, ())
        for part in parts:
            if part.endswith(b"\r"):
                return
            watch.receive(part)
            gate.write(part)
            self.assertEqual(watch.over, b"write" in [step.encode() for step in inner.done], message)


class OrderTests(GateCase):
    def test_nothing_goes_on_before_the_header_is_judged(self) -> None:
        inner = FakeDelivery()
        gate = HeaderGate(inner, (upper,))
        self.assertIsNone(gate.write(b"a: b\r\n"))
        self.assertEqual(inner.done, [])
        gate.write(b"\r\nx")
        gate.write(b"y")
        self.assertEqual((inner.text, inner.done), (b"A: B\r\n\r\nxy", ["write", "write"]))

    def test_a_slow_place_is_waited_for(self) -> None:
        slow: Deferred[None] = Deferred()
        inner = FakeDelivery()
        inner.write = lambda _block: slow  # type: ignore[method-assign, assignment]
        gate = HeaderGate(inner, ())
        self.assertIs(gate.write(b"\r\n"), slow)
        whole = HeaderGate(inner, ())
        whole.write(b"a: b")
        prepared = asked(whole.prepare)
        self.assertEqual(inner.done, [])
        slow.callback(None)
        self.successResultOf(prepared)
        self.assertEqual(inner.done, ["prepare"])

    def test_who_judges_may_refuse_in_the_header_or_at_the_end(self) -> None:
        def refuse(_header: bytes) -> bytes:
            raise Refusal(MAIL_LOOP)

        inner = FakeDelivery()
        self.assertRaises(Refusal, HeaderGate(inner, (refuse,)).write, b"a: b\r\n\r\n")
        gate = HeaderGate(inner, (refuse,))
        gate.write(b"a: b\r\n")
        self.failureResultOf(asked(gate.prepare), Refusal)
        self.assertEqual(inner.done, [])

    def test_it_commits_and_aborts_at_any_time_and_twice(self) -> None:
        inner = FakeDelivery(reply=MAIL_LOOP)
        gate = HeaderGate(inner, ())
        gate.write(b"a: b\r\n")
        gate.abort()
        gate.abort()
        self.assertEqual(inner.done, ["abort", "abort"])
        inner = FakeDelivery(way="deferred", reply=MAIL_LOOP)
        committed = asked(HeaderGate(inner, ()).commit)
        self.assertEqual(self.successResultOf(committed), MAIL_LOOP)

    def test_a_failing_prepare_fails(self) -> None:
        for way in ("plain", "deferred", "coroutine"):
            gate = HeaderGate(FakeDelivery({"prepare": OSError(5, "x")}, way), ())
            self.failureResultOf(asked(gate.prepare), OSError)
        self.wait(asked(HeaderGate(FakeDelivery(way="deferred"), ()).prepare))


class FieldsTests(SynchronousTestCase):
    def test_fields_in_their_order(self) -> None:
        for header, found in [
            (b"", []),
            (b"A: b\r\n", [(b"a", b"A: b\r\n")]),
            (b"A: b\r\n c\r\n\td\r\nE:f\r\n", [(b"a", b"A: b\r\n c\r\n\td\r\n"), (b"e", b"E:f\r\n")]),
            (b"A \t: b\r\nA: c\r\n", [(b"a", b"A \t: b\r\n"), (b"a", b"A: c\r\n")]),
            (b"A: b", [(b"a", b"A: b")]),
            (b" A: b\r\nC: d\r\n", [(b"", b" A: b\r\n"), (b"c", b"C: d\r\n")]),
            (b"nothing\r\n A: b\r\n", [(b"", b"nothing\r\n A: b\r\n")]),
            (b"A: b\nC: d\r\n", [(b"a", b"A: b\nC: d\r\n")]),
            (b"A: b\x0bC: d\x85\xe2\x80\xa8x\r\n", [(b"a", b"A: b\x0bC: d\x85\xe2\x80\xa8x\r\n")]),
            (b": b\r\n", [(b"", b": b\r\n")]),
        ]:
            self.assertEqual(fields(header), found)

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a:", b" ", b"\t", b":", b"x"]), max_size=30))
    def test_no_octet_is_lost(self, parts: list[bytes]) -> None:
        header = b"".join(parts)
        self.assertEqual(b"".join(field for _, field in fields(header)), header)

    def test_the_body_of_a_field_is_unfolded_text(self) -> None:
        for field, body in [
            (b"A: b\r\n", "b"),
            (b"A:\r\n b\r\n\tc \r\n", "b\tc"),
            (b"A: \xc3\xa4\xff\r\n", "\u00e4\ufffd"),
            (b"A:b:c", "b:c"),
            (b"A", ""),
        ]:
            self.assertEqual(body_of(field), body)
