"""
The committer for small messages: many records, one fdatasync.

In: files that are in their places and not yet durable.  Out: yes, when their names and contents are in the journal.
The files themselves become durable later: when a segment is full, or has been in use for a while, `syncfs` writes
everything, and the segment is free again.  After a power cut `recovery` writes again what is in a segment that was
not free and is missing in its Maildir.  What is too large for a record goes by fsync of its file (`FileSync`).

Failures: a write or sync that fails refuses the messages of its batch and no others; that segment is not written to
again.  A syncfs that fails has lost pages: the files of the segments are written again from their records and synced.
Where no segment is free the batch waits; where none can be had for a fault of the disk, its files are synced each.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.durable import segments
from mailserver.durable.committers import Done, FileSync, Syncer
from mailserver.durable.drafts import NewFile
from mailserver.durable.files import OLD, OPEN_DIRECTORY, Files, RunInThread
from mailserver.durable.placing import Placed
from mailserver.durable.records import BLOCK, RECORD_HEADER, encode_header, encode_record, names_of, padding
from mailserver.durable.segments import Segment

#: Blocks that one pwritev(2) takes at most; IOV_MAX is 1,024.
MOST_BLOCKS = 1000
#: A segment is in use for so many seconds at most: what a reader deletes meanwhile could come back by a power cut.
CHECKPOINT = 15.0
#: After a checkpoint that failed, so many seconds to the next try.
AGAIN = 10.0

_log = Logger(namespace="mailserver.durable")


@dataclass(frozen=True)
class JournalSettings:
    """
    directory: of the journal.  root: the mail below which all names are.  most: how many segments there may be.
    size: of each.  body_limit: octets of the messages of one creation; more of them are synced as files.
    mount: see `files.mount_identity`.
    """

    directory: Path
    root: Path
    most: int = 4
    size: int = 32 * 1024 * 1024
    body_limit: int = 256 * 1024
    mount: bytes = b""


class _Record:
    """A creation that waits for its turn."""

    # blocks: names and content by turns.  octets: on the disk.  losses: when its files were placed.
    __slots__ = ("blocks", "done", "losses", "octets", "placed")

    def __init__(self, placed: Placed, done: Done, losses: int) -> None:
        self.placed = placed
        self.losses = losses
        self.done = done
        self.blocks: list[bytes] = []
        self.octets = 0


class Journal:
    """
    See `committers.Committer` and the module.

    run: runs what blocks.  clock: for the checkpoints.  now: seconds since 1970.
    rewrite: writes the files of a segment again and syncs them (`recovery`); blocks, raises OSError.
    large: the committer for what is too large, where the file system keeps names by fsync of their file; else None.
    """

    keep_open = False

    def __init__(
        self,
        settings: JournalSettings,
        *,
        files: Files,
        run: RunInThread,
        syncer: Syncer,
        clock: IReactorTime,
        now: Callable[[], float],
        rewrite: Callable[[Path], None],
        large: FileSync | None,
    ) -> None:
        self._settings = settings
        self._root = os.fspath(settings.root) + "/"
        self._files = files
        self._run = run
        self._syncer = syncer
        self._clock = clock
        self._now = now
        self._rewrite = rewrite
        self._large = large
        self._waiting: list[_Record] = []
        self._current: Segment | None = None
        self._free: list[Segment] = []
        self._full: list[Segment] = []  # to be freed by the next checkpoint
        self._count = 0
        self._sequence = 0
        self._called: IDelayedCall | None = None
        self._timers: list[IDelayedCall] = []
        self._syncing = False
        self._making = False
        self._resting = False  # the last try to make a segment failed a moment ago
        self._checkpointing = False
        self._broken = False  # no segment can be made, or freed: the disk is at fault
        self._losses = 0  # how often the kernel has told that it lost pages
        self._stopped: Deferred[bool] | None = None
        self._root_descriptor = -1

    # -- what the door asks for ------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        After `recovery`: what segments there are, are free.  The first one is made in a thread; until it is there,
        files are synced one by one.  Raises OSError.
        """
        self._root_descriptor = self._files.open(self._settings.root, OPEN_DIRECTORY)
        for path in segments.segment_paths(self._settings.directory):
            try:
                self._adopt(path)
            except OSError as error:
                _log.error("{path}: not used: {error}", path=str(path), error=str(error), event="journal-failed")
        if not self._free:
            self._make_segment()
        self._later(CHECKPOINT, self._tick)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._clock.callLater(seconds, call))

    def _adopt(self, path: Path) -> None:
        """Take a segment file of an earlier run.  One that is not free, or has another size, is not for us."""
        found = segments.read(path, contents=False)
        header = found.header
        if header is None:
            return
        self._sequence = max(self._sequence, header.sequence)
        if header.in_use:
            return  # it could not be recovered, and is kept for the next start
        if path.stat().st_size != self._settings.size or self._count >= self._settings.most:
            path.unlink()
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._count += 1
        self._free.append(Segment(path, self._settings.size, descriptor, header))

    def takes(self, files: Sequence[NewFile]) -> bool:
        """See `Committer`."""
        if self._large is not None:
            return True
        octets = sum(len(file.head) + file.draft.size for file in files)
        return (
            self._ready()
            and octets <= self._settings.body_limit
            and all(file.draft.temporary is None for file in files)
        )

    def commit(self, placed: Placed, done: Done) -> None:
        """See `Committer`."""
        contents = placed.contents
        if contents is None or placed.octets > self._settings.body_limit or not self._ready():
            self._commit_files(placed, done)
            return
        record = _Record(placed, done, self._losses)
        try:
            for names, content in contents:
                record.blocks += (names_of(names, self._root), content)
        except ValueError:
            self._commit_files(placed, done)  # not below our root
            return
        record.octets = sum(map(len, record.blocks)) + RECORD_HEADER * len(contents)
        if record.octets > self._settings.size - BLOCK:
            self._commit_files(placed, done)
            return
        self._waiting.append(record)
        if not self._syncing and self._called is None:
            # What else comes in this turn of the reactor shares the sync.
            self._called = self._clock.callLater(0, self._turn)

    def _ready(self) -> bool:
        """Is there a segment, or will there be one?"""
        return self._current is not None or bool(self._free) or (bool(self._full) and not self._broken)

    def _commit_files(self, placed: Placed, done: Done) -> None:
        if self._large is None:
            placed.close()
            self._clock.callLater(0, done, OSError(errno.EIO, "no journal, and no other way on this file system"))
            return
        if not placed.open:
            for names, _ in placed.contents or ():
                try:
                    placed.open.append(self._files.open(names[0], OLD))
                except OSError as error:
                    placed.close()
                    self._clock.callLater(0, done, error)
                    return
        self._large.commit(placed, done)

    def stop(self) -> Deferred[bool]:
        """See `Committer`."""
        stopped = self._stopped = Deferred()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._retire_current()
        self._end_if_idle()
        return stopped

    def _end_if_idle(self) -> None:
        if self._stopped is None or self._syncing or self._waiting or self._making or self._checkpointing:
            return
        if self._current is not None:
            self._retire_current()
        if self._full and not self._broken:
            self._checkpoint()
            return
        stopped, self._stopped = self._stopped, None
        for segment in (*self._free, *self._full):
            self._files.close(segment.descriptor)
        self._files.close(self._root_descriptor)
        clean = not self._full
        if self._large is None:
            self._syncer.stop()
            stopped.callback(clean)
        else:
            self._large.stop().addCallback(lambda _: stopped.callback(clean))

    # -- batches ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._called = None
        self._write()

    def _write(self) -> None:
        """Write what waits, as much as fits, and sync it."""
        if self._syncing or not self._waiting:
            return
        segment = self._segment_for(self._waiting[0])
        if segment is None:
            if self._broken:
                # Nothing to wait for: each file has to speak for itself.
                waiting, self._waiting = self._waiting, []
                for record in waiting:
                    self._commit_files(record.placed, record.done)
            return
        batch, blocks, octets = self._batch(segment)
        self._syncing = True
        try:
            if segment.fresh:
                self._files.write_at(segment.descriptor, [encode_header(segment.header)], 0)
                segment.fresh = False
            # Whole blocks: for a part of one the kernel would have to read what is there.
            blocks.append(bytes(padding(octets)))
            written = self._files.write_at(segment.descriptor, blocks, segment.offset)
            if written != octets + padding(octets):
                raise OSError(f"{segment.path}: a short write")
        except OSError as error:
            self._clock.callLater(0, self._written, segment, batch, error)
            return
        segment.offset += octets + padding(octets)
        self._syncer.sync(
            [segment.descriptor], lambda errors: self._written(segment, batch, errors[0]), data_only=True
        )

    def _batch(self, segment: Segment) -> tuple[list[_Record], list[bytes], int]:
        """As many of the waiting as fit: they, their blocks, and the octets of these."""
        mark, room = segment.header.mark, segment.room
        blocks: list[bytes] = []
        octets = taken = 0
        for record in self._waiting:
            own = record.blocks
            pieces = [
                piece
                for at in range(0, len(own), 2)
                for piece in (encode_record(mark, own[at], own[at + 1]), own[at + 1])
            ]
            size = record.octets
            if taken and (octets + size > room or len(blocks) + len(pieces) > MOST_BLOCKS):
                break
            blocks += pieces
            octets += size
            taken += 1
        batch = self._waiting[:taken]
        del self._waiting[:taken]
        segment.losses = min(segment.losses, *(record.losses for record in batch))
        if len(blocks) > MOST_BLOCKS:  # of a single creation, to very many
            blocks = [b"".join(blocks)]
        return batch, blocks, octets

    def _segment_for(self, record: _Record) -> Segment | None:
        """One with room for this record; None while there is none."""
        current = self._current
        if current is not None and current.room < record.octets:
            self._retire_current()
            current = None
        if current is None and self._free:
            current = self._current = self._free.pop()
            self._sequence += 1
            current.renew(segments.in_use_header(self._sequence, self._settings.mount, self._now()))
            current.losses = self._losses
        if not self._free and self._count < self._settings.most:
            self._make_segment()
        return current

    def _written(self, segment: Segment, batch: Sequence[_Record], error: OSError | None) -> None:
        if error is not None:
            _log.error(
                "{path}: {error}; {count} messages are refused, and the segment is given up",
                event="journal-failed",
                path=str(segment.path),
                error=str(error),
                count=len(batch),
            )
            # What was acknowledged before is whole in it; nothing new may follow pages that may be lost.
            segment.failed = True
            if segment is self._current:
                self._retire_current()
        for record in batch:
            record.done(error)
        self._syncing = False
        self._write()
        self._end_if_idle()

    # -- segments --------------------------------------------------------------------------------------------------

    def _make_segment(self) -> None:
        if self._making or self._resting or self._count >= self._settings.most:
            return
        self._making = True
        self._count += 1
        path = self._new_path()
        made = self._run(segments.make, path, self._settings.size, self._files)
        made.addBoth(self._made, path)

    def _new_path(self) -> Path:
        taken = {path.name for path in segments.segment_paths(self._settings.directory)}
        number = next(each for each in range(1, len(taken) + 2) if f"{segments.PREFIX}{each:04}" not in taken)
        return self._settings.directory / f"{segments.PREFIX}{number:04}"

    def _made(self, result: Any, path: Path) -> None:
        self._making = False
        if isinstance(result, Failure):
            self._count -= 1
            self._broken = self._broken or (not self._free and self._current is None and not self._full)
            _log.error(
                "{path}: no journal segment can be made, tried again in {seconds:g} s: {error}",
                event="journal-failed",
                path=str(path),
                seconds=AGAIN,
                error=result.getErrorMessage(),
            )
            # Each try writes a whole segment: not with every message.
            self._resting = True
            if self._stopped is None:
                self._later(AGAIN, self._rested)
        else:
            self._broken = False
            header = segments.in_use_header(0, b"", 0.0)
            self._free.append(Segment(path, self._settings.size, result, header))
        self._write()
        self._end_if_idle()

    def _rested(self) -> None:
        self._resting = False
        if not self._free:
            self._make_segment()

    def _retire_current(self) -> None:
        """Write no more to the current segment; the next checkpoint frees it."""
        segment, self._current = self._current, None
        if segment is None:
            return
        if segment.fresh and not segment.failed:
            self._free.append(segment)  # nothing was written to it
            return
        self._full.append(segment)
        self._checkpoint()

    def _tick(self) -> None:
        self._later(CHECKPOINT, self._tick)
        if not self._syncing:
            self._retire_current()
        self._checkpoint()
        if not self._count:
            self._make_segment()

    def _checkpoint(self) -> None:
        """Make the files durable whose records are in full segments."""
        if self._checkpointing or not self._full:
            return
        self._checkpointing = True
        done = tuple(self._full)
        self._run(self._sync_files, done).addBoth(self._checked, done)

    def _sync_files(self, full: Sequence[Segment]) -> None:
        """In a thread.  Raises OSError."""
        try:
            self._files.syncfs(self._root_descriptor)
        except OSError as error:
            # The kernel has tried, told us, and will not try again: what is in its memory may not be on the disk.
            # That is so for the segment that is written to now, too.
            self._losses += 1
            _log.critical(
                "{root}: {error}; the messages of {count} segments are written again",
                event="sync-failed",
                root=self._root,
                error=str(error),
                count=len(full),
            )
        losses = self._losses
        for segment in full:
            if segment.losses != losses:
                # Also when this is tried again: the next syncfs may succeed, as the kernel has told it once.
                segments.mark_suspect(segment.path, segment.header, self._files)
                self._rewrite(segment.path)
                segment.losses = losses
        for segment in full:
            if segment.failed:
                segments.remove(segment, self._files)
            else:
                segments.mark_free(segment.path, segment.header, self._files)

    def _checked(self, result: Any, done: Sequence[Segment]) -> None:
        self._checkpointing = False
        if isinstance(result, Failure):
            # Where none is free, and none is in use, nobody has to wait for a disk that is at fault.
            self._broken = not self._free and self._current is None
            _log.critical(
                "{directory}: the journal cannot be freed, tried again in {seconds:g} s: {error}",
                event="checkpoint-failed",
                directory=str(self._settings.directory),
                seconds=AGAIN,
                error=result.getErrorMessage(),
            )
            if self._stopped is None:
                self._later(AGAIN, self._checkpoint)
            else:
                self._broken = True
        else:
            self._broken = False
            self._full = [segment for segment in self._full if segment not in done]
            for segment in done:
                if segment.failed:
                    self._count -= 1  # the file is gone; another is made when it is needed
                    self._files.close(segment.descriptor)
                else:
                    self._free.append(segment)
            self._checkpoint()
        self._write()
        self._end_if_idle()
