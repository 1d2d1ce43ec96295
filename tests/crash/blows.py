"""
The blows: what is done to a server under load, and what must be true then.

In: a scene whose server runs.  Out: a line that says what was done; `Loss` when the promise was broken.  After each blow
the server of the scene runs again, but for one that was refused (`Refused`, a defect too).

kill     SIGKILL to the whole process group at a random moment
strace   SIGKILL at one system call of a few deliveries: at each of them in turn, in the long run
power    a power cut, while the load runs or in a quiet moment
full     a disk that has no room, and gets room again; every other time the server is killed and started while it is full
fault    system calls that fail, then work again; then SIGKILL, or, on a disk that can lose its power, a power cut
"""

from __future__ import annotations

import contextlib
import errno
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


def kill(scene: Scene) -> str:
    """SIGKILL at a random moment."""
    seconds = scene.chance.uniform(0.05, 1.2)
    with scene.under_load(read=True) as load:
        load.rest(seconds)
        scene.die()
    scene.judge()
    scene.recover()
    return f"SIGKILL after {seconds:.2f} s"


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
    defects = scene.unwatch()
    disk.power_on()
    scene.notes.only(kept)
    scene.recover()
    if defects:
        raise Loss(defects)
    return f"power cut after {seconds:.2f} s, {'in a quiet moment' if quiet else 'under load'}"


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
        with contextlib.suppress(Loss):
            scene.unwatch()
            scene.start()
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
    end = _end(scene)
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
    if counts.failed and not refused and not which.harmless:
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


def _end(scene: Scene) -> str:
    if isinstance(scene.disk, PowerDisk):
        kept = scene.notes.acknowledged()
        scene.disk.cut()
        scene.die()
        scene.unwatch()
        scene.disk.power_on()
        scene.notes.only(kept)
        return "a power cut"
    scene.die()
    return "SIGKILL"
