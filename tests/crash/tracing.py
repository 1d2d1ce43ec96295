"""
SIGKILL at one system call of a few deliveries: before it is done, and so behind the one before it.

In: a scene whose server runs.  Out: `points`: every file and socket call that these deliveries make, found by looking at them
once with strace; `strike`: the same deliveries, and the end at one of these calls.
Threads take turns, so a call that was there the first time may not come again: then the deliveries are made again, and at
last the group is killed behind them, and the line says so.

strace(1), "-e inject": "when" counts the calls of each thread by itself, from the attachment on.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.load import LARGE, SMALL, Sender, Wire, send_one
from tests.crash.messages import compose
from tests.crash.scene import Scene
from tests.crash.variants import ADDRESSES
from tests.interop.running import PATIENCE, PULSE

#: How often the deliveries are made when the point is not reached: threads take turns.
TRIES = 3
#: A few deliveries, one after the other.
FEW = (
    Sender("few, plain"),
    Sender("few, several recipients", recipients=3, pipelined=True),
    Sender("few, TLS, BDAT", door="smtps", verb="BDAT"),
    Sender("few, large", sizes=LARGE, recipients=2),
)
# "?": a call that this machine does not know is no error.
CALLS = (
    "?open,?openat,?creat,?read,?pread64,?write,?pwrite64,?writev,?pwritev,?pwritev2,?fsync,?fdatasync,?syncfs,?sync_file_range,"
    "?rename,?renameat,?renameat2,?link,?linkat,?unlink,?unlinkat,?mkdir,?mkdirat,?close,?fallocate,?ftruncate,"
    "?accept4,?recvfrom,?recvmsg,?sendto,?sendmsg,?shutdown,?io_submit,?io_getevents,?epoll_wait,?epoll_ctl,?newfstatat,"
    "?fstat,?lseek,?getdents64,?statfs,?fstatfs,?eventfd2"
)
_LINE = re.compile(r"^(\d+)\s+(?:<\.\.\. )?(\w+)(\(| resumed>)")


@dataclass(frozen=True, order=True)
class Point:
    """The call with this name that a thread makes for the number-th time."""

    call: str
    number: int


def missing() -> str | None:
    """Why system calls cannot be traced here; None when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt install strace)"
    with subprocess.Popen(["sleep", "30"]) as victim:
        try:
            with (
                tempfile.TemporaryDirectory() as directory,
                _attached(Path(directory), [victim.pid], "-e", "trace=none"),
            ):
                return None
        except AssertionError as error:
            return f"strace cannot attach: {error}"
        finally:
            victim.kill()


@contextlib.contextmanager
def _attached(directory: Path, pids: list[int], *options: str) -> Iterator[Path]:
    """strace, attached to all threads of these processes until the end of the block."""
    told = directory / "strace.err"
    command = ["strace", "-f", "-o", str(directory / "strace.out"), *options]
    command += [word for pid in pids for word in ("-p", str(pid))]
    with told.open("wb") as errors:
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        deadline = time.monotonic() + PATIENCE
        while any(f"Process {pid} attached" not in told.read_text("utf-8", "replace") for pid in pids):
            if tracer.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(told.read_text("utf-8", "replace").strip())
            time.sleep(PULSE)
        yield directory / "strace.out"
    finally:
        tracer.terminate()
        try:
            tracer.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def _few(scene: Scene) -> int:
    """The deliveries, until one gets no answer; how many did."""
    for count, sender in enumerate(FEW):
        message = compose(
            f"{scene.plan.seed}-few-{scene.chance.getrandbits(48):x}", sender.sizes[1] - SMALL[0], scene.chance
        )
        try:
            with contextlib.closing(Wire(scene.server.address(sender.door), sender)) as wire:
                send_one(wire, scene.notes, message, sender, ADDRESSES[: sender.recipients])
        except OSError:
            return count
    return len(FEW)


def points(scene: Scene) -> list[Point]:
    """
    All points of these deliveries: each call for the first time, then each for the second time ...; the server goes on.
    """
    _few(scene)  # what only the first ones do is not what counts
    with _attached(scene.server.directory, scene.server.members(), "-e", f"trace={CALLS}") as output:
        _few(scene)
    counts: Counter[tuple[str, str]] = Counter()
    for line in output.read_text("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match and match[3] == "(":
            counts[match[2], match[1]] += 1
    most: dict[str, int] = {}
    for (call, _), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    found = [Point(call, number) for call, count in most.items() for number in range(1, count + 1)]
    return sorted(found, key=lambda point: (point.number, point.call))


def strike(scene: Scene, point: Point) -> str:
    """SIGKILL at this point, then at all that is left of the group."""
    rule = f"inject={point.call}:signal=KILL:when={point.number}"
    with _attached(scene.server.directory, scene.server.members(), "-e", f"trace={point.call}", "-e", rule):
        for _ in range(TRIES):
            done = _few(scene)
            if hit := done < len(FEW):
                break
        scene.die()
    scene.judge()
    scene.recover()
    where = f"{done} of {len(FEW)} deliveries" if hit else "the point was not reached"
    return f"SIGKILL at {point.call} number {point.number}, {where}"
