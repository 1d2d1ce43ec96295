"""The door chooses the way by what is created, tells what became of it, and stops when all is over."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile
from tests.durable.disk import Disk, RecordingFiles, outcome


class Committer:
    """Takes what it is told to take, and answers when told to."""

    keep_open = False

    def __init__(self) -> None:
        self.takes_all = True
        self.committed: list[tuple[Any, Any]] = []

    def takes(self, files: Sequence[NewFile]) -> bool:
        return self.takes_all

    def start(self) -> None: ...

    def commit(self, placed: Any, done: Any) -> None:
        self.committed.append((placed, done))

    def stop(self) -> Deferred[bool]:
        return succeed(True)


class DoorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.committer = Committer()
        self.files = RecordingFiles()
        self.disk = Disk(self.mktemp(), self.files, committer=self.committer)
        self.disk.maildirs("a", "b", "c")

    def test_what_is_placed_is_promised_when_the_committer_says_so(self) -> None:
        result = self.disk.send("1", b"text", "a")
        self.assertEqual(list(self.disk.tree("new")), ["a/1"])
        self.assertNoResult(result)
        self.committer.committed[0][1](None)
        self.assertEqual(self.successResultOf(result), {})

    def test_what_the_committer_refuses_is_taken_away(self) -> None:
        result = self.disk.send("1", b"text", "a", "b")
        self.committer.committed[0][1](OSError(errno.EIO, "lost"))
        self.assertEqual(outcome(result).errno, errno.EIO)
        self.assertEqual((self.disk.tree("new"), self.disk.tree("tmp")), ({}, {}))

    def test_what_the_committer_does_not_take_goes_through_a_thread(self) -> None:
        self.committer.takes_all = False
        self.successResultOf(self.disk.send("1", b"text", "a"))
        self.assertEqual((self.committer.committed, self.files.calls.count("fsync")), ([], 2))

    def test_a_partial_creation_tells_what_could_not_be_had(self) -> None:
        (self.disk.root / "b" / "new").rmdir()
        (self.disk.root / "b" / "new").write_bytes(b"")
        for takes in (True, False):
            self.committer.takes_all = takes
            for content in (b"text", b"x" * 300):
                result = self.disk.send(f"{takes}{len(content)}", content, "a", "b", "c", partial=True)
                for _, done in self.committer.committed:
                    done(None)
                self.committer.committed.clear()
                failed = self.successResultOf(result)
                self.assertEqual([(path.split("/")[-3], type(error)) for path, error in failed.items()],
                                 [("b", NotADirectoryError)])  # fmt: skip
        self.assertEqual((len(self.disk.tree("new")), self.disk.tree("tmp")), (8, {}))

    def test_a_whole_creation_with_a_damaged_place_fails_for_all(self) -> None:
        (self.disk.root / "b" / "new").rmdir()
        (self.disk.root / "b" / "new").write_bytes(b"")
        for takes in (True, False):
            self.committer.takes_all = takes
            for content in (b"text", b"x" * 300):
                result = self.disk.send("1", content, "a", "b")
                self.assertIsInstance(outcome(result), NotADirectoryError)
        self.assertEqual((self.disk.tree("new"), self.disk.tree("tmp"), self.files.opened), ({}, {}, {}))

    def test_it_stops_when_the_last_commit_is_over(self) -> None:
        results = [self.disk.send("1", b"text", "a"), self.disk.send("2", b"text", "a")]
        stopped = self.disk.durable.stopService()
        assert stopped is not None
        self.committer.committed[0][1](None)
        self.assertNoResult(stopped)
        self.committer.committed[1][1](OSError(errno.EIO, "lost"))
        self.successResultOf(stopped)
        self.assertEqual([type(outcome(result)) for result in results], [type(None), OSError])

    def test_a_draft_that_failed_cannot_be_created_and_takes_the_others_with_it(self) -> None:
        self.files.fail = {"write"}
        bad = self.disk.draft(b"x" * 300)
        self.files.fail = set()
        good = self.disk.draft(b"x" * 300)
        both = [NewFile(good, (self.disk.place("a", "1"),)), NewFile(bad, (self.disk.place("a", "2"),))]
        self.assertIsInstance(outcome(self.disk.durable.create(both)), OSError)
        self.assertEqual((self.disk.tree("tmp"), self.files.opened, self.committer.committed), ({}, {}, []))
