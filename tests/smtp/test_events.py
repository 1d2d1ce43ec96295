"""Questions wait, notices do not, and none shows a secret."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import PlainLogin
from mailserver.smtp import events
from mailserver.smtp.policed import PolicedServer


class EventTests(SynchronousTestCase):
    def kinds(self) -> list[type]:
        found = [
            each for each in vars(events).values() if isinstance(each, type) and each.__module__ == events.__name__
        ]
        return [each for each in found if issubclass(each, (events.Question, events.Notice))]

    def test_the_server_does_something_about_each(self) -> None:
        concrete = set(self.kinds()) - {events.Question, events.Notice}
        self.assertEqual(concrete, set(PolicedServer._DO))

    def test_none_is_both(self) -> None:
        for kind in self.kinds():
            self.assertFalse(issubclass(kind, events.Question) and issubclass(kind, events.Notice), kind)

    def test_a_login_does_not_show_the_password(self) -> None:
        login = events.Login("PLAIN", PlainLogin(user="a", password="s3cret", authzid=""))
        self.assertNotIn("s3cret", repr(login))
