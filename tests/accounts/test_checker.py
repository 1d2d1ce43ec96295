"""Tests of mailserver.accounts.checker: who may log in, who may not, and that nobody can tell why."""

from __future__ import annotations

import hmac
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import FileLogObserver, formatEventAsClassicLogText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.accounts import checker as checker_module
from mailserver.accounts.checker import AccountsChecker, AnyPassword, Remembered
from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.hashing import LoginUnavailable
from mailserver.accounts.passwords import hash_password, scram_keys
from mailserver.accounts.scram import ITERATIONS
from mailserver.address import parse_address
from mailserver.credentials import VerifiedUser
from mailserver.interfaces import ICramMD5Response, IScramKeys

ALICE = parse_address("alice@example.org")
PASSWORD = "open sesame \u00e4"
CHALLENGE = b"<1.2@mail.example.org>"


@implementer(ICramMD5Response)
class CramAnswer:
    def __init__(self, username: bytes, password: str) -> None:
        self.username = username
        self.challenge = CHALLENGE
        self.digest = hmac.new(password.encode(), CHALLENGE, "md5").hexdigest()


class CheckerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.work: list[tuple[Any, ...]] = []
        path = Path(self.mktemp())
        self.database = self.open(path)
        self.command_line = self.open(path)
        self.database.add_account(ALICE, hash_password(PASSWORD))
        self.checker = self.make_checker()

    def open(self, path: Path) -> AccountsDatabase:
        database = AccountsDatabase(path)
        self.addCleanup(database.close)
        return database

    def make_checker(self, **named: Any) -> AccountsChecker:
        return AccountsChecker(self.database, run_in_thread=self.run_in_thread, clock=self.clock, **named)

    def run_in_thread(self, function: Callable[..., bool], *args: Any) -> Deferred[bool]:
        self.work.append(args)
        return maybeDeferred(function, *args)

    def login(self, user: str | bytes, password: str | bytes) -> Deferred[Any]:
        def octets(text: str | bytes) -> bytes:
            return text if isinstance(text, bytes) else text.encode()

        return self.checker.requestAvatarId(UsernamePassword(octets(user), octets(password)))


