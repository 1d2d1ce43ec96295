"""Running the user's code: inline, in threads, under asyncio; in time, in order, and with its mistakes told as such."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.apps.app import Disconnect
from mailserver.apps.calling import LONG_STEP, Broken, Caller, Exit, Inline, Runner, Threaded
from mailserver.reply import Refusal

TIMEOUT = 10.0


class Observed:
    """Who counts."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, float, str]] = []

    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        self.seen.append((app, callback, round(seconds, 6), outcome))

    def app_restarted(self, app: str) -> None:
        raise AssertionError("no process is there")


class Reactor(Clock):
    """In the place of the asyncio reactor's clock: time that stands still."""


class CallerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.clock, self.observed = Clock(), Observed()
        self.caller = self.new_caller(Inline(self.clock.seconds))

    def new_caller(self, runner: Runner) -> Caller:
        return Caller("tickets", runner, self.clock, TIMEOUT, self.observed)

    def call(self, callback: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return self.caller.call("rcpt", callback, *arguments)

    @property
    def outcomes(self) -> list[str]:
        return [outcome for *_, outcome in self.observed.seen]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("event") == event]

    def refused(self, call: Deferred[Any]) -> Refusal:
        return self.failureResultOf(call, Refusal).value  # type: ignore[no-any-return]


class AnswerTests(CallerCase):
    def test_values_deferreds_and_coroutines_are_fine_answers(self) -> None:
        async def coroutine(what: str) -> str:
            return what + await succeed("!")

        for callback in (str.upper, lambda what: succeed(what.upper()), coroutine):
            self.assertIn(self.successResultOf(self.call(callback, "yes")), ("YES", "yes!"))
        self.assertEqual(self.observed.seen, [("tickets", "rcpt", 0.0, "ok")] * 3)

    def test_what_can_be_awaited_is(self) -> None:
        class Later:
            def __await__(self) -> Any:
                return (yield from succeed("later").__await__())

        self.assertEqual(self.successResultOf(self.call(Later)), "later")

    def test_a_refusal_and_a_wish_to_disconnect_are_those_of_the_app(self) -> None:
        no, wish = Refusal(replies.UNKNOWN_USER), Disconnect("spammer")

        def raises(what: Exception) -> None:
            raise what

        async def later(what: Exception) -> None:
            await succeed(None)
            raise what

        for callback in (raises, later):
            self.assertIs(self.refused(self.call(callback, no)), no)
            self.assertIs(self.failureResultOf(self.call(callback, wish)).value, wish)
        self.assertEqual(self.outcomes, ["refused", "ok"] * 2)

    def test_a_mistake_is_a_451_and_a_traceback_with_the_name_of_the_app(self) -> None:
        async def later() -> None:
            await succeed(None)
            raise KeyError("x")

        for callback in ({}.popitem, later, lambda: defer.fail(KeyError("y"))):
            refusal = self.refused(self.call(callback))
            self.assertEqual((refusal.reply, refusal.__cause__), (replies.LOCAL_TROUBLE, None))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 3)
        self.assertEqual([(e["app"], e["callback"]) for e in self.named("app-failed")], [("tickets", "rcpt")] * 3)
        self.assertEqual(self.outcomes, ["failed"] * 3)

    def test_what_the_log_has_already_is_not_told_again(self) -> None:
        def broken() -> None:
            raise Broken("its process has died")

        self.assertEqual(self.refused(self.call(broken)).reply, replies.LOCAL_TROUBLE)
        self.assertEqual((self.outcomes, list(self.events)), (["failed"], []))

    def test_an_app_cannot_end_the_server(self) -> None:
        async def later() -> None:
            raise SystemExit(3)

        def now() -> None:
            raise SystemExit

        for callback in (now, later):
            self.refused(self.call(callback))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)
        self.assertEqual(self.outcomes, ["failed"] * 2)


