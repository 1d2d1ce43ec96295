"""
Root works as the owner of the data directory: files that root writes could not be read by the server.

In: the data directory.  Out: this process has the owner's user and group from now on, unless it has them already.
Failures: OSError.
"""

from __future__ import annotations

import os
from pathlib import Path


def become_owner(data: Path) -> None:
    """Do that."""
    owner = data.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