class PasswordTests(CheckerTestCase):
    def test_it_is_a_checker_that_a_portal_takes(self) -> None:
        verifyObject(ICredentialsChecker, self.checker)
        given: list[object] = []

        class Realm:
            def requestAvatar(self, avatarId: bytes, mind: object, *interfaces: object) -> object:
                given.append(avatarId)
                return interfaces[0], None, lambda: None

        portal = Portal(Realm(), [self.checker])
        self.successResultOf(portal.login(UsernamePassword(b"Alice@Example.ORG", PASSWORD.encode()), None, object))
        self.successResultOf(portal.login(CramAnswer(b"alice@example.org", PASSWORD), None, object))
        self.assertEqual(given, [b"alice@example.org"] * 2)

    def test_the_right_password_gives_the_key(self) -> None:
        for user in ("alice@example.org", "ALICE@example.ORG"):
            self.assertEqual(self.successResultOf(self.login(user, PASSWORD)), b"alice@example.org")

    def test_every_refusal_is_the_same_and_takes_the_same_work(self) -> None:
        self.database.add_account(parse_address("gone@example.org"), hash_password(PASSWORD), enabled=False)
        self.database.add_account(parse_address("never@example.org"), ())
        texts = set()
        for user, password in [
            ("alice@example.org", "wrong"),
            ("alice@example.org", ""),
            ("alice@example.org", b"\xff"),
            ("alice", PASSWORD),
            ("nobody@example.org", PASSWORD),
            ("gone@example.org", PASSWORD),
            ("never@example.org", PASSWORD),
            ("no address", PASSWORD),
            (b"\xff@example.org", PASSWORD),
            ("", ""),
        ]:
            self.work.clear()
            failure = self.failureResultOf(self.login(user, password), UnauthorizedLogin)
            texts.add(str(failure.value))
            self.assertEqual(len(self.work), 1, user)
        self.assertEqual(texts, {""})

    def test_str_is_taken_for_bytes(self) -> None:
        credentials = UsernamePassword("alice@example.org", PASSWORD)  # type: ignore[arg-type]
        self.assertEqual(self.successResultOf(self.checker.requestAvatarId(credentials)), b"alice@example.org")

    def test_trouble_is_not_a_wrong_password(self) -> None:
        def full(*_args: object) -> Deferred[bool]:
            return maybeDeferred(self._raise, LoginUnavailable())

        self.checker = AccountsChecker(self.database, run_in_thread=full, clock=self.clock)
        self.failureResultOf(self.login("alice@example.org", PASSWORD), LoginUnavailable)
        self.failureResultOf(self.login("nobody@example.org", PASSWORD), LoginUnavailable)

        self.patch(self.database, "account", lambda _address: self._raise(OSError("disk")))
        self.failureResultOf(self.login("alice@example.org", PASSWORD), OSError)

    @staticmethod
    def _raise(error: Exception) -> Any:
        raise error

    def test_an_account_that_changes_while_the_thread_works_is_refused(self) -> None:
        working: list[Deferred[bool]] = []
        self.checker = AccountsChecker(
            self.database, run_in_thread=lambda *_args: working.append(Deferred()) or working[-1], clock=self.clock
        )
        for change in (
            lambda: self.command_line.set_passwords(ALICE, hash_password("new")),
            lambda: self.command_line.set_enabled(ALICE, enabled=False),
            lambda: self.command_line.remove_account(ALICE),
        ):
            self.command_line.set_enabled(ALICE, enabled=True)
            login = self.login("alice@example.org", PASSWORD)
            self.assertNoResult(login)
            change()
            working.pop().callback(True)
            self.failureResultOf(login, UnauthorizedLogin)

    def test_no_log_and_no_repr_shows_the_password(self) -> None:
        written = io.StringIO()
        observer = FileLogObserver(written, lambda event: (formatEventAsClassicLogText(event) or "") + repr(event))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.successResultOf(self.login("alice@example.org", "open sesame \u00e4"))
        failure = self.failureResultOf(self.login("alice@example.org", "very secret"), UnauthorizedLogin)
        shown = written.getvalue() + repr(failure) + failure.getTraceback() + repr(vars(self.checker))
        shown += repr(vars(self.checker._remembered))
        for secret in ("open sesame", "very secret", self.database.credentials(ALICE.key)[0][-20:]):
            self.assertNotIn(secret, shown)

    @given(st.binary(max_size=30), st.binary(max_size=30))
    @settings(deadline=None, max_examples=25)
    def test_any_octets_are_just_wrong(self, user: bytes, password: bytes) -> None:
        self.patch(checker_module, "verify", lambda kept, _password: bool(kept))
        self.failureResultOf(self.login(user, password), UnauthorizedLogin)


