"""`mailserver dkim`: keys are made once, records are those of the keys, nothing else is on standard output."""

from __future__ import annotations

import json
import stat
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import mailserver.dkim
from mailserver.cli import dkim as dkim_module
from mailserver.dkim import Algorithm, PrivateKey, load_private_key
from mailserver.dkim.record import parse_record
from tests.cli.test_dns_records import read_zone
from tests.cli.with_accounts import AccountsCommandCase
from tests.dkim.vectors import ED25519, RSA_PEM


@cache
def made(algorithm: Algorithm, bits: int) -> PrivateKey:
    """One key for all tests: a pair takes a tenth of a second."""
    return ED25519 if algorithm is Algorithm.ED25519 else make(algorithm, bits)


make = mailserver.dkim.new_private_key


class DkimCase(AccountsCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(mailserver.dkim, "new_private_key", made)

        class Today:
            @staticmethod
            def now(_zone: Any) -> Any:
                from datetime import UTC, datetime

                return datetime(2026, 11, 20, tzinfo=UTC)

        self.patch(dkim_module, "datetime", Today)

    def key(self, name: str) -> PrivateKey:
        return load_private_key((self.data / "dkim" / name).read_bytes())

    def new(self, *args: str) -> str:
        result = self.run_command("dkim", "new", *args)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertNotIn("PRIVATE", result.output)
        return result.stdout


class NewTests(DkimCase):
    def test_a_key_is_made_and_its_record_printed(self) -> None:
        [(name, kind, text)] = read_zone(self.new("Example.ORG"))
        self.assertEqual((name, kind), ("ms202611._domainkey.example.org.", "TXT"))
        key = self.key("example.org/ms202611.pem")
        self.assertEqual((text, key.bits), (key.record, 2048))
        self.assertEqual(parse_record(text.encode()).bits, 2048)
        self.assertEqual(stat.S_IMODE((self.data / "dkim/example.org/ms202611.pem").stat().st_mode), 0o600)

    def test_both_algorithms_have_two_selectors(self) -> None:
        records = read_zone(self.new("example.org", "--algorithm", "both", "--selector", "S1"))
        self.assertEqual(
            [(name, text) for name, _, text in records],
            [
                ("s1._domainkey.example.org.", self.key("example.org/s1.pem").record),
                ("s1-ed25519._domainkey.example.org.", ED25519.record),
            ],
        )

    def test_ed25519_alone(self) -> None:
        [(name, _, text)] = read_zone(self.new("example.org", "--algorithm", "ed25519", "--selector", "e"))
        self.assertEqual((name, text), ("e._domainkey.example.org.", ED25519.record))

    def test_longer_keys(self) -> None:
        self.patch(
            mailserver.dkim, "new_private_key", lambda algorithm, bits: asked.append((algorithm, bits)) or ED25519
        )
        asked: list[tuple[Algorithm, int]] = []
        self.new("example.org", "--bits", "4096")
        self.assertEqual(asked, [(Algorithm.RSA, 4096)])

    def test_strings_have_at_most_255_octets(self) -> None:
        strings = self.new("example.org").split('"')[1::2]
        self.assertGreater(len(strings), 1)
        self.assertTrue(all(len(each) <= 255 for each in strings))

    def test_records_for_programs(self) -> None:
        [record] = json.loads(self.new("example.org", "--format", "json"))
        self.assertEqual((record["type"], record["value"]), ("TXT", self.key("example.org/ms202611.pem").record))

    def test_a_key_that_is_there_is_kept(self) -> None:
        self.new("example.org")
        before = (self.data / "dkim/example.org/ms202611.pem").read_bytes()
        error = self.fails("dkim", "new", "example.org", "--algorithm", "both")
        self.assertIn("ms202611.pem exists and is kept; name another key with --selector", error)
        self.assertEqual((self.data / "dkim/example.org/ms202611.pem").read_bytes(), before)
        self.assertEqual([path.name for path in (self.data / "dkim/example.org").iterdir()], ["ms202611.pem"])

    def test_also_when_it_comes_in_between(self) -> None:
        def late(algorithm: Algorithm, bits: int) -> PrivateKey:
            (self.data / "dkim/example.org").mkdir(parents=True)
            (self.data / "dkim/example.org/ms202611.pem").write_text("other")
            return made(algorithm, bits)

        self.patch(mailserver.dkim, "new_private_key", late)
        self.assertIn("exists and is kept", self.fails("dkim", "new", "example.org"))
        self.assertEqual((self.data / "dkim/example.org/ms202611.pem").read_text(), "other")

    def test_a_missing_data_directory_is_made(self) -> None:
        self.data.rmdir()
        self.new("example.org")
        self.assertEqual(stat.S_IMODE(self.data.stat().st_mode), 0o700)

    def test_trouble_with_the_disk_is_told(self) -> None:
        (self.data / "dkim").write_text("")
        self.assertIn(f"{self.data}/dkim: Not a directory", self.fails("dkim", "new", "example.org"))

    def test_wrong_options(self) -> None:
        for args, reason in [
            (("example.org", "--bits", "1024"), "2048<=x<=4096"),
            (("example.org", "--bits", "8192"), "2048<=x<=4096"),
            (("example.org", "--algorithm", "dsa"), "'dsa' is not one of"),
            (("example.org", "--selector", "../x"), "no selector"),
            (("example.org", "--selector", "a/b"), "no selector"),
            (("example.org", "--selector", "a" * 60, "--algorithm", "both"), "no selector"),
        ]:
            result = self.run_command("dkim", "new", *args)
            self.assertEqual(result.exit_code, 2, args)
            self.assertIn(reason, result.stderr)
        for domain in ("a b", "[192.0.2.1]", "../x", ""):
            self.assertIn("domain", self.fails("dkim", "new", domain))
        self.assertEqual(list(self.data.iterdir()), [])


class ShowTests(DkimCase):
    def test_the_records_of_all_keys_or_of_one_domain(self) -> None:
        self.new("example.org", "--algorithm", "both", "--selector", "s")
        self.new("example.com", "--selector", "s")
        names = ["s._domainkey.example.com.", "s._domainkey.example.org.", "s-ed25519._domainkey.example.org."]
        self.assertEqual([name for name, _, _ in read_zone(self.works("dkim", "show"))], names)
        self.assertEqual([name for name, _, _ in read_zone(self.works("dkim", "show", "Example.org"))], names[1:])
        records = json.loads(self.works("dkim", "show", "example.com", "--format", "json"))
        self.assertEqual([record["name"] for record in records], names[:1])

    def test_what_init_has_made_is_shown_too(self) -> None:
        from mailserver.cli.layout import new_dkim_key

        folder = self.data / "dkim/example.org"
        folder.mkdir(parents=True)
        key = new_dkim_key()
        (folder / "ms202601.pem").write_bytes(key.private)
        [(name, _, text)] = read_zone(self.works("dkim", "show"))
        self.assertEqual((name, text), ("ms202601._domainkey.example.org.", f"v=DKIM1; k=rsa; p={key.public}"))

    def test_no_key_at_all(self) -> None:
        self.assertEqual(self.works("dkim", "show"), "")
        self.assertEqual(self.works("dkim", "show", "--format", "json"), "[]\n")
        self.assertIn('make one with "mailserver dkim new example.net"', self.fails("dkim", "show", "example.net"))

    def test_a_key_that_cannot_be_read_is_told_after_the_others(self) -> None:
        self.new("example.org", "--selector", "s")
        folder = self.data / "dkim/example.org"
        (folder / "a.pem").write_text("no key")
        (folder / "b.pem").write_bytes(ED25519.pem(b"secret"))
        (folder / "c.pem").symlink_to(folder / "s.pem")
        result = self.run_command("dkim", "show")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual([name for name, _, _ in read_zone(result.stdout)], ["s._domainkey.example.org."])
        self.assertIn(f"{folder}/a.pem: no key: the text is not PEM", result.stderr)
        self.assertIn(f"{folder}/b.pem: the key is encrypted, and no password was given", result.stderr)
        self.assertIn(f"{folder}/c.pem: ", result.stderr)

    def test_a_short_key_is_told(self) -> None:
        (self.data / "dkim/example.org").mkdir(parents=True)
        (self.data / "dkim/example.org/old.pem").write_bytes(RSA_PEM)
        result = self.run_command("dkim", "show")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("old.pem: only 1024 bits; make a new key", result.stderr)

    def test_no_private_key_is_shown(self) -> None:
        (self.data / "dkim/example.org").mkdir(parents=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.data / "dkim/example.org/s.pem").write_bytes(pem)
        (self.data / "dkim/example.org/t.pem").write_bytes(pem[:600])
        output = self.run_command("dkim", "show").output
        for line in pem.decode().split("\n")[2:-2]:
            self.assertNotIn(line, output)
