"""bench/load.py: what the generators are told, and who gets mail."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.load import Load, generator_command, source_command


class LoadTests(SynchronousTestCase):
    def test_smtp_source_numbers_all_recipients_but_one(self) -> None:
        self.assertEqual(Load(messages=1, size=1).users(), ["bench"])
        self.assertEqual(Load(messages=1, size=1, recipients=3).users(), ["bench", "2bench", "3bench"])
        self.assertEqual(Load(messages=1, size=1, spread=3).users(), ["0bench", "1bench", "2bench"])
        self.assertEqual(Load(messages=1, size=1).of(9, "warm"), Load(messages=9, size=1, user="warm"))

    def test_smtp_source_keeps_connections_only_when_told(self) -> None:
        fresh = source_command(Load(messages=70, size=4096), 2525)
        kept = source_command(Load(messages=70, size=4096, kept=True, recipients=10, parallel=100), 2525)
        self.assertEqual(fresh[:7], ["smtp-source", "-s", "20", "-m", "70", "-l", "4096"])
        self.assertEqual(fresh[-1], "inet:127.0.0.1:2525")
        self.assertNotIn("-d", fresh)
        self.assertNotIn("-r", fresh)
        self.assertIn("-d", kept)
        self.assertEqual(kept[kept.index("-r") + 1], "10")
        self.assertEqual(kept[kept.index("-s") + 1], "100")

    def test_smtp_source_is_not_asked_for_what_it_cannot_do(self) -> None:
        for load in (Load(messages=1, size=1, tls=True), Load(messages=1, size=1, spread=5)):
            with self.assertRaises(ValueError):
                source_command(load, 25)

    def test_the_generator_is_told_everything(self) -> None:
        command = generator_command(Path("generator"), Load(messages=7, size=9, kept=True, tls=True, spread=5), 2525)
        self.assertEqual(command[-3:], ["-k", "-T", "2525"])
        self.assertEqual(command[command.index("-n") + 1], "5")
        self.assertEqual(command[command.index("-t") + 1], "bench@example.org")
