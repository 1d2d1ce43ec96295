"""What crosses between the server and an app's own process: all that an app sees and says, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.apps.app import Changes, CramProof, Login
from mailserver.apps.crossing import (
    SessionNews,
    SessionSeen,
    dropped,
    extensions_of,
    pack,
    pack_answer,
    refusal_of,
    unpack,
    unpack_answer,
)
from mailserver.apps.message import Message
from mailserver.apps.view import AppAddress, Session
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo
from mailserver.reply import Refusal, Reply
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import settings as smtp_settings

ANNA = Address("anna", "example.org")
PEER = Peer("192.0.2.1", 4711, "client.example.net", TLSInfo("TLSv1.3", "AES", 256, "mail.example.org"), "anna")
ENVELOPE = Envelope(
    "t1",
    Address("grün", "münchen.example"),
    (
        Recipient(ANNA, MappingProxyType({"NOTIFY": "NEVER"})),
        Recipient(AppAddress("t+4", "example.org", separator="+")),
    ),
    MappingProxyType({"SIZE": "12", "XFLAG": None}),
    PEER,
    "ESMTPSA",
    12,
    "8BITMIME",
    True,
    "in",
    "192.0.2.25",
    25,
)


def over(value: Any) -> Any:
    """To the app's process."""
    return unpack(json.loads(json.dumps(pack(value))))


def back(value: Any, folder: Path | None = None) -> Any:
    """From it."""
    return unpack_answer(json.loads(json.dumps(pack_answer(value, folder))), folder)


