"""
Does this machine have what the configuration names: the data directory, users and groups, certificates?

In: the parts of a configuration.  Out: remarks, as from `checks`.  It only looks; nothing is made or changed.
Security: a data directory that is a symbolic link is refused: whoever owns the link would choose where mail goes.
So is one that everybody may write to, and one of the system's own: a server that is started as root makes its user
the owner of the data directory.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from mailserver.config.checks import Remark
from mailserver.config.classes import TLS, Server
from mailserver.config.lines import KeyPath
from mailserver.config.reading import Parts
from mailserver.sockets import owner_ids

#: Directories that others rely on; none of them can be ours, as a whole.
SYSTEM_DIRECTORIES = frozenset(
    Path("/", name)
    for name in (
        "", "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "media", "mnt", "opt", "proc", "root",
        "run", "sbin", "srv", "sys", "tmp", "usr", "usr/bin", "usr/lib", "usr/local", "usr/sbin", "usr/share", "var",
        "var/cache", "var/lib", "var/lock", "var/log", "var/mail", "var/opt", "var/run", "var/spool", "var/tmp",
    )
)  # fmt: skip
#: What is below these is no file on a disk; root is told that it may write there, and cannot.
KERNEL_DIRECTORIES = (Path("/proc"), Path("/sys"))


def survey(parts: Parts) -> Iterator[Remark]:
    """All remarks on what the parts need of the machine."""
    for text in _check_data_dir(parts.server.data_dir):
        yield Remark(("server", "data_dir"), text)
    yield from _check_user(parts.server)
    if parts.tls.certificates:
        yield from _check_certificates(parts.tls)
    for path, listener in parts.listeners.items():
        if listener.unix_owner is not None:
            try:
                owner_ids(listener.unix_owner)
            except ValueError as error:
                yield Remark((*path, "unix_owner"), f"{error}; create it or change unix_owner")
        if listener.client_ca is not None:
            yield from _check_client_ca((*path, "client_ca"), listener.client_ca)


def unsuited(path: Path) -> str | None:
    """Why nobody may have this directory for data, whoever the server runs as; None when it will do."""
    real = Path(os.path.realpath(path))
    if not SYSTEM_DIRECTORIES.isdisjoint((path, real)):
        return f"{path} is a directory of the system; name one below it"
    for kernel in KERNEL_DIRECTORIES:
        if real.is_relative_to(kernel):
            return f"{path} is in {kernel}, which is no place for files; name another directory"
    try:
        status = path.stat()
    except OSError:  # it is missing, or not to be seen: said elsewhere
        return None
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH:
        return f"{path} is writable by every user of this host; chmod o-w it, or name one below it"
    return None


def _check_data_dir(path: Path) -> Iterator[str]:
    if (reason := unsuited(path)) is not None:
        yield reason
    elif path.is_symlink():
        yield f"{path} is a symbolic link; name the folder that it points to"
    elif path.is_dir():
        if _read_only(path):
            yield f"{path} is on a file system mounted read-only; change data_dir"
        elif not _writable(path):
            yield f"{path} is not writable by user {_me()}; change its owner, or change data_dir"
    elif os.path.lexists(path):
        yield f"{path} is not a folder; change data_dir"
    elif not path.parent.is_dir():
        yield f"neither {path} nor the folder around it exists; create it or change data_dir"
    elif _read_only(path.parent):
        yield f"{path} does not exist, and {path.parent} is on a file system mounted read-only; change data_dir"
    elif not _writable(path.parent):
        yield f"{path} does not exist, and user {_me()} cannot make it; create it or change data_dir"


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:  # no answer is none; writing will tell
        return False


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_user(server: Server) -> Iterator[Remark]:
    if server.user is not None:
        try:
            if pwd.getpwnam(server.user).pw_uid == 0:
                yield Remark(
                    ("server", "user"),
                    f'"{server.user}" is root, so the server would never give up its power; '
                    'make a user for it, such as "mailserver"',
                    warning=True,
                )
        except (KeyError, ValueError):  # ValueError: a NUL character
            yield Remark(
                ("server", "user"), f'there is no user "{server.user}" on this machine; create it or change user'
            )
    if server.group is not None:
        try:
            grp.getgrnam(server.group)
        except (KeyError, ValueError):
            yield Remark(
                ("server", "group"), f'there is no group "{server.group}" on this machine; create it or change group'
            )


def _check_certificates(tls: TLS) -> Iterator[Remark]:
    # OpenSSL is slow to import; who has no certificate does not wait for it.
    from mailserver.tls import check_pair

    for number, pair in enumerate(tls.certificates):
        for finding in check_pair(pair.certificate, pair.key):
            key = "certificate" if finding.path == pair.certificate else "key"
            yield Remark(("tls", "certificate", number, key), str(finding), finding.warning)


def _check_client_ca(place: KeyPath, path: Path) -> Iterator[Remark]:
    from mailserver.certificates import CertificateProblem, load_chain

    try:
        load_chain(path)
    except CertificateProblem as problem:
        yield Remark(place, str(problem))
