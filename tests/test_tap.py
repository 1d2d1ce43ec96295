"""twistd's door: options, the configuration's problems, the log, the service."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.application.service import IService
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from mailserver import tap
from mailserver.logs import SharedLines
from mailserver.workers.parent import WorkersService


class TapCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.start = Path.cwd()
        self.dir = Path(self.mktemp())
        self.dir.mkdir()
        self.file = self.dir / "mailserver.toml"
        self.patch(os, "environ", {**os.environ, "MAILSERVER_CONFIG": ""})

    def write(self, listener: str) -> None:
        self.file.write_text(f'[server]\ndata_dir = "data"\n[[listener]]\n{listener}\n')

    def options(self, *words: str, parent: Any = None) -> tap.Options:
        options = tap.Options()
        options.parent = parent
        options.parseOptions(list(words))
        return options


class OptionsTests(TapCase):
    def test_the_file_that_is_named(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        options = self.options("--config", str(self.file))
        self.assertEqual(options.config.source, self.file.absolute())

    def test_a_relative_file_is_found_again_after_the_folder_has_changed(self) -> None:
        """As by `twistd --rundir`: before a reload, and in the environment too."""
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        self.addCleanup(os.chdir, Path.cwd())
        for words, environ in ((("--config", self.file.name), ""), ((), self.file.name)):
            self.patch(os, "environ", {**os.environ, "MAILSERVER_CONFIG": environ})
            os.chdir(self.dir.absolute())
            options = self.options(*words)
            os.chdir("/")
            self.assertEqual(options.read().source, options.config.source)
            os.chdir(self.start)

    def test_problems_name_the_file_by_its_absolute_path(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotokol = "smtp"')
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.dir)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertRaises(SystemExit, self.options, "--config", self.file.name)
        for line in said.getvalue().splitlines():
            self.assertTrue(line.startswith(f"{self.start / self.file}:"), line)

    def test_development_stays_development_in_its_folder(self) -> None:
        default = self.start / self.dir / "default.toml"
        self.addCleanup(os.chdir, Path.cwd())
        with mock.patch("mailserver.config.loading.DEFAULT_PATH", default):
            options = self.options()
            os.chdir("/")
            default.write_text("")  # whatever comes later: a reload does not turn it into another server
            again = options.read()
        self.assertEqual((again.development, again.server.data_dir), (True, self.start / "mailserver-data"))

    def test_a_default_configuration_that_cannot_be_read_is_told(self) -> None:
        default = self.dir / "default.toml"
        default.write_text("")
        access = os.access
        self.patch(os, "access", lambda path, mode: Path(path) != default and access(path, mode))
        with (
            mock.patch("mailserver.config.loading.DEFAULT_PATH", default),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            options = self.options("--data", str(self.dir / "dev"))
        self.assertTrue(options.config.development)
        self.assertIn("may not be read by this user, so this is development mode", said.getvalue())

    def test_the_data_of_development_are_in_no_directory_of_the_system(self) -> None:
        with mock.patch("mailserver.config.loading.DEFAULT_PATH", self.dir / "none"):
            error = self.assertRaises(usage.UsageError, self.options, "--data", "/tmp")
        self.assertIn("--data: /tmp is a directory of the system", str(error))

    def test_problems_end_it_with_a_line_each(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotokol = "smtp"')
        with contextlib.redirect_stderr(io.StringIO()) as said:
            stop = self.assertRaises(SystemExit, self.options, "--config", str(self.file))
        self.assertEqual(stop.code, 1)
        lines = said.getvalue().splitlines()
        self.assertTrue(any(f"{self.file}:5: " in line and "protokol" in line for line in lines), lines)

    def test_nothing_configured_is_development(self) -> None:
        with mock.patch("mailserver.config.loading.DEFAULT_PATH", self.dir / "none"):
            options = self.options("--data", str(self.dir / "dev"))
        self.assertTrue(options.config.development)
        self.assertEqual(options.config.server.data_dir, (self.dir / "dev").absolute())

    def test_data_goes_with_development_only(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        self.assertRaises(usage.UsageError, self.options, "--config", str(self.file), "--data", "x")

    def test_twistd_gets_a_logger_by_name_and_twist_a_factory(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        twistd: dict[str, Any] = {"nodaemon": True, "logger": None, "logfile": None}
        self.options("--config", str(self.file), parent=twistd)
        self.assertEqual(twistd["logger"], "mailserver.tap.log_observer")
        self.assertTrue(callable(tap.log_observer()))
        own: dict[str, Any] = {"nodaemon": True, "logger": "their.own"}
        self.options("--config", str(self.file), parent=own)
        self.assertEqual(own["logger"], "their.own")
        twist: dict[str, Any] = {"logFile": sys.stdout}
        self.options("--config", str(self.file), parent=twist)
        self.assertTrue(callable(twist["fileLogObserverFactory"](io.StringIO())))


class LogTests(TapCase):
    def destination(self, parent: Any, workers: int = 1) -> Any:
        self.file.write_text(
            f'[server]\ndata_dir = "data"\nlog_format = "json"\nworkers = {workers}\n'
            '[[listener]]\naddress = "127.0.0.1:0"\nprotocol = "smtp"\n'
        )
        return self.options("--config", str(self.file), parent=parent).log

    def test_workers_are_told_what_twistd_was(self) -> None:
        twistd = {"nodaemon": True, "logger": None, "logfile": self.mktemp()}
        log = self.destination(twistd)
        self.assertIsNone(log.observer)
        made = tap.log_observer()
        self.assertIs(log.observer, made)
        made.file.close()
        self.assertEqual(self.destination({**twistd, "logger": "their.own"}).logger, "their.own")
        syslog = {"nodaemon": True, "logger": None, "syslog": True, "prefix": "mail", "facility": 16}
        self.assertEqual(self.destination(syslog).syslog, ("mail", 16))

    def test_workers_share_the_file_of_twist(self) -> None:
        for workers, kind in ((1, io.TextIOWrapper), (2, SharedLines)):
            twist: dict[str, Any] = {"logFile": sys.stdout}
            log = self.destination(twist, workers)
            with open(self.mktemp(), "w") as file:
                made = twist["fileLogObserverFactory"](file)
                self.assertIs(log.observer, made)
                self.assertIsInstance(made.file, kind)
                self.assertEqual(log.descriptor(), file.fileno())


class ServiceTests(TapCase):
    def test_it_is_a_service_with_its_sockets_bound(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        service = tap.makeService(self.options("--config", str(self.file)))
        self.assertTrue(IService.providedBy(service))
        ((_, address),) = service.addresses
        self.addCleanup(lambda: [bound.close() for each in service._open.values() for bound in each.bound])
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))):
            pass

    def test_with_workers_it_is_their_parent(self) -> None:
        self.file.write_text(
            '[server]\ndata_dir = "data"\nworkers = 3\n[[listener]]\naddress = "127.0.0.1:0"\nprotocol = "smtp"\n'
        )
        service = tap.makeService(self.options("--config", str(self.file)))
        self.addCleanup(lambda: [bound.close() for each in service._sockets.values() for bound in each])
        self.assertIsInstance(service, WorkersService)
        self.assertEqual(len(service.supervisor.slots), 3)

    def test_a_port_in_use_ends_it_with_one_line(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            self.write(f'address = "127.0.0.1:{other.getsockname()[1]}"\nprotocol = "smtp"')
            options = self.options("--config", str(self.file))
            with contextlib.redirect_stderr(io.StringIO()) as said:
                stop = self.assertRaises(SystemExit, tap.makeService, options)
        self.assertEqual(stop.code, 1)
        (line,) = said.getvalue().splitlines()
        self.assertIn("address already in use", line)
        self.assertIn(f"{self.file.absolute()}:3: ", line)

    def test_twistds_uid_owns_the_files_and_root_is_given_up_by_twistd(self) -> None:
        self.write('address = "127.0.0.1:0"\nprotocol = "smtp"')
        parent = {"nodaemon": True, "logger": "x", "uid": os.getuid(), "gid": None}
        service = tap.makeService(self.options("--config", str(self.file), parent=parent))
        self.addCleanup(lambda: [bound.close() for each in service._open.values() for bound in each.bound])
        owner = None if os.geteuid() != 0 else (os.getuid(), os.getgid())
        self.assertEqual(service._owner and (service._owner.uid, service._owner.gid), owner)
        self.assertEqual(service._given_up, owner is not None)


class PluginTests(SynchronousTestCase):
    def test_twistd_knows_it(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "twisted", "mailserver", "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertIn("development server", done.stdout)
