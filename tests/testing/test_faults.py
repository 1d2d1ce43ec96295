"""When something goes wrong, how often, and in which words."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import Peer
from mailserver.reply import Refusal, Reply
from mailserver.testing.faults import (
    Effect,
    Faults,
    Moment,
    both,
    for_recipient,
    for_sender,
    refusal_of,
    reply_of,
)
from tests.testing.messages import envelope

NO = Effect(reply=Reply(451, "4.3.0", "no"))
YES = Effect(reply=Reply(250, "2.0.0", "certainly"))
WAIT = Effect(seconds=1.0)


def moment(stage: str = "rcpt", **others: Any) -> Moment:
    return Moment(stage, Peer("192.0.2.1"), **others)


class FaultsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.faults = Faults()

    def add(self, effect: Effect, stage: str = "rcpt", **how: Any) -> Any:
        return self.faults.add(stage, effect, **{"times": 1, "where": None, **how})

    def test_it_goes_wrong_as_often_as_was_said(self) -> None:
        fault = self.add(NO, times=2)
        self.assertEqual([list(self.faults.take(moment())) for _ in range(3)], [[NO], [NO], []])
        self.assertEqual((fault.count, fault.left, len(self.faults)), (2, 0, 0))

    def test_it_goes_wrong_until_it_is_taken_back(self) -> None:
        fault = self.add(NO, times=None)
        for _ in range(5):
            self.assertEqual(self.faults.take(moment()), [NO])
        fault.take_back()
        fault.take_back()
        self.assertEqual((self.faults.take(moment()), fault.count), ([], 5))

    def test_as_a_context_manager_it_lasts_for_the_block(self) -> None:
        with self.add(NO, to_block=True):
            self.assertEqual([list(self.faults.take(moment())) for _ in range(3)], [[NO]] * 3)
        self.assertEqual(self.faults.take(moment()), [])

    def test_a_number_holds_in_a_block_too(self) -> None:
        with self.add(NO, times=1):
            self.assertEqual([list(self.faults.take(moment())) for _ in range(2)], [[NO], []])

    def test_other_stages_and_other_moments_are_let_be(self) -> None:
        self.add(NO, where=lambda each: each.recipient == "b@example.org")
        self.assertEqual(self.faults.take(moment("mail", recipient="b@example.org")), [])
        self.assertEqual(self.faults.take(moment(recipient="c@example.org")), [])
        self.assertEqual(self.faults.take(moment(recipient="b@example.org")), [NO])

    def test_delays_add_up_and_the_first_that_is_more_is_the_last(self) -> None:
        self.add(WAIT)
        self.add(WAIT)
        self.add(YES)
        self.add(NO)
        self.assertEqual(self.faults.take(moment()), [WAIT, WAIT, YES])
        self.assertEqual(self.faults.take(moment()), [NO])

    def test_what_nobody_looks_at_stays(self) -> None:
        self.add(NO)
        self.assertEqual(self.faults.take(moment(), lambda effect: not effect.refuses), [])
        self.assertEqual(self.faults.take(moment()), [NO])

    def test_a_text_must_have_come_so_far(self) -> None:
        drop = Effect(drop=True, octets=100)
        self.add(drop, "text")
        self.assertEqual(self.faults.take(moment("text", octets=99)), [])
        self.assertEqual(self.faults.take(moment("text", octets=100)), [drop])

    def test_all_may_be_forgotten(self) -> None:
        self.add(NO, times=None)
        self.faults.clear()
        self.assertEqual(self.faults.take(moment()), [])

    def test_what_makes_no_sense_is_named(self) -> None:
        for effect, how, words in (
            (NO, {"stage": "lunch"}, "'lunch' is no stage; there are connect"),
            (NO, {"times": 0}, "0 times"),
            (NO, {"stage": "text"}, "a text is answered at its end"),
        ):
            error = self.assertRaises(ValueError, self.add, effect, **how)
            self.assertIn(words, str(error))
        self.assertEqual(len(self.faults), 0)

    def test_it_tells_how_it_stands(self) -> None:
        fault = self.add(NO, times=2)
        self.faults.take(moment())
        self.assertIn("1 times, 1 more", repr(fault))
        self.assertIn("until taken back", repr(self.add(NO, times=None)))


class WhereTests(SynchronousTestCase):
    def test_senders(self) -> None:
        mail, bounce = moment("mail", envelope=envelope()), moment("mail", envelope=envelope(""))
        self.assertTrue(for_sender("*@example.net")(mail))
        self.assertFalse(for_sender("*@example.org")(mail))
        self.assertFalse(for_sender("*@example.net")(bounce))
        for null in ("", "<>"):
            self.assertTrue(for_sender(null)(bounce))
            self.assertFalse(for_sender(null)(mail))
        self.assertEqual((mail.sender, bounce.sender, moment().sender), ("a@example.net", "", ""))

    def test_the_recipient_of_the_moment_or_one_of_the_message(self) -> None:
        two = envelope("a@example.net", "b@example.org", "c@example.org")
        fits = for_recipient("C@example.org")
        self.assertTrue(fits(moment("message", envelope=two)))
        self.assertFalse(fits(moment("message", envelope=two, recipient="b@example.org")))
        self.assertTrue(fits(moment("rcpt", envelope=envelope(), recipient="c@example.org")))
        self.assertFalse(fits(moment("rcpt", recipient="Postmaster")))

    def test_both_must_be_true(self) -> None:
        self.assertIsNone(both(None, None))
        asked = both(for_recipient("*@example.org"), lambda each: each.name == "client")
        assert asked is not None
        self.assertTrue(asked(moment(recipient="b@example.org", name="client")))
        self.assertFalse(asked(moment(recipient="b@example.org", name="other")))
        self.assertFalse(asked(moment(recipient="b@example.com", name="client")))


class ReplyTests(SynchronousTestCase):
    def test_what_is_easy_to_write_is_a_reply(self) -> None:
        for given, wanted in (
            (Reply(550, "5.1.1", "no"), "550 5.1.1 no"),
            (Refusal(Reply(451, "4.3.0", "later")), "451 4.3.0 later"),
            (452, "452 4.0.0 As the test wants it"),
            (354, "354 As the test wants it"),
            ("451 4.7.1 Greylisted, come back", "451 4.7.1 Greylisted, come back"),
            ("250 fine", "250 fine"),
            ("550", "550 "),
            ((451, "4.3.0", "text"), "451 4.3.0 text"),
            ((451, "text"), "451 text"),
        ):
            self.assertEqual(str(reply_of(given)), wanted)

    def test_what_is_none_is_refused(self) -> None:
        for given in ("no", "999 no", True, (451, "5.3.0", "text"), 199):
            self.assertRaises(ValueError, reply_of, given)

    def test_a_yes_is_no_refusal(self) -> None:
        error = self.assertRaises(ValueError, refusal_of, 250)
        self.assertIn("250 is no refusal", str(error))
