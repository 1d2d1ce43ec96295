"""Mail into a program: the sums; the programs themselves are run by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench import programs


class FigureTests(SynchronousTestCase):
    def test_medians(self) -> None:
        figures = [programs.Figure(10, 5), programs.Figure(30, 1), programs.Figure(20, 9)]
        self.assertEqual(programs.medians(figures), programs.Figure(20, 5))

    def test_a_row_has_both_ratios(self) -> None:
        row = programs.row("small", programs.Figure(2000, 200), programs.Figure(500, 1000))
        self.assertEqual(row, "| small | 2,000/s | 500/s | 4.0 | 200 us | 1,000 us | 5.0 |")
