"""bench/rounds.py: who comes when, with how many messages, and when a message is done."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import rounds
from bench.load import Load
from bench.peers import Aiosmtpd, Postfix
from bench.rounds import await_files, check_sizes, count_files, files_of, messages_for, rounds_that_fit, turn
from bench.run import BenchError


class RoundsTests(SynchronousTestCase):
    def folder(self, *sizes: int) -> Path:
        """A `new/` with files of these sizes."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for position, size in enumerate(sizes):
            (folder / str(position)).write_bytes(bytes(size))
        return folder

    def test_each_server_is_first_in_turn(self) -> None:
        servers = [Postfix(), Aiosmtpd(Path()), Postfix()]
        firsts = [turn(servers, number)[0] for number in range(4)]
        self.assertEqual(firsts, [*servers, servers[0]])
        self.assertEqual(turn(servers, 1), [servers[1], servers[2], servers[0]])

    def test_a_round_lasts_about_as_long_as_asked_for(self) -> None:
        self.assertEqual(messages_for(1234.5, 4, 60_000), 4900)
        self.assertEqual(messages_for(123.4, 4, 60_000), 490)
        self.assertEqual(messages_for(1234.5, 4, 800), 800)
        self.assertEqual(messages_for(0.5, 4, 800), 40)

    def test_as_many_rounds_as_there_is_room_for_share_a_file_system(self) -> None:
        large, postfix = Load(messages=100, size=2**20, recipients=10), Postfix()
        self.assertEqual(rounds_that_fit(6 * 2**30, [(postfix, large)]), 3)
        self.assertEqual(rounds_that_fit(6 * 2**30, [(postfix, large), (postfix, large)]), 1)
        self.assertEqual(rounds_that_fit(2**20, [(postfix, large)]), 1)
        self.assertEqual(rounds_that_fit(6 * 2**30, [(Aiosmtpd(Path()), large)]), 30)

    def test_files_are_counted_also_where_no_folder_is_yet(self) -> None:
        self.assertEqual(count_files([self.folder(1, 1), self.folder(1), Path(self.mktemp())]), 3)

    def test_a_message_to_many_is_a_file_for_each_but_in_aiosmtpd(self) -> None:
        load = Load(messages=7, size=1, recipients=10)
        self.assertEqual(files_of(Postfix(), load), 70)
        self.assertEqual(files_of(Aiosmtpd(Path()), load), 7)

    def test_it_does_not_wait_for_what_is_there_and_not_for_ever_for_what_is_not(self) -> None:
        waits: list[float] = []
        self.patch(time, "sleep", waits.append)
        await_files([self.folder(1, 1)], 2, 0.0)
        self.assertEqual(waits, [])
        self.patch(rounds, "_PATIENCE", -1.0)
        error = self.assertRaises(BenchError, await_files, [self.folder(1, 1)], 3, 0.0)
        self.assertIn("3 files must be there, 2 are", str(error))

    def test_a_message_that_is_cut_is_none(self) -> None:
        check_sizes([self.folder(4096, 4000)], 2, 4096)
        for sizes, count in (((4096, 1000), 2), ((4096,), 2), ((4096, 4096, 4096), 2)):
            with self.assertRaises(BenchError):
                check_sizes([self.folder(*sizes)], count, 4096)
