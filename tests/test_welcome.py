"""The banner of development mode: where it listens, a line to copy that works, and where the mail will lie."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.welcome import first_mail, welcome


def listener(protocol: str, tls: str) -> Any:
    return SimpleNamespace(protocol=protocol, tls=tls)


LISTENERS = [
    (listener("smtp", "implicit"), "127.0.0.1:4650"),
    (listener("submission", "starttls"), "127.0.0.1:2587"),
    (listener("smtp", "starttls"), "127.0.0.1:2525"),
    (listener("smtp", "off"), "[::1]:2526"),
]


def banner(data_dir: Path, *listeners: tuple[Any, str]) -> str:
    config: Any = SimpleNamespace(server=SimpleNamespace(data_dir=data_dir))
    return welcome(config, listeners)


class WelcomeTests(SynchronousTestCase):
    def test_each_address_is_told_with_its_protocol_and_tls(self) -> None:
        lines = banner(Path("/data"), *LISTENERS).splitlines()
        for line in (
            "  127.0.0.1:4650     smtp, implicit TLS",
            "  127.0.0.1:2587     submission, STARTTLS",
            "  127.0.0.1:2525     smtp, STARTTLS",
            "  [::1]:2526         smtp, no TLS",
        ):
            self.assertIn(line, lines)

    def test_the_first_mail_goes_to_the_first_smtp_listener_without_implicit_tls(self) -> None:
        self.assertIn("smtp://127.0.0.1:2525 ", banner(Path("/data"), *LISTENERS))
        self.assertIn("smtp://[::1]:2526 ", banner(Path("/data"), LISTENERS[0], LISTENERS[3]))

    def test_without_such_a_listener_no_line_is_offered(self) -> None:
        text = banner(Path("/data"), *LISTENERS[:2])
        self.assertNotIn("curl", text)
        self.assertIn("/data/mail/localhost/inbox/new", text)

    def test_the_inbox_is_told_as_seen_from_here(self) -> None:
        self.assertIn(
            " ./mailserver-data/mail/localhost/inbox/new ", banner(Path.cwd() / "mailserver-data", *LISTENERS)
        )
        self.assertIn(" /elsewhere/mail/localhost/inbox/new ", banner(Path("/elsewhere"), *LISTENERS))
        self.assertIn(" mailserver-data/mail/localhost/inbox/new ", banner(Path("mailserver-data"), *LISTENERS))

    def test_it_begins_and_ends_with_an_empty_line_and_fits_a_terminal(self) -> None:
        lines = banner(Path("/data"), *LISTENERS).split("\n")
        self.assertEqual((lines[0], lines[-2:]), ("", ["", ""]))
        self.assertLess(max(map(len, lines)), 160)

    def test_the_line_to_copy_is_a_whole_shell_command(self) -> None:
        words = shlex.split(first_mail("127.0.0.1:2525"))
        self.assertEqual(words[:4], ["printf", "Subject: hello\\r\\n\\r\\nIt works.\\r\\n", "|", "curl"])
        self.assertEqual(words[4], "smtp://127.0.0.1:2525")
        self.assertEqual(words[-2:], ["-T", "-"])
