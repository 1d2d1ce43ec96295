"""The small values: what an error says, and the limits that are asked for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import Disposition, MimeError, MimeLimits


class ValuesTests(SynchronousTestCase):
    def test_an_error_says_line_place_kind_and_detail(self) -> None:
        error = MimeError("no-boundary", 17, 3, "a multipart")
        self.assertEqual(str(error), "line 3 (octet 17): no-boundary: a multipart")
        self.assertEqual((error.kind, error.place, error.line, error.detail), ("no-boundary", 17, 3, "a multipart"))
        self.assertIsInstance(error, ValueError)

    def test_the_limits_are_those_of_the_manual(self) -> None:
        limits = MimeLimits()
        self.assertEqual(
            (limits.depth, limits.parts, limits.parameters, limits.boundary), (100, 10_000, 1_000, 2_048)
        )

    def test_dispositions_do_not_share_their_parameters(self) -> None:
        Disposition("inline").parameters["a"] = "b"
        self.assertEqual(Disposition("inline").parameters, {})
