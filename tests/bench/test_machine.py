"""bench/machine.py: what /proc says of the machine."""

from __future__ import annotations

import platform

from twisted.trial.unittest import SynchronousTestCase

from bench.machine import memory, model


class MachineTests(SynchronousTestCase):
    def test_the_processor_is_named_once(self) -> None:
        text = "processor\t: 0\nmodel name\t: Some CPU @ 2.60GHz\nprocessor\t: 1\nmodel name\t: Some CPU @ 2.60GHz\n"
        self.assertEqual(model(text), "Some CPU @ 2.60GHz")
        self.assertEqual(model("processor\t: 0\n"), platform.machine())

    def test_memory_is_told_in_gib(self) -> None:
        self.assertEqual(memory("MemFree: 1 kB\nMemTotal:       16777216 kB\nMemFree: 3 kB\n"), 16)
        self.assertEqual(memory(""), 0)
