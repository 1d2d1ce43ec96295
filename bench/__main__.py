"""
`python -m bench`: measure this server beside others, on this machine.

In: options (`--help`).  Out: what is going on on stderr, tables on stdout, and files that were asked for.
Exit status 1 with one line on stderr when something is missing or goes wrong; all servers are ended then, and what
was mounted is unmounted, also after SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

from bench import machine, report
from bench.disk import Disk
from bench.figures import Figures
from bench.growth import measure_growth
from bench.idle import CONNECTIONS, measure_idle
from bench.load import Generators, compile_generator
from bench.peers import Aiosmtpd, Mailserver, Postfix, Server, Variant, make_certificate
from bench.plot import svg
from bench.rounds import Plan, measure
from bench.run import BenchError
from bench.texts import DamagedError
from bench.workloads import BY_KEY, KEYS, Workload

_GIB = 2**30
#: Files that a server and the generator of idle connections may have open.
_OPEN_FILES = 65_536
#: Options that name a path.
_PATHS = ("--directory", "--json", "--plot", "--report")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was measured."""

    loads: Sequence[tuple[Workload, Sequence[Figures]]]
    sections: Sequence[report.Section]
    rows: dict[str, object]


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure this mail server beside Postfix and aiosmtpd."
    )
    parser.add_argument("--workloads", default=",".join(KEYS), help="of %(default)s (default: all)")
    parser.add_argument(
        "--servers",
        default="mailserver,postfix,aiosmtpd",
        help="which, and in which order (default: %(default)s); mailserver+workers=2+durability=filesync is ours "
        "with these keys, several of them can be compared",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each server (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="that a round keeps a server busy (default: %(default)s)"
    )
    parser.add_argument("--short", action="store_true", help="three rounds of one second, on a smaller disk")
    parser.add_argument("--parallel", type=int, help="connections at the same time, instead of the workload's own")
    parser.add_argument(
        "--durability", choices=("journal", "filesync", "none"), help="of ours, instead of its default"
    )
    parser.add_argument("--workers", help="of ours, instead of its default: a number or auto")
    parser.add_argument(
        "--directory", help="where the disk file lies: on the disk to be measured (default: temporary)"
    )
    parser.add_argument(
        "--folder", action="store_true", help="measure in a plain folder there: mount nothing, write no disk file"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, for programs")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="the picture")
    parser.add_argument(
        "--report", type=Path, metavar="FILE.md", help="replace the figures of this page, and its picture beside it"
    )
    given = parser.parse_args(words)
    if given.short:
        given.rounds, given.seconds = min(given.rounds, 3), 1.0
    if not 1 <= given.rounds <= 100 or not 0 < given.seconds <= 60:
        parser.error("rounds: 1 to 100; seconds: up to 60")
    given.workloads = [key.strip() for key in given.workloads.split(",")]
    if unknown := [key for key in given.workloads if key not in KEYS]:
        parser.error(f"no workload {unknown[0]!r}; there are: {', '.join(KEYS)}")
    return given


def server_of(text: str, default: Variant, environment: Path) -> Callable[[], Server]:
    """Makes the server that the command line names.  Raises BenchError for an unknown one."""
    name, *keys = text.strip().split("+")
    if name == "mailserver":
        pairs = [key.partition("=")[::2] for key in keys]
        if any(key not in ("workers", "durability") or not value for key, value in pairs):
            raise BenchError(f"{text}: mailserver+workers=N+durability=journal|filesync|none")
        return partial(Mailserver, replace(default, **dict(pairs)), text.strip())
    if name == "postfix" and not keys:
        if os.geteuid() != 0:
            raise BenchError("Postfix needs root; leave it out with --servers mailserver,aiosmtpd")
        return Postfix
    if name == "aiosmtpd" and not keys:
        return partial(Aiosmtpd, environment)
    raise BenchError(f"no server {text!r}; there are mailserver, postfix, aiosmtpd")


def say(text: str) -> None:
    """What is going on."""
    print(text, file=sys.stderr, flush=True)


def prepare(given: argparse.Namespace, directory: Path) -> Plan:
    """Install, compile, write the disk file."""
    _raise_open_files()
    makers = [
        server_of(text, Variant(given.durability, given.workers), directory / "aiosmtpd-venv")
        for text in given.servers.split(",")
    ]
    if any(isinstance(maker(), Aiosmtpd) for maker in makers):
        say("installing aiosmtpd into a virtual environment of its own")
        Aiosmtpd.install(directory / "aiosmtpd-venv")
    say("compiling the generator")
    certificate, key = make_certificate(directory)
    disk = Disk(directory, (3 if given.short else 6) * _GIB, loop=os.geteuid() == 0 and not given.folder)
    return Plan(
        disk=disk,
        generators=Generators(compile_generator(directory)),
        servers=lambda: [maker() for maker in makers],
        certificate=certificate,
        key=key,
        rounds=given.rounds,
        seconds=given.seconds,
        say=say,
    )


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, _OPEN_FILES) if os.geteuid() == 0 else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, _OPEN_FILES)), wanted))


