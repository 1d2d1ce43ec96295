"""What both forms share: the names they offer, and what they say when nothing runs."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mailserver.testing
from mailserver.testing import AsyncMailServer, MailServer
from mailserver.testing.front import Front


class NamesTests(SynchronousTestCase):
    def test_both_forms_take_the_same(self) -> None:
        for name in ("wait_for_message", "assert_no_message", "start", "stop", "stop_listening", "listen_again"):
            taken = [
                list(inspect.signature(getattr(form, name)).parameters) for form in (MailServer, AsyncMailServer)
            ]
            self.assertEqual(taken[0], taken[1], name)

    def test_every_name_of_the_package_is_there(self) -> None:
        for name in mailserver.testing.__all__:
            self.assertIsNotNone(getattr(mailserver.testing, name))
        self.assertRaises(AttributeError, lambda: mailserver.testing.Nothing)  # type: ignore[attr-defined]


class FrontTests(SynchronousTestCase):
    def test_without_a_running_server_there_is_nothing_to_see(self) -> None:
        front = Front()
        for name in ("port", "messages", "inboxes", "certificate", "connections"):
            error = self.assertRaises(RuntimeError, getattr, front, name)
            self.assertIn("start it first", str(error))

    def test_bad_arguments_are_errors_at_once(self) -> None:
        wrong: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"tls": "sometimes"}, ValueError),
            ({"limits": {"nonsense": 1}}, TypeError),
            ({"colour": "red"}, TypeError),
        ]
        for options, error in wrong:
            self.assertRaises(error, Front, **options)

    def test_faults_may_be_said_before_the_start(self) -> None:
        front = Front()
        front.fail("mail")
        fault = front.delay("rcpt", 1.0, times=None)
        self.assertEqual((len(front._faults), fault.left), (2, None))
        front.clear_faults()
        self.assertEqual(len(front._faults), 0)
