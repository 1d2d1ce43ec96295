"""Ids: short, all different, drawn many at once, and never given by two processes."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.ids import DRAWN, RandomIds, new_id


class IdsTests(SynchronousTestCase):
    def test_ids_are_short_and_differ(self) -> None:
        ids = {new_id() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        for each in ids:
            self.assertRegex(each, r"\A[a-z2-7]{8}\Z")

    def test_each_has_40_bits_of_its_own(self) -> None:
        octets = bytes(range(5)) * (DRAWN - 1) + bytes(4) + b"\x01"
        given = RandomIds(lambda count: octets[:count])
        ids = [given() for _ in range(DRAWN)]
        self.assertEqual(sorted(set(ids)), ["aaaaaaab", "aaaqeaye"])
        self.assertEqual(ids.count("aaaaaaab"), 1)

    def test_the_system_is_asked_once_for_many(self) -> None:
        asked: list[int] = []

        def random_octets(count: int) -> bytes:
            asked.append(count)
            return os.urandom(count)

        given = RandomIds(random_octets)
        for _ in range(DRAWN):
            given()
        self.assertEqual(asked, [5 * DRAWN])
        given()
        self.assertEqual(asked, [5 * DRAWN] * 2)

    def test_a_forked_process_gives_others(self) -> None:
        new_id()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, new_id().encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        theirs = os.read(reader, 8).decode()
        os.close(reader)
        os.close(writer)
        self.assertEqual(len(theirs), 8)
        self.assertNotIn(theirs, {new_id() for _ in range(DRAWN)})
