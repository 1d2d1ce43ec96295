"""What is said about the machine: data directory, user and group, certificates.  `bad/` has the messages of files."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import types
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ground
from mailserver.config.checks import Remark
from mailserver.config.classes import TLS, CertificateFiles, Listener, Server
from mailserver.config.lines import Lines
from mailserver.config.origins import Places
from mailserver.config.reading import Parts, read
from tests.config.pairs import make_folder, ordinary_user


def parts(server: Server, tls: TLS | None = None) -> Parts:
    empty, _ = read({}, Places("f", Lines({})), Path("/"))
    return dataclasses.replace(empty, server=server, tls=tls or TLS())


class SurveyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(Path(self.mktemp()).absolute())

    def _survey(self, server: Server, tls: TLS | None = None) -> list[Remark]:
        return list(ground.survey(parts(server, tls)))

    def _deny(self, denied: Path) -> None:
        """As for a user who may not write there; root may write everywhere, and tests may run as root."""
        self.patch(ground.os, "access", lambda path, mode: Path(path) != denied)

    def test_a_folder_that_is_there_or_can_be_made_is_fine(self) -> None:
        for name in ("data", "new"):
            self.assertEqual(self._survey(Server(data_dir=self.folder / name)), [])

    def test_a_folder_that_we_may_not_write_to(self) -> None:
        self._deny(self.folder / "data")
        (remark,) = self._survey(Server(data_dir=self.folder / "data"))
        self.assertEqual(remark.path, ("server", "data_dir"))
        self.assertIn(f"{self.folder}/data is not writable by user {pwd.getpwuid(os.geteuid()).pw_name}", remark.text)

    def test_a_folder_that_we_may_not_make(self) -> None:
        self._deny(self.folder)
        (remark,) = self._survey(Server(data_dir=self.folder / "new"))
        self.assertIn("create it or change data_dir", remark.text)

    def test_a_user_without_a_name_is_told_by_number(self) -> None:
        self._deny(self.folder / "data")
        self.patch(ground.os, "geteuid", lambda: 4_294_900_000)
        (remark,) = self._survey(Server(data_dir=self.folder / "data"))
        self.assertIn("is not writable by user 4294900000", remark.text)

    def test_a_link_is_refused_even_when_it_leads_nowhere(self) -> None:
        (self.folder / "dangling").symlink_to("nowhere")
        for name in ("link", "dangling"):
            (remark,) = self._survey(Server(data_dir=self.folder / name))
            self.assertIn("is a symbolic link", remark.text)

    def test_no_directory_of_the_system_can_be_ours(self) -> None:
        (self.folder / "way").symlink_to("/")
        for name in (
            "/",
            "/etc",
            "/usr",
            "/var",
            "/tmp",
            "/home",
            "/var/lib",
            "/dev",
            "/proc",
            self.folder / "way/etc",
        ):
            (remark,) = self._survey(Server(data_dir=Path(name)))
            self.assertEqual((remark.path, remark.warning), (("server", "data_dir"), False))
            self.assertEqual(remark.text, f"{name} is a directory of the system; name one below it")
        self.assertIsNone(ground.unsuited(Path("/var/lib/mailserver")))

    def test_the_kernels_file_systems_are_no_place_for_files(self) -> None:
        for name, kernel in (("/proc/mail", "/proc"), ("/proc/self/cwd/x/..", ""), ("/sys/fs/mail", "/sys")):
            said = ground.unsuited(Path(name)) or ""
            self.assertEqual(
                said, f"{name} is in {kernel}, which is no place for files; name another directory" * bool(kernel)
            )

    def test_a_directory_that_everybody_may_write_to(self) -> None:
        data = self.folder / "data"
        for mode, words in ((0o1777, "is writable by every user"), (0o702, "is writable by every user"), (0o775, "")):
            data.chmod(mode)
            said = [remark.text for remark in self._survey(Server(data_dir=data))]
            self.assertEqual(len(said), bool(words))
            self.assertIn(words, str(said))

    def test_a_file_system_that_is_mounted_read_only(self) -> None:
        self.patch(ground.os, "statvfs", lambda _path: types.SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID))
        for name in ("data", "new"):
            (remark,) = self._survey(Server(data_dir=self.folder / name))
            self.assertIn("is on a file system mounted read-only", remark.text)

    def test_nothing_is_made(self) -> None:
        before = sorted(self.folder.iterdir())
        self._survey(Server(data_dir=self.folder / "new"))
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_a_user_and_group_of_this_machine_are_fine(self) -> None:
        server = Server(data_dir=self.folder / "data", user=ordinary_user(), group=grp.getgrgid(os.getegid()).gr_name)
        self.assertEqual(self._survey(server), [])

    def test_root_as_the_user_is_warned_of(self) -> None:
        (remark,) = self._survey(Server(data_dir=self.folder / "data", user=pwd.getpwuid(0).pw_name))
        self.assertEqual((remark.path, remark.warning), (("server", "user"), True))
        self.assertIn("never give up its power", remark.text)

    def test_unknown_users_and_groups_are_told(self) -> None:
        for name in ("no-such-name", "", "a\0b"):
            said = self._survey(Server(data_dir=self.folder / "data", user=name, group=name))
            self.assertEqual([remark.path[-1] for remark in said], ["user", "group"])

    def test_each_file_of_a_pair_is_told_at_its_own_key(self) -> None:
        for certificate, key, told in (
            ("good.pem", "good.key", []),
            ("missing.pem", "good.key", [("certificate", False)]),
            ("good.pem", "missing.key", [("key", False)]),
            ("good.pem", "expired.key", [("key", False)]),
            ("expired.pem", "expired.key", [("certificate", True)]),
            ("good.pem", "open.key", [("key", True)]),
        ):
            with self.subTest(f"{certificate} {key}"):
                pair = CertificateFiles(certificate=self.folder / certificate, key=self.folder / key)
                said = self._survey(Server(data_dir=self.folder / "data"), TLS(certificate=(pair,)))
                self.assertEqual([(remark.path[-1], remark.warning) for remark in said], told)

    def _listener(self, **keys: object) -> list[Remark]:
        values = {"address": "unix:/run/x", "protocol": "lmtp", "name": "x", "tls": "off", "auth": "off",
                  "hostname": "localhost", "bare_newlines": "fix"}  # fmt: skip
        whole = parts(Server(data_dir=self.folder / "data"))
        listener = Listener.model_validate(values | keys)
        return list(ground.survey(dataclasses.replace(whole, listeners={("listener", 0): listener})))

    def test_the_owner_of_a_socket_is_of_this_machine(self) -> None:
        me, mine = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        for owner, told in (
            (me, ""), (f"{me}:{mine}", ""), ("no-such-name", "no user"), (f"{me}:no-such-name", "no group"),
        ):  # fmt: skip
            with self.subTest(owner):
                said = self._listener(unix_owner=owner)
                self.assertEqual([remark.path[-1] for remark in said], ["unix_owner"] * bool(told))
                self.assertIn(told, str(said))

    def test_the_file_of_who_signs_certificates_of_clients(self) -> None:
        for name, told in (("good.pem", ""), ("expired.pem", ""), ("good.key", "it is a key"), ("x", "no such file")):
            with self.subTest(name):
                said = self._listener(client_ca=self.folder / name)
                self.assertEqual([remark.path[-1] for remark in said], ["client_ca"] * bool(told))
                self.assertIn(told, str(said))

    def test_no_text_of_a_file_is_quoted(self) -> None:
        (self.folder / "secret.key").write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
        pair = CertificateFiles(certificate=self.folder / "good.pem", key=self.folder / "secret.key")
        said = self._survey(Server(data_dir=self.folder / "data"), TLS(certificate=(pair,)))
        self.assertTrue(said)
        self.assertNotIn("hunter2", str(said))
