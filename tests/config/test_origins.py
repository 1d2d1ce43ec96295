"""Names of keys, and what `config show` tells of tables."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.classes import TLS, Storage
from mailserver.config.lines import scan
from mailserver.config.origins import Effective, Places, of_limits, of_table, shown
from mailserver.config.problems import Problem
from mailserver.limits import Limits


class PlacesTests(SynchronousTestCase):
    def setUp(self) -> None:
        names = {("listener", 0): "in", ("domain", 1): "example.org"}
        self.places = Places("f.toml", scan("[[listener]]\ntls = 1\n"), names)

    def test_names_stand_for_numbers_where_there_are_some(self) -> None:
        for path, key in (
            (("server", "hostname"), "server.hostname"),
            (("listener", 0, "limits", "errors"), "listener.in.limits.errors"),
            (("listener", 1), "listener[2]"),
            (("domain", 1, "name"), 'domain."example.org".name'),
            (("tls", "certificate", 0, "key"), "tls.certificate[1].key"),
            (("a b",), '"a b"'),
        ):
            self.assertEqual(self.places.key(path), key)

    def test_a_problem_has_the_line_of_its_key_or_table(self) -> None:
        self.assertEqual(
            self.places.problem(("listener", 0, "tls"), "x"), Problem("f.toml", 2, "listener.in.tls", "x")
        )
        self.assertEqual(self.places.problem(("listener", 0, "auth"), "x", warning=True).line, 1)

    def test_the_origin_is_the_line_or_what_else_is_said(self) -> None:
        self.assertEqual(self.places.origin(("listener", 0, "tls")), "f.toml:2")
        self.assertEqual(self.places.origin(("listener", 0, "auth")), "default")
        self.assertEqual(self.places.origin(("listener", 0, "auth"), "else"), "else")


class EffectiveTests(SynchronousTestCase):
    def test_every_key_of_a_table_with_its_origin(self) -> None:
        self.assertEqual(
            list(of_table(Storage(line_endings="crlf"), "storage", {"storage.line_endings": "f:3"})),
            [
                Effective("storage.line_endings", "crlf", "f:3"),
                Effective("storage.delivered_to", "single", "default"),
                Effective("storage.default_quota", 0, "default"),
                Effective("storage.durability", "journal", "default"),
                Effective("storage.commit", "auto", "default"),
                Effective("storage.journal_segments", 8, "default"),
                Effective("storage.journal_segment_size", 32 * 2**20, "default"),
                Effective("storage.journal_body_limit", 256 * 2**10, "default"),
            ],
        )

    def test_certificates_are_not_told_as_a_list(self) -> None:
        self.assertEqual(
            [entry.key for entry in of_table(TLS(), "tls", {})], ["tls.minimum_version", "tls.check_interval"]
        )

    def test_limits_over_a_base_are_those_that_differ_or_are_written(self) -> None:
        self.assertEqual(
            [entry.key for entry in of_limits(Limits(errors=5), "l", {"l.recipients": "f:1"}, Limits())],
            ["l.recipients", "l.errors"],
        )
        self.assertGreater(len(list(of_limits(Limits(), "limits", {}))), 20)

    def test_values_are_shown_as_json_can_write_them(self) -> None:
        self.assertEqual(shown((Path("/a"), 1, None, True)), ["/a", 1, None, True])
