"""Every bad configuration with its messages; good ones with what they mean; finding the file; development mode."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import Config, ConfigError, development, find_config, load, loading, passed_over
from mailserver.limits import DEFAULT_LIMITS
from tests.config.pairs import make_folder

BAD = Path(__file__).parent / "bad"
EXPECT = re.compile(r"# expect: (\d+: .*)")

SERVER = '[server]\nhostname = "mail.example.org"\ndata_dir = "data"\n'
SMTP = '[[listener]]\naddress = "127.0.0.1:2525"\nprotocol = "smtp"\n'

# A good configuration, and expressions that are true for it.
GOOD: list[tuple[str, str, list[str]]] = [
    (
        "defaults of an smtp listener",
        SERVER + SMTP,
        ["c.listeners[0].name == 'smtp-2525'", "c.listeners[0].tls == 'starttls'", "c.listeners[0].auth == 'off'",
         "c.listeners[0].bare_newlines == 'reject'", "c.listeners[0].hostname == 'mail.example.org'",
         "c.listeners[0].line == 4", "not c.listeners[0].next_free_port", "c.listeners[0].banner is None"],
    ),
    (
        "defaults of a submission listener",
        SERVER + '[[listener]]\naddress = 587\nprotocol = "submission"\n',
        ["c.listeners[0].tls == 'starttls'", "c.listeners[0].auth == 'required'",
         "c.listeners[0].bare_newlines == 'fix'", "str(c.listeners[0].address) == '*:587'"],
    ),
    (
        "submission on port 465 is in TLS from the first byte on",
        SERVER + '[[listener]]\naddress = "[::]:465"\nprotocol = "submission"\n',
        ["c.listeners[0].tls == 'implicit'", "c.warnings == ()"],
    ),
    (
        "IPv4 and IPv6 on the same port, and a Unix socket",
        SERVER + "".join(
            f'[[listener]]\naddress = "{a}"\nprotocol = "smtp"\n' for a in ("0.0.0.0:25", "[::]:25", "unix:/run/smtp.sock")
        ),
        ["[l.name for l in c.listeners] == ['smtp-25', 'smtp-25-2', 'smtp-unix']",
         "c.listeners[2].address.path == '/run/smtp.sock'"],
    ),
    (
        "given names come before made ones",
        SERVER + '[[listener]]\naddress = 25\nprotocol = "smtp"\n'
        '[[listener]]\nname = "smtp-25"\naddress = 26\nprotocol = "smtp"\n',
        ["[l.name for l in c.listeners] == ['smtp-25-2', 'smtp-25']"],
    ),
    (
        "limits of a listener are laid over those of the file",
        SERVER + SMTP + 'limits = { errors = 30 }\n[limits]\nmessage_size = "10 MB"\ncommand_timeout = "2 min"\n',
        ["c.limits.message_size == 10_000_000", "c.limits.errors == 20", "c.listeners[0].limits.errors == 30",
         "c.listeners[0].limits.message_size == 10_000_000", "c.listeners[0].limits.command_timeout == 120.0"],
    ),
    (
        "sizes, times and names have one form",
        '[server]\nhostname = "MAIL.Bücher.example."\ndata_dir = "./data/../data"\ndrain_timeout = "1 min"\n'
        '[storage]\ndefault_quota = "2 GiB"\n[tls]\ncheck_interval = 0\n[auth]\nmechanisms = ["cram-md5"]\n' + SMTP,
        ["c.server.hostname == 'mail.xn--bcher-kva.example'", "str(c.server.data_dir) == FOLDER + '/data'",
         "c.server.drain_timeout == 60.0", "c.storage.default_quota == 2 * 2**30", "c.tls.check_interval == 0.0",
         "c.auth.mechanisms == ('CRAM-MD5',)"],
    ),
    (
        "domains with catch-all and separator",
        SERVER + SMTP + '[[domain]]\nname = "Bücher.example"\ncatch_all = "all@example.org"\nseparator = "-"\n'
        '[[domain]]\nname = "example.org"\nseparator = ""\n',
        ["[d.name for d in c.domains] == ['xn--bcher-kva.example', 'example.org']",
         "[d.catch_all for d in c.domains] == ['all@example.org', None]",
         "[d.separator for d in c.domains] == ['-', '']"],
    ),
    (
        "AUTH without TLS on loopback, when it is asked for",
        SERVER + SMTP + 'tls = "off"\nauth = "optional"\nallow_insecure_auth = true\n',
        ["c.listeners[0].allow_insecure_auth"],
    ),
    (
        "certificates, the first is the default",
        SERVER + SMTP + '[tls]\nminimum_version = "1.3"\n[[tls.certificate]]\ncertificate = "good.pem"\n'
        'key = "good.key"\n',
        ["[p.key.name for p in c.tls.certificates] == ['good.key']", "c.tls.minimum_version == '1.3'",
         "c.tls.certificates[0].certificate.is_absolute()", "c.warnings == ()"],
    ),
    (
        "an expired certificate and an open key are warnings",
        SERVER + SMTP + '[[tls.certificate]]\ncertificate = "expired.pem"\nkey = "expired.key"\n'
        '[[tls.certificate]]\ncertificate = "good.pem"\nkey = "open.key"\n',
        ["[w.line for w in c.warnings] == [8, 12]", "all(w.warning for w in c.warnings)",
         "[w.key for w in c.warnings] == ['tls.certificate[1].certificate', 'tls.certificate[2].key']"],
    ),
    (
        "LMTP on a Unix socket, behind which a proxy may stand",
        SERVER + '[[listener]]\naddress = "unix:/run/lmtp.sock"\nprotocol = "lmtp"\nunix_mode = "660"\n'
        'unix_owner = "root"\nproxy_protocol = true\n',
        ["(c.listeners[0].name, c.listeners[0].tls, c.listeners[0].auth) == ('lmtp-unix', 'off', 'off')",
         "c.listeners[0].address.path == '/run/lmtp.sock'", "c.warnings == ()",
         "(c.listeners[0].unix_mode, c.listeners[0].unix_owner) == ('0660', 'root')",
         "c.origins['listener.lmtp-unix.tls'] == 'default of lmtp'"],
    ),
    (
        "certificates of clients, with EXTERNAL",
        SERVER + SMTP + 'client_certificates = "request"\nclient_ca = "good.pem"\n[auth]\nmechanisms = ["EXTERNAL"]\n',
        ["c.listeners[0].client_ca.is_absolute()", "c.warnings == ()"],
    ),
    (
        "what is unusual is warned of",
        SERVER + '[[listener]]\naddress = "24"\nprotocol = "lmtp"\n[[listener]]\naddress = "25"\nprotocol = "smtp"\n'
        "tls_required = true\n",
        ["[w.key for w in c.warnings] == ['listener.lmtp-24.address', 'listener.smtp-25.tls_required']"],
    ),
    (
        "a data directory that can be made",
        '[server]\ndata_dir = "new"\n' + SMTP,
        ["not c.server.data_dir.exists()"],
    ),
]  # fmt: skip


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(Path(self.mktemp()).absolute())

    def _load(self, text: str | bytes) -> Config:
        path = self.folder / "mailserver.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path)

    def _problems(self, text: str | bytes) -> list[str]:
        error = self.assertRaises(ConfigError, self._load, text)
        return [str(problem).replace(f"{self.folder}/", "") for problem in error.problems]

    def test_every_bad_configuration_gets_exactly_its_messages(self) -> None:
        files = sorted(BAD.glob("*.toml"))
        self.assertGreater(len(files), 40)
        for path in files:
            with self.subTest(path.name):
                text = path.read_text(encoding="utf-8")
                expected = [f"mailserver.toml:{told}" for told in EXPECT.findall(text)]
                self.assertEqual(
                    [line.replace(str(self.folder), "FOLDER") for line in self._problems(text)],
                    [line.replace("FOLDER/", "") for line in expected],
                )

    def test_good_configurations_mean_what_they_say(self) -> None:
        for name, text, truths in GOOD:
            config = self._load(text)
            for truth in truths:
                with self.subTest(f"{name}: {truth}"):
                    # The expressions stand in the table above.
                    self.assertTrue(eval(truth, {"c": config, "FOLDER": str(self.folder)}))

    def test_the_source_is_absolute_and_it_is_not_development(self) -> None:
        config = self._load(SERVER + SMTP)
        self.assertEqual((config.source, config.development), (self.folder / "mailserver.toml", False))

    def test_an_empty_file_has_no_listener(self) -> None:
        self.assertIn("mailserver.toml:1: listener: there is no listener", "\n".join(self._problems("")))

    def test_a_file_that_cannot_be_read_is_a_problem(self) -> None:
        path = self.folder / "missing.toml"
        error = self.assertRaises(ConfigError, load, path)
        self.assertEqual(str(error), f"{path}:1: file: cannot be read: No such file or directory")
        error = self.assertRaises(ConfigError, load, self.folder)
        self.assertEqual(str(error), f"{self.folder}:1: file: cannot be read: Is a directory")

    def test_a_file_that_is_not_utf_8_is_a_problem_of_its_line(self) -> None:
        self.assertEqual(
            self._problems(b'[server]\nhostname = "b\xfccher"\n'),
            ["mailserver.toml:2: file: is not UTF-8: octet 0xfc; save it as UTF-8"],
        )

    def test_a_huge_file_is_no_configuration(self) -> None:
        self.patch(loading, "MAX_FILE", 1024)
        self.assertEqual(
            self._problems(b"#" * 1025), ["mailserver.toml:1: file: is larger than 1 KiB; is it the right file?"]
        )
        self._load(SERVER + SMTP + "#" * (1024 - len(SERVER + SMTP)))

    def test_a_byte_order_mark_does_no_harm(self) -> None:
        self.assertEqual(self._load(b"\xef\xbb\xbf" + (SERVER + SMTP).encode()).listeners[0].line, 4)
        self.assertIn("mailserver.toml:2: file: is not UTF-8", self._problems(b"\xef\xbb\xbf\n\xef\xbb")[0])

    def test_a_fifo_or_a_device_is_no_configuration_and_not_waited_for(self) -> None:
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for path in (fifo, Path("/dev/zero")):
            error = self.assertRaises(ConfigError, load, path)
            self.assertEqual(str(error), f"{path}:1: file: is no regular file")

    def test_numbers_without_end_are_told_with_their_line(self) -> None:
        digits = "9" * 5000
        start = f'# {digits}\n[server]\nlog_format = "{digits}" # {digits}\n'
        for text, told in (
            (f"{start}drain_timeout = {digits}\n", ["4: syntax: not TOML: is a number beyond 64 bits"]),
            (f"{start}x = [1,\n {{ y = -{digits}}}]\n", ["5: syntax: not TOML: is a number beyond 64 bits"]),
            (f"[server]\nuser = {2**63}", ["2: server.user: is a number beyond 64 bits"]),
            (f"[server]\nuser = {-(2**63) - 1}", ["2: server.user: is a number beyond 64 bits"]),
            (f"a = 0x{'f' * 5000}\n[limits]\nerrors = 1{'0' * 400}",
             ["1: a: is a number beyond 64 bits", "3: limits.errors: is a number beyond 64 bits"]),
            (f"listener = [\n1{'0' * 20}]", ["2: listener[1]: is a number beyond 64 bits"]),
        ):  # fmt: skip
            self.assertEqual(self._problems(text), [f"mailserver.toml:{line}" for line in told])
        largest = "\n".join(self._problems(f"[server]\nuser={2**63 - 1}"))
        self.assertIn("must be text in quotes, not 9223372036854775807", largest)

    def test_dotted_keys_without_end_are_told(self) -> None:
        for depth in (200, 2_000):
            self.assertEqual(
                self._problems(f"[server]\nhostname{'.a' * depth} = 1\n"),
                ["mailserver.toml:1: syntax: is nested too deeply"],
            )

    def test_line_ends_of_windows_do_no_harm(self) -> None:
        self.assertEqual(
            self._problems((SERVER + SMTP).replace("smtp", "uucp").replace("\n", "\r\n")),
            [
                (
                    "mailserver.toml:6: listener.uucp-2525.protocol: "
                    '"uucp" is not possible; use "smtp", "submission" or "lmtp"'
                ),
            ],
        )

    @settings(deadline=None, max_examples=100)
    @given(st.text(max_size=200) | st.text("[]{}=\"'\n.ab0 #,", max_size=60))
    def test_whatever_is_in_the_file_there_is_no_other_error(self, text: str) -> None:
        path = self.folder / "any.toml"
        path.write_text(text, encoding="utf-8", errors="replace")
        self.assertRaises(ConfigError, load, path)


class FindConfigTests(SynchronousTestCase):
    def test_option_then_environment_then_default_then_development(self) -> None:
        default = Path(self.mktemp())
        self.patch(loading, "DEFAULT_PATH", default)
        environ = {"MAILSERVER_CONFIG": "b.toml"}
        self.assertEqual(find_config("a.toml", environ), Path("a.toml"))
        self.assertEqual(find_config(None, environ), Path("b.toml"))
        self.assertIsNone(find_config(None, {"MAILSERVER_CONFIG": ""}))
        default.write_text("")
        self.assertEqual(find_config(None, {}), default)
        self.assertEqual(passed_over(), ())

    def _deny(self, *denied: Path) -> None:
        """As for an ordinary user; root may read everything, and tests may run as root."""
        access, look = os.access, os.stat

        def may(path: object, mode: int) -> bool:
            return path not in denied and access(path, mode)

        def see(path: object, **named: object) -> os.stat_result:
            if path in denied and len(denied) > 1:
                raise PermissionError(13, "Permission denied", str(path))
            return look(path, **named)

        self.patch(loading.os, "access", may)
        self.patch(loading.os, "stat", see)

    def test_a_default_that_may_not_be_read_is_passed_over_with_a_warning(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        default = folder / "mailserver.toml"
        default.write_text("")
        self.patch(loading, "DEFAULT_PATH", default)
        for denied in ((default,), (default, folder)):  # the file; the folder around it
            self._deny(*denied)
            self.assertIsNone(find_config(None, {}))
            self.assertEqual(find_config(str(default), {}), default)  # who names it wants it
            self.assertEqual(
                [str(warning) for warning in passed_over()],
                [f"{default}:1: file: warning: may not be read by this user, so this is development mode"],
            )
            self.assertEqual(development(Path("x"), passed_over()).warnings, passed_over())

    def test_a_default_that_is_not_there_is_not_worth_a_word(self) -> None:
        file = Path(self.mktemp())
        file.write_text("")
        for default in (file / "mailserver.toml", file.with_name("none")):
            self.patch(loading, "DEFAULT_PATH", default)
            self.assertEqual((find_config(None, {}), passed_over()), (None, ()))


class DevelopmentTests(SynchronousTestCase):
    def test_six_listeners_on_loopback(self) -> None:
        config = development(Path("somewhere"))
        self.assertEqual(
            [(item.name, str(item.address), item.protocol, item.tls) for item in config.listeners],
            [
                ("smtp", "127.0.0.1:2525", "smtp", "starttls"),
                ("smtp-v6", "[::1]:2525", "smtp", "starttls"),
                ("smtps", "127.0.0.1:4650", "submission", "implicit"),
                ("smtps-v6", "[::1]:4650", "submission", "implicit"),
                ("submission", "127.0.0.1:2587", "submission", "starttls"),
                ("submission-v6", "[::1]:2587", "submission", "starttls"),
            ],
        )
        for item in config.listeners:
            self.assertTrue(item.next_free_port and item.allow_insecure_auth and item.address.is_loopback)
            self.assertEqual((item.auth, item.bare_newlines, item.hostname), ("optional", "fix", "localhost"))
            self.assertEqual((item.limits, item.tls_required), (config.limits, False))

    def test_everything_else(self) -> None:
        config = development(Path("somewhere"))
        self.assertTrue(config.development)
        self.assertEqual((config.source, config.domains, config.warnings), (None, (), ()))
        self.assertEqual(config.server.data_dir, Path("somewhere").absolute())
        self.assertEqual((config.limits.auth_failure_delay, DEFAULT_LIMITS.auth_failure_delay), (0.0, 2.0))
        # Only those by which any password can be taken.
        self.assertEqual(config.auth.mechanisms, ("PLAIN", "LOGIN", "CRAM-MD5"))


class ImportTests(SynchronousTestCase):
    def test_neither_a_reactor_nor_openssl_is_imported(self) -> None:
        program = (
            "import sys; from pathlib import Path; import mailserver.config as c; c.development(Path('x'));"
            "print([m for m in ('twisted', 'OpenSSL', 'asyncio', 'ssl') if m in sys.modules])"
        )
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        self.assertEqual(told.stdout.strip(), "[]")
