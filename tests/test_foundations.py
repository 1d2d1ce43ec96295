"""How rooms, settings and factories are made from a configuration."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address, parse_address
from mailserver.apps.app import App
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.config import Config, development, load
from mailserver.foundations import (
    Foundations,
    StartError,
    apps_of,
    factory_of,
    rooms_of,
    self_signed_names,
    settings_of,
    with_apps,
)
from mailserver.lean_tls import LeanTLSFactory
from mailserver.proxy import ProxyFactory
from mailserver.reply import RELAYING_DENIED, Refusal
from mailserver.routing import DevelopmentRouter, Local
from mailserver.routing_cache import CachedRouter
from mailserver.smtp.policed import PolicedFactory
from mailserver.smtp.server import ESMTPServerFactory

SMTP = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"'


class FoundationsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dir = Path(self.mktemp())
        self.dir.mkdir()

    def configure(self, *listeners: str, more: str = "") -> Config:
        file = self.dir / "mailserver.toml"
        text = f'[server]\nhostname = "mx.example.org"\ndata_dir = "data"\n{more}\n[[domain]]\nname = "example.org"\n'
        file.write_text(text + "".join(f"[[listener]]\n{listener}\n" for listener in listeners))
        return load(file)

    def ground(self, config: Config) -> Foundations:
        ground = Foundations(config, Clock())
        self.addCleanup(ground.accounts.close)
        return ground


class HoldTests(FoundationsCase):
    """FUTURERELEASE: where it is offered, and what stands behind it."""

    SUBMISSION = 'address = "127.0.0.1:0"\nprotocol = "submission"\nname = "sub"'

    def held_messages(self, listener: str, more: str = "") -> tuple[int, int]:
        """The longest time, and how many messages an account may have waiting."""
        config = self.configure(listener, more=more)
        ground = self.ground(config)
        rooms = rooms_of(config, ground)
        self.assertIs(rooms.spool, ground.spool)
        made = factory_of(config, config.listeners[0], rooms, ground, Clock())
        settings = settings_of(config, config.listeners[0])
        hold = settings.hold if "FUTURERELEASE" in settings.working(tls=True) else 0
        return hold, made.portal.realm._held_messages

    def test_submission_offers_it(self) -> None:
        self.assertEqual(self.held_messages(self.SUBMISSION), (2_592_000, 1000))

    def test_as_the_limits_say(self) -> None:
        limits = '[limits]\nhold = "2 h"\nheld_messages = 7'
        self.assertEqual(self.held_messages(self.SUBMISSION, limits), (7200, 7))
        listener = self.SUBMISSION + '\nlimits = { hold = "1 h" }'
        self.assertEqual(self.held_messages(listener, limits), (3600, 7))

    def test_switched_off(self) -> None:
        self.assertEqual(self.held_messages(self.SUBMISSION, "[limits]\nhold = 0"), (0, 0))
        self.assertEqual(self.held_messages(self.SUBMISSION + '\nextensions_off = ["FUTURERELEASE"]'), (0, 0))

    def test_others_do_not_offer_it(self) -> None:
        self.assertEqual(self.held_messages(SMTP), (0, 0))
        self.assertEqual(self.held_messages('address = "unix:/run/x/lmtp"\nprotocol = "lmtp"'), (0, 0))


class SettingsTests(FoundationsCase):
    def test_submission_asks_for_tls_and_login(self) -> None:
        config = self.configure('address = "127.0.0.1:0"\nprotocol = "submission"')
        settings = settings_of(config, config.listeners[0])
        self.assertTrue(settings.tls_required and settings.auth_required and settings.starttls)
        self.assertEqual(
            list(settings.mechanisms), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"]
        )
        self.assertEqual(settings.bare_newlines, "fix")
        config = self.configure(SMTP)
        settings = settings_of(config, config.listeners[0])
        self.assertFalse(settings.tls_required or settings.auth_required or settings.mechanisms)
        self.assertEqual(settings.bare_newlines, "reject")

    def test_what_a_listener_says_reaches_the_session(self) -> None:
        config = self.configure(
            SMTP + '\nbanner = "hi"\nvrfy = true\nbanner_delay = 2\nextensions_off = ["DSN"]\n'
            "limits = { errors = 7 }\ntls_required = true"
        )
        settings = settings_of(config, config.listeners[0])
        self.assertEqual((settings.banner, settings.vrfy, settings.banner_delay), ("hi", True, 2.0))
        self.assertEqual((settings.off, settings.limits.errors), (frozenset({"DSN"}), 7))
        self.assertTrue(settings.tls_required)

    def test_lmtp(self) -> None:
        config = self.configure('address = "unix:/run/x/lmtp"\nprotocol = "lmtp"')
        settings = settings_of(config, config.listeners[0])
        self.assertEqual((settings.lmtp, settings.banner), (True, "LMTP"))


class RoomsTests(FoundationsCase):
    def test_the_domains_are_routed_and_others_are_not(self) -> None:
        ground = self.ground(config := self.configure(SMTP))
        ground.accounts.add_account(parse_address("b@example.org"), ())
        rooms = rooms_of(config, ground)
        (local,) = rooms.router.route(parse_address("b+x@example.org"), may_relay=False)
        self.assertEqual(local.path, ground.mail / "example.org" / "b")
        with self.assertRaises(Refusal) as caught:
            rooms.router.route(parse_address("b@example.com"), may_relay=False)
        self.assertEqual(caught.exception.reply, RELAYING_DENIED)

    def test_a_new_configuration_knows_nothing_of_what_was_routed_before(self) -> None:
        ground = self.ground(config := self.configure(SMTP))
        ground.accounts.add_account(parse_address("b@example.org"), ())
        joe = parse_address("b@example.org")
        first, second = rooms_of(config, ground).router, rooms_of(config, ground).router
        asked: list[Address] = []
        for router in (first, second):
            self.assertIsInstance(router, CachedRouter)
            inner = router._router._mailbox_path
            self.patch(router._router, "_mailbox_path", lambda name, inner=inner: asked.append(name) or inner(name))
            for _ in range(3):
                router.route(joe, may_relay=False)
        self.assertEqual(asked, [joe, joe])

    def test_development_takes_everything_and_checks_no_sender(self) -> None:
        ground = self.ground(config := development((self.dir / "dev").absolute()))
        rooms = rooms_of(config, ground)
        self.assertIsInstance(rooms.router, DevelopmentRouter)
        self.assertIsNone(rooms.senders)
        (local,) = rooms.router.route(parse_address("any@where.example"), may_relay=False)
        self.assertIsInstance(local, Local)

    def test_senders_know_the_separator_of_their_domain(self) -> None:
        config = self.configure(SMTP)
        rooms = rooms_of(config, self.ground(config))
        assert rooms.senders is not None
        self.assertEqual(rooms.senders.separator("example.org"), "+")


class Judging(App):
    """Has a word in all that a listener offers."""

    mechanisms = ("XOAUTH2", "PLAIN")
    verbs = ("xping",)
    mail_parameters = ("XCOLOUR",)

    def rcpt(self, recipient: object, parameters: object) -> None:
        raise NotImplementedError

    def command(self, verb: str, argument: str) -> None:
        raise NotImplementedError


class AppsTests(FoundationsCase):
    APP = f'[[app]]\nname = "j"\npython = "{__name__}:Judging"\n'

    def installed(self, config: Config) -> tuple[Foundations, tuple[InstalledApp, ...]]:
        ground = self.ground(config)
        return ground, apps_of(config, ground)

    def test_those_of_the_configuration_and_those_of_the_program(self) -> None:
        config = self.configure(SMTP, more=self.APP)
        ground = self.ground(config)
        ground.embedded_apps = [AppSettings("own", Judging)]
        first = apps_of(config, ground)
        self.assertEqual([app.name for app in first], ["j", "own"])
        ground.apps.use(first)
        self.assertEqual(apps_of(config, ground), first, "nothing has changed")

    def test_an_app_that_is_gone_since_the_check_is_a_start_error(self) -> None:
        file = self.dir / "judge.py"
        file.write_text("import mailserver\n\nclass Judge(mailserver.App):\n    def rcpt(self, r, p): ...\n")
        config = self.configure(SMTP, more='[[app]]\nname = "j"\npython = "judge.py:Judge"\n')
        file.unlink()
        error = self.assertRaises(StartError, apps_of, config, self.ground(config))
        self.assertIn("app.j.python", error.lines[0])

    def test_a_listener_offers_what_its_apps_understand(self) -> None:
        config = self.configure('address = "127.0.0.1:0"\nprotocol = "submission"\nname = "in"', more=self.APP)
        _, apps = self.installed(config)
        settings = with_apps(settings_of(config, config.listeners[0]), apps)
        self.assertEqual(list(settings.mechanisms)[-2:], ["CRAM-MD5", "XOAUTH2"])
        self.assertEqual((settings.verbs, settings.mail_parameters), ({b"XPING"}, {"XCOLOUR"}))
        self.assertFalse(settings.vrfy)

    def test_where_nobody_can_log_in_no_mechanism_is_offered(self) -> None:
        config = self.configure(SMTP, more=self.APP)
        _, apps = self.installed(config)
        self.assertEqual(with_apps(settings_of(config, config.listeners[0]), apps).mechanisms, {})

    def test_only_listeners_with_apps_ask_them(self) -> None:
        other = SMTP.replace('"in"', '"other"')
        config = self.configure(SMTP, other, more=self.APP + 'match = { listener = "in" }\n')
        ground, apps = self.installed(config)
        kinds = [
            type(factory_of(config, listener, rooms_of(config, ground), ground, Clock(), apps))
            for listener in config.listeners
        ]
        self.assertEqual(kinds, [PolicedFactory, ESMTPServerFactory])


class FactoryTests(FoundationsCase):
    def factory(self, listener: str) -> object:
        config = self.configure(listener)
        ground = self.ground(config)
        return factory_of(config, config.listeners[0], rooms_of(config, ground), ground, Clock())

    def test_the_layers_below_the_protocol(self) -> None:
        self.assertIsInstance(self.factory(SMTP), ESMTPServerFactory)
        implicit = self.factory('address = "127.0.0.1:0"\nprotocol = "submission"\ntls = "implicit"')
        self.assertIsInstance(implicit, LeanTLSFactory)
        proxied = self.factory(SMTP + '\nproxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]\ntls = "implicit"')
        assert isinstance(proxied, ProxyFactory)
        self.assertIsInstance(proxied.wrapped, LeanTLSFactory)

    def test_who_may_use_xclient(self) -> None:
        factory = self.factory(SMTP + '\nxclient = ["192.0.2.0/24"]')
        assert isinstance(factory, ESMTPServerFactory)
        self.assertTrue(factory.trusts("192.0.2.9"))
        self.assertFalse(factory.trusts("198.51.100.1"))
        self.assertFalse(self.factory(SMTP).trusts("192.0.2.9"))  # type: ignore[attr-defined]


class StartTests(FoundationsCase):
    def test_a_data_directory_that_cannot_be_made(self) -> None:
        config = self.configure(SMTP)
        (self.dir / "data").write_text("in the way")
        error = self.assertRaises(StartError, Foundations, config, Clock())
        self.assertIn("data", error.lines[0])

    def test_the_names_of_a_certificate_of_ours(self) -> None:
        names = self_signed_names(self.configure(SMTP))
        self.assertEqual(names, ["mx.example.org", "localhost", "127.0.0.1", "::1"])
