"""bench/__main__.py: the command line."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.__main__ import options, server_of, without_paths
from bench.peers import Aiosmtpd, Mailserver, Variant
from bench.run import BenchError
from bench.workloads import KEYS, WORKLOADS


class OptionsTests(SynchronousTestCase):
    def test_everything_is_measured_when_nothing_is_said(self) -> None:
        given = options([])
        self.assertEqual(given.workloads, list(KEYS))
        self.assertEqual((given.rounds, given.servers), (5, "mailserver,postfix,aiosmtpd"))
        self.assertIsNone(given.durability)
        self.assertIsNone(given.workers)

    def test_short_is_short(self) -> None:
        given = options(["--short", "--rounds", "1"])
        self.assertEqual((given.rounds, given.seconds), (1, 1.0))
        self.assertEqual(options(["--short"]).rounds, 3)

    def test_what_makes_no_sense_is_refused(self) -> None:
        for words in (["--workloads", "a,z"], ["--rounds", "0"], ["--seconds", "0"], ["--durability", "some"]):
            with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as refused:
                options(words)
            self.assertEqual(refused.exception.code, 2)
            self.assertIn("error:", said.getvalue())

    def test_paths_of_this_machine_do_not_come_into_the_report(self) -> None:
        words = ["--short", "--directory", "/here", "--report=a.md", "--json", "b", "--workloads", "a"]
        self.assertEqual(without_paths(words), ["--short", "--workloads", "a"])


class ServersTests(SynchronousTestCase):
    def test_variants_of_ours_can_be_compared(self) -> None:
        server = server_of("mailserver+workers=2+durability=filesync", Variant("journal", "1"), Path())()
        assert isinstance(server, Mailserver)
        self.assertEqual(server.name, "mailserver+workers=2+durability=filesync")
        self.assertIn("durability filesync, 2 workers", server.version())
        plain = server_of("mailserver", Variant("none"), Path())()
        self.assertEqual((plain.name, plain.durable), ("mailserver", "nothing"))

    def test_peers_are_known_by_name(self) -> None:
        self.assertIsInstance(server_of(" aiosmtpd", Variant(), Path())(), Aiosmtpd)
        for text in ("sendmail", "aiosmtpd+workers=2", "mailserver+speed=2", "mailserver+workers=", ""):
            with self.assertRaises(BenchError):
                server_of(text, Variant(), Path())


class WorkloadsTests(SynchronousTestCase):
    def test_every_workload_has_its_letter_and_its_goals(self) -> None:
        self.assertEqual([each.key for each in WORKLOADS], ["a", "b", "b100", "c", "d", "e", "f"])
        for each in WORKLOADS:
            self.assertLess(each.floor, each.reach)
            self.assertEqual("TLS" in each.title, each.load.tls)
            self.assertEqual("kept" in each.title, each.load.kept)
