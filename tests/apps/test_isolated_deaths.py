"""Apps with a process of their own that dies: who hears of it, when it is started again, and what it must not see."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure

from mailserver.apps.crossing import MOST_SAID, TO_PARENT
from mailserver.apps.isolated import LAST_WORDS, LOOK_AGAIN
from mailserver.apps.view import Session
from mailserver.children import FIRST_DELAY, MOST_DELAY, RAN_WELL
from mailserver.envelope import Envelope
from tests.apps.test_isolated import ANNA, IsolatedCase


class DeathTests(IsolatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.app.start()
        self.process.says(say="up")
        self.instance, self.conversation = self.connection()

    def open_transaction(self, name: str = "t1") -> None:
        self.conversation._envelope = Envelope(name, None)

    def restarted(self) -> None:
        self.reactor.advance(MOST_DELAY)
        self.process.says(say="up")

    def asked(self, callback: str) -> Deferred[Any]:
        """A call that the child gets."""
        before = len(self.process.told("call"))
        call = self.instance.call(callback, *{"connected": ()}.get(callback, (ANNA, {})))
        self.assertEqual(len(self.process.told("call")), before + 1, callback)
        return call

    def answered(self, callback: str) -> None:
        call = self.asked(callback)
        self.process.says(say="answer", id=self.process.heard[-1]["id"], value=None)
        self.successResultOf(call)

    def test_calls_in_flight_and_new_ones_get_451_and_the_log_says_it(self) -> None:
        call, waiting = self.asked("rcpt"), self.instance.call("connected")
        self.process.ends(signal=9)
        self.assertIn("its process has died", self.broken(call))
        self.assertIn("its process does not run", self.broken(waiting))
        (died,) = self.named("app-died")
        self.assertEqual((died["app"], died["why"], died["calls"]), ("tickets", "signal 9 (SIGKILL)", 1))
        self.assertEqual(died["log_level"].name, "error")
        self.broken(self.instance.call("connected"))
        self.assertEqual([outcome for *_, outcome in self.calls.seen], ["failed"] * 3)

    def test_it_is_started_again_later_each_time_and_that_is_counted(self) -> None:
        delays = []
        for _ in range(12):
            self.process.ends(1)
            delays.append(self.named("app-died")[-1]["seconds"])
            count = len(self.reactor.processes)
            self.reactor.advance(delays[-1] / 2)
            self.assertEqual(len(self.reactor.processes), count)
            self.reactor.advance(delays[-1] / 2 + 1e-6)
            self.assertEqual(len(self.reactor.processes), count + 1)
        self.assertEqual(delays[:3], [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
        self.assertEqual(delays[-1], MOST_DELAY)
        self.assertEqual(self.calls.restarts, ["tickets"] * 12)

    def test_one_that_ran_well_begins_the_row_anew(self) -> None:
        for served, delay in ((0.0, FIRST_DELAY), (RAN_WELL - 1, 2 * FIRST_DELAY), (RAN_WELL, FIRST_DELAY)):
            self.reactor.advance(served)
            self.process.ends(1)
            self.assertEqual(self.named("app-died")[-1]["seconds"], delay)
            self.restarted()

    def test_calls_wait_while_it_is_started_again(self) -> None:
        self.process.ends(1)
        self.reactor.advance(FIRST_DELAY)
        call = self.instance.call("connected")
        self.assertNoResult(call)
        self.process.says(say="up")
        self.process.says(say="answer", id=self.process.heard[-1]["id"], value="hello")
        self.assertEqual(self.successResultOf(call), "hello")

    def test_a_connection_gets_a_new_object_that_sees_the_whole_session(self) -> None:
        self.answered("connected")
        self.answered("connected")
        self.assertNotIn("peer", self.process.heard[-1]["session"])
        self.process.ends(1)
        self.restarted()
        self.answered("connected")
        self.assertIn("peer", self.process.heard[-1]["session"])

    def test_a_transaction_whose_object_died_is_lost_for_the_app_and_the_next_is_not(self) -> None:
        self.answered("mail")
        self.open_transaction()
        self.answered("rcpt")
        self.process.ends(1)
        self.restarted()
        for callback in ("rcpt", "filter", "message"):
            self.assertIn("died in this transaction", self.broken(self.instance.call(callback, ANNA, {})))
        self.assertEqual(self.process.told("call"), [])
        self.answered("connected")  # what belongs to no transaction goes on
        self.broken(self.instance.call("rcpt", ANNA, {}))
        self.open_transaction("t2")
        for callback in ("rcpt", "rcpt", "message"):
            self.answered(callback)

    def test_so_is_one_that_was_about_to_begin(self) -> None:
        self.answered("mail")
        self.process.ends(1)  # another app is asked about MAIL meanwhile
        self.restarted()
        self.open_transaction()
        for _ in range(2):
            self.broken(self.instance.call("rcpt", ANNA, {}))
        self.answered("mail")
        self.open_transaction("t2")
        self.answered("rcpt")

    def test_reset_ends_what_was_lost(self) -> None:
        self.answered("connected")
        self.open_transaction()
        self.process.ends(1)
        self.restarted()
        self.answered("reset")
        self.answered("rcpt")

    def test_a_connection_without_an_object_loses_nothing(self) -> None:
        self.open_transaction()
        self.process.ends(1)
        self.restarted()
        self.answered("rcpt")

    def test_the_end_of_a_connection_is_told_only_to_a_process_that_knows_it(self) -> None:
        known, unknown = (self.app.made(Session(self.conversation, id=name)) for name in "ab")
        known.ask("connected", ()).addErrback(lambda _failure: None)
        self.app.forget(unknown)
        self.assertEqual(self.process.told("over"), [])
        self.app.forget(known)
        self.assertEqual(self.process.told("over"), [{"say": "over", "conn": known.number}])
        lost = self.app.made(Session(self.conversation, id="c"))
        lost.ask("connected", ()).addErrback(lambda _failure: None)
        self.process.ends(1)
        self.restarted()
        self.app.forget(lost)
        self.assertEqual((self.process.told("over"), self.app._stand_ins), ([], {}))

    def test_a_process_that_exits_while_others_hold_its_pipes_is_over(self) -> None:
        call = self.asked("connected")
        self.process.protocol.processExited(Failure(ProcessTerminated(3)))
        self.assertNoResult(call)
        self.process.says(say="answer", id=self.process.heard[-1]["id"], value="its last words")
        self.assertEqual(self.successResultOf(call), "its last words")
        self.reactor.advance(LAST_WORDS)
        self.assertEqual((self.named("app-died")[0]["why"], self.process.closed), ("exit status 3", True))
        self.process.ends(3)
        self.assertEqual(len(self.named("app-died")), 1)

    def test_a_process_that_closes_its_pipe_is_killed_and_reaped_where_nobody_takes_sigchld(self) -> None:
        self.process.immortal = True
        self.process.protocol.childConnectionLost(TO_PARENT)
        self.assertEqual(self.process.signals, [])
        self.reactor.pump([LOOK_AGAIN] * 3)
        self.assertEqual((self.process.signals, self.process.reaped), ([], 3), "it may be about to end")
        self.reactor.advance(LAST_WORDS)
        self.assertEqual((self.process.signals, self.process.reaped), (["KILL"], 4))
        self.reactor.advance(LOOK_AGAIN)
        self.assertEqual(self.process.reaped, 5)
        self.process.ends(signal=9)
        self.assertEqual(len(self.named("app-died")), 1)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_a_process_that_talks_nonsense_is_killed(self) -> None:
        for nonsense in (
            b"hello\n", b"[]\n", b"{}\n", b'{"say": "dance"}\n', b'{"say": "answer", "id": "x"}\n', b"[" * 10**5 + b"\n",
            b'{"say": "failed"}\n', b'{"say": "end", "conn": null, "reason": ""}\n', b"x" * (MOST_SAID + 1),
        ):  # fmt: skip
            call = self.asked("connected")
            process = self.process
            process.protocol.childDataReceived(TO_PARENT, nonsense)
            self.assertEqual(process.signals, ["KILL"], nonsense[:60])
            self.broken(call)
            self.restarted()
        self.assertEqual({each["log_level"].name for each in self.named("app-killed")}, {"error"})
