"""
One server, its disk, its mail and the notes: where a blow happens, and what is looked at after it.

In: a variant, a directory, possibly a disk and a shim.  Out: `Scene`; `Loss` when the promise was broken.
A scene outlives many blows: what was acknowledged before the first must still be there after the last.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.disks import MIB, PowerDisk, SmallDisk
from tests.crash.load import SENDERS, SMALL, Load, Sender, Wire, send_one
from tests.crash.mailboxes import Defect, Loss, Mailboxes, Reader
from tests.crash.messages import compose
from tests.crash.notes import ACKNOWLEDGED, Notes
from tests.crash.server import CrashServer, fresh_data
from tests.crash.shim import Shim
from tests.crash.variants import ADDRESSES, Variant
from tests.crash.watcher import Watcher

#: A small disk with less room than this is not used for another one either.
ROOM = 40 * MIB
#: A scene with more mail than this is not used for another blow: each look reads all of it.
FULL = 100 * MIB
#: How long a server may say that there is no room, when there is room again (seconds).
ROOM_SEEN = 3.0
#: What a restarted server must take at once.
GREETINGS = (
    Sender("again, plain", recipients=2),
    Sender("again, STARTTLS", starttls=True, verb="BDAT"),
    Sender("again, TLS", door="smtps", verb="BDAT", pipelined=True),
)


@dataclass(frozen=True)
class Plan:
    """
    What a scene is made of. seed: of all that is random. sabotage: see `CrashServer.sabotage`.
    shimmed: the server gets the library that makes calls fail. senders: see `Load`.
    """

    variant: Variant
    seed: str
    sabotage: str = ""
    shimmed: bool = False
    senders: Sequence[Sender] = SENDERS


class Scene:
    """
    directory: for configuration, log and notes. disk: where the data is; without one it is in the directory.
    """

    def __init__(self, directory: Path, plan: Plan, disk: PowerDisk | SmallDisk | None = None) -> None:
        self.plan = plan
        self.disk = disk
        self.chance = random.Random(plan.seed)
        data = (disk.top if disk else directory) / "data"
        fresh_data(data)
        self.shim = Shim(directory, data.resolve()) if plan.shimmed else None
        environ: Mapping[str, str] = self.shim.environ if self.shim else {}
        self.server = CrashServer(directory, plan.variant, data, environ)
        if plan.sabotage:
            self.server.sabotage(plan.sabotage)
        self.mailboxes = Mailboxes(data / "mail", ADDRESSES)
        self.notes = Notes(directory / "notes")
        self._watcher: Watcher | None = None
        self._rounds = 0

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server, watched from its first moment on."""
        self._watcher = Watcher([self.mailboxes.maildir(each) / "new" for each in ADDRESSES])
        try:
            self.server.start()
        except AssertionError as error:
            raise Loss([Defect("does not start", str(error))]) from error

    def try_to_start(self, seconds: float) -> None:
        """Start, and let it run for so long, ready or not; nobody watches, and it may also end by itself."""
        self.unwatch()
        self.server.launch()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.running.wait(seconds)

    def die(self) -> None:
        """SIGKILL to all processes of the server."""
        self.server.kill()

    def unwatch(self) -> list[Defect]:
        """Nobody looks any more; what was seen."""
        watcher, self._watcher = self._watcher, None
        return watcher.stop() if watcher else []

    def close(self) -> None:
        """The end, whatever has happened."""
        self.unwatch()
        self.server.end()
        self.notes.close()
        if self.shim:
            self.shim.close()

    @property
    def full(self) -> bool:
        """Is it time for another scene?"""
        crowded = isinstance(self.disk, SmallDisk) and self.disk.free() < ROOM
        return crowded or self.mailboxes.size() > FULL

    # -- load ------------------------------------------------------------------------------------------------------

    def load(self, senders: Sequence[Sender] | None = None) -> Load:
        """More load; not started."""
        self._rounds += 1
        seed = f"{self.plan.seed}-{self._rounds}"
        return Load(self.server.address, self.notes, ADDRESSES, seed=seed, senders=senders or self.plan.senders)

    @contextlib.contextmanager
    def under_load(self, senders: Sequence[Sender] | None = None, *, read: bool = False) -> Iterator[Load]:
        """Load until the end of the block. read: mail is moved to cur/ meanwhile."""
        load = self.load(senders)
        reader = Reader(self.mailboxes, self.plan.seed) if read else None
        load.start()
        if reader:
            reader.start()
        try:
            yield load
        finally:
            if reader:
                reader.stop()
            load.stop()

    def greet(self) -> list[Defect]:
        """One message in each of several ways; all must be taken."""
        defects = []
        for sender in GREETINGS:
            # The server looks at the room on the disk once a second.
            until = time.monotonic() + ROOM_SEEN
            while (reply := self._greeted(sender)).startswith("452") and time.monotonic() < until:
                time.sleep(0.2)
            if reply != ACKNOWLEDGED:
                defects.append(Defect("does not accept", f"{sender.name}: {reply}"))
        return defects

    def _greeted(self, sender: Sender) -> str:
        """The reply to one message."""
        self._rounds += 1
        message = compose(f"{self.plan.seed}-{self._rounds}-again", self.chance.randint(*SMALL), self.chance)
        try:
            with contextlib.closing(Wire(self.server.address(sender.door), sender)) as wire:
                return str(send_one(wire, self.notes, message, sender, ADDRESSES[: sender.recipients]))
        except OSError as error:
            return str(error)

    # -- judgement -------------------------------------------------------------------------------------------------

    def judge(self, *, replies: Sequence[str] = (), more: Sequence[Defect] = ()) -> None:
        """
        Raises Loss with all that is wrong now. replies: those that may have been given besides 250.
        The server must be at rest or dead.
        """
        defects = [*more, *self.mailboxes.judge(self.notes)]
        if self._watcher:
            defects += self._watcher.defects
        defects += [Defect("no answer", each) for each in self.notes.troubles()]
        given = self.notes.replies()
        defects += [
            Defect("refused", f"{count} messages: {reply}")
            for reply, count in given.items()
            if reply not in (ACKNOWLEDGED, *replies)
        ]
        if defects:
            self.notes.remark("loss: " + "; ".join(map(str, defects)))
            raise Loss(defects)

    def recover(self, *, replies: Sequence[str] = ()) -> None:
        """Start again on what is left: everything must be there, tmp/ swept, new mail taken.  Raises Loss."""
        seen = self.unwatch()
        self.start()
        self.judge(replies=replies, more=[*seen, *self.mailboxes.await_empty(self.mailboxes.leftovers)])
        self.judge(replies=replies, more=self.greet())

    def evidence(self, target: Path) -> None:
        """Keep what tells how it came: the notes and the logs."""
        target.mkdir(parents=True, exist_ok=True)
        for name in ("notes", "log", "log.before", "stderr", "mailserver.toml"):
            with contextlib.suppress(OSError):
                shutil.copy(self.server.directory / name, target / name)
