"""
Programs of their own for the tests: the reactor of a process belongs either to trial or to a thread.

In: what to run.  Out: what it printed.  Each has a bounded time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "testing"
#: Seconds that a program may take.
PATIENCE = 120


def run(folder: Path, *arguments: str, fails: bool = False, **environ: str) -> str:
    """Run Python in `folder`; its output.  fails: whether it shall end with another status than 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COVERAGE"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    told = done.stdout.decode("utf-8", "replace")
    if (done.returncode != 0) is not fails:
        raise AssertionError(f"{arguments} ended with {done.returncode}: {told}")
    return told
