"""The classes: every key is described, everything is frozen, defaults are right values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.classes import TLS, Auth, CertificateFiles, Domain, Listener, Server, Storage, Table

CLASSES: tuple[type[Table], ...] = (Server, CertificateFiles, TLS, Storage, Auth, Listener, Domain)
LISTENER: dict[str, Any] = {
    "name": "x", "address": "25", "protocol": "smtp", "tls": "off", "auth": "off", "hostname": "localhost",
    "bare_newlines": "fix",
}  # fmt: skip


class DescriptionTests(SynchronousTestCase):
    def test_every_table_and_key_is_described_in_whole_sentences(self) -> None:
        for cls in CLASSES:
            self.assertTrue(cls.__doc__ and cls.__doc__.endswith("."), cls)
            for name, about in cls.model_fields.items():
                with self.subTest(f"{cls.__name__}.{name}"):
                    self.assertTrue((about.description or "").endswith((".", '".')))

    def test_a_key_without_a_fixed_default_has_an_example(self) -> None:
        for cls in CLASSES:
            for name, about in cls.model_fields.items():
                if about.is_required() or about.default is None or about.default_factory:
                    with self.subTest(f"{cls.__name__}.{name}"):
                        self.assertTrue(about.examples)


class ListenerTests(SynchronousTestCase):
    def listener(self, **values: Any) -> Listener:
        return Listener.model_validate(LISTENER | values)

    def refused(self, **values: Any) -> None:
        with self.subTest(str(values)):
            self.assertRaises(ValidationError, self.listener, **values)

    def test_networks_are_values(self) -> None:
        networks = ["192.0.2.0/24", "192.0.2.7", "2001:DB8::/32", "::1"]
        for key in ("trusted_proxies", "xclient"):
            value = getattr(self.listener(**{key: networks}), key)
            self.assertEqual(
                [str(each) for each in value], ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32", "::1/128"]
            )
            self.assertEqual(getattr(self.listener(**{key: value}), key), value)
            self.refused(**{key: "192.0.2.0/24"})
            for bad in (
                "192.0.2.1/24",
                "x",
                "",
                5,
                True,
                "fe80::1%eth0",
                "::ffff:192.0.2.0/120",
                "192.0.2.0/33",
            ):
                self.refused(**{key: [bad]})

    def test_modes_are_octal(self) -> None:
        for text, mode in (("0660", "0660"), ("660", "0660"), ("0600", "0600"), ("777", "0777")):
            self.assertEqual(self.listener(unix_mode=text).unix_mode, mode)
        for bad in (
            "",
            "0",
            "66",
            "0o660",
            "1777",
            "00660",
            "0880",
            "rw",
            "0660 ",
            "٠660",
            660,
            "0466",
            "0100",
            "0400",
        ):
            self.refused(unix_mode=bad)

    def test_owners_have_a_user(self) -> None:
        for good in ("mail", "mail:postfix", "mail.user$:x-y"):
            self.assertEqual(self.listener(unix_owner=good).unix_owner, good)
        for bad in ("", ":", "mail:", ":postfix", "a:b:c", "a b", "a\0", 0):
            self.refused(unix_owner=bad)

    def test_extensions_are_those_that_we_know(self) -> None:
        self.assertEqual(self.listener(extensions_off=["dsn", "8BitMIME"]).extensions_off, ("DSN", "8BITMIME"))
        for bad in (["HELP"], ["DSN "], [5], "DSN"):
            self.refused(extensions_off=bad)

    def test_the_banner_waits_a_minute_at_most(self) -> None:
        for value, seconds in ((0, 0.0), ("1 min", 60.0), (60, 60.0), ("500 ms", 0.5)):
            self.assertEqual(self.listener(banner_delay=value).banner_delay, seconds)
        for bad in (60.1, "61 s", -0.1, "x"):
            self.refused(banner_delay=bad)


class ValueTests(SynchronousTestCase):
    def test_defaults_are_themselves_right(self) -> None:
        for cls in (Server, TLS, Storage, Auth):
            self.assertEqual(cls.model_validate(cls().model_dump(by_alias=True)), cls())

    def test_nothing_can_be_changed(self) -> None:
        for table, name in ((Server(), "hostname"), (Listener.model_validate(LISTENER), "tls")):
            self.assertRaises(ValidationError, setattr, table, name, "off")

    def test_unknown_keys_and_other_types_are_refused(self) -> None:
        for cls, values in ((Server, {"colour": 1}), (Server, {"user": 5}), (Listener, LISTENER | {"tls": False})):
            with self.subTest(str(values)):
                self.assertRaises(ValidationError, cls.model_validate, values)

    def test_relative_paths_start_at_the_folder_of_the_context(self) -> None:
        context = {"folder": Path("/srv/mail")}
        for text, path in (("data", "/srv/mail/data"), ("../x/./y", "/srv/x/y"), ("/a", "/a")):
            self.assertEqual(Server.model_validate({"data_dir": text}, context=context).data_dir, Path(path))

    def test_times_and_sizes_are_numbers_then(self) -> None:
        self.assertEqual(Server.model_validate({"drain_timeout": "2 min"}).drain_timeout, 120.0)
        self.assertEqual(Storage.model_validate({"default_quota": "1 KiB"}).default_quota, 1024)

    def test_ranges_include_their_ends(self) -> None:
        for cls, key, good, bad in (
            (Server, "drain_timeout", (0, 3600), (-0.1, 3600.1)),
            (TLS, "check_interval", (0, 86_400), (-1, 86_401)),
            (Storage, "default_quota", (0, 2**50), (-1, 2**50 + 1)),
        ):
            for value in good:
                self.assertEqual(getattr(cls.model_validate({key: value}), key), value)
            for value in bad:
                self.assertRaises(ValidationError, cls.model_validate, {key: value})
