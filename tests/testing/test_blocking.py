"""The server in a thread: its tests are `blocking_cases`, in a process whose reactor is free."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.programs import ROOT, run


class BlockingTests(SynchronousTestCase):
    def folder(self) -> Path:
        path = Path(self.mktemp()).absolute()
        path.mkdir(parents=True)
        return path

    def test_all_cases_pass_and_leave_no_file(self) -> None:
        folder = self.folder()
        told = run(folder, "-W", "error::ResourceWarning", "-m", "unittest", "tests.testing.blocking_cases")
        tree = ast.parse((ROOT / "tests" / "testing" / "blocking_cases.py").read_text("utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        cases = [name for name in names if name.startswith("test_")]
        self.assertIn(f"Ran {len(cases)} tests", told)
        self.assertNotIn("Traceback", told)
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_program_that_forgets_to_stop_ends_and_leaves_no_file(self) -> None:
        folder = self.folder()
        code = "from mailserver.testing import MailServer; print(MailServer(tls='both').start().port)"
        self.assertTrue(run(folder, "-W", "ignore::ResourceWarning", "-c", code).strip().isdigit())
        self.assertEqual(list(folder.iterdir()), [])

    def test_nothing_heavy_is_imported_before_it_is_used(self) -> None:
        code = (
            "import sys, mailserver.testing; print([name for name in ('twisted', 'pydantic') if name in sys.modules])"
        )
        self.assertEqual(run(self.folder(), "-c", code).strip(), "[]")