class CacheTests(CheckerTestCase):
    def test_a_right_password_is_verified_once_until_it_is_too_old(self) -> None:
        for _ in range(3):
            self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.assertEqual(len(self.work), 1)
        self.clock.advance(299.9)
        self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.assertEqual(len(self.work), 1)
        self.clock.advance(0.1)
        self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.assertEqual(len(self.work), 2)

    def test_a_wrong_password_is_verified_each_time(self) -> None:
        for _ in range(2):
            self.failureResultOf(self.login("alice@example.org", "wrong"), UnauthorizedLogin)
        self.assertEqual(len(self.work), 2)

    def test_what_another_process_changes_counts_at_once(self) -> None:
        self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.command_line.set_enabled(ALICE, enabled=False)
        self.failureResultOf(self.login("alice@example.org", PASSWORD), UnauthorizedLogin)
        self.command_line.set_enabled(ALICE, enabled=True)
        self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.command_line.set_passwords(ALICE, hash_password("new"))
        self.failureResultOf(self.login("alice@example.org", PASSWORD), UnauthorizedLogin)
        self.successResultOf(self.login("alice@example.org", "new"))
        self.command_line.remove_account(ALICE)
        self.failureResultOf(self.login("alice@example.org", "new"), UnauthorizedLogin)

    def test_no_time_means_no_cache(self) -> None:
        self.checker = self.make_checker(cache_time=0)
        for _ in range(2):
            self.successResultOf(self.login("alice@example.org", PASSWORD))
        self.assertEqual(len(self.work), 2)

    def test_when_it_is_full_the_oldest_goes(self) -> None:
        remembered = Remembered(self.clock, 10, size=3)
        tokens = [remembered.token("a@example.org", "{A}a", str(number)) for number in range(4)]
        for token in tokens:
            remembered.add(token)
            self.clock.advance(1)
        self.assertEqual([token in remembered for token in tokens], [False, True, True, True])
        self.assertEqual(len(remembered), 3)

    def test_what_is_too_old_makes_room(self) -> None:
        remembered = Remembered(self.clock, 10)
        remembered.add(b"1")
        self.clock.advance(5)
        remembered.add(b"2")
        self.clock.advance(5)
        remembered.add(b"3")
        self.assertEqual(len(remembered), 2)
        self.assertNotIn(b"1", remembered)

    def test_tokens_differ_for_other_accounts_hashes_passwords_and_processes(self) -> None:
        remembered = Remembered(self.clock, 10)
        tokens = {
            remembered.token("a@example.org", "{A}a", "x"),
            remembered.token("b@example.org", "{A}a", "x"),
            remembered.token("a@example.org", "{A}b", "x"),
            remembered.token("a@example.org", "{A}a", "y"),
            Remembered(self.clock, 10).token("a@example.org", "{A}a", "x"),
        }
        self.assertEqual(len(tokens), 5)


class CramTests(CheckerTestCase):
    def test_the_right_answer_gives_the_key_without_a_thread(self) -> None:
        answer = CramAnswer(b"ALICE@example.org", PASSWORD)
        verifyObject(ICramMD5Response, answer)
        self.assertEqual(self.successResultOf(self.checker.requestAvatarId(answer)), b"alice@example.org")
        self.assertEqual(self.work, [])

    def test_other_answers_are_refused(self) -> None:
        self.database.add_account(parse_address("bob@example.org"), hash_password(PASSWORD, cram_md5=False))
        for user, password in [
            (b"alice@example.org", "wrong"),
            (b"bob@example.org", PASSWORD),
            (b"nobody@example.org", PASSWORD),
            (b"alice", PASSWORD),
            (b"\xff", PASSWORD),
        ]:
            self.failureResultOf(self.checker.requestAvatarId(CramAnswer(user, password)), UnauthorizedLogin)

    def test_a_disabled_account_is_refused(self) -> None:
        self.command_line.set_enabled(ALICE, enabled=False)
        answer = CramAnswer(b"alice@example.org", PASSWORD)
        self.failureResultOf(self.checker.requestAvatarId(answer), UnauthorizedLogin)

    def test_the_work_is_the_same_for_unknown_users(self) -> None:
        done: list[tuple[str, ...]] = []
        self.patch(checker_module, "verify_cram", lambda kept, _challenge, _digest: done.append(kept))
        for user in (b"alice@example.org", b"nobody@example.org", b"alice", b"\xff"):
            self.failureResultOf(self.checker.requestAvatarId(CramAnswer(user, PASSWORD)), UnauthorizedLogin)
        self.assertEqual([len(kept) for kept in done], [3, 0, 0, 0])


