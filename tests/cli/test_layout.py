"""What init puts where: keys, passwords, the configuration; all of it or nothing."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import os
import sqlite3
import stat
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.schema import AccountsError
from mailserver.address import Address
from mailserver.cli import layout
from mailserver.cli.dns_records import Site, records
from mailserver.config import ConfigError, load
from tests.cli.test_dns_records import read_zone

HASHES = ("{ARGON2ID}one", "{CRAM-MD5}two")
OWNER = layout.Owner("mailserver", "mail", 4242, 4343)
#: One key for all tests: a pair takes a tenth of a second.
dkim_key = cache(layout.new_dkim_key)


class LayoutCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.plan = layout.Plan(
            domain="example.org",
            hostname="mail.example.org",
            account=Address("admin", "example.org"),
            config_dir=self.folder / "deep/er/conf",
            data_dir=self.folder / "store",
            ports="high",
            selector="s1",
        )

    def site(self, plan: layout.Plan) -> Site:
        address = ipaddress.ip_address("192.0.2.1")
        return Site(plan.domain, plan.hostname, (address,), plan.selector, dkim_key().public)

    def write(self, plan: layout.Plan) -> None:
        layout.write(plan, self.site(plan), dkim_key(), HASHES)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and "sqlite3" not in path.name
        }

    def account_hashes(self, address: Address) -> tuple[str, ...]:
        database = AccountsDatabase(self.plan.accounts_file, create=False)
        self.addCleanup(database.close)
        return database.credentials(address.key)


class Secrets(LayoutCase):
    def test_passwords_are_long_and_easy_to_type(self) -> None:
        some = {layout.new_password() for _ in range(50)}
        self.assertEqual(len(some), 50)
        for password in some:
            self.assertRegex(password, r"\A[a-hjkmnp-z2-9]{6}(-[a-hjkmnp-z2-9]{6}){2}\Z")
        letters = layout.PASSWORD_GROUPS * layout.PASSWORD_GROUP
        self.assertEqual(len(set(layout.PASSWORD_ALPHABET)), len(layout.PASSWORD_ALPHABET))
        self.assertGreater(len(layout.PASSWORD_ALPHABET) ** letters, 2**80)

    def test_the_dkim_record_belongs_to_the_key(self) -> None:
        self.write(self.plan)
        private = self.plan.dkim_key.read_bytes()
        self.assertTrue(private.startswith(b"-----BEGIN PRIVATE KEY-----"))  # PKCS 8
        key = load_pem_private_key(private, None)
        assert isinstance(key, RSAPrivateKey)
        self.assertEqual(key.key_size, 2048)
        [(name, kind, text)] = read_zone(self.plan.dkim_record.read_text())
        self.assertEqual((name, kind), ("s1._domainkey.example.org.", "TXT"))
        public = load_der_public_key(base64.b64decode(text.partition("p=")[2], validate=True))
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(public.public_bytes(*form), key.public_key().public_bytes(*form))

    def test_no_secret_is_in_a_repr(self) -> None:
        self.assertNotIn("PRIVATE", repr(dkim_key()))
        self.assertNotIn("PRIVATE", repr(layout._files(self.plan, self.site(self.plan), dkim_key())))


class Configuration(LayoutCase):
    def test_each_choice_gives_a_configuration_that_loads(self) -> None:
        for changes in (
            {},
            {"ports": "standard"},
            {"account": Address('a "b\\', "example.org")},
            {"data_dir": self.folder / "deep/er/conf/data"},
            {"data_dir": self.folder / 'quo"ted \x7f\u00fc'},
        ):
            plan = dataclasses.replace(self.plan, **changes)
            plan.config_dir.mkdir(parents=True, exist_ok=True)
            plan.config_file.write_text(layout.configuration(plan))
            config = load(plan.config_file)
            self.assertEqual(config.server.data_dir, plan.data_dir)
            self.assertEqual(config.server.postmaster, str(plan.account))
            # What mechanisms there are is for a later version to change: SCRAM was not in an early list.
            self.assertNotIn("auth.mechanisms", config.origins)
            self.assertIn("SCRAM-SHA-256", config.auth.mechanisms)
            self.assertEqual(tuple(one.address.port for one in config.listeners), layout.PORTS[plan.ports])

    def test_data_within_the_folder_is_named_from_there(self) -> None:
        plan = dataclasses.replace(self.plan, data_dir=self.plan.config_dir / "data")
        self.assertEqual(tomllib.loads(layout.configuration(plan))["server"]["data_dir"], "data")

    def test_user_and_certificate_are_written_when_there_are_any(self) -> None:
        plan = dataclasses.replace(self.plan, owner=OWNER, certificate=Path("/c.pem"), key=Path("/k.pem"))
        with_both = tomllib.loads(layout.configuration(plan))
        self.assertEqual((with_both["server"]["user"], with_both["server"]["group"]), ("mailserver", "mail"))
        self.assertEqual(with_both["tls"]["certificate"], [{"certificate": "/c.pem", "key": "/k.pem"}])
        without = tomllib.loads(layout.configuration(self.plan))
        self.assertNotIn("user", without["server"])
        self.assertNotIn("certificate", without["tls"])


class Existing(LayoutCase):
    def test_everything_that_would_be_overwritten_is_told(self) -> None:
        self.assertEqual(layout.existing(self.plan), ())
        self.write(self.plan)
        names = [path.name for path in layout.existing(self.plan)]
        self.assertEqual(names, ["mailserver.toml", "dns.zone", "s1.pem", "s1.txt", "accounts.sqlite3"])

    def test_a_dangling_link_counts(self) -> None:
        self.plan.config_dir.mkdir(parents=True)
        self.plan.config_file.symlink_to("nowhere")
        self.assertEqual(layout.existing(self.plan), (self.plan.config_file,))


class Writing(LayoutCase):
    def test_the_zone_file_holds_all_records(self) -> None:
        self.write(self.plan)
        wanted = [(one.name, one.type, one.value) for one in records(self.site(self.plan)) if not one.foreign]
        self.assertEqual(read_zone(self.plan.zone_file.read_text()), wanted)

    def test_nothing_is_left_when_it_fails_in_the_middle(self) -> None:
        def disk_full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for place, name in (
            (os, "fsync"), (os, "fchmod"), (layout, "load"), (AccountsDatabase, "add_account"),
            (AccountsDatabase, "add_alias"), (os, "replace"),
        ):  # fmt: skip
            patch = self.patch(place, name, disk_full)
            self.assertRaises(OSError, self.write, self.plan)
            patch.restore()
            self.assertEqual(list(self.folder.rglob("*")), [], name)

    def test_files_that_are_in_place_go_again_when_a_later_one_cannot(self) -> None:
        replace, done = os.replace, []

        def second_fails(source: Path, target: Path) -> None:
            if done:
                raise OSError(5, "Input/output error")
            done.append(target)
            replace(source, target)

        self.patch(os, "replace", second_fails)
        self.assertRaises(OSError, self.write, self.plan)
        self.assertEqual(done, [self.plan.config_file])
        self.assertEqual(list(self.folder.rglob("*")), [])

    def test_a_failure_leaves_the_old_files(self) -> None:
        self.write(self.plan)
        before = self.files()

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(AccountsDatabase, "set_passwords", broken)
        self.assertRaises(sqlite3.Error, self.write, dataclasses.replace(self.plan, ports="standard"))
        self.assertEqual(self.files(), before)

    def test_an_account_that_exists_gets_the_new_password(self) -> None:
        self.write(self.plan)
        layout.write(self.plan, self.site(self.plan), dkim_key(), ["{ARGON2ID}new"])
        self.assertEqual(self.account_hashes(self.plan.account), ("{ARGON2ID}new",))

    def test_an_account_that_exists_can_keep_its_password(self) -> None:
        self.write(self.plan)
        layout.write(self.plan, self.site(self.plan), dkim_key(), None)
        self.assertEqual(self.account_hashes(self.plan.account), HASHES)
        new = dataclasses.replace(self.plan, account=Address("new", "example.org"))
        self.assertRaises(AccountsError, layout.write, new, self.site(new), dkim_key(), None)

    def test_an_account_cannot_take_the_place_of_an_alias(self) -> None:
        self.write(self.plan)
        before = self.files()
        plan = dataclasses.replace(self.plan, account=Address("abuse", "example.org"))
        self.assertRaises(AccountsError, self.write, plan)
        self.assertEqual(self.files(), before)

    def test_a_configuration_that_would_not_pass_is_told_by_its_real_name(self) -> None:
        plan = dataclasses.replace(self.plan, certificate=self.folder / "c.pem", key=self.folder / "k.pem")
        error = self.assertRaises(ConfigError, self.write, plan)
        self.assertIn(f"{plan.config_file}:", str(error))
        self.assertEqual(list(self.folder.rglob("*")), [])

    def test_a_directory_in_the_place_of_a_file_is_an_error(self) -> None:
        self.plan.zone_file.mkdir(parents=True)
        self.assertRaises(IsADirectoryError, self.write, self.plan)
        self.assertFalse(self.plan.config_file.exists())


class Owners(LayoutCase):
    def setUp(self) -> None:
        super().setUp()
        self.plan = dataclasses.replace(self.plan, owner=OWNER)

    def test_the_server_owns_its_directories_and_reads_the_configuration(self) -> None:
        asked: dict[str, tuple[int, int]] = {}

        def chown(path: Path, uid: int, gid: int) -> None:
            asked[str(path.relative_to(self.folder))] = (uid, gid)

        self.patch(os, "chown", chown)
        with layout.ExitStack() as undo:
            layout._make_directories(self.plan, undo)
            undo.pop_all()
        both, group = (OWNER.uid, OWNER.gid), (-1, OWNER.gid)
        self.assertEqual(
            asked,
            {"deep/er/conf": group, "store": both, "store/dkim": both, "store/dkim/example.org": both},
        )
        self.assertEqual(stat.S_IMODE(self.plan.config_dir.stat().st_mode), 0o750)
        self.assertEqual(stat.S_IMODE(self.plan.data_dir.stat().st_mode), 0o700)

    def test_files_get_the_owner_and_mode_that_the_server_needs(self) -> None:
        made: dict[str, Any] = {}
        for file in layout._files(self.plan, self.site(self.plan), dkim_key()):
            made[file.path.name] = (oct(file.mode), file.owner)
        both, group = (OWNER.uid, OWNER.gid), (-1, OWNER.gid)
        self.assertEqual(
            made,
            {
                "mailserver.toml": ("0o640", group),
                "dns.zone": ("0o640", group),
                "s1.pem": ("0o600", both),
                "s1.txt": ("0o600", both),
            },
        )

    def test_what_an_earlier_init_made_for_root_becomes_the_users(self) -> None:
        self.write(dataclasses.replace(self.plan, owner=None))
        asked: dict[str, tuple[int, int]] = {}

        def chown(path: object, uid: int, gid: int, **_named: object) -> None:
            asked[str(Path(str(path)).relative_to(self.folder))] = (uid, gid)

        self.patch(os, "chown", chown)
        layout._hand_over(self.plan)
        both = (OWNER.uid, OWNER.gid)
        self.assertEqual(asked.pop("deep/er/conf"), (-1, OWNER.gid))
        self.assertEqual(set(asked.values()), {both})
        for name in ("store", "store/accounts.sqlite3", "store/dkim/example.org", "store/dkim/example.org/s1.pem"):
            self.assertIn(name, asked)
        self.assertEqual(stat.S_IMODE(self.plan.config_dir.stat().st_mode), 0o750)

    def test_what_is_the_users_already_is_left_alone(self) -> None:
        """It could have put a link to a file of somebody else there."""
        self.write(dataclasses.replace(self.plan, owner=None))
        self.plan.config_dir.chmod(0o755)
        asked: list[object] = []
        self.patch(os, "chown", lambda path, *_args, **_named: asked.append(path))
        self.patch(os, "geteuid", lambda: self.plan.data_dir.stat().st_uid + 1)
        layout._hand_over(self.plan)
        self.assertEqual((asked, stat.S_IMODE(self.plan.config_dir.stat().st_mode)), ([], 0o755))

    def test_an_unknown_user_or_group_is_a_key_error(self) -> None:
        self.assertRaises(KeyError, layout.find_owner, "no-such-user-here", None)
        self.assertRaises(KeyError, layout.find_owner, "root", "no-such-group-here")
        self.assertEqual(layout.find_owner("root", None).uid, 0)