class TimeTests(CallerCase):
    def test_a_deferred_that_takes_too_long_is_cancelled(self) -> None:
        cancelled: list[Any] = []
        call = self.call(lambda: Deferred(cancelled.append))
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(call)
        self.clock.advance(1)
        refusal = self.refused(call)
        self.assertEqual((refusal.reply, len(cancelled)), (replies.LOCAL_TROUBLE, 1))
        # A cause would be logged with a traceback by whoever gets the refusal.
        self.assertIsNone(refusal.__cause__)
        self.assertEqual(self.outcomes, ["timeout"])
        (told,) = self.named("app-timeout")
        self.assertEqual((told["app"], told["callback"]), ("tickets", "rcpt"))

    def test_a_coroutine_that_takes_too_long_can_tidy_up(self) -> None:
        told: list[str] = []

        async def hangs() -> None:
            try:
                await Deferred()
            finally:
                told.append("tidied up")

        call = self.call(hangs)
        self.clock.advance(TIMEOUT)
        self.refused(call)
        self.assertEqual((told, self.outcomes), (["tidied up"], ["timeout"]))

    def test_nobody_waits_for_one_that_does_not_want_to_end(self) -> None:
        later: Deferred[None] = Deferred()

        async def stubborn() -> None:
            while True:
                try:
                    await Deferred()
                except CancelledError:
                    await later
                    raise KeyError("too late") from None

        call = self.call(stubborn)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.refused(call).reply, replies.LOCAL_TROUBLE)
        self.assertEqual(self.successResultOf(self.call(str)), "", "the next call has its turn")
        later.callback(None)
        gc.collect()
        self.assertEqual((self.outcomes, self.flushLoggedErrors()), (["timeout", "ok"], []))

    def test_what_the_app_says_when_it_is_cancelled_is_not_its_answer(self) -> None:
        async def says_no() -> None:
            try:
                await Deferred()
            except CancelledError:
                raise Refusal(replies.UNKNOWN_USER) from None

        call = self.call(says_no)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.refused(call).reply, replies.LOCAL_TROUBLE)

    def test_a_timeout_or_a_cancelling_of_its_own_is_a_mistake_of_the_app(self) -> None:
        def own_timeout() -> Deferred[None]:
            return Deferred().addTimeout(1, self.clock)

        def own_cancel() -> Deferred[None]:
            waiting: Deferred[None] = Deferred()
            waiting.cancel()
            return waiting

        call = self.call(own_timeout)
        self.clock.advance(1)
        self.refused(call)
        self.refused(self.call(own_cancel))
        self.assertEqual(self.outcomes, ["failed", "failed"])
        self.assertEqual(len(self.flushLoggedErrors(defer.TimeoutError, CancelledError)), 2)

    def test_who_has_asked_may_cancel(self) -> None:
        call = self.call(Deferred)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.assertEqual((self.outcomes, self.clock.getDelayedCalls()), (["ok"], []))


class OrderTests(CallerCase):
    def test_one_after_the_other_in_the_order_of_the_questions(self) -> None:
        begun: list[int] = []
        waiting: list[Deferred[None]] = [Deferred() for _ in range(3)]

        def callback(number: int) -> Deferred[None]:
            begun.append(number)
            return waiting[number]

        calls = [self.call(callback, number) for number in range(3)]
        self.assertEqual(begun, [0])
        waiting[0].callback(None)
        self.assertEqual(begun, [0, 1])
        waiting[1].errback(Refusal(replies.UNKNOWN_USER))
        self.assertEqual(begun, [0, 1, 2])
        waiting[2].callback(None)
        self.refused(calls[1])
        self.assertEqual([self.successResultOf(calls[number]) for number in (0, 2)], [None, None])

    def test_who_waits_for_its_turn_may_leave(self) -> None:
        first: Deferred[None] = Deferred()
        begun: list[str] = []
        self.call(lambda: first)
        second, third = self.call(begun.append, "second"), self.call(begun.append, "third")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.callback(None)
        self.successResultOf(third)
        self.assertEqual(begun, ["third"])

    def test_the_time_begins_with_the_turn(self) -> None:
        first: Deferred[None] = Deferred()
        self.call(lambda: first)
        second = self.call(Deferred)
        self.clock.advance(TIMEOUT - 1)
        first.callback(None)
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(second)
        self.clock.advance(1)
        self.refused(second)


