"""
What the crash tests have in common: a directory for disks and data, and an end that leaves nothing behind.

In: the kind of blow, the variant.  Out: `CrashTestCase.series`; a test that cannot be done here is skipped, with the reason.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.crash.mailboxes import Loss
from tests.crash.series import Series, missing
from tests.crash.variants import Variant


class CrashTestCase(SynchronousTestCase):
    """
    Tests with blows; trial calls the cleanups also when a test fails, and the mounts are in a namespace of our own.
    """

    #: See `Series`.
    begin = 0

    def new_directory(self) -> Path:
        """A directory for configuration, log, disks; short enough for a Unix socket."""
        directory = Path(tempfile.mkdtemp(prefix="mailserver-crash-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def series(self, kind: str, variant: Variant, *, sabotage: str = "") -> Series:
        """Blows of this kind to a server of this variant; SkipTest when either cannot be had."""
        reason = missing(kind) or variant.missing()
        if reason is not None:
            raise SkipTest(reason)
        series = Series(kind, variant, self.id().rpartition(".")[2].replace("_", "-").lower(), self.new_directory())
        series.sabotage = sabotage
        series.begin = self.begin
        self.addCleanup(series.close)
        return series

    def strike(self, kind: str, variant: Variant, count: int = 1) -> None:
        """So many blows; nothing may be lost."""
        series = self.series(kind, variant)
        try:
            told = list(series.blows(count))
        except Loss as loss:
            self.fail(f"{series.doing}: {loss}\n{series.told()}")
        self.assertEqual(len(told), count)
