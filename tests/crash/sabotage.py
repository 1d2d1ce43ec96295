"""
A server that breaks its promise, to show that the tests would see it.

In: the kind of sabotage, then the arguments of twistd.  Out: that program, with one function of `mailserver.durable`
replaced.  A kind whose function is not there ends with status 3: a test of the tests may not pass for nothing.

early      the Deferred of a commit fires before its work is done: 250 is answered too early
swallow    an fsync that fails is taken for one that did not
visible    a message is written under its final name, piece by piece
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from typing import Any

from mailserver import durable

#: Seconds by which the work of a commit comes behind its answer.
LATE = 0.3
#: Seconds between the halves of a message.
SLOW = 0.02


def _replace(owner: Any, name: str, make: Any) -> None:
    if not hasattr(owner, name):
        sys.exit(3)
    setattr(owner, name, make(getattr(owner, name)))


def _early(create: Any) -> Any:
    from twisted.internet.defer import succeed

    def create_later(*arguments: Any, **options: Any) -> Any:
        from twisted.internet import reactor

        later: Any = reactor
        later.callLater(LATE, lambda: create(*arguments, **options).addErrback(lambda _: None))
        return succeed({})  # nothing has failed

    return create_later


def _swallowing(fsync: Any) -> Any:
    def fsync_or_not(*arguments: Any) -> None:
        with contextlib.suppress(OSError):
            fsync(*arguments)

    return fsync_or_not


def _write_there(source: Any, target: Any) -> None:
    with open(source, "rb") as old, open(target, "xb", buffering=0) as new:
        content = old.read()
        new.write(content[: len(content) // 2])
        time.sleep(SLOW)
        new.write(content[len(content) // 2 :])


def _visible_link(_link: Any) -> Any:
    return lambda _self, source, target: _write_there(source, target)


def _visible_rename(_rename: Any) -> Any:
    def rename(_self: Any, source: Any, target: Any) -> None:
        _write_there(source, target)
        os.unlink(source)

    return rename


def main() -> None:
    """Do it."""
    kind = sys.argv[1]
    files = durable.Files if hasattr(durable, "Files") else importlib.import_module("mailserver.durable.files").Files
    if kind == "early":
        _replace(durable.Durable, "create", _early)
    elif kind == "swallow":
        for name in ("fsync", "fdatasync", "syncfs"):
            if name == "fsync" or hasattr(files, name):
                _replace(files, name, _swallowing)
    elif kind == "visible":
        _replace(files, "link", _visible_link)
        _replace(files, "rename", _visible_rename)
    else:
        sys.exit(3)
    sys.argv[:2] = ["twistd"]
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
