"""The mixin for unittest: the example of the manual, as its reader runs it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.programs import EXAMPLES, run

FAILING = """
import unittest
from mailserver.testing import MailServerMixin
class Tests(MailServerMixin, unittest.TestCase):
    def test_it(self):
        more = self.start_mailserver(lmtp=True)
        print(more.lmtp_port != self.mailserver.port)
        self.mailserver.wait_for_message(to="b@example.org", timeout=0.01)
unittest.main()
"""


class MixinTests(SynchronousTestCase):
    def folder(self) -> Path:
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def test_the_example_passes(self) -> None:
        folder = self.folder()
        told = run(folder, "-W", "error::ResourceWarning", str(EXAMPLES / "with_unittest.py"))
        self.assertIn("Ran 3 tests", told)
        self.assertIn("OK", told)
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_message_that_does_not_come_is_a_failure_and_no_error(self) -> None:
        told = run(self.folder(), "-c", FAILING, fails=True)
        self.assertIn("True", told)
        self.assertIn("FAILED (failures=1)", told)
        self.assertIn("no message to b@example.org within 0.01 s; no message has arrived", told)
