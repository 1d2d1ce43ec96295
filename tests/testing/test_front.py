"""What both forms share: the names they offer, and what they say when nothing runs."""

from __future__ import annotations

import inspect
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mailserver.testing
from mailserver.testing import AsyncMailServer, MailServer, Options
from mailserver.testing.faults import STAGES
from mailserver.testing.front import Front
from tests.testing.programs import EXAMPLES, ROOT


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


class PageTests(SynchronousTestCase):
    """docs/testing.md shows what the examples do, and names what there is."""

    page = (ROOT / "docs" / "testing.md").read_text("utf-8")

    def test_what_it_shows_is_in_the_examples(self) -> None:
        examples = [path.read_text("utf-8") for path in EXAMPLES.glob("*.py")]
        shown = re.findall(r"```python\n(.*?)```", self.page, re.DOTALL)
        self.assertEqual((len(shown), len(examples)), (3, 3))
        for block in shown:
            for piece in re.split(r"\n\n+", block.strip("\n")):
                self.assertTrue(any(piece in text for text in examples), piece)

    def test_it_names_every_stage_and_every_argument(self) -> None:
        for name in (*STAGES, *Options.__annotations__):
            self.assertRegex(self.page, rf'`"?{name}"?`', name)

    def test_it_names_every_way_to_go_wrong(self) -> None:
        ways = [name for name, what in vars(Front).items() if "Fault" in str(getattr(what, "__annotations__", ""))]
        self.assertIn("fail_rcpt", ways)
        for name in ways:
            if not name.startswith("_"):
                self.assertIn(f"`{name}(", self.page)


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
