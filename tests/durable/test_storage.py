"""The configuration chooses how files become durable; a crash is recovered at the next start; a journal has one owner."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile, segments, storage
from mailserver.durable.aio import Unavailable
from mailserver.durable.committers import FileSync, NoSync, ThreadSyncer
from mailserver.durable.files import FILES, Files
from mailserver.durable.journal import CHECKPOINT, Journal
from mailserver.durable.segments import Running
from mailserver.durable.storage import Storage, StorageError, StorageSettings, Surroundings
from mailserver.maildir.names import sizes

SIZE = 64 * 1024


class StorageCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = Path(self.mktemp()).absolute()
        self.mail = self.data / "mail"
        for kind in ("tmp", "new", "cur"):
            (self.mail / "d" / "u" / kind).mkdir(parents=True)
        self.clock = Clock()
        self.mount = b"mount-1"
        self.names_come = True
        self.numbers = count()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.patch(storage, "mount_identity", lambda path: self.mount)
        self.patch(storage, "fsync_brings_names", lambda path: self.names_come)

    def soon(self, job: Any, *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.clock.callLater(0, lambda: execute(job, *arguments).chainDeferred(done))
        return done

    def storage(self, *, worker: int = 1, files: Files = FILES, **options: Any) -> Storage:
        settings = StorageSettings(
            **{"commit": "thread", "segments": 2, "segment_size": SIZE} | options,
            data_dir=self.data,
            mail=self.mail,
            worker=worker,
        )
        around = Surroundings(
            self.clock,
            self.soon,
            lambda: f"t{next(self.numbers)}",
            lambda: 1000.0,
            self.clock.seconds,
            lambda name: sizes(name)[0],
            files,
        )
        return Storage(settings, around)

    def start(self, **options: Any) -> Storage:
        started = self.storage(**options)
        started.startService()
        self.settle()
        return started

    def settle(self) -> None:
        for _ in range(50):
            self.clock.advance(0)

    def send(self, to: Storage, name: str, content: bytes = b"text") -> None:
        draft = to.durable.draft(f"{self.mail}/d/u/tmp")
        draft.write(content)
        result = to.durable.create([NewFile(draft, (f"{self.mail}/d/u/new/{name}",))])
        self.settle()
        self.assertEqual(self.successResultOf(result), {})

    def stop(self, running: Storage) -> None:
        stopped = running.stopService()
        self.settle()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def crash(self, running: Storage) -> None:
        """Without a word.  What runs in threads ends, as it would not: the journal is put back."""
        before = {path: path.read_bytes() for path in running._own.iterdir()}
        stopped = running.stopService()
        self.settle()
        self.successResultOf(stopped)
        for path, content in before.items():
            path.write_bytes(content)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("event") == event]

    def messages(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.mail / "d/u/new").iterdir()}


class ChoiceTests(StorageCase):
    def check(self, kind: type, syncer: type | None = None, **options: Any) -> Storage:
        running = self.start(**options)
        committer: Any = running.durable.committer
        self.assertIsInstance(committer, kind)
        if syncer is not None:
            self.assertIsInstance(committer._syncer, syncer)
        self.send(running, "1")
        self.stop(running)
        self.assertEqual(self.messages(), {"1": b"text"})
        return running

    def test_a_journal(self) -> None:
        self.check(Journal, ThreadSyncer)
        self.assertEqual(self.told("not-durable"), [])

    def test_fsync_of_files(self) -> None:
        self.check(FileSync, ThreadSyncer, durability="filesync")

    def test_fsync_of_files_where_that_does_not_bring_names_is_the_commit_in_a_thread(self) -> None:
        self.names_come = False
        self.check(type(None), durability="filesync")

    def test_none_is_loudly_told(self) -> None:
        self.check(NoSync, durability="none")
        (event,) = self.told("not-durable")
        self.assertEqual(event["log_level"].name, "critical")

    def test_without_syncfs_files_are_synced(self) -> None:
        self.patch(storage, "HAS_SYNCFS", False)
        self.check(FileSync)

    def test_asynchronous_io_where_there_is_any(self) -> None:
        class Syncer(ThreadSyncer):
            def __init__(self, reactor: Any) -> None:
                super().__init__(execute, FILES)

        def refuse(reactor: Any) -> None:
            raise Unavailable("forbidden")

        self.patch(storage, "AioSyncer", Syncer)
        for commit in ("auto", "aio"):
            running = self.start(commit=commit)
            self.assertIsInstance(running.durable.committer._syncer, Syncer)  # type: ignore[union-attr]
            self.stop(running)
        self.patch(storage, "AioSyncer", refuse)
        self.check(Journal, ThreadSyncer, commit="auto")
        with self.assertRaises(StorageError) as raised:
            self.start(commit="aio")
        self.assertIn("forbidden", str(raised.exception))
        self.stop(self.start())  # the lock was given back


class StartTests(StorageCase):
    def test_a_second_server_ends_at_once_and_the_first_goes_on(self) -> None:
        first = self.start()
        with self.assertRaises(StorageError) as raised:
            self.storage().startService()
        self.assertIn("is the server running already?", str(raised.exception))
        self.send(first, "1")
        self.stop(first)
        self.stop(self.start())

    def test_a_clean_stop_leaves_nothing_to_recover(self) -> None:
        running = self.start()
        self.send(running, "1")
        self.stop(running)
        (self.mail / "d/u/new/1").unlink()
        (self.mail / "d/u/new/1000.x,S=9").write_bytes(b"short")
        self.mount = b"mount-2"
        self.stop(self.start())
        self.assertEqual((self.told("recovered"), list(self.messages())), ([], ["1000.x,S=9"]))

    def test_after_a_power_cut_it_is_recovered(self) -> None:
        running = self.start()
        self.send(running, "1")
        self.crash(running)
        (self.mail / "d/u/new/1").unlink()
        (self.mail / "d/u/new/1000.x,S=9").write_bytes(b"short")
        self.mount = b"mount-2"
        running = self.start()
        self.assertEqual(self.messages(), {"1": b"text"})
        (event,) = self.told("recovered")
        self.assertEqual((event["written"], event["removed"], event["records"]), (1, 1, 1))
        self.send(running, "2")
        self.stop(running)

    def test_after_a_crash_of_the_process_alone_nothing_is_replayed(self) -> None:
        running = self.start()
        self.send(running, "1")
        self.crash(running)
        (self.mail / "d/u/new/1").unlink()
        running = self.start()
        self.assertEqual(self.messages(), {})
        self.stop(running)

    def test_journals_of_workers_that_are_gone_are_recovered_and_those_of_others_left(self) -> None:
        gone, other = self.start(worker=2), self.start(worker=3)
        self.send(gone, "gone")
        self.send(other, "other")
        self.crash(gone)
        for name in ("gone", "other"):
            (self.mail / "d/u/new" / name).unlink()
        self.mount = b"mount-2"
        running = self.start(worker=1)
        self.assertEqual(self.messages(), {"gone": b"text"})
        again = self.start(worker=2)
        self.assertEqual(len(self.told("recovered")), 1)
        for each in (running, again, other):
            stopped = each.stopService()
            self.settle()
            self.successResultOf(stopped)

    def test_the_locks_of_journals_are_taken_by_one_process_at_a_time(self) -> None:
        (self.data / "journal" / "7").mkdir(parents=True)
        steps: list[str] = []
        recovering, lock = segments.recovering, segments.lock

        @contextlib.contextmanager
        def watched(directory: Path) -> Iterator[None]:
            with recovering(directory):
                steps.append("begin")
                yield
                steps.append("end")

        def locked(directory: Path, files: Files) -> int:
            steps.append(directory.name)
            return lock(directory, files)

        self.patch(segments, "recovering", watched)
        self.patch(segments, "lock", locked)
        self.stop(self.start())
        self.assertEqual(steps, ["begin", "1", "7", "end"])

    def test_one_journal_that_cannot_be_recovered_keeps_nobody_from_starting(self) -> None:
        (self.data / "journal" / "7").mkdir(parents=True)
        (self.data / "journal" / "7" / "lock").mkdir()
        running = self.start()
        self.assertEqual(len(self.told("journal-kept")), 1)
        self.stop(running)

    def test_what_is_damaged_is_told(self) -> None:
        directory = self.data / "journal" / "1"
        directory.mkdir(parents=True)
        (directory / "segment-0001").write_bytes(b"text")
        self.stop(self.start())
        self.assertEqual(len(self.told("journal-damaged")), 1)

    def test_a_full_disk_does_not_keep_it_from_starting(self) -> None:
        class Full(Files):
            def write_at(self, *arguments: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(segments, "note_running", full)
        running = self.start(files=Full())
        self.assertEqual(segments.segment_paths(self.data / "journal" / "1"), [])
        texts = [each.get("error", "") for each in self.events]
        self.assertEqual(sum("No space left" in str(text) for text in texts), 2)
        self.send(running, "1")
        self.stop(running)
        self.assertEqual(self.messages(), {"1": b"text"})

    def test_segments_are_whole_blocks_whatever_size_is_asked_for(self) -> None:
        running = self.start(segment_size=SIZE + 100, body_limit=SIZE)
        for number in range(20):
            self.send(running, str(number), b"x" * 9000)
        self.stop(running)
        found = {path.stat().st_size for path in segments.segment_paths(self.data / "journal" / "1")}
        self.assertEqual(found, {SIZE})

    def test_a_mail_directory_that_is_missing_is_told(self) -> None:
        self.mail.rename(self.data / "elsewhere")
        with self.assertRaises(StorageError) as raised:
            self.storage().startService()
        self.assertIn(str(self.mail), str(raised.exception))

    def test_while_it_runs_the_lock_tells_so(self) -> None:
        running = self.start()
        self.mount = b"mount-9"
        self.clock.advance(CHECKPOINT)
        with (self.data / "journal/1/lock").open("rb") as lock:
            self.assertEqual(segments.last_run(lock.fileno()), Running(b"mount-9", 1000.0))
        self.stop(running)
        with (self.data / "journal/1/lock").open("rb") as lock:
            self.assertIsNone(segments.last_run(lock.fileno()))
