"""bench/report.py: tables, and the section of a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.growth import GrowthFigures
from bench.idle import IdleFigures
from bench.report import BEGIN, END, as_markdown, as_text, growth, idle, loaded, page, replaced, update
from bench.run import BenchError
from bench.workloads import BY_KEY
from tests.bench.figures import figures


class TablesTests(SynchronousTestCase):
    def table(self, *measured: object) -> dict[str, dict[str, str]]:
        """Server -> heading -> cell, of workload (a)."""
        section = loaded(BY_KEY["a"], measured)  # type: ignore[arg-type]
        return {row[0]: dict(zip(section.head, row, strict=True)) for row in section.rows}

    def test_a_row_tells_all_of_a_server(self) -> None:
        table = self.table(figures("mailserver", 0.5, 0.25, 1.0, stall=0.004), figures("postfix", 2.0))
        self.assertEqual(
            table["mailserver"],
            {
                "server": "mailserver",
                "accepted/s": "4,000",
                "delivered/s": "2,000",
                "slowest - fastest": "1,000 - 4,000",
                "written back/s": "1,000",
                "to Postfix": "4.00",
                "CPU us": "500",
                "syncs": "1.50",
                "flushes": "0.25",
                "p50 ms": "2.0",
                "p99 ms": "10.5",
                "longest stall ms": "4.0",
                "memory MiB": "64",
                "durable at the 250": "the file",
            },
        )
        self.assertEqual(table["postfix"]["to Postfix"], "1.00")
        self.assertEqual(table["postfix"]["longest stall ms"], "-")

    def test_what_was_not_measured_is_no_number(self) -> None:
        row = self.table(figures("mailserver", 1.0, syncs=None))["mailserver"]
        self.assertEqual((row["to Postfix"], row["syncs"]), ("-", "-"))

    def test_the_goals_stand_below(self) -> None:
        workload = replace(BY_KEY["b"], floor=7, reach=10)
        notes = "".join(loaded(workload, [figures("postfix", 1)]).notes)
        self.assertIn("7 times Postfix, to reach for: 10", notes)
        self.assertIn("took of the processors: postfix 25%", notes)

    def test_idle_connections_are_told_in_kib(self) -> None:
        section = idle([IdleFigures("mailserver", True, 1000, 10 * 2**20, 10 * 2**20 + 1000 * 3072)])
        self.assertEqual(section.rows[0][:3], ["mailserver", "TLS", "1,000"])
        self.assertEqual(section.rows[0][-1], "3.00")

    def test_growth_tells_how_flat_it_is(self) -> None:
        section = growth([GrowthFigures("mailserver", "accounts", (10, 1000, 100_000), (2000.0, 1900.0, 1500.0))])
        self.assertEqual(
            section.rows[0], ["mailserver", "accounts", "2,000 (10)", "1,900 (1,000)", "1,500 (100,000)", "25%"]
        )
        self.assertEqual(len(section.head), len(section.rows[0]))

    def test_columns_stand_below_each_other(self) -> None:
        lines = as_text(loaded(BY_KEY["a"], [figures("mailserver", 1), figures("x", 1000)])).splitlines()
        place = lines[1].index("delivered/s") + len("delivered/s")
        self.assertEqual([line[:place].rpartition(" ")[2] for line in lines[2:4]], ["1,000", "1"])

    def test_markdown_has_as_many_cells_in_each_line(self) -> None:
        text = as_markdown(loaded(BY_KEY["a"], [figures("mailserver", 1), figures("postfix", 2)]))
        rows = [line for line in text.splitlines() if line.startswith("|")]
        self.assertEqual(len(rows), 4)
        self.assertEqual(len({row.count("|") for row in rows}), 1)


class PageTests(SynchronousTestCase):
    def test_only_what_is_between_the_marks_is_replaced(self) -> None:
        text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
        once = replaced(text, "new\n")
        self.assertEqual(once, f"before\n{BEGIN}\nnew\n{END}\nafter\n")
        self.assertEqual(replaced(once, "new\n"), once)

    def test_a_page_without_marks_is_left_alone(self) -> None:
        path = Path(self.mktemp())
        path.write_text(f"{BEGIN}\nand no end\n")
        with self.assertRaises(BenchError):
            update(path, "new")
        self.assertEqual(path.read_text(), f"{BEGIN}\nand no end\n")

    def test_a_page_is_updated_in_place(self) -> None:
        path = Path(self.mktemp())
        path.write_text(f"a\n{BEGIN}\n{END}\nz\n")
        update(path, page([idle([])], ["2 processors"], "python -m bench --short", "performance.svg"))
        text = path.read_text()
        for expected in (
            "a\n",
            "- 2 processors\n",
            "`python -m bench --short`",
            "](performance.svg)",
            "### (g)",
            "\nz\n",
        ):
            self.assertIn(expected, text)

    def test_the_page_of_this_project_has_its_marks(self) -> None:
        text = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text("utf-8")
        self.assertIn("new text", replaced(text, "new text"))
