"""
Chooses how files become durable, by the configuration and by what this machine can do; starts and stops it.

In: `StorageSettings`, a reactor.  Out: `Storage`, a service, with its `durable`.
At the start every journal below the directory that nobody uses is recovered, also those of workers that there are no
more; then this process takes its own.  At the end everything is written to the files, and the journal is noted as
stopped in good order.
Failures: `StorageError`, a line for the operator, when the journal is in use or cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailserver.durable import segments
from mailserver.durable.aio import AioSyncer, Unavailable
from mailserver.durable.committers import Committer, FileSync, NoSync, Syncer, ThreadSyncer
from mailserver.durable.door import Durable
from mailserver.durable.drafts import Pace
from mailserver.durable.files import (
    FILES,
    HAS_SYNCFS,
    Files,
    RunInThread,
    fsync_brings_names,
    make_directories,
    mount_identity,
)
from mailserver.durable.journal import CHECKPOINT, Journal, JournalSettings
from mailserver.durable.records import BLOCK
from mailserver.durable.recovery import Place, Report, recover, rewrite
from mailserver.durable.segments import InUse, Running

#: In the data directory: a journal for each worker.
DIRECTORY = "journal"

_log = Logger(namespace="mailserver.durable")


class StorageError(Exception):
    """Mail cannot be stored; `str()` is a line for the operator."""


@dataclass(frozen=True)
class StorageSettings:
    """
    data_dir, mail: where journals and Maildirs are.  durability, commit: keys of [storage].
    segments, segment_size, body_limit: see `JournalSettings`.  worker: which journal is ours.
    """

    data_dir: Path
    mail: Path
    durability: Literal["journal", "filesync", "none"] = "journal"
    commit: Literal["auto", "aio", "thread"] = "auto"
    segments: int = 8
    segment_size: int = 32 * 1024 * 1024
    body_limit: int = 256 * 1024
    worker: int = 1


@dataclass(frozen=True)
class Surroundings:
    """
    What the storage works with.  run: runs what blocks in a thread.  unique_name: for temporary files.
    now: seconds since 1970.  seconds: a clock for short times.  size_of_name: see `recovery.Place`.
    """

    reactor: Any
    run: RunInThread
    unique_name: Callable[[], str]
    now: Callable[[], float]
    seconds: Callable[[], float]
    size_of_name: Callable[[str], int | None]
    files: Files = FILES


class Storage(Service):
    """See the module.  `durable` may be used from the start of the service on."""

    def __init__(self, settings: StorageSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around
        self._own = settings.data_dir / DIRECTORY / str(settings.worker)
        self._lock = -1
        self._alive = LoopingCall(self._note)
        self._alive.clock = around.reactor
        self.durable = Durable(
            run_in_thread=around.run,
            unique_name=around.unique_name,
            files=around.files,
            pace=Pace(around.seconds) if settings.durability != "filesync" or self._names_come else None,
        )

    @property
    def _names_come(self) -> bool:
        return fsync_brings_names(self._settings.mail)

    def startService(self) -> None:
        """Recover what a crash has left, then begin.  Blocks.  Raises StorageError."""
        super().startService()
        try:
            self._begin()
        except BaseException:
            self._unlock()
            raise
        self.durable.startService()
        self._alive.start(CHECKPOINT)

    def _begin(self) -> None:
        try:
            self._recover()
            self.durable.committer = self._committer()
            self.durable.device = os.stat(self._settings.mail).st_dev
            if self.durable.committer is not None:
                self.durable.committer.start()
        except InUse as error:
            raise StorageError(f"{error}; is the server running already?") from error
        except OSError as error:
            raise StorageError(f"{error.filename or self._own}: {error.strerror}") from error

    def stopService(self) -> Deferred[None]:
        """Let everything under way end, and be durable in the files themselves."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        if self._alive.running:
            self._alive.stop()
        idle = self.durable.stopService()
        if idle is not None:
            await idle
        committer, self.durable.committer = self.durable.committer, None
        clean = True
        if committer is not None:
            clean = await committer.stop()
        if clean and self._lock >= 0:
            try:
                segments.note_stopped(self._lock)
            except OSError as error:
                _log.error("{directory}: {error}", directory=str(self._own), error=str(error))
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _note(self) -> None:
        mount = mount_identity(self._settings.mail)
        try:
            segments.note_running(self._lock, Running(mount, self._around.now()))
        except OSError as error:
            # On a full disk, for example: without it torn files of a power cut are not looked for.
            _log.error("{directory}: cannot be noted as running: {error}", directory=str(self._own), error=str(error))

    # -- the start -------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """All journals that are free, and our own, whose lock we keep."""
        make_directories(self._own, files=self._around.files)
        place = place_of(self._settings, self._around)
        with segments.recovering(self._settings.data_dir / DIRECTORY):
            # The first, so that a second server ends at once and touches nothing.
            self._lock = segments.lock(self._own, self._around.files)
            tell(recover(self._own, place, segments.last_run(self._lock)), self._own)
            for directory in journals(self._settings.data_dir):
                if directory != self._own:
                    self._recover_other(directory, place)

    def _recover_other(self, directory: Path, place: Place) -> None:
        try:
            report = recover_alone(directory, place)
        except InUse:
            return  # another worker's
        except OSError as error:
            # Its owner, or the next start, will see to it: our own mail does not wait for that.
            report = Report(failed=[f"{directory}: {error}"])
        tell(report, directory)

    def _committer(self) -> Committer | None:
        settings, around = self._settings, self._around
        if settings.durability == "none":
            _log.critical(
                'durability = "none": a power cut or a crash of this machine loses mail that was acknowledged',
                event="not-durable",
            )
            return NoSync(around.reactor)
        names_come = self._names_come
        if settings.durability == "filesync" or not HAS_SYNCFS:
            return FileSync(self._make_syncer(), around.reactor) if names_come else None
        syncer = self._make_syncer()
        mount = mount_identity(settings.mail)
        return Journal(
            JournalSettings(
                directory=self._own,
                root=settings.mail,
                most=settings.segments,
                size=settings.segment_size // BLOCK * BLOCK,
                body_limit=settings.body_limit,
                mount=mount,
            ),
            files=around.files,
            run=self.durable.run,
            syncer=syncer,
            clock=around.reactor,
            now=around.now,
            rewrite=lambda path: rewrite(path, place_of(settings, around)),
            large=FileSync(syncer, around.reactor) if names_come else None,
        )

    def _make_syncer(self) -> Syncer:
        """Asynchronous I/O where there is any, and it is not forbidden.  Raises StorageError."""
        if self._settings.commit != "thread":
            try:
                return AioSyncer(self._around.reactor)
            except Unavailable as error:
                if self._settings.commit == "aio":
                    raise StorageError(f'commit = "aio": this machine has no asynchronous I/O: {error}') from error
                _log.info("no asynchronous I/O ({reason}): a thread waits for the disk", reason=str(error))
        return ThreadSyncer(self.durable.run, self._around.files)