class ArgumentTests(SynchronousTestCase):
    def test_what_callbacks_get_is_the_same_on_the_other_side(self) -> None:
        values = [
            None, True, 7, 1.5, "grün \udc80 \n", b"\x00\xff", ["a", ["b"]], {"SIZE": None, "=": "no tag"}, ANNA,
            ENVELOPE, PEER, {1: {"deep": [{}]}}, datetime(2026, 1, 2, 3, 4, tzinfo=UTC), date(2026, 1, 2), time(3, 4),
            Login("OAUTHBEARER", "anna", token="x"),
        ]  # fmt: skip
        for value in values:
            self.assertEqual(over(value), value)
            self.assertIs(type(over(value)), type(value))

    def test_addresses_keep_their_details(self) -> None:
        address = over(AppAddress("t-4", "example.org", separator="-"))
        self.assertEqual((address.user, address.detail, str(address)), ("t", "4", "t-4@example.org"))
        self.assertEqual([type(each.address) for each in over(ENVELOPE).recipients], [Address, AppAddress])

    def test_a_login_can_be_checked_there(self) -> None:
        proof = CramProof(b"<1@x>", "4d0a8c3ea0f1f8f7ea3dc5cd9e5bfdd5")
        right = dataclasses.replace(proof, digest=_cram("secret", b"<1@x>"))
        self.assertTrue(over(Login("CRAM-MD5", "anna", _digest_of=right)).check("secret"))
        self.assertFalse(over(Login("CRAM-MD5", "anna", _digest_of=proof)).check("secret"))
        self.assertTrue(over(Login("PLAIN", "anna", password="secret")).check("secret"))

    def test_a_message_crosses_as_a_file(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        message = Message(lambda: folder, trace=b"Received: x\r\n")
        self.addCleanup(message.close)
        message.write(b"secret text\r\n" * 3)
        self.assertNotIn("secret", json.dumps(pack(message)))
        there = over(message)
        self.addCleanup(there.close)
        self.assertEqual((there.read(), there.size, there.trace), (message.read(), message.size, message.trace))
        self.assertEqual(there.path, message.path.absolute())
        there.close()
        self.assertTrue(message.path.exists(), "it is the server's")

    def test_what_cannot_cross_is_named(self) -> None:
        for value in (object(), {1, 2}, Login("X", "y", _digest_of=bool)):
            with self.assertRaises(TypeError) as raised:
                pack(value)
            self.assertIn("cannot be given to another process", str(raised.exception))


def _cram(password: str, challenge: bytes) -> str:
    import hmac

    return hmac.new(password.encode(), challenge, "md5").hexdigest()


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_what_callbacks_answer_is_the_same_on_the_other_side(self) -> None:
        for value in (None, True, False, "a text", 7, Reply(250, "2.0.0", "a\nb"), ANNA, {"a@example.org": None}):
            self.assertEqual(back(value), value)
        self.assertEqual(back(Recipient(ANNA)), ANNA)
        self.assertEqual(back(AppAddress("t+4", "example.org")), Address("t+4", "example.org"))
        self.assertEqual(str(back(Address("postmaster", ""))), "postmaster")

    def test_an_answer_for_each_recipient(self) -> None:
        given = {ANNA: Refusal(replies.MAILBOX_FULL, "why"), "b@example.org": "taken"}
        found = back(given)
        self.assertEqual(list(found), [ANNA, "b@example.org"])
        self.assertEqual((found[ANNA].reply, found[ANNA].detail), (replies.MAILBOX_FULL, "why"))

    def test_changes(self) -> None:
        changes = Changes(add=[("X-Spam", "grün"), b"X-A: 1\r\n"], remove=("Bcc",))
        self.assertEqual(back(changes), Changes(add=(("X-Spam", "grün"), b"X-A: 1\r\n"), remove=("Bcc",)))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_another_message_comes_by_a_file_that_goes(self) -> None:
        text = b"Subject: new\r\n\r\n" + b"x" * 1_000_000
        source = Message.of(text)
        self.addCleanup(source.close)
        for value in (text, bytearray(text), Changes(message=text), Changes(message=source)):
            packed = pack_answer(value, self.folder)
            self.assertLess(len(json.dumps(packed)), 200)
            found = unpack_answer(packed, self.folder)
            self.assertEqual(found.message.read(), text)
            found.message.close()
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_one_that_nobody_waits_for_is_removed(self) -> None:
        dropped(pack_answer(b"Subject: new\r\n\r\n", self.folder), self.folder)
        dropped(pack_answer("a text", None), self.folder)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_no_callback_may_answer(self) -> None:
        for value in (object(), ["a"], {"a": {"b": object()}}, ENVELOPE):
            with self.assertRaises(TypeError):
                pack_answer(value, self.folder)
        with self.assertRaises(TypeError):
            pack_answer(Changes(remove="Bcc"), None)
        with self.assertRaises(TypeError):
            pack_answer(b"a message from a callback that is not filter", None)

    def test_extensions(self) -> None:
        self.assertEqual(list(extensions_of([["B", None], ["A", "1"]]).items()), [("B", None), ("A", "1")])
        for wrong in (None, [["A"]], [[1, None]], [["A", 5]], {"A": None}):
            with self.assertRaises(ValueError):
                extensions_of(wrong)


class DistrustTests(SynchronousTestCase):
    """The app's process may say whatever it likes."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def changes(self, file: Any) -> dict[str, Any]:
        return {"=": "changes", "add": [], "remove": [], "file": file}

    def test_a_file_is_one_in_the_folder_and_nothing_else(self) -> None:
        secret = self.folder.parent / "secret"
        secret.write_bytes(b"secret")
        (self.folder / "message-link.eml").symlink_to(secret.absolute())
        (self.folder / "message-folder.eml").mkdir()
        os.mkfifo(self.folder / "message-pipe.eml")
        for name in (
            "../secret", str(secret.absolute()), "secret", "message-../../secret.eml", "message-link.eml",
            "message-folder.eml", "message-pipe.eml", "message-none.eml", "message-a.eml\n", "", 5, ["message-a.eml"],
        ):  # fmt: skip
            with self.assertRaises(ValueError):
                unpack_answer(self.changes(name), self.folder)
        with self.assertRaises(ValueError):
            unpack_answer(self.changes("message-a.eml"), None)
        self.assertTrue(secret.exists())

    def test_an_address_is_one_that_a_client_could_have_sent(self) -> None:
        for text in ("a@b\r\nX: y", "a b@example.org", "", "@", "a" * 65 + "@example.org", 5, None):
            with self.assertRaises(ValueError):
                unpack_answer({"=": "address", "of": text}, None)

    def test_what_is_no_answer(self) -> None:
        reply = {"=": "reply", "code": 550, "enhanced": "5.1.1", "text": "no"}
        deep: Any = None
        for _ in range(500):
            deep = {"=": "refusal", "reply": deep, "detail": ""}
        for value in (
            [], {}, {"=": None}, {"=": "message", "path": "/etc/passwd"}, {"=": "envelope"}, {**reply, "code": 99},
            {**reply, "code": "550"}, {**reply, "enhanced": "4.1.1"}, {**reply, "text": None}, {"=": "reply"},
            {"=": "refusal", "reply": {**reply, "code": 250, "enhanced": ""}, "detail": ""},
            {"=": "refusal", "reply": "no", "detail": ""}, {"=": "refusal", "reply": reply}, deep,
            {"=": "map", "of": [[5, None]]}, {"=": "map", "of": {"a": 1}}, {"=": "map", "of": [["a", deep]]},
            {"=": "map", "of": [["a", {"=": "map", "of": []}]]}, {**self.changes(None), "add": [["a", 5]]}, {**self.changes(None), "add": ["grün"]},
            {**self.changes(None), "remove": "Bcc"},
        ):  # fmt: skip
            with self.assertRaises(ValueError):
                unpack_answer(value, self.folder)
        for value in (None, [], "no"):
            with self.assertRaises(ValueError):
                refusal_of(value)

    @settings(deadline=None, max_examples=200)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["=", "of", "code", "reply", "file", "add"]), inner)
                | st.fixed_dictionaries(
                    {"=": st.sampled_from(["reply", "refusal", "address", "map", "changes"])},
                    optional=dict.fromkeys(
                        ("of", "code", "enhanced", "text", "reply", "add", "remove", "file"), inner
                    ),
                )
            ),
        )
    )
    def test_it_is_an_answer_or_a_value_error(self, value: Any) -> None:
        try:
            found = unpack_answer(value, self.folder)
        except ValueError:
            return
        self.assertIsInstance(found, (type(None), bool, int, str, Reply, Refusal, Address, dict, Changes))


class SessionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.conversation = SMTPSession(smtp_settings(), PEER, new_id=lambda: "t")
        self.connections = 1
        self.session = Session(
            self.conversation, id="c1", local=("192.0.2.25", 25), connections=lambda: self.connections
        )
        self.news = SessionNews()
        self.seen = SessionSeen(self.told())

    def told(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.news.since(self.session)))  # type: ignore[no-any-return]

    def there(self) -> Session:
        """As the app sees it."""
        seen = self.seen
        return Session(seen, id=seen.id, local=seen.local, connections=lambda: seen.connections)

    def assert_same(self) -> None:
        """Every property of a session is the same on both sides, also one that comes in future."""
        names = [name for name, value in vars(Session).items() if isinstance(value, property)]
        for name in (*names, "id", "local_host", "local_port"):
            self.assertEqual(getattr(self.there(), name), getattr(self.session, name), name)

    def test_all_of_it_is_seen(self) -> None:
        self.assert_same()

    def test_what_has_changed_is_told_and_nothing_else(self) -> None:
        self.assertEqual(self.told(), {})
        self.connections = 2
        self.conversation.error_count = 3
        self.conversation.peer = dataclasses.replace(PEER, user="bob")
        news = self.told()
        self.assertEqual(sorted(news), ["connections", "errors", "peer"])
        self.seen.learn(news)
        self.assert_same()

    def test_an_envelope_grows_recipient_by_recipient(self) -> None:
        self.conversation._envelope = dataclasses.replace(ENVELOPE, recipients=())
        self.seen.learn(self.told())
        for number in range(3):
            recipient = Recipient(Address(f"r{number}", "example.org"))
            self.conversation._envelope = self.conversation._envelope.with_recipient(recipient)
            news = self.told()
            self.assertEqual((list(news), len(news["more"])), (["more"], 1))
            self.seen.learn(news)
            self.assert_same()
        for envelope in (
            dataclasses.replace(ENVELOPE, id="t2"),
            dataclasses.replace(ENVELOPE, id="t2", recipients=()),
            None,
        ):
            self.conversation._envelope = envelope
            self.seen.learn(self.told())
            self.assert_same()

    def test_other_recipients_under_the_same_id_are_told_anew(self) -> None:
        self.conversation._envelope = ENVELOPE
        self.seen.learn(self.told())
        self.conversation._envelope = dataclasses.replace(ENVELOPE, recipients=(Recipient(ANNA),))
        self.seen.learn(self.told())
        self.assert_same()
