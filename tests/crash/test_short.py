"""
The short form of the crash tests: ten blows, each to another kind of server.  The long form is `python -m tests.crash`.

What cannot be done on this machine, or by this version of the server, is skipped with the reason.
"""

from __future__ import annotations

from tests.crash.case import CrashTestCase
from tests.crash.variants import BY_NAME, FILESYNC, JOURNAL, SHIPPED


class ShortTests(CrashTestCase):
    """One blow each, two where one is under load and one in a quiet moment."""

    def test_kill_as_shipped(self) -> None:
        self.strike("kill", SHIPPED)

    def test_kill_two_workers(self) -> None:
        self.strike("kill", BY_NAME["2 workers"])

    def test_kill_at_a_system_call_filesync(self) -> None:
        self.strike("strace", FILESYNC)

    def test_kill_at_a_system_call_journal(self) -> None:
        self.strike("strace", JOURNAL)

    def test_power_cuts_as_shipped(self) -> None:
        self.strike("power", SHIPPED, 2)

    def test_power_cuts_filesync(self) -> None:
        self.strike("power", FILESYNC, 2)

    def test_power_cuts_journal(self) -> None:
        self.strike("power", JOURNAL, 2)

    def test_full_disk_as_shipped(self) -> None:
        self.strike("full", SHIPPED)

    def test_failing_calls_filesync(self) -> None:
        self.strike("fault", FILESYNC, 2)

    def test_failing_calls_and_a_power_cut_journal(self) -> None:
        self.strike("faultcut", JOURNAL, 2)
