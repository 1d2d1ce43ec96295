"""The TestCase for trial: used here as its users use it, and the example of the manual as its reader runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from mailserver.testing import Options
from mailserver.testing.trial import MailServerTestCase
from tests.testing.clients import send
from tests.testing.programs import EXAMPLES, run


class OwnTests(MailServerTestCase):
    timeout = 60
    mailserver_options: ClassVar[Options] = {"inboxes": ["b@example.org"]}

    def setUp(self) -> Any:
        self.before = getattr(self, "mailserver", None)
        return super().setUp()

    async def test_each_test_has_a_server(self) -> None:
        self.assertIsNone(self.before)
        await self.in_thread(send, self.mailserver)
        self.assertEqual(len(self.mailserver.messages), 1)

    def test_a_generator_may_wait_too(self) -> Any:
        waiting = self.mailserver.wait_for_message(timeout=20)
        return self.in_thread(send, self.mailserver).addCallback(lambda _: waiting)

    async def test_there_may_be_more_of_them(self) -> None:
        more = await self.start_mailserver()
        await self.in_thread(send, more, "anybody@example.com")
        self.assertEqual((len(more.messages), self.mailserver.messages), (1, []))


class ExampleTests(SynchronousTestCase):
    def test_the_example_passes(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        told = run(folder, "-m", "twisted.trial", str(EXAMPLES / "test_with_trial.py"))
        self.assertIn("PASSED (successes=3)", told)
        self.assertEqual([path.name for path in folder.iterdir()], ["_trial_temp"])
