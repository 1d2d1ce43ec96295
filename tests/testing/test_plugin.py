"""The plugin for pytest: the example of the manual, as its reader runs it; what it costs whoever does not use it."""

from __future__ import annotations

import configparser
import importlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.programs import EXAMPLES, ROOT, run

PLUGIN = "mailserver.testing.plugin"
FAILING = """
def test_it(mailserver):
    mailserver.wait_for_message(to="b@example.org", timeout=0.01)
"""


class PluginTests(SynchronousTestCase):
    def folder(self) -> Path:
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def pytest(self, folder: Path, *arguments: str, fails: bool = False) -> str:
        # By its name: whether the entry point is installed, is another question (`test_pytest_finds_it`).
        options = ("-q", "-p", "no:cacheprovider", "--strict-markers", "-p", PLUGIN)
        return run(folder, "-m", "pytest", *options, *arguments, fails=fails, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    def test_the_example_passes(self) -> None:
        folder = self.folder()
        told = self.pytest(folder, "-W", "error", str(EXAMPLES / "test_with_pytest.py"))
        self.assertIn("8 passed", told)
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_message_that_does_not_come_is_a_failure(self) -> None:
        folder = self.folder()
        (folder / "test_failing.py").write_text(FAILING, "utf-8")
        told = self.pytest(folder, "test_failing.py", fails=True)
        self.assertIn("1 failed", told)
        self.assertIn("no message to b@example.org within 0.01 s; no message has arrived", told)

    def test_its_fixtures_and_its_marker_are_told(self) -> None:
        folder = self.folder()
        told = self.pytest(folder, "--fixtures", "--markers")
        self.assertIn("mailserver(**options): the arguments of the fixture's MailServer", told)

    def test_pytest_finds_it(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg", "utf-8")
        declared = setup["options.entry_points"]["pytest11"]
        self.assertEqual(declared.strip(), f"mailserver = {PLUGIN}")
        self.assertTrue(importlib.util.find_spec(PLUGIN))

    def test_who_does_not_use_it_does_not_pay_for_it(self) -> None:
        code = f"import sys, {PLUGIN}; print([each for each in ('twisted', 'pydantic') if each in sys.modules])"
        self.assertEqual(run(self.folder(), "-c", code).strip(), "[]")
