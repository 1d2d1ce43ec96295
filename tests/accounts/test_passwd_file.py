"""Tests of mailserver.accounts.passwd_file: lines as Dovecot's manual shows them, and lines that cannot be used."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.passwd_file import PasswdRow, Problem, import_passwd_file
from mailserver.accounts.passwords import BadPassword, verify
from mailserver.address import parse_address

CRAM_MD5 = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"
SHA512 = "$6$vtKwP604H1SeFaGc$3xaB79l3HyPBWaJVSaJ2hCDGemsGLUULRiYbrpaWIrO.HTh..eWd9GdnF7rCEAB7mzWvzkAd23x5gZxF51Gc0/"

SCRAM = (
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

#: what it is, line, user, hash, quota, enabled
GOOD = [
    ("short", f"a@example.org:{CRAM_MD5}", "a@example.org", CRAM_MD5, None, True),
    ("empty fields", f"a@example.org:{CRAM_MD5}::::::", "a@example.org", CRAM_MD5, None, True),
    ("all fields", f"a@example.org:{SHA512}:1:2:A:/home/a:/bin/sh:", "a@example.org", "{SHA512-CRYPT}" + SHA512, None, True),
    ("colons in extra fields", f"a@example.org:{CRAM_MD5}::::::userdb_mail=maildir:~/Mail", "a@example.org", CRAM_MD5, None, True),
    ("no domain", f"a:{CRAM_MD5}", "a@example.com", CRAM_MD5, None, True),
    ("SCRAM", f"a@example.org:{SCRAM}::::::", "a@example.org", SCRAM, None, True),
    ("nologin", f"a@example.org:{CRAM_MD5}::::::nologin", "a@example.org", CRAM_MD5, None, False),
]  # fmt: skip

#: quota rule, octets
QUOTAS = [
    ("userdb_quota_rule=*:storage=1G", 2**30),
    ("userdb_quota_rule=*:storage=500M", 500 * 2**20),
    ("userdb_quota_rule=*:storage=100", 100 * 2**10),
    ("userdb_quota_rule=*:storage=100b", 100),
    ("userdb_quota_rule=*:bytes=100", 100),
    ("userdb_quota_rule=*:bytes=2k:messages=5", 2048),
    ("userdb_quota_rule=*:messages=5:storage=2T", 2 * 2**40),
    ("userdb_quota_rule2=*:storage=1k", 1024),
    ("quota_rule=*:storage=0", 0),
    ("userdb_quota_rule=*:ignore", 0),
    ("userdb_quota_rule=*:messages=5", None),
    ("userdb_quota_rule=Trash:storage=1G", None),
    ("userdb_mail=x userdb_quota_rule=*:storage=1G nice", 2**30),
]

#: line, a part of the problem
BAD = [
    ("a@example.org", "no colon"),
    (f"a:{CRAM_MD5}", "the user is no address: domain is missing"),
    (f":{CRAM_MD5}", "the user is no address: local part is empty"),
    (f"a b@example.org:{CRAM_MD5}", "the user is no address"),
    ("a@example.org:", "no password"),
    ("a@example.org:::::::nopassword", "nopassword"),
    ("a@example.org:*", "locked"),
    ("a@example.org:!" + SHA512, "locked"),
    ("a@example.org:{PLAIN}", "the password is empty"),
    ("a@example.org:{PLAIN}tanst\x01aaf", "the password holds a control character"),
    ("a@example.org:{SSHA}dGFuc3RhYWY=", "{SSHA} is no scheme that we know"),
    ("a@example.org:tanstaaf", "without a scheme"),
    ("a@example.org:{CRAM-MD5}tanstaaf", "damaged {CRAM-MD5} hash"),
    (f"a@example.org:{CRAM_MD5}::::::userdb_quota_rule=*:storage=10%", "a quota of storage='10%' is not understood"),
]


def fake_hash(password: str) -> tuple[str, ...]:
    if not password:
        raise BadPassword("the password is empty")
    return (f"{{FAKE}}{len(password)}",)


class PasswdFileTests(SynchronousTestCase):
    def test_good_lines_become_rows(self) -> None:
        for what, line, user, stored, quota, enabled in GOOD:
            rows, problems = import_passwd_file([line + "\n"], default_domain="example.com")
            self.assertEqual(problems, (), what)
            self.assertEqual(rows, (PasswdRow(1, parse_address(user), (stored,), quota, enabled),), what)

    def test_quota_rules_become_octets(self) -> None:
        for rule, octets in QUOTAS:
            rows, problems = import_passwd_file([f"a@example.org:{CRAM_MD5}::::::{rule}"])
            self.assertEqual(problems, (), rule)
            self.assertEqual(rows[0].quota, octets, rule)

    def test_bad_lines_become_problems_that_show_no_secret(self) -> None:
        for line, reason in BAD:
            rows, problems = import_passwd_file([line])
            self.assertEqual(rows, (), line)
            self.assertIn(reason, str(problems[0]), line)
            self.assertTrue(str(problems[0]).startswith("1: "), line)
            for secret in ("tanst", "dGFuc3RhYWY", SHA512[20:40]):
                self.assertNotIn(secret, str(problems), line)

    def test_a_password_in_plain_text_is_hashed(self) -> None:
        for scheme in ("PLAIN", "CLEARTEXT", "clear"):
            rows, problems = import_passwd_file([f"a@example.org:{{{scheme}}}s{{ecr}}et"])
            self.assertEqual(problems, ())
            self.assertEqual(len(rows[0].hashes), 3)
            self.assertTrue(verify(rows[0].hashes, "s{ecr}et"), scheme)
            self.assertNotIn("ecr", "".join(rows[0].hashes))

    def test_the_hashing_of_plain_text_can_be_chosen(self) -> None:
        rows, problems = import_passwd_file(
            ["a@example.org:{PLAIN}four", "b@example.org:{PLAIN}"], hash_plain=fake_hash
        )
        self.assertEqual(rows[0].hashes, ("{FAKE}4",))
        self.assertEqual(problems, (Problem(2, "the password is empty"),))

    def test_comments_and_empty_lines_count_but_say_nothing(self) -> None:
        lines = ["# users\n", "\n", "  \r\n", f"a@example.org:{CRAM_MD5}\r\n", "b@example.org\n"]
        rows, problems = import_passwd_file(lines)
        self.assertEqual([row.line for row in rows], [4])
        self.assertEqual([problem.line for problem in problems], [5])

    def test_a_user_who_stands_there_twice_is_taken_once(self) -> None:
        rows, problems = import_passwd_file([f"A@example.org:{CRAM_MD5}", f"a@example.org:{SHA512}"])
        self.assertEqual(rows, (PasswdRow(1, parse_address("A@example.org"), (CRAM_MD5,)),))
        self.assertEqual(str(problems[0]), "2: a@example.org stands on line 1 already")

    def test_no_repr_shows_a_hash(self) -> None:
        rows, _problems = import_passwd_file([f"a@example.org:{CRAM_MD5}"])
        self.assertNotIn(CRAM_MD5[10:30], repr(rows))

    @given(st.lists(st.text("a@.:{}$*=#6 \r\t\u00e4\ud800", max_size=40), max_size=5))
    @settings(deadline=None, max_examples=100)
    def test_any_lines_are_rows_or_problems(self, lines: list[str]) -> None:
        rows, problems = import_passwd_file(lines, hash_plain=fake_hash)
        meant = [line for line in (line.strip("\r\n") for line in lines) if line.strip() and not line.startswith("#")]
        self.assertEqual(len(rows) + len(problems), len(meant))