class ScramTests(CheckerTestCase):
    def test_the_keys_of_a_user_are_those_that_are_kept(self) -> None:
        verifyObject(IScramKeys, self.checker)
        kept = scram_keys(self.database.credentials(ALICE.key))
        for user in ("alice@example.org", "ALICE@Example.org"):
            self.assertEqual(self.checker.scram_keys(user), kept)

    def test_whoever_has_none_gets_made_up_ones_that_stay_the_same(self) -> None:
        self.database.add_account(parse_address("bob@example.org"), hash_password(PASSWORD, scram_sha_256=False))
        again = AccountsChecker(self.command_line, run_in_thread=self.run_in_thread, clock=self.clock)
        seen = set()
        for user in ("bob@example.org", "nobody@example.org", "nobody", "no address", "\u00fc@example.org", "\ud800"):
            keys = self.checker.scram_keys(user)
            self.assertEqual(keys.iterations, ITERATIONS)
            self.assertEqual(again.scram_keys(user), keys)
            seen.add(keys.salt)
        self.assertEqual(len(seen), 6)

    def test_a_stranger_has_the_same_keys_however_the_name_is_written(self) -> None:
        for one, other in [("Nobody@example.ORG", "nobody@Example.org"), ("NOBODY", "nobody")]:
            self.assertEqual(self.checker.scram_keys(one), self.checker.scram_keys(other))

    def test_a_disabled_account_keeps_its_salt_and_no_password_fits(self) -> None:
        before = self.checker.scram_keys("alice@example.org")
        self.command_line.set_enabled(ALICE, enabled=False)
        after = self.checker.scram_keys("alice@example.org")
        self.assertEqual((after.salt, after.iterations), (before.salt, before.iterations))
        self.assertNotIn(after.stored_key, (before.stored_key, bytes(32)))
        self.assertNotEqual(after.server_key, before.server_key)

    def test_a_changed_password_has_other_keys_at_once(self) -> None:
        before = self.checker.scram_keys("alice@example.org")
        self.command_line.set_passwords(ALICE, hash_password("new"))
        self.assertNotEqual(self.checker.scram_keys("alice@example.org"), before)

    def test_a_verified_user_comes_in_when_the_account_is_there_and_enabled(self) -> None:
        for user, avatar in [
            (b"alice@example.org", b"alice@example.org"),
            (b"ALICE@Example.org", b"alice@example.org"),
            (b"nobody@example.org", None),
            (b"alice", None),
            (b"", None),
            (b"\xff", None),
        ]:
            answer = self.checker.requestAvatarId(VerifiedUser(user))
            if avatar is None:
                self.failureResultOf(answer, UnauthorizedLogin)
            else:
                self.assertEqual(self.successResultOf(answer), avatar)
        self.command_line.set_enabled(ALICE, enabled=False)
        self.failureResultOf(self.checker.requestAvatarId(VerifiedUser(b"alice@example.org")), UnauthorizedLogin)
        self.assertEqual(self.work, [])


class AnyPasswordTests(SynchronousTestCase):
    def test_everybody_is_who_they_say_they_are(self) -> None:
        verifyObject(ICredentialsChecker, AnyPassword())
        for user, avatar in [
            (b"Alice@Example.ORG", b"alice@example.org"),
            ("J\u00d6RG@b\u00fccher.example".encode(), "j\u00f6rg@xn--bcher-kva.example".encode()),
            (b"Tim", b"tim"),
            (b"two words", b"two words"),
        ]:
            for credentials in (UsernamePassword(user, b"anything"), CramAnswer(user, ""), VerifiedUser(user)):
                self.assertEqual(self.successResultOf(AnyPassword().requestAvatarId(credentials)), avatar)

    def test_scram_is_not_possible(self) -> None:
        self.assertFalse(IScramKeys.providedBy(AnyPassword()))

    def test_nobody_and_what_is_no_text_are_refused(self) -> None:
        for user in (b"", b"\xff"):
            refused = AnyPassword().requestAvatarId(UsernamePassword(user, b"anything"))
            self.failureResultOf(refused, UnauthorizedLogin)
