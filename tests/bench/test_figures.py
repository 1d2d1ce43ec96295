"""bench/figures.py: medians, rates, ratios."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from bench.figures import longest_stall, ratio
from tests.bench.figures import figures


class FiguresTests(SynchronousTestCase):
    def test_the_median_is_taken_over_the_rounds(self) -> None:
        measured = figures("mailserver", 1.0, 8.0, 2.0)
        self.assertEqual(measured.delivered, 500)
        self.assertEqual(measured.accepted, 1000)
        self.assertEqual(measured.settled, 250)
        self.assertEqual(measured.range, (125, 1000))

    def test_what_is_told_of_each_message_is_divided_by_the_messages(self) -> None:
        measured = figures("mailserver", 1.0)
        self.assertEqual(measured.cpu, 500)
        self.assertEqual(measured.flushes, 0.25)
        self.assertEqual(measured.memory, 64 * 2**20)

    def test_the_ratio_compares_what_was_delivered_in_the_same_run(self) -> None:
        ours, postfix = figures("mailserver", 1.0), figures("postfix", 4.0)
        self.assertEqual(ratio(ours, [ours, postfix]), 4)
        self.assertEqual(ratio(postfix, [ours, postfix]), 1)
        self.assertIsNone(ratio(ours, [ours]))

    def test_all_of_it_can_be_written_as_json(self) -> None:
        told = json.loads(json.dumps(figures("postfix", 1.0, 3.0, 2.0, syncs=None).as_json()))
        self.assertEqual(told["delivered_per_second"], 500)
        self.assertEqual([each["delivered"] for each in told["rounds"]], [1, 3, 2])
        self.assertIsNone(told["syncs_per_message"])

    def test_the_stall_is_read_where_the_server_tells_it(self) -> None:
        self.assertEqual(longest_stall({"reactor": {"longest_stall": 0.004}}), 0.004)
        for other in ({}, {"reactor": None}, {"reactor": {}}, {"reactor": {"longest_stall": None}}, None):
            self.assertIsNone(longest_stall(other), other)