def measure_all(plan: Plan, given: argparse.Namespace) -> Outcome:
    """One workload after the other; each table is printed when it is there."""
    loads: list[tuple[Workload, Sequence[Figures]]] = []
    sections, rows = [], dict[str, object]()
    for key in given.workloads:
        if key == "g":
            say("(g)")
            idle = measure_idle(plan, 1000 if given.short else CONNECTIONS)
            section, rows[key] = report.idle(idle), [each.as_json() for each in idle]
        elif key == "h":
            say("(h)")
            growth = measure_growth(plan)
            section, rows[key] = report.growth(growth), [each.as_json() for each in growth]
        else:
            workload = BY_KEY[key]
            if given.parallel:
                workload = replace(workload, load=replace(workload.load, parallel=given.parallel))
            say(f"({key}) {workload.title}")
            figures = measure(plan, workload)
            loads.append((workload, figures))
            section, rows[key] = report.loaded(workload, figures), [each.as_json() for each in figures]
        sections.append(section)
        print(report.as_text(section), flush=True)
    return Outcome(loads, sections, rows)


def write(outcome: Outcome, given: argparse.Namespace, facts: Sequence[str], words: Sequence[str]) -> None:
    """The files that were asked for."""
    if given.json:
        given.json.write_text(json.dumps({"machine": facts, "workloads": outcome.rows}, indent=2) + "\n")
    picture = given.report.with_suffix(".svg") if given.report else None
    for path in {given.plot, picture} - {None}:
        if outcome.loads:
            path.write_text(svg(outcome.loads), "utf-8")
    if given.report:
        command = " ".join(["python -m bench", *without_paths(words)])
        name = picture.name if picture is not None and outcome.loads else None
        report.update(given.report, report.page(outcome.sections, facts, command, name))


def without_paths(words: Sequence[str]) -> list[str]:
    """The command line without what only this machine has."""
    kept, skip = [], False
    for word in words:
        if not skip and not word.startswith(_PATHS):
            kept.append(word)
        skip = not skip and word in _PATHS
    return kept


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, clean up; the exit status."""
    given = options(words)
    # What is unwound by an exception is cleaned up; a signal that ends Python at once leaves servers behind.
    signal.signal(signal.SIGTERM, _end)
    directory = Path(tempfile.mkdtemp(prefix="mailserver-bench-", dir=given.directory))
    directory.chmod(0o755)  # Postfix' programs are other users
    try:
        plan = prepare(given, directory)
        say("writing the disk file")
        with plan.disk.attached():
            facts = machine.describe(plan.disk, plan.servers())
            print("\n".join(facts), end="\n\n", flush=True)
            outcome = measure_all(plan, given)
        write(outcome, given, facts, sys.argv[1:] if words is None else words)
    except (BenchError, DamagedError) as error:
        say(f"bench: {error}")
        return 1
    finally:
        # Never across a mount: when unmounting has failed, the disk file must stay.
        if not os.path.ismount(directory / "disk"):
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal gives the frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
