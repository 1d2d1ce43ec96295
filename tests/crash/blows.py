"""
The blows: what is done to a server under load, and what must be true then.

In: a scene whose server runs.  Out: a line that says what was done; `Loss` when the promise was broken.  After each blow
the server of the scene runs again, but for one that was refused (`Refused`, a defect too).

kill     SIGKILL to the whole process group at a random moment; of several processes sometimes to one of them before
strace   SIGKILL at one system call of a few deliveries: at each of them in turn, in the long run
power    a power cut, while the load runs or in a quiet moment
full     a disk that has no room, and gets room again; every other time the server is killed and started while it is full
fault    system calls that fail, then work again; then SIGKILL, or, on a disk that can lose its power, a power cut, and then
         sometimes a start while they fail, and another power cut

Every other time the first start after a SIGKILL or a power cut ends in the same way, before or while the server recovers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import dataclass

from tests.crash import shim as shims
from tests.crash.disks import PowerDisk, SmallDisk
from tests.crash.load import LARGE, Sender, Wire
from tests.crash.mailboxes import Defect, Loss
from tests.crash.messages import compose
from tests.crash.scene import Scene
from tests.crash.shim import ALWAYS, IGNORE, SHORT
from tests.crash.variants import ADDRESSES
from tests.interop.running import PATIENCE, PULSE

NO_ROOM, TROUBLE = "452 4.3.1", "451 4.3.0"
#: Seconds without load before a power cut in a quiet moment.
QUIET = 0.4
#: Least and most seconds of a start that is ended: from before the first line of ours to after the recovery.
STARTING = (0.2, 1.2)
#: Seconds of a start that has all the time it needs.
START = 2.0


def kill(scene: Scene) -> str:
    """SIGKILL at a random moment."""
    seconds, told = scene.chance.uniform(0.05, 1.2), ""
    with scene.under_load(read=True) as load:
        load.rest(seconds)
        others = scene.server.members()[1:]
        if others and scene.chance.random() < 0.5:
            os.kill(scene.chance.choice(others), signal.SIGKILL)
            load.rest(scene.chance.uniform(0, 1.0))
            told = "one process first, "
        scene.die()
    scene.judge()
    if scene.chance.random() < 0.5:
        scene.try_to_start(scene.chance.uniform(*STARTING))
        scene.die()
        told += "again while it starts, "
    scene.recover()
    return f"SIGKILL, {told}after {seconds:.2f} s"


def power(scene: Scene, *, quiet: bool) -> str:
    """A power cut; in a quiet moment nothing that comes later hides a missing sync."""
    disk = scene.disk
    assert isinstance(disk, PowerDisk)
    seconds = scene.chance.uniform(0.1, 1.0)
    with scene.under_load(read=True) as load:
        load.rest(seconds)
        if not quiet:
            kept = scene.notes.acknowledged()
            disk.cut()
            scene.die()
    if quiet:
        time.sleep(QUIET)
        kept = scene.notes.acknowledged()
        disk.cut()
        scene.die()
    defects, told = scene.unwatch(), ""
    disk.power_on()
    scene.notes.only(kept)
    if scene.chance.random() < 0.5:
        scene.try_to_start(scene.chance.uniform(*STARTING))
        disk.cut()
        scene.die()
        disk.power_on()
        told = ", again while it starts"
    scene.recover()
    if defects:
        raise Loss(defects)
    return f"power cut after {seconds:.2f} s, {'in a quiet moment' if quiet else 'under load'}{told}"


# -- a disk without room ---------------------------------------------------------------------------------------------


def full(scene: Scene, *, restart: bool) -> str:
    """No room in the middle of a message, for other messages, for a start; then room."""
    disk = scene.disk
    assert isinstance(disk, SmallDisk)
    with scene.under_load() as load:
        load.rest(0.3)
    rest = scene.chance.choice((0, 4096, 300 * 1024))
    defects = _interrupted(scene, disk, rest)
    with scene.under_load() as load:
        load.rest(0.5)
    left = scene.mailboxes.await_empty(scene.mailboxes.temporary)
    scene.judge(replies=(NO_ROOM,), more=[*defects, *left])
    if restart:
        with scene.under_load() as load:
            load.rest(scene.chance.uniform(0, 0.2))
            scene.die()
        # It may say that it cannot start without room; what was acknowledged is there, or comes when there is room.
        scene.try_to_start(START)
        scene.die()
    disk.relieve()
    if restart:
        scene.recover(replies=(NO_ROOM,))
    else:
        _await_room(scene)
        scene.judge(replies=(NO_ROOM,), more=scene.greet())
    scene.notes.settle()
    return f"no room but {rest} octets{', started without room' if restart else ''}"


def _interrupted(scene: Scene, disk: SmallDisk, rest: int) -> list[Defect]:
    """The room ends between the 354 and the text of a message."""
    sender = Sender("interrupted", sizes=LARGE)
    message = compose(f"{scene.plan.seed}-full-{scene.chance.getrandbits(40):x}", LARGE[1], scene.chance)
    try:
        with contextlib.closing(Wire(scene.server.address("smtp"), sender)) as wire:
            scene.notes.sending(message, ADDRESSES[:2])
            reply = wire.envelope(ADDRESSES[:2], "DATA")
            disk.fill(rest)
            reply = wire.text(message) if reply.startswith("354") else reply
            scene.notes.answered(message.id, reply)
    except OSError as error:
        reply = str(error)
    return [] if reply == NO_ROOM else [Defect("no room", f"was answered {reply}, not {NO_ROOM}")]


def _await_room(scene: Scene) -> None:
    """The server looks at the free space once a second: refusals for want of room end soon."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if not scene.greet():
            return
        time.sleep(PULSE)


