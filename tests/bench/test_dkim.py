"""bench/dkim.py: both sign and verify the same message, and the table has every figure."""

from __future__ import annotations

from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from tests.dkim.vectors import ED25519, RSA


class DkimTests(SynchronousTestCase):
    if find_spec("dkim") is None or find_spec("nacl") is None:
        skip = "dkimpy with PyNaCl is not installed; it comes with the extra `test`"

    def test_every_figure_is_there(self) -> None:
        from bench.dkim import rows

        found = list(rows([RSA, ED25519], [2000], 0.0))
        self.assertEqual(
            [(row.operation, row.algorithm, row.canonicalization) for row in found],
            [
                (operation, algorithm, f"{kind}/{kind}")
                for algorithm in ("rsa-sha256", "ed25519-sha256")
                for kind in ("simple", "relaxed")
                for operation in ("sign", "verify")
            ],
        )

    def test_a_row_tells_how_many_times_faster_ours_is(self) -> None:
        from bench.dkim import HEADING, Row

        row = Row("sign", "rsa-sha256", "simple/simple", 4096, 0.001, 0.0065)
        self.assertEqual(str(row).split(), ["sign", "rsa-sha256", "simple/simple", "4,096", "1,000", "6,500", "6.5"])
        self.assertEqual(len(str(row)), len(HEADING))

    def test_messages_have_about_the_size_asked_for(self) -> None:
        from bench.dkim import compose

        for size in (1000, 4096, 2**20):
            self.assertLess(abs(len(compose(size)) - size), 100)