def place_of(settings: StorageSettings, around: Surroundings) -> Place:
    """For `recover`."""
    return Place(
        root=settings.mail,
        files=around.files,
        unique_name=around.unique_name,
        mount=mount_identity(settings.mail),
        size_of_name=around.size_of_name,
    )


def recover_alone(directory: Path, place: Place) -> Report:
    """Recover a journal that nobody has, and leave it.  Raises InUse, OSError."""
    lock = segments.lock(directory, place.files)
    try:
        report = recover(directory, place, segments.last_run(lock))
        if not report.failed:
            segments.note_stopped(lock)
    finally:
        os.close(lock)
    return report


def journals(data_dir: Path) -> Iterator[Path]:
    """The directories of all journals, by number."""
    try:
        found = [path for path in (data_dir / DIRECTORY).iterdir() if path.name.isdecimal() and path.is_dir()]
    except FileNotFoundError:
        return
    yield from sorted(found, key=lambda path: int(path.name))


def tell(report: Report, directory: Path) -> None:
    """Log what a recovery has found."""
    if report.segments or report.removed:
        _log.warn(
            "{directory}: not stopped in good order: {records} messages in {segments} segments, {whole} whole,"
            " {written} written again, {removed} torn ones removed",
            event="recovered",
            directory=str(directory),
            segments=report.segments,
            records=report.records,
            whole=report.whole,
            written=report.written,
            expunged=report.expunged,
            torn=report.torn,
            removed=report.removed,
        )
    for text in report.damaged + report.foreign:
        _log.error("journal: {problem}", event="journal-damaged", problem=text)
    for text in report.failed:
        _log.critical(
            "journal: cannot be recovered now, kept for the next start: {problem}", event="journal-kept", problem=text
        )
