"""The listeners of a test server: held ports, a start that fails, an end that leaves nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.trial.unittest import TestCase

from mailserver.apps.loading import AppError
from mailserver.sockets import BindError
from mailserver.testing.core import LMTP, SMTP, SMTPS, Core
from mailserver.testing.faults import Faults
from mailserver.testing.settings import Settings

reactor: Any = the_reactor


class CoreTests(TestCase):
    def core(self, **options: Any) -> Core:
        return Core(Settings(**options), reactor, Faults())

    async def test_its_doors(self) -> None:
        for options, names in (
            ({}, [SMTP]),
            ({"tls": "implicit"}, [SMTPS]),
            ({"tls": "both", "lmtp": True}, [SMTP, SMTPS, LMTP]),
        ):
            core = self.core(**options)
            core.start()
            self.assertEqual(list(core.ports), names)
            self.assertEqual(len(set(core.ports.values())), len(names))
            await core.stop()

    async def test_a_port_is_kept_while_nobody_listens(self) -> None:
        core = self.core()
        core.start()
        port = core.ports[SMTP]
        await core.stop_listening()
        with socket.socket() as other:
            self.assertRaises(OSError, other.bind, ("127.0.0.1", port))
        core.listen()
        self.assertEqual(core.ports[SMTP], port)
        await core.stop()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))

    async def test_a_start_that_fails_leaves_nothing(self) -> None:
        first = self.core()
        first.start()
        second = self.core(port=first.ports[SMTP], tls="both")
        folders: list[Path] = []
        made = second._certificates

        def certificates() -> Any:
            result = made()
            assert second.certificate is not None
            folders.append(second.certificate.parent)
            return result

        self.patch(second, "_certificates", certificates)
        self.assertRaises(BindError, second.start)
        self.assertEqual([folder.exists() for folder in folders], [False])
        self.assertRaises(AppError, self.core(apps=object).start)
        await first.stop()

    async def test_the_certificate_is_for_the_names_that_clients_use(self) -> None:
        from cryptography import x509

        core = self.core(tls="starttls", hostname="mail.example.org")
        core.start()
        assert core.certificate is not None
        certificate = x509.load_pem_x509_certificate(core.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["mail.example.org", "localhost"])
        self.assertIn("127.0.0.1", [str(each) for each in names.get_values_for_type(x509.IPAddress)])
        await core.stop()
        self.assertIsNone(core.certificate)
