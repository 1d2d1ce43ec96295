"""`discard` and `reject`."""

from __future__ import annotations

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.loading import check_class
from mailserver.apps.message import Message
from mailserver.apps.ready import Discard, DiscardOptions, Reject, RejectOptions
from mailserver.apps.view import AppAddress
from mailserver.reply import Refusal, Reply
from tests.apps.test_common import envelope_to


class DiscardTests(SynchronousTestCase):
    def test_it_counts_what_it_throws_away(self) -> None:
        app = Discard()
        app.shared = Discard.setup(DiscardOptions())
        for octets in (b"12345", b"67"):
            self.assertIsNone(app.message(envelope_to("b@example.org"), Message.of(octets)))
        self.assertEqual((app.shared.messages, app.shared.octets), (2, 7))

    def test_it_is_an_app_without_options(self) -> None:
        check_class(Discard)
        self.assertRaises(ValidationError, DiscardOptions, text="x")


class RejectTests(SynchronousTestCase):
    def refusal(self, **options: object) -> Reply:
        app = Reject()
        app.options = RejectOptions.model_validate(options)
        return self.assertRaises(Refusal, app.rcpt, AppAddress("b", "example.org"), {}).reply

    def test_it_refuses_with_its_text(self) -> None:
        check_class(Reject)
        self.assertEqual(self.refusal(text="Closed"), Reply(550, "5.7.1", "Closed"))
        self.assertEqual(self.refusal(text="Later", code=450), Reply(450, "4.7.1", "Later"))
        self.assertEqual(self.refusal(code=551, enhanced="5.1.6"), Reply(551, "5.1.6", "Not accepted here"))

    def test_what_is_no_refusal_cannot_be_said(self) -> None:
        for bad in ({"code": 250}, {"code": 600}, {"code": 550, "enhanced": "4.7.1"}, {"text": ""}, {"word": "x"}):
            self.assertRaises(ValidationError, RejectOptions.model_validate, bad)
