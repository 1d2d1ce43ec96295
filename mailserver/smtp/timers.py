"""
The one timer of a connection: what is being waited for now, and until when.

In: the state of the session, its limits, a clock.  Out: `timeoutConnection`, or the end of a text that is too slow.
Nearly no time-out ever fires, and it would cost more to move a delayed call at each command than to handle the
command.  So the deadline is only noted; the delayed call that runs looks at it when it comes, and waits for the rest.
RFC 5321 4.5.3.2 (time-outs); limits: mailserver/limits.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailserver import reply as replies
from mailserver.interfaces import IAdmission
from mailserver.limits import Limits
from mailserver.smtp.avatars import AvatarServer
from mailserver.smtp.rules import State

#: Clocks add and subtract with a rounding error of less than this (seconds).
_ROUNDING = 1e-6
_BETWEEN = frozenset({State.CONNECTED, State.READY, State.MAIL, State.RCPT})


class TimedServer(AvatarServer):
    """The part of `ESMTPServer` that knows how long everything may take."""

    clock: IReactorTime | None
    admission: IAdmission | None
    _limits: Limits
    _started: float
    _peer_reads = True
    _handshaking = False
    _text_started = _text_waited = 0.0
    __slots__ = (
        "_command_since",
        "_deadline",
        "_rough",
        "_spoke",
        "_text_timed",
        "_timed_for",
        "_timer",
        "_timer_at",
    )

    def __init__(self, chal: Mapping[bytes, Any] | None = None, contextFactory: Any = None) -> None:
        super().__init__(chal, contextFactory)
        self._text_timed = self._spoke = False
        self._timed_for = ""
        self._command_since = self._timer_at = 0.0
        #: When the time is over; None: nothing is waited for.
        self._deadline: float | None = None
        #: Is that only the earliest that it may be?
        self._rough = False
        self._timer: IDelayedCall | None = None

    def timeoutConnection(self) -> None:
        """The time for what `_timed_for` says is over."""
        raise NotImplementedError

    def _pump(self) -> None:
        raise NotImplementedError

    def setTimeout(self, period: float | None) -> None:  # type: ignore[override]
        """In place of `TimeoutMixin`'s: from now on so many seconds, or None for no end."""
        self._deadline, self._rough = None, False
        if period is None:
            return
        clock = self._clock()
        deadline = self._deadline = clock.seconds() + period
        if self._timer is None:
            self._timer, self._timer_at = clock.callLater(period, self._time_is_over), deadline
        elif deadline < self._timer_at:
            self._timer.reset(period)
            self._timer_at = deadline

    def _time_is_over(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        now = self._clock().seconds()
        if self._rough:
            wait, self._timed_for = self._for_command(now)
            self._deadline = now + wait
        left = self._deadline - now
        if left > _ROUNDING:
            self.setTimeout(left)
        else:
            self._deadline = None
            self.timeoutConnection()

    def _forget_time(self) -> None:
        """The connection is over."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def callLater(self, period: float, func: Callable[[], None]) -> Any:
        """For who calls it on a protocol of Twisted's: our clock, not the reactor's."""
        return self._clock().callLater(period, func)

    def _arm(self) -> None:
        """Set the time for what is being waited for now."""
        if self._lost:
            return
        session, limits, now = self.session, self._limits, self._clock().seconds()
        state = session.state
        if (
            self._spoke
            and state in _BETWEEN
            and self._peer_reads
            and not self._handshaking
            and now - self._started < limits.connection_time - limits.busy_command_timeout
        ):
            self._await_command(now)
            return
        if not session.in_message:
            self._text_timed = False
        elif not self._text_timed:
            self._time_text()  # nobody was asked for a place: the text is thrown away
        if state is State.CLOSED:
            wait, what = (limits.closing_timeout if self._peer_reads else limits.unread_timeout), "closing"
        elif not self._peer_reads:
            wait, what = limits.unread_timeout, "replies not read"
        elif self._handshaking:
            wait, what = limits.tls_handshake_timeout, "TLS handshake"
        elif state is State.TEXT or state is State.CHUNK:
            wait, what = limits.text_timeout, "message text"
            if self._too_slow(now):
                session.abort(replies.TOO_SLOW, "message too slow")
                self._pump()
                return
        else:
            wait, what = self._for_command(now)
        self._timed_for, self._spoke, self._rough = what, False, False
        deadline = self._deadline = now + wait
        if self._timer is None or deadline < self._timer_at:
            self.setTimeout(wait)

    def _await_command(self, now: float) -> None:
        """
        What nearly every reply comes to: the next command is waited for.  When that ends is worked out when the
        delayed call comes, which is never after it.
        """
        self._text_timed = False
        self._command_since = now
        self._timed_for, self._spoke, self._rough = "command", False, True
        deadline = self._deadline = now + min(self._limits.busy_command_timeout, self._limits.command_timeout)
        if self._timer is None or deadline < self._timer_at:
            self.setTimeout(deadline - now)
            self._rough = True

    def _for_command(self, now: float) -> tuple[float, str]:
        """How long the next command is waited for, and what ends then."""
        limits = self._limits
        busy = self.admission is not None and self.admission.busy()
        if self._spoke or self._timed_for not in ("command", "connection time"):
            self._command_since = now
        # Single octets of a command that never ends are no progress: the time is for the whole of it.
        wait = limits.busy_command_timeout if busy else limits.command_timeout
        wait = max(self._command_since + wait - now, 0.0)
        left = self._started + limits.connection_time - now
        if self.session.in_transaction:
            left += limits.command_timeout  # one that has begun may still come to its text
        return (wait, "command") if wait <= left else (max(left, 0.0), "connection time")

    def _time_text(self) -> None:
        """From now on the octets of a text are measured against the clock."""
        self._text_timed = True
        self._text_started, self._text_waited = self._clock().seconds(), 0.0

    def _too_slow(self, now: float) -> bool:
        took = now - self._text_started - self._text_waited
        return (
            took > self._limits.text_grace
            and self._limits.text_rate > 0
            and self.session.text_octets < self._limits.text_rate * took
        )
