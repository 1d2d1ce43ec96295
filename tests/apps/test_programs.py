"""One run of a program: its stdin, its output, its end."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.programs import GRACE, LINGER, MAX_OUTPUT, PULSE, Invocation, Outcome, Owner, Run
from tests.apps.machines import FIRST_PID, FakeMachine

TIMEOUT = 60.0


class RunCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakeMachine()
        self.ended = 0

    def start(self, blocks: list[bytes] | Iterator[bytes] = (), **more: object) -> Deferred[Outcome]:  # type: ignore[assignment]
        invocation = Invocation((b"/bin/cat", b"-u"), {b"A": b"1"}, timeout=TIMEOUT, **more)  # type: ignore[arg-type]
        self.run_ = Run(invocation, iter(blocks), self.fake.machine, self.count)
        return self.run_.start()

    def count(self) -> None:
        self.ended += 1

    def no_timer_is_left(self) -> None:
        self.assertEqual(self.fake.reactor.getDelayedCalls(), [])


class StartTests(RunCase):
    def test_it_is_started_in_a_session_of_its_own(self) -> None:
        self.start(folder="/srv", owner=Owner(1001, 1002))
        (call,) = self.fake.reactor.spawned
        self.assertEqual(call["executable"], b"/usr/bin/setsid")
        self.assertEqual(call["arguments"], [b"/usr/bin/setsid", b"/bin/cat", b"-u"])
        self.assertEqual((call["env"], call["path"]), ({b"A": b"1"}, "/srv"))
        self.assertEqual((call["uid"], call["gid"]), (1001, 1002))

    def test_without_setsid_it_is_started_itself(self) -> None:
        self.fake = FakeMachine(setsid="")
        self.start()
        (call,) = self.fake.reactor.spawned
        self.assertEqual((call["executable"], call["uid"]), (b"/bin/cat", None))

    def test_a_machine_without_room_is_trouble_and_no_exception(self) -> None:
        self.fake.reactor.failure = OSError(11, "Resource temporarily unavailable")
        outcome = self.successResultOf(self.start())
        self.assertIn("Resource temporarily unavailable", outcome.trouble)
        self.assertEqual((outcome.status, self.ended), (None, 1))
        self.no_timer_is_left()


class StdinTests(RunCase):
    def test_a_block_is_given_when_the_one_before_was_read(self) -> None:
        given = []

        def blocks() -> Iterator[bytes]:
            for block in (b"one", b"two", b"three"):
                given.append(block)
                yield block

        self.start(blocks())
        self.assertEqual(given, [b"one"])
        self.fake.last.read(1)
        self.assertEqual(given, [b"one", b"two"])
        self.assertEqual(self.fake.last.read(), b"onetwothree")
        self.assertTrue(self.fake.last.eof)

    def test_a_program_that_stops_reading_is_no_failure(self) -> None:
        done = self.start([b"one", b"two"])
        self.fake.last.close_stdin()
        self.fake.last.exits(0)
        outcome = self.successResultOf(done)
        self.assertEqual((outcome.status, outcome.trouble), (0, ""))

    def test_a_message_that_cannot_be_read_never_looks_whole(self) -> None:
        def blocks() -> Iterator[bytes]:
            yield b"one"
            raise OSError(5, "Input/output error")

        done = self.start(blocks())
        process = self.fake.last
        process.read()
        self.assertFalse(process.eof)
        self.assertEqual(self.fake.groups, [(FIRST_PID, "SIGTERM")])
        process.exits(0)
        self.assertIn("cannot be read", self.successResultOf(done).trouble)


class OutputTests(RunCase):
    def test_output_is_kept_up_to_its_bound(self) -> None:
        done = self.start()
        for _ in range(3):
            self.fake.last.prints(b"o" * 5000, b"error")
        self.fake.last.exits(7)
        outcome = self.successResultOf(done)
        self.assertEqual((outcome.stdout, outcome.stderr), (b"o" * MAX_OUTPUT, b"error" * 3))
        self.assertEqual((outcome.status, outcome.signal), (7, None))

    def test_a_signal_is_no_status(self) -> None:
        done = self.start()
        self.fake.last.exits(None, 9)
        outcome = self.successResultOf(done)
        self.assertEqual((outcome.status, outcome.signal), (None, 9))
        self.assertEqual(self.ended, 1)
        self.no_timer_is_left()


class EndTests(RunCase):
    def test_who_takes_too_long_gets_sigterm_then_sigkill_and_nothing_more_to_read(self) -> None:
        done = self.start([b"one", b"two"])
        self.fake.reactor.advance(TIMEOUT)
        self.assertEqual(self.fake.groups, [(FIRST_PID, "SIGTERM")])
        process = self.fake.last
        process.read()
        self.assertEqual((bytes(process.stdin), process.eof), (b"one", False))
        self.fake.reactor.advance(GRACE)
        self.assertEqual(self.fake.groups[-1], (FIRST_PID, "SIGKILL"))
        process.exits(None, 9)
        self.assertTrue(self.successResultOf(done).timed_out)
        self.assertEqual(self.ended, 1)
        self.no_timer_is_left()

    def test_what_a_timed_out_program_leaves_in_its_group_is_killed_with_it(self) -> None:
        self.start()
        self.fake.reactor.advance(TIMEOUT)
        self.fake.last.exits(None, 15)
        self.assertEqual(self.fake.groups, [(FIRST_PID, "SIGTERM"), (FIRST_PID, "SIGKILL")])

    def test_what_a_good_program_leaves_lives_on_without_our_pipes(self) -> None:
        done = self.start()
        process = self.fake.last
        process.exits(0, pipes=False)
        self.assertNoResult(done)
        self.fake.reactor.advance(LINGER)
        self.assertTrue(process.let_go)
        self.assertEqual((self.successResultOf(done).status, self.fake.groups), (0, []))
        self.assertEqual(self.ended, 1)

    def test_a_program_that_no_signal_reaches_is_given_up(self) -> None:
        done = self.start()
        for seconds in (TIMEOUT, GRACE, LINGER):
            self.assertNoResult(done)
            self.fake.reactor.advance(seconds)
        outcome = self.successResultOf(done)
        self.assertTrue(outcome.timed_out and outcome.trouble == "does not end")
        self.fake.last.exits(None, 9)  # in the end it does
        self.assertEqual(self.ended, 1)

    def test_who_has_closed_its_output_is_looked_after_until_it_is_gone(self) -> None:
        self.start()
        process = self.fake.last
        process.protocol.childConnectionLost(1)
        self.fake.reactor.advance(PULSE)
        self.assertEqual(self.fake.reaped, 0)
        process.protocol.childConnectionLost(2)
        for count in (1, 2, 3):
            self.fake.reactor.advance(PULSE)
            self.assertEqual(self.fake.reaped, count)
        process.exits(0)
        self.no_timer_is_left()

    def test_cancelling_ends_it_and_its_place_is_free_when_it_is_gone(self) -> None:
        done = self.start([b"one", b"two"])
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual((self.fake.groups, self.ended), ([(FIRST_PID, "SIGTERM")], 0))
        self.fake.last.exits(None, 15)
        self.assertEqual(self.ended, 1)
        self.no_timer_is_left()

    def test_where_there_is_no_group_the_process_gets_the_signal(self) -> None:
        self.fake.group_error = ProcessLookupError(3, "No such process")
        self.start()
        self.run_.end()
        self.assertEqual(self.fake.last.signals, ["TERM"])

    def test_a_process_that_is_gone_already_needs_no_signal(self) -> None:
        self.fake.group_error = ProcessLookupError(3, "No such process")
        done = self.start()
        self.fake.last._gone = True
        self.run_.end()
        self.fake.last.exits(0)
        self.assertEqual(self.successResultOf(done).trouble, "ended by us")
