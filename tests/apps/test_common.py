"""What `command` and `webhook` have in common: quantities, places, an answer for each recipient."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.apps.common import BUSY, Delivering, DeliveryOptions, Octets, ReadyOptions, Seconds, Slots
from mailserver.apps.view import AppAddress
from mailserver.envelope import Envelope, Recipient
from mailserver.reply import LOCAL_TROUBLE, UNKNOWN_USER, Refusal


def envelope_to(*recipients: str) -> Envelope:
    """From a@example.com to these."""
    people = tuple(Recipient(parse_address(each)) for each in recipients)
    return Envelope("ID1", parse_address("a@example.com"), people)


class Shared:
    """As much as `Delivering` needs."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots


def delivering(slots: Slots | None = None, **options: Any) -> Delivering:
    """An app with these options."""
    app = Delivering()
    app.name = "test"
    app.options = DeliveryOptions(**options)
    app.shared = Shared(slots or Slots(10, 10))
    return app


class QuantityTests(SynchronousTestCase):
    class Options(ReadyOptions):
        """One of each."""

        size: Octets = 0
        time: Seconds = 1.0

    def test_sizes_and_times_as_people_write_them(self) -> None:
        for text, octets in (("5 MiB", 5 * 2**20), ("1kb", 1000), (17, 17), ("17", 17)):
            self.assertEqual(self.Options(size=text).size, octets)
        for text, seconds in (("30 s", 30.0), ("2 min", 120.0), (0.5, 0.5), ("500ms", 0.5)):
            self.assertEqual(self.Options(time=text).time, seconds)

    def test_what_is_none_is_refused(self) -> None:
        for bad in ({"size": "5 apples"}, {"size": -1}, {"time": 0}, {"time": "2 h"}, {"time": "soon"}, {"other": 1}):
            self.assertRaises(ValidationError, self.Options, **bad)

    def test_an_error_does_not_quote_the_value(self) -> None:
        error = self.assertRaises(ValidationError, self.Options, size="hunter2")
        self.assertNotIn("hunter2", str(error))


class SlotsTests(SynchronousTestCase):
    def test_more_than_may_wait_are_refused(self) -> None:
        slots = Slots(1, 1)
        with slots.message(), slots.message():
            refused = self.assertRaises(Refusal, slots.message().__enter__)
            self.assertEqual(refused.reply, BUSY)
        with slots.message():
            self.assertEqual(slots.messages, 1)
        self.assertEqual(slots.messages, 0)

    def test_a_place_is_waited_for(self) -> None:
        slots = Slots(1, 0)
        give_back = self.successResultOf(ensureDeferred(slots.take()))
        second = ensureDeferred(slots.take())
        self.assertNoResult(second)
        give_back()
        self.successResultOf(second)

    def test_who_gives_up_waiting_takes_no_place(self) -> None:
        slots = Slots(1, 0)
        give_back = self.successResultOf(ensureDeferred(slots.take()))
        second = ensureDeferred(slots.take())
        second.cancel()
        self.failureResultOf(second, CancelledError)
        give_back()
        self.successResultOf(ensureDeferred(slots.take()))


class DeliverTests(SynchronousTestCase):
    def test_one_recipient_gets_the_answer_itself(self) -> None:
        app = delivering()
        done = ensureDeferred(app.deliver(envelope_to("b@example.org"), lambda them: succeed("yes")))
        self.assertEqual(self.successResultOf(done), "yes")

    def test_each_recipient_gets_its_own(self) -> None:
        async def act(recipients: tuple[Recipient, ...]) -> str:
            (one,) = recipients
            if one.address.local == "c":
                raise Refusal(UNKNOWN_USER)
            return one.address.local

        done = ensureDeferred(delivering().deliver(envelope_to("b@example.org", "c@example.org"), act))
        answers = {str(address): answer for address, answer in self.successResultOf(done).items()}
        self.assertEqual(answers["b@example.org"], "b")
        self.assertEqual(answers["c@example.org"].reply, UNKNOWN_USER)

    def test_all_together_when_the_options_say_so(self) -> None:
        seen = []

        async def act(recipients: tuple[Recipient, ...]) -> None:
            seen.append(len(recipients))

        envelope = envelope_to("b@example.org", "c@example.org")
        self.assertIsNone(self.successResultOf(ensureDeferred(delivering(each="message").deliver(envelope, act))))
        self.assertEqual(seen, [2])

    def test_a_mistake_for_one_costs_that_one_a_451_and_is_logged(self) -> None:
        async def act(recipients: tuple[Recipient, ...]) -> None:
            if recipients[0].address.local == "b":
                raise KeyError("b")

        done = ensureDeferred(delivering().deliver(envelope_to("b@example.org", "c@example.org"), act))
        answers = {str(address): answer for address, answer in self.successResultOf(done).items()}
        self.assertEqual(answers["b@example.org"].reply, LOCAL_TROUBLE)
        self.assertIsNone(answers["c@example.org"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_cancelling_reaches_each_and_is_no_answer(self) -> None:
        waits: list[Deferred[None]] = []

        async def act(recipients: tuple[Recipient, ...]) -> None:
            waits.append(Deferred())
            await waits[-1]

        app = delivering()
        done = ensureDeferred(app.deliver(envelope_to("b@example.org", "c@example.org"), act))
        self.assertEqual((len(waits), app.shared.slots.messages), (2, 1))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(app.shared.slots.messages, 0)
        self.assertTrue(all(each.called for each in waits))


class RecipientTests(SynchronousTestCase):
    def test_bad_arguments_are_refused_at_rcpt_where_arguments_are_wanted(self) -> None:
        bad = AppAddress("run+a=%", "example.org")
        delivering().rcpt(bad, {})
        refused = self.assertRaises(Refusal, delivering(arguments=True).rcpt, bad, {})
        self.assertEqual((refused.reply.code, refused.reply.enhanced), (553, "5.1.3"))
        delivering(arguments=True).rcpt(AppAddress("run+a=1", "example.org"), {})
