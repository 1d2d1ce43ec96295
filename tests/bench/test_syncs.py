"""bench/syncs.py: what perf and strace print."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.syncs import perf_command, perf_total, strace_total

STRACE = """\
101 fsync(12)                         = 0
102 fdatasync(13 <unfinished ...>
101 fsync(14)                         = 0
102 <... fdatasync resumed>)          = 0
103 io_submit(0x7f, 2, [{aio_data=0, aio_lio_opcode=IOCB_CMD_PWRITE, aio_fildes=5}, {aio_lio_opcode=IOCB_CMD_FDSYNC}]) = 2
103 io_submit(0x7f, 1, [{aio_lio_opcode=IOCB_CMD_PWRITE, aio_rw_flags=RWF_DSYNC, aio_fildes=5}]) = 1
103 syncfs(9)                         = 0
104 +++ exited with 0 +++
"""


class SyncsTests(SynchronousTestCase):
    def test_perf_s_counts_are_added_up(self) -> None:
        text = "98,,ext4:ext4_sync_file_enter,413292336,100.00,,\n2,,ext4:ext4_sync_fs,410786620,100.00,,\n"
        self.assertEqual(perf_total(text), 100)

    def test_perf_that_cannot_count_is_not_taken_for_nothing(self) -> None:
        self.assertIsNone(perf_total("<not supported>,,ext4:ext4_sync_file_enter,0,100.00,,\n"))
        self.assertIsNone(perf_total("Access to performance monitoring is limited.\n"))

    def test_perf_looks_at_one_file_system(self) -> None:
        command = perf_command(7340032, ["ext4:one", "ext4:two"])
        self.assertEqual(command.count("dev == 7340032"), 2)
        self.assertLess(command.index("ext4:one"), command.index("dev == 7340032"))

    def test_strace_s_calls_are_counted_once_each_those_of_kernel_aio_too(self) -> None:
        self.assertEqual(strace_total(STRACE.splitlines()), 6)
