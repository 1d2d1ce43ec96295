"""Mixes of a listener's keys: LMTP, Unix sockets, proxies, client certificates, extensions.  `bad/` has messages."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.classes import Listener
from mailserver.config.lines import scan
from mailserver.config.listener_checks import NEEDED_BY, check_listener
from mailserver.config.origins import Places
from mailserver.config.reading import read

PROXY = "proxy_protocol = true\n"


def listener(keys: str, *, address: str = "127.0.0.1:2525", protocol: str = "smtp") -> tuple[Listener, list[str]]:
    """The listener, and what is said about it: "key", and "key?" for a warning."""
    text = f'[[listener]]\naddress = "{address}"\nprotocol = "{protocol}"\n{keys}'
    lines = scan(text)
    parts, problems = read(tomllib.loads(text), Places("f", lines), Path("/srv"))
    if problems:
        raise AssertionError(problems)
    (only,) = parts.listeners.values()
    said = check_listener(("listener", 0), only, lines)
    return only, [f"{remark.path[2]}{'?' if remark.warning else ''}" for remark in said]


class ListenerChecksTests(SynchronousTestCase):
    def check(self, address: str, protocol: str, keys: str, expected: list[str]) -> None:
        with self.subTest(f"{address} {protocol} {keys!r}"):
            self.assertEqual(listener(keys, address=address, protocol=protocol)[1], expected)

    def test_lmtp_stays_off_port_25_and_at_home(self) -> None:
        for address, expected in (
            ("25", ["protocol"]), ("127.0.0.1:25", ["protocol"]), ("[::]:25", ["protocol"]),
            ("24", ["address?"]), ("192.0.2.1:24", ["address?"]), ("mail.example.org:24", ["address?"]),
            ("127.0.0.1:24", []), ("[::1]:24", []), ("localhost:24", []), ("unix:/run/l.sock", []),
            ("systemd:lmtp", []),
        ):  # fmt: skip
            self.check(address, "lmtp", "", expected)
        self.check("25", "smtp", "", [])

    def test_required_tls_can_be_had(self) -> None:
        for address, protocol, keys, expected in (
            ("2525", "smtp", 'tls_required = true\ntls = "off"\n', ["tls_required"]),
            ("2525", "smtp", "tls_required = true\n", []),
            ("2525", "smtp", 'tls_required = true\ntls = "implicit"\n', []),
            ("25", "smtp", "tls_required = true\n", ["tls_required?"]),
            ("24", "lmtp", "tls_required = true\n", ["address?", "tls_required"]),
            ("127.0.0.1:2525", "submission", 'tls = "off"\nauth = "off"\n', []),
        ):
            self.check(address, protocol, keys, expected)

    def test_who_asks_for_certificates_knows_who_signs_them(self) -> None:
        ca, place = 'client_ca = "ca.pem"\n', "client_certificates"
        for address, keys, expected in (
            ("2525", ca, []),
            ("2525", f'{place} = "request"\n{ca}', []),
            ("2525", f'{place} = "request"\n', [place]),
            ("2525", f'{place} = "require"\n{ca}tls = "off"\n', [place]),
            ("2525", f'{place} = "require"\ntls = "off"\n', [place, place]),
            ("25", f'{place} = "require"\n{ca}', [place + "?"]),
            ("25", f'{place} = "request"\n{ca}', []),
        ):
            self.check(address, "smtp", keys, expected)

    def test_keys_of_unix_sockets_are_for_these(self) -> None:
        keys = 'unix_mode = "0660"\nunix_owner = "root"\n'
        for address, expected in (
            ("unix:/run/l.sock", []),
            ("2525", ["unix_mode", "unix_owner"]),
            ("systemd:x", ["unix_mode", "unix_owner"]),
        ):
            self.check(address, "smtp", keys, expected)

    def test_only_named_hosts_may_say_who_the_client_is(self) -> None:
        for address, keys, expected in (
            ("2525", PROXY, ["proxy_protocol"]),
            ("systemd:x", PROXY, ["proxy_protocol"]),
            ("unix:/run/p.sock", PROXY, []),
            ("2525", PROXY + 'trusted_proxies = ["192.0.2.1", "2001:db8::/64"]\n', []),
            ("2525", PROXY + "trusted_proxies = []\n", ["proxy_protocol"]),
            ("2525", PROXY + 'trusted_proxies = ["0.0.0.0/1", "::/0"]\n', ["trusted_proxies"] * 2),
            ("2525", 'trusted_proxies = ["192.0.2.1"]\n', ["trusted_proxies"]),
            ("2525", 'xclient = ["127.0.0.1"]\n', []),
            ("2525", 'xclient = ["0.0.0.0/0"]\n', ["xclient"]),
            ("2525", 'xclient = ["0.0.0.0/1", "128.0.0.0/1"]\n', ["xclient"] * 2),
            ("2525", 'xclient = ["10.0.0.0/7", "10.0.0.0/8"]\n', ["xclient"]),
            ("2525", 'xclient = ["2001::/16", "2000::/15"]\n', ["xclient"]),
        ):
            self.check(address, "smtp", keys, expected)

    def test_extensions_that_need_others_go_with_them(self) -> None:
        for name, (other,) in NEEDED_BY.items():
            self.check("2525", "smtp", f'extensions_off = ["{name}"]\n', ["extensions_off"])
            self.check("2525", "smtp", f'extensions_off = ["{name}", "{other}"]\n', [])
            self.check("2525", "smtp", f'extensions_off = ["{other}"]\n', [])

    def test_extensions_that_other_keys_need(self) -> None:
        for tls, auth in itertools.product(("starttls", "implicit", "off"), ("off", "optional")):
            keys = f'tls = "{tls}"\nauth = "{auth}"\nextensions_off = ["STARTTLS", "AUTH"]\n'
            self.check("2525", "smtp", keys, ["extensions_off"] * ((tls == "starttls") + (auth != "off")))

    def test_what_lmtp_must_have(self) -> None:
        keys = 'extensions_off = ["PIPELINING", "ENHANCEDSTATUSCODES", "SIZE"]\n'
        self.check("127.0.0.1:24", "lmtp", keys, ["extensions_off?", "extensions_off?"])
        self.check("127.0.0.1:24", "smtp", keys, [])

    def test_an_extension_once(self) -> None:
        self.check("2525", "smtp", 'extensions_off = ["DSN", "dsn"]\n', ["extensions_off"])


class DefaultsTests(SynchronousTestCase):
    def test_tls_is_required_where_passwords_and_mail_of_users_come(self) -> None:
        for address, protocol, keys, tls, required in (
            ("25", "smtp", "", "starttls", False),
            ("587", "submission", "", "starttls", True),
            ("465", "submission", "", "implicit", True),
            ("587", "submission", "tls_required = false\n", "starttls", False),
            ("127.0.0.1:587", "submission", "allow_insecure_auth = true\n", "starttls", False),
            ("127.0.0.1:587", "submission", 'tls = "off"\nauth = "off"\n', "off", False),
            ("127.0.0.1:24", "lmtp", "", "off", False),
            ("127.0.0.1:24", "lmtp", 'tls = "starttls"\n', "starttls", False),
        ):
            with self.subTest(f"{address} {protocol} {keys!r}"):
                one, _ = listener(keys, address=address, protocol=protocol)
                self.assertEqual((one.tls, one.tls_required), (tls, required))

    def test_lmtp(self) -> None:
        one, _ = listener("", address="unix:/run/l.sock", protocol="lmtp")
        self.assertEqual((one.name, one.auth, one.bare_newlines), ("lmtp-unix", "off", "fix"))

    def test_everything_new_is_off(self) -> None:
        one, said = listener("")
        self.assertEqual(
            (one.proxy_protocol, one.trusted_proxies, one.xclient, one.extensions_off, one.vrfy, one.banner_delay),
            (False, (), (), (), False, 0.0),
        )
        self.assertEqual((one.client_certificates, one.client_ca, one.unix_owner), ("off", None, None))
        self.assertEqual((one.unix_mode, said), ("0600", []))