class StallTests(CallerCase):
    def blocks(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def test_the_longest_piece_between_two_waits_counts(self) -> None:
        async def works() -> None:
            self.blocks(0.01)
            await succeed(None)
            self.blocks(0.04)
            await waiting
            self.blocks(0.02)

        waiting: Deferred[None] = Deferred()
        call = self.call(works)
        self.clock.advance(5)  # to wait holds nobody up
        waiting.callback(None)
        self.successResultOf(call)
        self.assertEqual(self.observed.seen, [("tickets", "rcpt", 0.05, "ok")])

    def test_one_that_holds_everybody_up_is_told_by_name_once_for_each_that_is_worse(self) -> None:
        for seconds in (LONG_STEP, 0.2, 0.2, 0.1, 0.3):
            self.successResultOf(self.call(self.blocks, seconds))
        told = [(e["app"], e["callback"], e["milliseconds"]) for e in self.named("app-stall")]
        self.assertEqual(told, [("tickets", "rcpt", 200), ("tickets", "rcpt", 300)])

    def test_one_that_fails_is_measured_too(self) -> None:
        async def fails() -> None:
            try:
                await Deferred()
            except CancelledError:
                self.blocks(0.2)
                raise

        call = self.call(fails)
        self.clock.advance(TIMEOUT)
        self.refused(call)
        self.assertEqual(self.observed.seen, [("tickets", "rcpt", 0.2, "timeout")])


class ThreadedTests(CallerCase):
    def setUp(self) -> None:
        super().setUp()
        self.in_thread = False
        self.runs = 0
        self.waits: list[Deferred[None]] = []
        self.caller = self.new_caller(Threaded(self.run_in_thread))

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """A thread that has its time at once."""
        self.runs += 1
        self.in_thread = True
        try:
            return defer.execute(function, *arguments)
        finally:
            self.in_thread = False

    def test_the_whole_of_a_coroutine_runs_in_threads(self) -> None:
        seen: list[bool] = []
        waiting: Deferred[str] = Deferred()

        async def callback() -> str:
            seen.append(self.in_thread)
            answer = await waiting
            seen.append(self.in_thread)
            return answer

        call = self.call(callback)
        self.assertNoResult(call)
        waiting.callback("yes")
        self.assertEqual(self.successResultOf(call), "yes")
        self.assertEqual(seen, [True, True])

    def test_a_method_that_blocks_holds_up_nobody(self) -> None:
        self.assertEqual(self.successResultOf(self.call(lambda: self.clock.advance(1) or "done")), "done")
        self.assertEqual(self.observed.seen, [("tickets", "rcpt", 0.0, "ok")])

    def test_a_deferred_is_waited_for_in_the_reactor(self) -> None:
        waiting: Deferred[str] = Deferred()
        call = self.call(lambda: waiting)
        waiting.callback("yes")
        self.assertEqual((self.successResultOf(call), self.runs), ("yes", 1))

    def test_what_is_raised_comes_out(self) -> None:
        async def no() -> None:
            try:
                await defer.fail(KeyError("x"))
            except KeyError:
                raise Refusal(replies.UNKNOWN_USER) from None

        self.assertEqual(self.refused(self.call(no)).reply, replies.UNKNOWN_USER)

    def test_cancelled_it_can_tidy_up_in_its_thread(self) -> None:
        seen: list[bool] = []

        async def hangs() -> None:
            try:
                await Deferred()
            finally:
                seen.append(self.in_thread)

        call = self.call(hangs)
        self.clock.advance(TIMEOUT)
        self.refused(call)
        gc.collect()
        self.assertEqual((seen, self.outcomes, self.flushLoggedErrors()), ([True], ["timeout"], []))

    def test_a_thread_that_hangs_keeps_nobody_waiting(self) -> None:
        self.caller = self.new_caller(Threaded(lambda *_: Deferred()))
        call = self.call(str)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.refused(call).reply, replies.LOCAL_TROUBLE)

    def test_what_asyncio_knows_cannot_be_awaited_there(self) -> None:
        class Future:
            def __await__(self) -> Any:
                yield self

        async def awaits() -> None:
            await Future()

        self.refused(self.call(awaits))
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("Future", str(failure.value))


