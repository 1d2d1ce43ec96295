"""
`python -m tests.crash`: many blows, in turn on all variants of the server; the long form of the crash tests.

In: options (`--help`).  Out: a line for each blow, and at the end how many there were of each kind; what could not be done
here, and why.  Exit status 0: nothing was lost.  1: something was, and the notes and logs of it are kept.  2: no blow at all.
The same seed gives the same messages and the same order; the moments are those of the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.crash.mailboxes import Loss
from tests.crash.series import KINDS, Series, missing
from tests.crash.variants import BY_NAME, VARIANTS


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill the server, look what is left.")
    parser.add_argument("--blows", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", default=None, help="of all that is random (default: the time)")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds of blows, of: %(default)s")
    parser.add_argument("--variant", action="append", help="this variant only; may be given again; --list shows them")
    parser.add_argument("--list", action="store_true", help="show kinds and variants, and what cannot be done here")
    parser.add_argument(
        "--evidence", type=Path, default=Path("crash-evidence"), help="where notes and logs of a loss go"
    )
    parser.add_argument("--directory", type=Path, default=None, help="where disks and data are made (some 1.5 GiB)")
    return parser.parse_args()


def _show() -> None:
    for kind in KINDS:
        print(f"{kind:8} {missing(kind) or 'can be done here'}")
    for variant in VARIANTS:
        print(f"{variant.name:28} {variant.missing() or 'can be done here'}")


def main() -> int:
    """Run it; the exit status."""
    options = _options()
    if options.list:
        _show()
        return 0
    # Whoever ends us shall find no mount and no server left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = options.seed or f"{int(time.time()):x}"
    print(f"seed {seed}")
    names = options.variant or [each.name for each in VARIANTS]
    pairs = []
    for kind in options.only.split(","):
        for name in names:
            reason = missing(kind) or BY_NAME[name].missing()
            if reason:
                print(f"skipped: {kind}, {name}: {reason}")
            else:
                pairs.append((kind, name))
    random.Random(seed).shuffle(pairs)
    if not pairs:
        return 2
    done: Counter[str] = Counter()
    struck: Counter[tuple[str, str]] = Counter()
    losses = 0
    while sum(done.values()) < options.blows:
        for kind, name in pairs:
            left = options.blows - sum(done.values())
            if left <= 0:
                break
            directory = Path(tempfile.mkdtemp(prefix="mailserver-crash-", dir=options.directory))
            series = Series(kind, BY_NAME[name], f"{seed}-{sum(done.values())}", directory, begin=struck[kind, name])
            try:
                with contextlib.closing(series):
                    for told in series.blows(min(left, series.length)):
                        done[kind] += 1
                        struck[kind, name] += 1
                        print(f"{sum(done.values()):4} {kind}, {name}: {told}", flush=True)
            except Loss as loss:
                done[kind] += 1
                losses += 1
                print(f"{sum(done.values()):4} {kind}, {name}: LOSS: {series.doing}: {loss}", flush=True)
                kept = options.evidence / f"{seed}-{sum(done.values())}"
                series.evidence(kept)
                print(f"     notes and logs: {kept}")
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    print(
        f"{sum(done.values())} blows ({', '.join(f'{count} {kind}' for kind, count in sorted(done.items()))}),",
        end=" ",
    )
    print(f"{losses} with a loss" if losses else "nothing lost")
    return 1 if losses else 0


sys.exit(main())
