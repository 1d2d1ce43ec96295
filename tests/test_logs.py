"""The observers of the log: what is written, when and where to, and what comes of a file that takes nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.python import threadable
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver
from twisted.trial.unittest import SynchronousTestCase

from mailserver import logs, tap
from mailserver.log_lines import json_line, text_line
from mailserver.logs import (
    MOST_WAITING,
    Destination,
    LineObserver,
    SharedLines,
    json_observer,
    observer,
    observer_of_worker,
    text_observer,
    twistd_logger,
)

WHEN = 1795196400.1234  # 2026-11-20T17:40:00.123Z


def event(text: str | None = "a text", **fields: Any) -> dict[str, Any]:
    plain = {"log_time": WHEN, "log_level": LogLevel.info, "log_namespace": "mailserver.test", "log_format": text}
    return plain | fields


class Broken:
    """A file that takes nothing while `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.lines.append(text)

    def flush(self) -> None:
        pass


class Observers(SynchronousTestCase):
    def test_a_logger_can_write_to_each(self) -> None:
        for make in (json_observer, text_observer):
            file = io.StringIO()
            Logger(namespace="mailserver.x", observer=make(file)).info("hello {who}", event="greeting", who="Wörld")
            self.assertIn("greeting", file.getvalue())
            self.assertEqual(file.getvalue().count("\n"), 1)

    def test_timestamps_can_be_left_to_others(self) -> None:
        file = io.StringIO()
        text_observer(file, timestamps=False)(event("x", event="e"))
        text_observer(file)(event("x", event="e", log_time=None))
        self.assertEqual(file.getvalue(), "info e: x\n- info e: x\n")

    def test_files_for_bytes_and_for_ascii_work_too(self) -> None:
        raw, narrow = io.BytesIO(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        for file in (raw, narrow):
            text_observer(file, timestamps=False)(event("süß", event="e"))
        self.assertEqual(raw.getvalue(), "info e: süß\n".encode())
        self.assertEqual(narrow.buffer.getvalue(), b"info e: s\\xfc\\xdf\n")

    def test_lower_levels_are_left_out_and_events_without_one_are_not(self) -> None:
        file = io.StringIO()
        log = observer("text", "warning", file)
        for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical, None, "odd"):
            log(event("x", log_level=level, event="e"))
        levels = [line.split()[2] for line in file.getvalue().splitlines()]
        self.assertEqual(levels, ["warn", "error", "critical", "-", "-"])

    def test_twisteds_remarks_on_connections_of_a_web_client_are_for_debugging(self) -> None:
        for level, lines in (("info", 0), ("debug", 1)):
            file = io.StringIO()
            observer("text", level, file)(event("Starting factory {factory!r}", factory="f"))
            self.assertEqual(len(file.getvalue().splitlines()), lines, level)

    def test_words_that_are_no_format_or_level_are_refused(self) -> None:
        self.assertIn("loud", str(self.assertRaises(ValueError, observer, "text", "loud", io.StringIO())))
        self.assertIn("xml", str(self.assertRaises(ValueError, observer, "xml", "info", io.StringIO())))

    def test_a_file_that_takes_nothing_costs_lines_and_no_exception(self) -> None:
        for error in (OSError(28, "No space left on device"), BrokenPipeError(), ValueError("closed")):
            file = Broken()
            log = json_observer(file)  # type: ignore[arg-type]
            log(event("one"))
            file.error = error
            log(event("two"))
            log(event("three"))
            file.error = None
            log(event("four"))
            log(event("five"))
            told = [json.loads(line) for line in "".join(file.lines).splitlines() if line]
            self.assertEqual(
                [(line["event"], line["text"]) for line in told],
                [
                    ("log", "one"),
                    ("log-lost", "2 log lines before this one could not be written"),
                    ("log", "four"),
                    ("log", "five"),
                ],
            )

    def test_a_closed_file_is_survived(self) -> None:
        file = io.StringIO()
        file.close()
        self.assertRaises(ValueError, file.write, "x")
        log = text_observer(file)
        log(event())
        log(event())
        self.assertEqual(self.flushLoggedErrors(), [])


class Turns(Clock):
    """A reactor that runs; `advance(0)` ends its turn."""

    running = True

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Any] = []

    def addSystemEventTrigger(self, *what: Any) -> None:
        self.triggers.append(what)


class WaitingTests(SynchronousTestCase):
    """Lines of a running reactor."""

    def setUp(self) -> None:
        self.patch(threadable, "ioThread", threadable.getThreadID())
        self.at_exit: list[Any] = []
        self.patch(logs, "atexit", SimpleNamespace(register=self.at_exit.append))
        self.turns = Turns()
        self.file = Broken()
        self.log = LineObserver(self.file, lambda event: f"{event['event']}\n", reactor=self.turns)  # type: ignore[arg-type]

    def say(self, *names: str, level: Any = LogLevel.info) -> None:
        for name in names:
            self.log(event("x", event=name, log_level=level))

    def test_the_lines_of_a_turn_are_one_write_at_its_end(self) -> None:
        self.say("one")
        self.say("two", level=LogLevel.debug)
        self.assertEqual(self.file.lines, [])
        self.turns.advance(0)
        self.assertEqual(self.file.lines, ["one\ntwo\n"])
        self.say("three")
        self.turns.advance(0)
        self.assertEqual(self.file.lines, ["one\ntwo\n", "three\n"])
        self.assertEqual(self.turns.getDelayedCalls(), [])

    def test_what_is_worse_is_written_at_once_behind_what_waits(self) -> None:
        for level in (LogLevel.warn, LogLevel.error, LogLevel.critical, None, "odd"):
            self.file.lines.clear()
            self.say("one")
            self.say("bad", level=level)
            self.assertEqual(self.file.lines, ["one\nbad\n"])
            self.turns.advance(0)
            self.assertEqual(self.file.lines, ["one\nbad\n"])

    def test_so_many_lines_wait_and_no_more(self) -> None:
        self.say(*["x"] * (MOST_WAITING - 1))
        self.assertEqual(self.file.lines, [])
        self.say("x")
        self.assertEqual(self.file.lines, ["x\n" * MOST_WAITING])

    def test_a_thread_writes_at_once_and_in_order(self) -> None:
        self.say("one")
        thread = threading.Thread(target=self.say, args=("two",))
        thread.start()
        thread.join()
        self.assertEqual(self.file.lines, ["one\ntwo\n"])

    def test_before_and_after_the_reactor_runs_nothing_waits(self) -> None:
        self.say("one")
        self.turns.running = False
        self.say("two")
        self.assertEqual(self.file.lines, ["one\ntwo\n"])

    def test_the_end_of_the_reactor_or_of_the_process_writes_what_waits(self) -> None:
        ((*when, at_shutdown),) = self.turns.triggers
        self.assertEqual(when, ["after", "shutdown"])
        for end in (at_shutdown, *self.at_exit):
            self.say("last")
            end()
            self.assertEqual(self.file.lines.pop(), "last\n")
        self.assertEqual(len(self.at_exit), 1)

    def test_each_line_that_waited_is_counted_when_it_is_lost(self) -> None:
        log = LineObserver(self.file, json_line, reactor=self.turns)  # type: ignore[arg-type]
        self.file.error = OSError(28, "No space left on device")
        for _ in range(3):
            log(event("lost"))
        self.turns.advance(0)
        self.file.error = None
        log(event("kept"))
        self.turns.advance(0)
        lost, kept = (json.loads(line) for line in self.file.lines[0].splitlines() if line)
        self.assertEqual((lost["event"], lost["count"], lost["time"]), ("log-lost", 3, kept["time"]))
        self.assertEqual(kept["text"], "kept")


class Twistd(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def log_to(self, name: str) -> None:
        log = twistd_logger({"logfile": name}, "json", "info")()
        assert log is not None
        log(event("kept"))

    def test_in_the_foreground_the_log_goes_to_standard_output(self) -> None:
        for options in ({"nodaemon": True}, {"nodaemon": True, "logfile": "-"}):
            out = io.StringIO()
            self.patch(sys, "stdout", out)
            log = twistd_logger(options, "json", "info")()
            assert log is not None
            log(event("shown"))
            self.assertEqual(json.loads(out.getvalue())["text"], "shown")

    def test_a_daemon_cannot_log_to_standard_output(self) -> None:
        self.assertRaises(SystemExit, twistd_logger({"logfile": "-"}, "text", "info"))

    def test_a_daemon_logs_to_twistd_log_by_default(self) -> None:
        before = Path.cwd()
        os.chdir(self.directory)
        try:
            self.log_to("")
        finally:
            os.chdir(before)
        self.assertIn("kept", (self.directory / "twistd.log").read_text())

    def test_a_new_file_is_not_for_everybody(self) -> None:
        path = self.directory / "mail.log"
        self.log_to(str(path))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o640)

    def test_a_file_that_exists_goes_on_with_its_mode(self) -> None:
        path = self.directory / "mail.log"
        path.write_text("before\n")
        path.chmod(0o600)
        self.log_to(str(path))
        self.assertEqual(path.read_text().splitlines()[0], "before")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_a_device_is_not_rotated(self) -> None:
        self.patch(LogFile, "fromFullPath", lambda *_: self.fail("a device was opened as a rotating file"))
        self.log_to("/dev/null")

    def test_the_signal_is_taken_only_when_it_is_free(self) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.log_to(str(self.directory / "a.log"))
        first = signal.getsignal(signal.SIGUSR1)
        self.assertTrue(callable(first))
        self.log_to(str(self.directory / "b.log"))
        self.assertIs(signal.getsignal(signal.SIGUSR1), first)

    def test_syslog_is_left_to_twistd(self) -> None:
        self.assertIsNone(twistd_logger({"syslog": True}, "text", "info")())

    def test_a_wrong_word_is_told_at_once(self) -> None:
        self.assertRaises(ValueError, twistd_logger, {}, "xml", "info")


class WorkersTests(SynchronousTestCase):
    """Several processes."""

    def written(self, form: str, worker: int | None) -> str:
        file = io.StringIO()
        observer(form, "info", file, worker=worker)({**event("hello {who}", who="you"), "worker": "mine"})
        return file.getvalue()

    def test_each_line_tells_its_worker(self) -> None:
        line = json.loads(self.written("json", 3))
        self.assertEqual((line["worker"], line["worker_"]), (3, "mine"))
        self.assertIn(" info [3] ", self.written("text", 3))

    def test_without_a_number_a_line_tells_none(self) -> None:
        self.assertNotIn("worker", json.loads(self.written("json", None)))
        self.assertNotIn("[", self.written("text", None))

    def test_long_lines_of_several_processes_through_a_pipe_stay_whole(self) -> None:
        read, write = os.pipe()
        children = []
        for letter in (b"a", b"b", b"c"):
            child = os.fork()
            if not child:
                lines = SharedLines(write)
                for _ in range(20):
                    lines.write(letter * 20_000 + b"\n")
                os._exit(0)
            children.append(child)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            found = [line.rstrip(b"\n") for line in pipe]
        for child in children:
            os.waitpid(child, 0)
        self.assertEqual({(line[:1] * 20_000 == line) for line in found}, {True})
        self.assertEqual(len(found), 60)

    def test_a_file_needs_no_lock_and_gets_all(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            lines = SharedLines(file.fileno())
            self.assertEqual((lines.fileno(), lines.writable(), lines.write(b"x\n")), (file.fileno(), True, 2))
            LineObserver(lines, text_line)(event("hello"))
        self.assertEqual(len(Path(path).read_bytes().splitlines()), 2)

    def test_where_workers_write(self) -> None:
        destination = Destination("json", "info")
        self.assertEqual(destination.descriptor(), 1)
        with open(self.mktemp(), "wb") as file:
            destination.observer = LineObserver(file, json_line)
            self.assertEqual(destination.descriptor(), file.fileno())
        rotated = LogFile.fromFullPath(self.mktemp())
        self.addCleanup(rotated.close)
        destination.observer = LineObserver(rotated, json_line)
        self.assertIsNone(destination.descriptor())
        destination.observer.relay('{"of": "a worker"}\n')
        self.assertEqual(Path(rotated.path).read_text(), '{"of": "a worker"}\n')

    def test_lines_of_others_that_cannot_be_written_are_counted(self) -> None:
        file = io.StringIO()
        through = LineObserver(file, text_line)
        self.patch(file, "flush", lambda: (_ for _ in ()).throw(OSError(28, "full")))
        through.relay("one\ntwo\n")
        self.patch(file, "flush", lambda: None)
        through(event("hello"))
        self.assertIn("2 log lines before this one could not be written", file.getvalue())

    def test_the_observer_of_a_worker(self) -> None:
        words = Destination("json", "warn").words()
        made = observer_of_worker(words, 2, None)
        self.assertEqual(made.file.fileno(), 1)
        own = Destination("json", "warn", logger="mailserver.tap.log_observer").words()
        self.patch(tap, "log_observer", lambda: "theirs")
        self.assertEqual(observer_of_worker(own, 2, None), "theirs")

    def test_syslog_is_told_the_worker_too(self) -> None:
        opened: list[Any] = []
        self.patch(SyslogObserver, "openlog", lambda _, *arguments: opened.append(arguments))
        made = observer_of_worker(Destination("json", "info", syslog=("mail", 16)).words(), 2, None)
        self.assertTrue(callable(made))
        self.assertEqual((opened[0][0], opened[0][2]), ("mail[2]", 16))