# -- system calls that fail ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """
    calls, error: see `Shim.arm`. reply: of the messages that it hits. seldom: the call may never come.
    harmless: the server may help itself, so that 250 is right too.
    """

    calls: str
    error: int
    reply: str = TROUBLE
    harmless: bool = False
    seldom: bool = False


FAULTS = (
    Fault("fsync", errno.EIO),
    Fault("fsync", errno.ENOSPC, NO_ROOM),
    Fault("fsync", errno.EDQUOT, NO_ROOM),
    Fault("write", errno.EIO),
    Fault("write", errno.ENOSPC, NO_ROOM),
    Fault("write", errno.EDQUOT, NO_ROOM),
    Fault("write", SHORT, harmless=True),
    Fault("open", errno.EMFILE),
    Fault("open", errno.ENOSPC, NO_ROOM),
    Fault("open", errno.EDQUOT, NO_ROOM),
    Fault("open", errno.EROFS),
    Fault("open", errno.EIO),
    Fault("rename link", errno.EIO),
    Fault("rename link", errno.ENOSPC, NO_ROOM),
    Fault("rename link", errno.EDQUOT, NO_ROOM),
    Fault("rename link", errno.EROFS),
    Fault("link", errno.EMLINK, harmless=True),
    Fault("syncfs", errno.EIO, harmless=True, seldom=True),
    Fault("syncfs fsync", errno.EIO),
    Fault("truncate", errno.ENOSPC, NO_ROOM, harmless=True, seldom=True),
    Fault("write fsync rename link", errno.EROFS),
    Fault("mkdir", errno.EIO, harmless=True, seldom=True),
    Fault("mkdir", errno.ENOSPC, NO_ROOM, harmless=True, seldom=True),
    Fault("unlink", errno.EIO, harmless=True, seldom=True),
)


def fault(scene: Scene, which: Fault, *, once: bool) -> str:
    """Calls fail: one of them, or all for a while.  Then they work again, and the server dies."""
    shim = scene.shim
    assert shim is not None
    if "unlink" in which.calls:
        once = True  # who may not remove anything can neither clean up nor take back
    before = scene.notes.acknowledged()
    skip, times = (scene.chance.randrange(20), 1) if once else (0, ALWAYS)
    shim.arm(which.calls, which.error, skip=skip, times=times)
    with scene.under_load() as load:
        load.rest(0.8)
    shim.disarm()
    counts = shim.counts()
    defects = _answers(scene, which, counts, acknowledged=len(scene.notes.acknowledged() - before), once=once)
    with scene.under_load() as load:
        load.rest(0.3)
    defects += scene.mailboxes.await_empty(scene.mailboxes.temporary)
    defects += scene.greet()
    scene.judge(replies=(which.reply,), more=defects)
    end = _end(scene, which)
    scene.recover(replies=(which.reply,))
    # The next blow has its own replies.
    scene.notes.settle()
    what = f"{counts.failed} of {counts.seen} calls {which.calls!r} {shims.name_of(which.error)}"
    return f"{what}, then {end}"


def _answers(scene: Scene, which: Fault, counts: shims.Counts, *, acknowledged: int, once: bool) -> list[Defect]:
    """Were the calls hit, and did the server say so?"""
    defects = []
    refused = scene.notes.replies().get(which.reply, 0)
    what = f"{which.calls} {shims.name_of(which.error)}"
    if not counts.loaded:
        defects.append(Defect("untested", "the server does not have the shim"))
    if not counts.failed and not which.seldom:
        defects.append(Defect("untested", f"{what}: the server makes no such call"))
    # A single failure may hit what the server does again by itself, as the making of a segment: the cut tells.
    if counts.failed and not refused and not which.harmless and not once:
        defects.append(
            Defect("ignored", f"{what}: {counts.failed} calls failed, and no message was answered {which.reply}")
        )
    if acknowledged and not once and not which.harmless and which.error != IGNORE:
        defects.append(Defect("ignored", f"{what}: always, and {acknowledged} messages were answered 250"))
    if once and refused > len(scene.plan.senders):
        defects.append(Defect("spread", f"{what}: one call failed, and {refused} messages were refused"))
    if counts.repeated:
        defects.append(Defect("repeated", f"{what}: {counts.repeated} syncs of a descriptor whose sync had failed"))
    return defects


def _end(scene: Scene, which: Fault) -> str:
    """SIGKILL, or a power cut.  Behind that, calls fail in the recovery too: it may not take for done what is not."""
    shim, disk = scene.shim, scene.disk
    assert shim is not None
    if not isinstance(disk, PowerDisk):
        scene.die()
        return "SIGKILL"
    kept = scene.notes.acknowledged()
    disk.cut()
    scene.die()
    scene.unwatch()
    disk.power_on()
    scene.notes.only(kept)
    if scene.chance.random() < 0.5:
        return "a power cut"
    shim.arm(which.calls, which.error, skip=scene.chance.randrange(8))
    scene.try_to_start(START)
    shim.disarm()
    disk.cut()
    scene.die()
    disk.power_on()
    return f"a power cut, a start with {shim.counts().failed} such failures, a power cut"
