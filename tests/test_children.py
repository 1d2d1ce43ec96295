"""Child processes: messages in any pieces, what they begin with, how they end, when they are started again."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.trial.unittest import SynchronousTestCase

from mailserver import children
from mailserver.children import (
    FIRST_DELAY,
    MOST_DELAY,
    NOT_INHERITED,
    Lines,
    environment,
    how_it_ended,
    line_of,
    restart_delay,
)


class LinesTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.integers(1, 50))
    def test_messages_come_out_whole_in_any_pieces(self, messages: list[dict[str, Any]], size: int) -> None:
        octets = b"".join(map(line_of, messages))
        lines = Lines()
        found = [each for at in range(0, len(octets), size) for each in lines.feed(octets[at : at + size])]
        self.assertEqual(found, messages)

    def test_what_is_no_message(self) -> None:
        for octets in (b"[]\n", b"{\n", b"\n", b"[" * 100_000 + b"\n"):
            with self.assertRaises(ValueError):
                list(Lines().feed(octets))

    def test_a_message_has_an_end(self) -> None:
        self.patch(children, "MAX_MESSAGE", 10)
        lines = Lines()
        self.assertEqual(list(lines.feed(b"x" * 10)), [])
        with self.assertRaises(ValueError):
            list(lines.feed(b"x"))

    def test_who_is_trusted_less_may_say_less(self) -> None:
        whole = line_of({"say": "x" * 20})
        self.assertEqual(list(Lines(most=len(whole) - 1).feed(whole)), [{"say": "x" * 20}])
        with self.assertRaises(ValueError):
            list(Lines(most=len(whole) - 2).feed(whole))


class BeginTests(SynchronousTestCase):
    def test_the_environment_has_the_modules_and_nothing_of_systemd(self) -> None:
        environ = {"HOME": "/x", "PYTHONPATH": "/old", **dict.fromkeys(NOT_INHERITED, "1")}
        self.assertEqual(environment(environ, ["/a", "/b"]), {"HOME": "/x", "PYTHONPATH": "/a:/b"})


class EndTests(SynchronousTestCase):
    def test_how_it_ended(self) -> None:
        self.assertEqual(how_it_ended(ProcessDone(0)), "exit status 0")
        self.assertEqual(how_it_ended(ProcessTerminated(3)), "exit status 3")
        self.assertEqual(how_it_ended(ProcessTerminated(signal=9)), "signal 9 (SIGKILL)")
        self.assertEqual(how_it_ended(OSError("no process")), "no process")

    def test_each_death_in_a_row_doubles_the_delay_up_to_its_end(self) -> None:
        delays = [restart_delay(row) for row in range(1, 12)]
        self.assertEqual(delays[:3], [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
        self.assertEqual(delays[-1], MOST_DELAY)
        self.assertEqual(restart_delay(10**6), MOST_DELAY)