class AsyncioTests(CallerCase):
    """In a loop of asyncio, as under its reactor; nothing in it waits for a clock."""

    def in_loop(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run(test())
        gc.collect()

    async def turns(self, call: Deferred[Any]) -> None:
        """Let the loop come round until the call is over."""
        call.addErrback(lambda failure: failure)
        for _ in range(20):
            if call.called:
                return
            await asyncio.sleep(0)
        raise AssertionError("the call does not end")

    def test_futures_and_deferreds_can_be_awaited(self) -> None:
        async def test() -> None:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            waiting: Deferred[str] = Deferred()

            async def callback() -> list[str]:
                await asyncio.sleep(0)
                return [await future, await waiting, await succeed("c")]

            call = self.call(callback)
            await asyncio.sleep(0)
            future.set_result("a")
            await asyncio.sleep(0)
            waiting.callback("b")
            await self.turns(call)
            self.assertEqual(self.successResultOf(call), ["a", "b", "c"])

        self.in_loop(test)

    def test_a_task_is_an_answer(self) -> None:
        async def test() -> None:
            async def work() -> str:
                return "done"

            call = self.call(lambda: asyncio.create_task(work()))
            await self.turns(call)
            self.assertEqual(self.successResultOf(call), "done")

        self.in_loop(test)

    def test_errors_of_deferreds_and_futures_come_where_they_are_awaited(self) -> None:
        async def test() -> None:
            async def callback() -> str:
                future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                future.set_exception(KeyError("future"))
                told = []
                for waited_for in (defer.fail(KeyError("deferred")), future):
                    try:
                        await waited_for
                    except KeyError as error:
                        told.append(str(error))
                raise Refusal(replies.UNKNOWN_USER, " ".join(told))

            call = self.call(callback)
            await self.turns(call)
            self.assertEqual(self.refused(call).detail, "'deferred' 'future'")

        self.in_loop(test)

    def hanging(self, waited_for: Callable[[], Any]) -> list[str]:
        """What a callback sees that awaits this for too long."""
        told: list[str] = []

        async def test() -> None:
            async def hangs() -> None:
                try:
                    await waited_for()
                except asyncio.CancelledError:
                    told.append("cancelled")
                    raise

            call = self.call(hangs)
            await asyncio.sleep(0)
            self.clock.advance(TIMEOUT)
            self.assertEqual(self.refused(call).reply, replies.LOCAL_TROUBLE)
            for _ in range(5):
                await asyncio.sleep(0)

        self.in_loop(test)
        self.assertEqual((self.outcomes, self.flushLoggedErrors()), (["timeout"], []))
        return told

    def test_one_that_waits_for_a_future_too_long_is_cancelled(self) -> None:
        self.assertEqual(self.hanging(lambda: asyncio.get_running_loop().create_future()), ["cancelled"])

    def test_one_that_waits_for_a_deferred_too_long_is_cancelled_and_so_is_that(self) -> None:
        cancelled: list[Any] = []
        self.assertEqual(self.hanging(lambda: Deferred(cancelled.append)), ["cancelled"])
        self.assertEqual(len(cancelled), 1)

    def test_who_has_asked_may_cancel(self) -> None:
        async def test() -> None:
            call = self.call(asyncio.get_running_loop().create_future)
            await asyncio.sleep(0)
            call.cancel()
            self.failureResultOf(call, CancelledError)

        self.in_loop(test)
        self.assertEqual(self.outcomes, ["ok"])

    def test_a_timeout_of_asyncio_works_around_a_deferred(self) -> None:
        async def test() -> None:
            async def callback() -> str:
                try:
                    async with asyncio.timeout(0):
                        await Deferred()
                except TimeoutError:
                    return "in time"
                return "never"

            call = self.call(callback)
            await self.turns(call)
            self.assertEqual(self.successResultOf(call), "in time")

        self.in_loop(test)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_app_that_exits_does_not_stop_the_loop(self) -> None:
        async def test() -> None:
            async def exits() -> None:
                raise SystemExit(3)

            call = self.call(exits)
            await self.turns(call)
            self.assertEqual(self.refused(call).reply, replies.LOCAL_TROUBLE)

        self.in_loop(test)
        (failure,) = self.flushLoggedErrors(Exit)
        self.assertEqual((failure.value.code, str(failure.value)), (3, "sys.exit(3)"))

    def test_steps_are_measured(self) -> None:
        async def test() -> None:
            async def works() -> None:
                await asyncio.sleep(0)
                self.clock.advance(0.2)

            await self.turns(self.call(works))

        self.in_loop(test)
        self.assertEqual(self.observed.seen, [("tickets", "rcpt", 0.2, "ok")])
