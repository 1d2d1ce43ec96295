"""bench/growth.py: mailboxes that are full at once, and how flat a series is."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import growth
from bench.growth import GrowthFigures, fill
from bench.idle import IdleFigures


class GrowthTests(SynchronousTestCase):
    def test_a_mailbox_is_filled_with_names_that_tell_a_size(self) -> None:
        self.patch(growth, "_LINKS", 3)
        folder = Path(self.mktemp())
        folder.mkdir()
        fill(folder, 8)
        files = list(folder.iterdir())
        self.assertEqual(len(files), 8)
        self.assertTrue(all(",S=4096" in path.name for path in files))
        self.assertEqual(sorted(path.stat().st_nlink for path in files), [2, 2, 3, 3, 3, 3, 3, 3])

    def test_the_spread_is_how_far_the_slowest_lies_below_the_fastest(self) -> None:
        figures = GrowthFigures("mailserver", "accounts", (10, 100, 1000), (800.0, 1000.0, 900.0))
        self.assertAlmostEqual(figures.spread, 0.2)
        self.assertEqual(figures.as_json()["messages_per_second"], (800.0, 1000.0, 900.0))

    def test_an_idle_connection_costs_its_share_of_what_was_added(self) -> None:
        self.assertEqual(IdleFigures("mailserver", False, 100, 1000, 301_000).each, 3000)
