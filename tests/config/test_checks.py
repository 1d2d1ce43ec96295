"""Which mixes of protocol, TLS, AUTH and address are refused: all of them, against a rule written down once more."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.checks import Remark, check
from mailserver.config.lines import Lines, scan
from mailserver.config.origins import Places
from mailserver.config.reading import read

ADDRESSES = {
    "127.0.0.1:2525": True, "[::1]:2525": True, "localhost:2525": True, "unix:/run/x.sock": True,
    "2525": False, "192.0.2.1:2525": False, "[2001:db8::1]:2525": False, "systemd:x": False, "mail.example.org:1": False,
}  # fmt: skip


def remarks(**keys: str) -> list[Remark]:
    """What is said about one listener; keys: as TOML."""
    text = "[[listener]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
    lines = scan(text)
    parts, problems = read(tomllib.loads(text), Places("f", lines), Path("/srv"))
    if problems:
        raise AssertionError(problems)
    return list(check(parts, lines))


def is_dangerous(protocol: str, tls: str, auth: str, insecure: str, *, loopback: bool) -> bool:
    """
    The rule: no passwords in clear text beyond this machine, no submission without AUTH beyond it.

    loopback: are all clients here?  Those of a proxy are not, wherever the proxy is.
    """
    if not loopback and insecure == "true":
        return True
    if tls == "off" and auth != "off" and not (loopback and insecure == "true"):
        return True
    return not loopback and protocol == "submission" and "off" in (tls, auth)  # LMTP is as SMTP here


class MixTests(SynchronousTestCase):
    def test_exactly_the_dangerous_mixes_are_refused(self) -> None:
        for (address, loopback), protocol, tls, auth, insecure in itertools.product(
            ADDRESSES.items(),
            ("smtp", "submission", "lmtp"),
            ("starttls", "implicit", "off"),
            ("required", "optional", "off"),
            ("true", "false"),
        ):
            for proxy in ("true", "false"):
                self._check_mix(address, protocol, tls, auth, insecure, proxy, loopback=loopback and proxy == "false")

    def _check_mix(
        self, address: str, protocol: str, tls: str, auth: str, insecure: str, proxy: str, *, loopback: bool
    ) -> None:
        with self.subTest(f"{address} {protocol} {tls} {auth} {insecure} {proxy}"):
            keys = {"proxy_protocol": proxy, "trusted_proxies": '["192.0.2.1"]'} if proxy == "true" else {}
            said = remarks(
                address=f'"{address}"',
                protocol=f'"{protocol}"',
                tls=f'"{tls}"',
                auth=f'"{auth}"',
                allow_insecure_auth=insecure,
                **keys,
            )
            refused = any(not remark.warning for remark in said)
            self.assertEqual(refused, is_dangerous(protocol, tls, auth, insecure, loopback=loopback))

    def test_the_defaults_are_never_refused(self) -> None:
        listeners = itertools.product((*ADDRESSES, "25", "465", "587"), ("smtp", "submission", "lmtp"))
        for address, protocol in listeners:
            if (address, protocol) == ("25", "lmtp"):
                continue
            with self.subTest(f"{address} {protocol}"):
                said = remarks(address=f'"{address}"', protocol=f'"{protocol}"')
                self.assertEqual([remark for remark in said if not remark.warning], [])


class PortTests(SynchronousTestCase):
    def test_unusual_ports_are_warned_of(self) -> None:
        for port, protocol, tls, auth, keys in (
            (25, "smtp", "implicit", "off", ["tls"]),
            (587, "submission", "implicit", "required", ["tls"]),
            (465, "submission", "starttls", "required", ["tls"]),
            (25, "smtp", "starttls", "required", ["auth"]),
            (26, "smtp", "implicit", "required", []),
            (25, "smtp", "starttls", "optional", []),
            (465, "submission", "implicit", "required", []),
        ):
            with self.subTest(f"{port} {protocol} {tls} {auth}"):
                said = remarks(address=str(port), protocol=f'"{protocol}"', tls=f'"{tls}"', auth=f'"{auth}"')
                self.assertEqual([remark.path[-1] for remark in said], keys)
                self.assertTrue(all(remark.warning for remark in said))


class MechanismTests(SynchronousTestCase):
    def check(self, mechanisms: str, keys: str) -> list[Remark]:
        text = f'[auth]\nmechanisms = {mechanisms}\n[[listener]]\naddress = 25\nprotocol = "smtp"\n{keys}'
        lines = scan(text)
        parts, problems = read(tomllib.loads(text), Places("f", lines), Path("/srv"))
        self.assertEqual(problems, [])
        return list(check(parts, lines))

    def test_external_needs_certificates_of_clients(self) -> None:
        asked = 'client_certificates = "request"\nclient_ca = "ca.pem"\n'
        for mechanisms, keys, places in (
            ('["PLAIN", "EXTERNAL"]', "", [("auth", "mechanisms", 1)]),
            ('["PLAIN", "EXTERNAL"]', asked, []),
            ('["PLAIN", "XOAUTH2", "oauthbearer", "SCRAM-SHA-256-PLUS", "scram-sha-256"]', "", []),
        ):
            with self.subTest(f"{mechanisms} {keys}"):
                self.assertEqual([remark.path for remark in self.check(mechanisms, keys)], places)


class AddressTests(SynchronousTestCase):
    def test_mail_that_would_have_to_go_elsewhere_is_warned_of(self) -> None:
        domains = '[[domain]]\nname = "example.org"\n[[domain]]\nname = "B\u00fccher.example"\ncatch_all = "{}"\n'
        for postmaster, catch_all, told in (
            ("a@example.org", "a@EXAMPLE.org", []),
            ("a@b\u00fccher.example", "a@xn--bcher-kva.example", []),
            ("a@example.net", "a@example.org", ["server.postmaster"]),
            ("a@example.org", "a@sub.example.org", ["domain.1.catch_all"]),
        ):
            text = f'[server]\npostmaster = "{postmaster}"\n[[listener]]\naddress = 25\nprotocol = "smtp"\n'
            text += domains.format(catch_all)
            lines = scan(text)
            parts, problems = read(tomllib.loads(text), Places("f", lines), Path("/srv"))
            self.assertEqual(problems, [])
            said = list(check(parts, lines))
            self.assertEqual([".".join(map(str, remark.path)) for remark in said], told)
            self.assertTrue(all(remark.warning and "451" in remark.text for remark in said))


class LimitTests(SynchronousTestCase):
    def test_contradictions_name_the_key_that_was_changed(self) -> None:
        for limits, keys in (
            ('{ busy_command_timeout = "5 min" }', []),
            ("{ busy_command_timeout = 301 }", ["busy_command_timeout"]),
            ("{ command_timeout = 29 }", ["command_timeout"]),
            ("{ command_timeout = 30 }", []),
            ('{ line_without_end = "2 KiB" }', ["line_without_end", "line_without_end"]),
            ('{ auth_line = "64 KiB", command_line = "64 KiB" }', []),
            ("{ errors_before_delay = 21 }", ["errors_before_delay"]),
            ("{ errors_before_delay = 20 }", []),
            ("{ errors_before_delay = 9, errors = 8 }", ["errors_before_delay"]),
            ("{ errors = 5 }", []),  # the connection just ends before anything is delayed
        ):
            with self.subTest(limits):
                said = remarks(address="25", protocol='"smtp"', limits=limits)
                self.assertEqual([remark.path for remark in said], [("listener", 0, "limits", key) for key in keys])


class NoListenerTests(SynchronousTestCase):
    def test_a_file_without_listener_is_no_configuration(self) -> None:
        lines = Lines({})
        parts, _ = read({}, Places("f", lines), Path("/srv"))
        self.assertEqual([remark.path for remark in check(parts, lines)], [("listener",)])
