"""
One run of a program: a message on its stdin, an end that comes for certain, its exit status, the start of its output.

In: program, arguments, environment, blocks.  Out: `Outcome`.
Failures: none is raised; what happened stands in the outcome.  Memory is bounded whatever the program does: a block
is given when the one before was read, and of the output the first `MAX_OUTPUT` octets of each stream are kept.

A program that does not read its stdin to the end is no failure: its exit status alone counts.  When it takes too
long, or nobody waits for it any longer, its whole process group gets SIGTERM, and SIGKILL `GRACE` seconds later; from
then on it gets nothing more of the message, and never its end, so that no half message is taken for a whole one.
The program is started through setsid(1), where that exists, so that the group is its own.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IPullProducer
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: Octets of stdout and of stderr that are kept, each.
MAX_OUTPUT = 8192
#: Seconds between SIGTERM and SIGKILL.
GRACE = 5.0
#: Seconds that the pipes may stay open when the program is gone: something that it left behind may hold them.
LINGER = 2.0
#: Seconds between two looks whether a program that has closed its output is gone.
PULSE = 0.05
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_log = Logger()


@dataclass(frozen=True, slots=True)
class Owner:
    """As whom a program runs."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Invocation:
    """
    What shall run.  arguments: the program's path first.  folder: its working directory; None: that of the server.
    owner: None for the server's own user.  timeout: seconds.
    """

    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    folder: str | None = None
    owner: Owner | None = None
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How it ended.  status: the exit status; None when a signal ended it, or it never ran.  signal: its number or None.
    timed_out: it took too long.  trouble: what kept us from running it, or from giving it the whole message; else "".
    """

    status: int | None = None
    signal: int | None = None
    timed_out: bool = False
    trouble: str = ""
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True)
class Machine:
    """The process and its system, for tests to replace.  setsid: the path of that program; "": there is none."""

    reactor: Any
    reap: Callable[[], None] = reapAllProcesses
    killpg: Callable[[int, int], None] = os.killpg
    setsid: str = field(default_factory=lambda: shutil.which("setsid", path="/usr/bin:/bin:/usr/local/bin") or "")


@implementer(IPullProducer)
class Run(ProcessProtocol):
    """
    The program while it runs.

    answered: fires with the outcome; cancelling it ends the program.  `ended` is called when the program is gone for
    certain, once, also when it could not be started.
    """

    transport: Any  # a process: more than its interface says

    def __init__(
        self, invocation: Invocation, blocks: Iterator[bytes], machine: Machine, ended: Callable[[], None]
    ) -> None:
        self.answered: Deferred[Outcome] = Deferred(self._cancelled)
        self._invocation, self._blocks, self._machine, self._ended = invocation, blocks, machine, ended
        self._output = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self._pid = 0
        self._timer: Any = None
        self._pulse: Any = None
        self._open = {_STDOUT, _STDERR}
        self._waits = True  # does somebody wait for the answer?
        self._halted = False  # the program gets no more of the message
        self._over = False  # gone, and `ended` was called
        self._timed_out = False
        self._exit: Any = None  # ProcessDone or ProcessTerminated
        self._trouble = ""

    def start(self) -> Deferred[Outcome]:
        """Start it.  Call it once."""
        what = self._invocation
        prefix = (os.fsencode(self._machine.setsid),) if self._machine.setsid else ()
        arguments = (*prefix, *what.arguments)
        owner = what.owner
        try:
            self._machine.reactor.spawnProcess(
                self,
                arguments[0],
                arguments,
                env=dict(what.environment),
                path=what.folder,
                uid=owner.uid if owner else None,
                gid=owner.gid if owner else None,
            )
        except OSError as error:  # no process, no memory, no descriptors
            self._trouble = f"cannot be started: {error.strerror}"
            self._finish()
        return self.answered

    # -- the message -----------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """It runs."""
        self._pid = self.transport.pid or 0
        self._later(self._invocation.timeout, self._too_long)
        self.transport.registerProducer(self, False)  # False: a pull producer

    def resumeProducing(self) -> None:
        """The block before was read."""
        if self._halted:
            return
        try:
            block = next(self._blocks, None)
        except (OSError, ValueError) as error:  # the disk; the message was closed
            self._trouble = f"the message cannot be read: {error}"
            self._end()
            return
        if block is None:
            self._halted = True
            self.transport.unregisterProducer()
            self.transport.closeStdin()
        else:
            self.transport.write(block)

    def stopProducing(self) -> None:
        """The program has closed its stdin, or is gone."""
        self._halted = True

    # -- the output and the end ------------------------------------------------------------------------------------

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Output: the start is kept, the rest read and forgotten, so that the program is not held up."""
        kept = self._output[childFD]
        kept += data[: MAX_OUTPUT - len(kept)]

    def childConnectionLost(self, childFD: int) -> None:
        """A pipe is closed.  A reactor in a thread hears of no SIGCHLD: behind the last output it is looked after."""
        self._open.discard(childFD)
        if not self._open and self._pulse is None:
            self._pulse = self._machine.reactor.callLater(PULSE, self._look)

    def _look(self) -> None:
        self._pulse = None
        self._machine.reap()
        if self._exit is None and not self._over:
            self._pulse = self._machine.reactor.callLater(PULSE, self._look)

    def processExited(self, reason: Failure) -> None:
        """It is gone; its pipes may still be open."""
        self._exit = reason.value
        if self._timed_out or not self._waits or self._trouble:
            # Now, not after the rest of the grace: the number of the group is surely still that of our program.
            self._signal_group(signal.SIGKILL)
        self._later(LINGER, self._let_go)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and its output is read."""
        self._exit = reason.value
        self._finish()

    def _finish(self) -> None:
        self._cancel_timer()
        if self._pulse is not None and self._pulse.active():
            self._pulse.cancel()
        self._halted = True
        if self._over:
            return
        self._over = True
        self._ended()
        if self._waits:
            self._waits = False
            self.answered.callback(self._outcome())

    def _outcome(self) -> Outcome:
        return Outcome(
            status=self._exit.exitCode if self._exit is not None else None,
            signal=self._exit.signal if self._exit is not None else None,
            timed_out=self._timed_out,
            trouble=self._trouble,
            stdout=bytes(self._output[_STDOUT]),
            stderr=bytes(self._output[_STDERR]),
        )

    # -- making it end ---------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End it: SIGTERM, then SIGKILL."""
        if not self._trouble:
            self._trouble = "ended by us"
        self._end()

    def _too_long(self) -> None:
        self._timer = None
        self._timed_out = True
        self._end()

    def _cancelled(self, _answered: Deferred[Outcome]) -> None:
        self._waits = False
        self._end()

    def _end(self) -> None:
        self._halted = True
        if self._exit is None:
            self._signal(signal.SIGTERM)
            self._later(GRACE, self._kill)

    def _kill(self) -> None:
        self._timer = None
        self._signal(signal.SIGKILL)
        self._later(LINGER, self._let_go)

    def _let_go(self) -> None:
        # What the program left behind holds our pipes; it may live on, without them.  Or the program itself hangs in
        # the kernel, where no signal reaches it.
        self._timer = None
        self.transport.loseConnection()
        if self._exit is None:
            self._trouble = self._trouble or "does not end"
        self._finish()

    def _signal(self, number: signal.Signals) -> None:
        # Without setsid, or in the instant before it has run, there is no such group.
        if not self._signal_group(number):
            try:
                self.transport.signalProcess(number.name.removeprefix("SIG"))
            except ProcessExitedAlready:
                self._halted = True

    def _signal_group(self, number: signal.Signals) -> bool:
        if self._pid <= 1:
            return False
        try:
            self._machine.killpg(self._pid, number)
        except ProcessLookupError:
            return False
        except PermissionError as error:  # it has become somebody else
            _log.error("{error}: a program cannot be ended", error=str(error), event="command-lives")
            return False
        return True

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._machine.reactor.callLater(seconds, call)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
