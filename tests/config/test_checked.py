"""The types of values, each with what it takes and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import checked
from mailserver.limits import Limits

GOOD: list[tuple[Callable[[str], str], str, str]] = [
    (checked.hostname, "Mail.Example.ORG.", "mail.example.org"),
    (checked.hostname, "localhost", "localhost"),
    (checked.hostname, "bücher.example", "xn--bcher-kva.example"),
    (checked.mail_domain, "Example.ORG", "example.org"),
    (checked.mail_domain, "[192.0.2.1]", "[192.0.2.1]"),
    (checked.mailbox, "Admin+x@Example.org", "Admin+x@Example.org"),
    (checked.separator, "", ""),
    (checked.separator, "+", "+"),
    (checked.separator, ".", "."),
    (checked.mechanism, "plain", "PLAIN"),
    (checked.mechanism, "CRAM-MD5", "CRAM-MD5"),
    (checked.banner, "ESMTP ready", "ESMTP ready"),
    (checked.banner, "x" * checked.MAX_BANNER, "x" * checked.MAX_BANNER),
    (checked.mechanism, "scram-sha-256-plus", "SCRAM-SHA-256-PLUS"),
    (checked.extension, "binarymime", "BINARYMIME"),
    (checked.unix_mode, "640", "0640"),
    (checked.unix_owner, "mail:postfix", "mail:postfix"),
    (checked.listener_name, "in-25.a_b", "in-25.a_b"),
    (checked.listener_name, "x" * 64, "x" * 64),
]
BAD: list[tuple[Callable[[str], str], str]] = [
    *(
        (checked.hostname, text)
        for text in ("", "a b", "192.0.2.1", "[192.0.2.1]", "a..b", "2001:db8::1", "a\n", "-a")
    ),
    *((checked.mail_domain, text) for text in ("", "a@b", "192.0.2.1", "[300.0.0.1]", ".")),
    *((checked.mailbox, text) for text in ("", "a", "a@", "@example.org", "postmaster", "a b@example.org")),
    *((checked.separator, text) for text in ("++", "@", " ", '"', "a", "é", "\n", "+\n")),
    *((checked.mechanism, text) for text in ("", "DIGEST-MD5", "PLAIN ")),
    *((checked.extension, text) for text in ("", "HELP", "DSN\n")),
    *((checked.unix_mode, text) for text in ("", "0o660", "660\n", "0866", "0560")),
    *((checked.unix_owner, text) for text in ("", ":g", "u:", "u:g\n", "u g")),
    *((checked.banner, text) for text in ("a\r\nb", "é", "a\0", "x" * (checked.MAX_BANNER + 1))),
    *((checked.listener_name, text) for text in ("", "-a", "a b", "a\n", "é", "x" * 65)),
]


class TextTests(SynchronousTestCase):
    def test_good_values_get_their_normal_form(self) -> None:
        for check, text, normal in GOOD:
            with self.subTest(f"{check.__name__} {text!r}"):
                self.assertEqual(check(text), normal)

    def test_bad_values_are_refused(self) -> None:
        for check, text in BAD:
            with self.subTest(f"{check.__name__} {text!r}"):
                self.assertRaises(ValueError, check, text)


class MachineNameTests(SynchronousTestCase):
    def test_it_is_what_the_system_says_when_that_is_a_name(self) -> None:
        for name, expected in (("MX.Example.org", "mx.example.org"), ("not a name", "localhost"), ("", "localhost")):
            self.patch(checked.socket, "gethostname", lambda name=name: name)
            self.assertEqual(checked.machine_name(), expected)


class ListenAddressTests(SynchronousTestCase):
    def test_a_relative_socket_path_starts_at_the_folder(self) -> None:
        for text, path in (("unix:x.sock", "/srv/x.sock"), ("unix:../x.sock", "/x.sock"), ("unix:/a/b", "/a/b")):
            self.assertEqual(checked.parse_listen_address(text, Path("/srv")).path, path)

    def test_a_port_may_be_a_number(self) -> None:
        self.assertEqual(str(checked.parse_listen_address(25, Path())), "*:25")

    def test_everything_else_is_refused(self) -> None:
        for value in (True, 2.5, ["25"], "unix:", "host", -1):
            with self.subTest(repr(value)):
                self.assertRaises(ValueError, checked.parse_listen_address, value, Path("/srv"))


class OtherTests(SynchronousTestCase):
    def test_only_lists_become_tuples(self) -> None:
        self.assertEqual(checked.as_tuple(["a"]), ("a",))
        self.assertRaises(ValueError, checked.as_tuple, "a")

    def test_only_limits_are_limits(self) -> None:
        self.assertEqual(checked.instance_of_limits(Limits(errors=5)).errors, 5)
        self.assertRaises(ValueError, checked.instance_of_limits, {"errors": 5})

    def test_words_are_joined_for_a_sentence(self) -> None:
        self.assertEqual(checked.one_of(("a",)), '"a"')
        self.assertEqual(checked.one_of(("a", "b", "c")), '"a", "b" or "c"')
