"""
Where the DKIM keys are: `dkim/DOMAIN/SELECTOR.pem` in the data directory.

In: a data directory, domains and selectors in their normal form.  Out: PEM texts; files.
Failures: OSError (FileExistsError for a key that is there: none is ever replaced); ValueError for names that the DNS
could not hold.
Security: keys are 0600, folders 0700, and belong to whom the data directory belongs to, also when root makes them.
No link is followed below the data directory, which is another user's to change: every step is opened from the one
before. A key that could not be written whole is taken away again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mailserver.address import AddressError, normal_domain

FOLDER = "dkim"
SUFFIX = ".pem"
#: Octets of a PEM file; one of 4096 bits has 3,300.
MOST_PEM = 64 * 1024
#: RFC 1035 2.3.4, without the dot at the end and the octet in front.
_MOST_NAME = 253

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OLD = os.O_RDONLY | os.O_NONBLOCK  # a FIFO must not hold us


def default_selector(now: datetime) -> str:
    """A selector for a key that is made now: a new key gets a new name, with its month."""
    return now.strftime("ms%Y%m")


def normal_selector(text: str, domain: str) -> str:
    """The selector in lower-case A-labels.  Raises ValueError; domain: in its normal form."""
    if text.startswith("["):
        raise ValueError("a selector is a name")
    try:
        selector = normal_domain(text)
    except AddressError as error:
        raise ValueError(f"no selector: {error}".replace("domain", "it")) from error
    if len(f"{selector}._domainkey.{domain}") > _MOST_NAME:
        raise ValueError("selector and domain are too long together for the DNS")
    return selector


class _Directory(NamedTuple):
    """An open directory, and its name for messages."""

    descriptor: int
    path: Path


class KeyFolder:
    """The keys of a data directory.  data: it exists."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def path(self, domain: str, selector: str) -> Path:
        """The file of a key, there or not."""
        return self._data / FOLDER / domain / f"{selector}{SUFFIX}"

    def keys(self) -> tuple[tuple[str, str], ...]:
        """
        (domain, selector) of every key, in the order of the alphabet.  What has no such name is passed over.

        Raises OSError.
        """
        with ExitStack() as stack:
            try:
                folder = self._open(stack)
            except FileNotFoundError:
                return ()
            return tuple(
                (domain, selector)
                for domain in sorted(os.listdir(folder.descriptor))
                if _is_normal(domain)
                for selector in _selectors(folder, domain)
            )

    def read(self, domain: str, selector: str) -> bytes:
        """The PEM text of a key.  Raises OSError."""
        with ExitStack() as stack:
            folder = stack.enter_context(_directory(self._open(stack), domain))
            file = stack.enter_context(_opened(folder, f"{selector}{SUFFIX}", _OLD))
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file", str(self.path(domain, selector)))
            return os.read(file, MOST_PEM)

    def write(self, domain: str, keys: Mapping[str, bytes]) -> tuple[Path, ...]:
        """
        Write new keys: all, or none.  The files, and that they are there, survive a power cut.

        keys: selector -> PEM.  Raises OSError; FileExistsError names the key that is there.
        """
        from mailserver.durable import Files  # it needs Twisted: showing keys can do without

        files = Files()
        with ExitStack() as stack, ExitStack() as undo:
            folder = stack.enter_context(_opened_path(self._data))
            owner = os.fstat(folder.descriptor)
            for name in (FOLDER, domain):
                folder = _made(stack, folder, name, owner)
            for selector, pem in keys.items():
                name = f"{selector}{SUFFIX}"
                file = stack.enter_context(_opened(folder, name, _NEW))
                undo.callback(_forget, folder.descriptor, name)
                os.fchmod(file, 0o600)
                _give(file, owner)
                _write_all(file, pem)
                files.fsync(file)
            files.fsync(folder.descriptor)
            undo.pop_all()
        return tuple(self.path(domain, selector) for selector in keys)

    def _open(self, stack: ExitStack) -> _Directory:
        data = stack.enter_context(_opened_path(self._data))
        return stack.enter_context(_directory(data, FOLDER))


def _selectors(parent: _Directory, domain: str) -> list[str]:
    try:
        with _directory(parent, domain) as folder:
            names = os.listdir(folder.descriptor)
    except NotADirectoryError:
        return []
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and _is_normal(name))


@contextlib.contextmanager
def _opened_path(path: Path) -> Iterator[_Directory]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _Directory(descriptor, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(folder: _Directory, name: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder.descriptor)
    except OSError as error:
        error.filename = str(folder.path / name)
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _directory(folder: _Directory, name: str) -> Iterator[_Directory]:
    with _opened(folder, name, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        yield _Directory(descriptor, folder.path / name)


def _made(stack: ExitStack, folder: _Directory, name: str, owner: os.stat_result) -> _Directory:
    """The directory of this name, made if need be, the owner's."""
    from mailserver.durable import Files

    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder.descriptor)
        Files().fsync(folder.descriptor)
    made = stack.enter_context(_directory(folder, name))
    _give(made.descriptor, owner)  # also what an earlier run left to root
    return made


def _give(descriptor: int, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def _forget(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _is_normal(name: str) -> bool:
    try:
        return normal_domain(name) == name and not name.startswith("[")
    except AddressError:
        return False
