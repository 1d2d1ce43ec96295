"""
What a service and systemd tell each other: how the service is (sd_notify), and which sockets it was given.

In: the environment that systemd set (NOTIFY_SOCKET, LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES).
Out: datagrams to systemd; numbers of descriptors.  Without systemd: nothing sent, and a ValueError that says so.
sd_notify(3), sd_listen_fds(3), systemd.service(5), systemd.socket(5).  Nothing here knows Twisted.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"

#: The first descriptor that systemd passes: SD_LISTEN_FDS_START of sd_listen_fds(3).
FIRST_PASSED = 3

_COUNT = re.compile(r"[0-9]{1,5}\Z")


def notify(state: str, environ: Mapping[str, str]) -> bool:
    """
    Tell systemd the state of this service; one or more "NAME=value" lines.

    environ: NOTIFY_SOCKET names the socket, as a path or, after "@", in the abstract namespace.
    Returns True when it was sent; False when nobody asked, or nobody listens.  Never blocks, never raises.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    where = b"\0" + os.fsencode(name[1:]) if name.startswith("@") else os.fsencode(name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), where)
    except (OSError, ValueError):
        return False
    return True


def reloading() -> str:
    """The state at the start of a reload.  Type=notify-reload, systemd.service(5), wants the time with it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def status(text: str) -> str:
    """A state with a line for `systemctl status`; only its first line counts."""
    return "STATUS=" + text.partition("\n")[0]


def passed_descriptors(name: str, environ: Mapping[str, str]) -> list[int]:
    """
    The descriptors that systemd opened for this process under a name (FileDescriptorName= of the socket unit).

    They keep their numbers and stay open, so that a later call (after a reload) finds them again.
    Raises ValueError: why there are none.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        raise ValueError("systemd passed no sockets to this process; start the .socket unit first")
    if not _COUNT.match(environ.get("LISTEN_FDS", "")):
        raise ValueError("LISTEN_FDS is no number")
    count = int(environ["LISTEN_FDS"])
    names = environ.get("LISTEN_FDNAMES", "").split(":")[:count]
    # sd_listen_fds_with_names(3) calls those without a name so.
    names = [each or "unknown" for each in names] + ["unknown"] * (count - len(names))
    found = [FIRST_PASSED + at for at, each in enumerate(names) if each == name]
    if not found:
        known = ", ".join(sorted(set(names))) or "none"
        raise ValueError(f"systemd passed no socket of this name; the names it passed: {known}")
    return found
