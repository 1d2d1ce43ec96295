"""
Would these tests see it?  Servers that break their promise, and the harness must say so.

Each test fails when nothing is found.
"""

from __future__ import annotations

import errno

from tests.crash import blows
from tests.crash.blows import Fault
from tests.crash.case import CrashTestCase
from tests.crash.mailboxes import LOST, TORN, Loss
from tests.crash.series import Series
from tests.crash.shim import IGNORE
from tests.crash.variants import FILESYNC, JOURNAL, NO_SYNC, SHIPPED, Variant

#: Where the sabotage of `Files.fsync` reaches every sync.
SWALLOWING = FILESYNC if FILESYNC.missing() is None else SHIPPED


class DetectionTests(CrashTestCase):
    """Each is a server that loses mail, or could."""

    def assert_found(self, kinds: set[str], error: Loss) -> None:
        """One of these kinds of defects at least."""
        self.assertTrue(error.kinds() & kinds, str(error))

    def cut_while_syncs_are_ignored(self, series: Series) -> None:
        """All syncs say that they did it, and did not; then a power cut in a quiet moment."""
        scene = series.scene()
        assert scene.shim is not None
        scene.shim.arm("fsync syncfs", IGNORE)
        error = self.assertRaises(Loss, blows.power, scene, quiet=True)
        self.assertGreater(scene.shim.counts().failed, 0)
        self.assert_found({LOST, TORN}, error)

    def test_no_sync_at_all_loses_mail(self) -> None:
        series = self.series("power", NO_SYNC)
        error = self.assertRaises(Loss, blows.power, series.scene(), quiet=True)
        self.assert_found({LOST, TORN}, error)

    def test_syncs_that_do_nothing_lose_mail_as_shipped(self) -> None:
        self.cut_while_syncs_are_ignored(self.series("faultcut", SHIPPED))

    def test_syncs_that_do_nothing_lose_mail_filesync(self) -> None:
        self.cut_while_syncs_are_ignored(self.series("faultcut", FILESYNC))

    def test_syncs_that_do_nothing_lose_mail_journal(self) -> None:
        self.cut_while_syncs_are_ignored(self.series("faultcut", JOURNAL))

    def test_an_error_of_a_sync_that_is_ignored_loses_mail(self) -> None:
        scene = self.series("faultcut", SWALLOWING, sabotage="swallow").scene()
        assert scene.shim is not None
        scene.shim.arm("fsync syncfs", errno.EIO)
        error = self.assertRaises(Loss, blows.power, scene, quiet=True)
        self.assertGreater(scene.shim.counts().failed, 0)
        self.assert_found({LOST, TORN}, error)

    def test_an_error_of_a_sync_that_is_ignored_is_seen_in_the_replies(self) -> None:
        scene = self.series("fault", SWALLOWING, sabotage="swallow").scene()
        error = self.assertRaises(Loss, blows.fault, scene, Fault("fsync", errno.EIO), once=False)
        self.assert_found({"ignored"}, error)

    def test_an_answer_that_comes_too_early_loses_mail(self) -> None:
        for variant in (SHIPPED, FILESYNC, JOURNAL):
            if variant.missing() is None:
                error = self.killed(variant, "early")
                self.assert_found({LOST}, error)

    def test_a_message_that_can_be_seen_while_it_is_written_is_found(self) -> None:
        error = self.killed(SWALLOWING, "visible")
        self.assert_found({TORN}, error)

    def killed(self, variant: Variant, sabotage: str) -> Loss:
        """What a SIGKILL finds at such a server."""
        error = self.assertRaises(Loss, blows.kill, self.series("kill", variant, sabotage=sabotage).scene())
        assert isinstance(error, Loss)
        return error

    def test_a_call_that_is_never_made_does_not_count_as_tested(self) -> None:
        scene = self.series("fault", SWALLOWING).scene()
        error = self.assertRaises(Loss, blows.fault, scene, Fault("truncate", errno.EIO), once=False)
        self.assert_found({"untested"}, error)
