"""An app in a process: made once a connection, set up once a process, closed when nobody needs it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.app import App
from mailserver.apps.installed import InstalledApp, callbacks_of
from mailserver.apps.view import Session
from mailserver.envelope import Peer
from mailserver.smtp.session import SMTPSession
from tests.apps.line import Calls, at_once, settings_of
from tests.smtp.driver import settings


class Tells(App):
    """Writes down what is done with it."""

    told: list[Any] = []

    @classmethod
    def setup(cls, options: Any) -> Any:
        cls.told.append("setup")
        return "shared"

    @classmethod
    def teardown(cls, shared: Any) -> Any:
        cls.told.append(("teardown", shared))

    def disconnected(self, reason: str) -> None:
        self.told.append((id(self), reason))


def session() -> Session:
    return Session(SMTPSession(settings(), Peer("192.0.2.1"), new_id=lambda: "t"), id="c")


class InstalledTests(SynchronousTestCase):
    def setUp(self) -> None:
        Tells.told.clear()
        self.clock, self.calls = Clock(), Calls()

    def installed(self, app: Any = Tells, **others: Any) -> InstalledApp:
        return InstalledApp(settings_of(app, **others), self.clock, at_once, self.calls)

    def test_what_it_defines(self) -> None:
        self.assertEqual(callbacks_of(Tells), {"disconnected"})
        self.assertEqual(callbacks_of(App), set())
        self.assertEqual(callbacks_of(type("Duck", (), {"rcpt": print})), {"rcpt"}, "no base class is needed")

    def test_setup_is_called_once(self) -> None:
        app = self.installed()
        app.start()
        self.successResultOf(ensureDeferred(app.ready()))
        self.assertEqual((Tells.told, app.shared), (["setup"], "shared"))

    def test_teardown_gets_what_setup_gave_once(self) -> None:
        app = self.installed()
        app.start()
        for _ in range(2):
            self.successResultOf(ensureDeferred(app.stop()))
        self.assertEqual(Tells.told, ["setup", ("teardown", "shared")])

    def test_a_teardown_that_fails_or_hangs_does_not_stop_the_process(self) -> None:
        class Fails(Tells):
            @classmethod
            def teardown(cls, shared: Any) -> Any:
                raise KeyError(shared)

        class Hangs(Tells):
            @classmethod
            def teardown(cls, shared: Any) -> Any:
                return Deferred()

        for kind in (Fails, Hangs):
            app = self.installed(kind)
            app.start()
            stopped = ensureDeferred(app.stop())
            self.clock.advance(61)
            self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_each_connection_has_an_object_that_knows_it(self) -> None:
        app = self.installed(name="tells")
        first, second = session(), session()
        one, other = app.instance(first), app.instance(second)
        one.over("quit")
        other.over("lost")
        (_, (a, why), (b, how)) = Tells.told
        self.assertNotEqual(a, b)
        self.assertEqual((why, how), ("quit", "lost"))
        made = app.made(first)
        self.assertEqual((made.name, made.session, made.shared), ("tells", first, "shared"))

    def test_a_retired_app_is_closed_behind_its_last_connection(self) -> None:
        app = self.installed()
        app.start()
        instance = app.instance(session())
        app.retire()
        self.assertEqual(Tells.told, ["setup"])
        instance.over("quit")
        self.assertEqual(Tells.told[-1], ("teardown", "shared"))

    def test_its_words_are_in_upper_case(self) -> None:
        app = self.installed(type("Words", (Tells,), {"verbs": ("xping",)}))
        self.assertEqual((app.words("verbs"), app.words("mechanisms")), (["XPING"], []))
