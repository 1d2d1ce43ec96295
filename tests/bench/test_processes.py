"""bench/processes.py, with a /proc that the test writes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import cpu_seconds, machine_seconds, memory, tree


class ProcessesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.proc = Path(self.mktemp())
        (self.proc / "self").mkdir(parents=True)

    def process(self, pid: int, parent: int, times: tuple[int, int, int, int], pss: int, name: str = "smtpd") -> None:
        """A process as proc(5) describes it.  times: utime, stime, cutime, cstime.  pss: KiB."""
        folder = self.proc / str(pid)
        folder.mkdir()
        before = " ".join(["S", str(parent), *(["0"] * 9)])
        (folder / "stat").write_text(f"{pid} ({name}) {before} {' '.join(map(str, times))} 20 0 1\n")
        (folder / "smaps_rollup").write_text(f"00400000 [rollup]\nRss: 9999 kB\nPss: {pss} kB\nPss_Dirty: 7 kB\n")

    def test_a_tree_has_children_of_children_and_nobody_else(self) -> None:
        self.process(10, 1, (0, 0, 0, 0), 0)
        self.process(11, 10, (0, 0, 0, 0), 0)
        self.process(12, 11, (0, 0, 0, 0), 0)
        self.process(13, 1, (0, 0, 0, 0), 0)
        self.assertEqual(tree(10, self.proc), [10, 11, 12])
        self.assertEqual(tree(99, self.proc), [])

    def test_children_that_have_ended_are_counted_with_their_parent(self) -> None:
        self.process(10, 1, (100, 50, 700, 150), 0)
        self.process(11, 10, (30, 20, 0, 0), 0)
        self.process(13, 1, (9999, 0, 0, 0), 0)
        self.assertEqual(cpu_seconds(10, self.proc, ticks_a_second=100), 10.5)

    def test_a_name_with_blanks_and_brackets_moves_no_field(self) -> None:
        self.process(10, 1, (1, 2, 3, 4), 0, name="a) S 1 (b")
        self.assertEqual(cpu_seconds(10, self.proc, ticks_a_second=10), 1)

    def test_the_machine_was_busy_when_it_was_not_idle_and_did_not_wait(self) -> None:
        (self.proc / "stat").write_text("cpu  100 20 30 9999 8888 4 5 41 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
        self.assertEqual(machine_seconds(self.proc, ticks_a_second=100), 2)

    def test_memory_is_the_sum_of_the_shares(self) -> None:
        self.process(10, 1, (0, 0, 0, 0), 300)
        self.process(11, 10, (0, 0, 0, 0), 212)
        self.assertEqual(memory(10, self.proc), 512 * 1024)

    def test_a_process_that_ends_while_it_is_looked_at_is_left_out(self) -> None:
        self.process(10, 1, (0, 0, 0, 0), 300)
        self.process(11, 10, (0, 0, 0, 0), 212)
        (self.proc / "11" / "smaps_rollup").unlink()
        self.assertEqual(memory(10, self.proc), 300 * 1024)
        (self.proc / "11" / "stat").unlink()
        self.assertEqual(tree(10, self.proc), [10])
