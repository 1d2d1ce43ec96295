"""The avatar: policies, router, store; one copy for each mailbox, and what is written on top of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import Anonymous, UsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, ensureDeferred, execute, succeed
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.accounts.database import AccountsDatabase
from mailserver.address import Address, parse_address
from mailserver.delivery.inbound import MailAvatar, MailRealm, Rooms
from mailserver.delivery.submission import NOT_YOURS, Senders
from mailserver.durable import Durable
from mailserver.envelope import Envelope, Peer, Recipient
from mailserver.interfaces import IDelivery, IMailAvatar, IRouter
from mailserver.maildir.delivery import MaildirStore, Target
from mailserver.maildir.names import UniqueNames, mailbox_path
from mailserver.maildir.quota import Quotas
from mailserver.reply import (
    AUTH_REQUIRED,
    CANNOT_VERIFY,
    DISK_FULL,
    MAILBOX_FULL,
    NO_QUEUE_YET,
    RELAYING_DENIED,
    TOO_MANY_HELD,
    UNKNOWN_USER,
    Refusal,
)
from mailserver.routing import Local, LocalDomain, Remote, Router
from tests.answers import asked
from tests.spool.messages import NOW, HeldOnDisk, envelope

ENVELOPE = Envelope(
    "id7", parse_address("a@example.com"), peer=Peer("192.0.2.1", 1, "client.example.com"), protocol="ESMTP"
)


@implementer(IRouter)
class FakeRouter:
    """Knows where some addresses lead.  wrap: makes the answer something to wait for."""

    def __init__(self, **targets: Sequence[Local | Remote] | Refusal) -> None:
        self.targets = targets
        self.asked: list[tuple[str, bool]] = []
        self.wrap: Any = lambda answer: answer

    def route(self, recipient: Address, *, may_relay: bool) -> Any:
        self.asked.append((str(recipient), may_relay))
        found = self.targets[recipient.local]
        if isinstance(found, Refusal):
            raise found
        return self.wrap(tuple(found))


class RecordingStore:
    """Writes down the targets of its deliveries."""

    def __init__(self) -> None:
        self.targets: list[list[Target]] = []

    def deliver(self, targets: list[Target]) -> Any:
        self.targets.append(targets)
        return object()

    async def check_room(self, path: Path, size: int, quota: int) -> None:
        """There is room everywhere."""


def box(name: str, address: str = "", quota: int = 0) -> Local:
    return Local(Path("/mail", name), parse_address(address or f"{name}@example.org"), quota)


def recipient(text: str) -> Recipient:
    return Recipient(parse_address(text))


class InboundCase(SynchronousTestCase):
    def avatar(
        self, router: Any, *, policies: Any = (), delivered_to: str = "single", may_relay: bool = False
    ) -> MailAvatar:
        self.store = RecordingStore()
        rooms = Rooms(
            "mail.example.org", router, cast("MaildirStore", self.store), lambda: 0.0, policies, delivered_to
        )
        return MailAvatar(rooms, "joe@example.org" if may_relay else "", submission=may_relay)

    def ask(self, avatar: MailAvatar, *addresses: str) -> Envelope:
        """MAIL and RCPT for each."""
        avatar.mail(ENVELOPE)
        envelope = ENVELOPE
        for text in addresses:
            if (room := avatar.rcpt(envelope, recipient(text))) is not None:
                self.successResultOf(ensureDeferred(room))
            envelope = dataclasses.replace(envelope, recipients=(*envelope.recipients, recipient(text)))
        return envelope

    def targets(self, avatar: MailAvatar, *addresses: str) -> list[Target]:
        avatar.data(self.ask(avatar, *addresses))
        return self.store.targets.pop()


class RealmTests(SynchronousTestCase):
    def setUp(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"joe@example.org", b"secret")
        self.rooms = Rooms("mail.example.org", FakeRouter(), cast("MaildirStore", None), lambda: 0.0)
        self.checkers = [checker, AllowAnonymousAccess()]

    def login(self, credentials: Any, *, may_relay: bool, interface: Any = IMailAvatar) -> Any:
        portal = Portal(MailRealm(self.rooms, submission=may_relay), self.checkers)
        return portal.login(credentials, None, interface)

    def test_realm_and_avatar_are_what_they_say(self) -> None:
        verifyObject(IRealm, MailRealm(self.rooms, submission=False))
        verifyObject(IMailAvatar, MailAvatar(self.rooms, "", submission=False))

    def test_who_logged_in_gets_an_avatar_with_the_name(self) -> None:
        for may_relay in (False, True):
            interface, avatar, logout = self.successResultOf(
                self.login(UsernamePassword(b"joe@example.org", b"secret"), may_relay=may_relay)
            )
            self.assertIs(interface, IMailAvatar)
            self.assertEqual((avatar.user, avatar.may_relay), ("joe@example.org", may_relay))
            logout()

    def test_nobody_never_may_relay(self) -> None:
        _, avatar, _ = self.successResultOf(self.login(Anonymous(), may_relay=True))
        self.assertEqual((avatar.user, avatar.may_relay), ("", False))
        realm = MailRealm(self.rooms, submission=True)
        for avatar_id in (ANONYMOUS, b"", ""):
            self.assertFalse(realm.requestAvatar(avatar_id, None, IMailAvatar)[1].may_relay)

    def test_names_are_bytes_or_text(self) -> None:
        realm = MailRealm(self.rooms, submission=True)
        for avatar_id in ("j\u00f6rg@example.org", "j\u00f6rg@example.org".encode()):
            self.assertEqual(realm.requestAvatar(avatar_id, None, IMailAvatar)[1].user, "j\u00f6rg@example.org")

    def test_two_logins_have_two_avatars(self) -> None:
        realm = MailRealm(self.rooms, submission=True)
        first, second = (realm.requestAvatar(b"a", None, IMailAvatar)[1] for _ in range(2))
        self.assertIsNot(first, second)
        self.assertIsNot(first._routes, second._routes)

    def test_other_avatars_it_has_not(self) -> None:
        self.failureResultOf(self.login(Anonymous(), may_relay=True, interface=IRealm), NotImplementedError)


class QuestionTests(InboundCase):
    def test_the_policies_are_asked_in_order_until_one_refuses(self) -> None:
        asked: list[int] = []

        def full(_: Envelope) -> None:
            asked.append(2)
            raise Refusal(DISK_FULL)

        avatar = self.avatar(FakeRouter(), policies=(lambda _: asked.append(1), full, lambda _: asked.append(3)))
        with self.assertRaises(Refusal) as caught:
            avatar.mail(ENVELOPE)
        self.assertEqual((caught.exception.reply, asked), (DISK_FULL, [1, 2]))

    def test_the_router_is_told_whether_the_avatar_may_relay(self) -> None:
        for may_relay in (False, True):
            router = FakeRouter(joe=[box("joe")])
            self.ask(self.avatar(router, may_relay=may_relay), "joe@example.org")
            self.assertEqual(router.asked, [("joe@example.org", may_relay)])

    def test_what_the_router_refuses_is_refused(self) -> None:
        avatar = self.avatar(FakeRouter(joe=Refusal(UNKNOWN_USER)))
        with self.assertRaises(Refusal) as caught:
            self.ask(avatar, "joe@example.org")
        self.assertEqual(caught.exception.reply, UNKNOWN_USER)

    def test_the_router_may_take_its_time(self) -> None:
        async def later(answer: Any) -> Any:
            return answer

        for wrap in (succeed, later):
            router = FakeRouter(joe=[box("joe")])
            router.wrap = wrap
            avatar = self.avatar(router)
            avatar.mail(ENVELOPE)
            asked = avatar.rcpt(ENVELOPE, recipient("joe@example.org"))
            assert asked is not None
            self.successResultOf(ensureDeferred(asked))  # type: ignore[arg-type]
            avatar.data(dataclasses.replace(ENVELOPE, recipients=(recipient("joe@example.org"),)))
            self.assertEqual(len(self.store.targets), 1)

    def test_a_router_that_takes_its_time_may_refuse(self) -> None:
        answer: Deferred[Any] = Deferred()
        router = FakeRouter(joe=[])
        router.wrap = lambda _: answer
        asked = self.avatar(router).rcpt(ENVELOPE, recipient("joe@example.org"))
        assert asked is not None
        result = ensureDeferred(asked)  # type: ignore[arg-type, var-annotated]
        self.assertNoResult(result)
        answer.errback(Refusal(UNKNOWN_USER))
        self.failureResultOf(result, Refusal)

    def test_mail_for_elsewhere_waits_with_the_sender_and_the_log_says_why(self) -> None:
        told: list[Any] = []
        observer = cast("ILogObserver", told.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        avatar = self.avatar(FakeRouter(all=[box("joe"), Remote(parse_address("x@example.com"))]), may_relay=True)
        with self.assertRaises(Refusal) as caught:
            self.ask(avatar, "all@example.org")
        self.assertEqual(caught.exception.reply, NO_QUEUE_YET)
        self.assertEqual(caught.exception.reply.code, 451)
        (event,) = [event for event in told if event.get("event") == "no-queue"]
        self.assertEqual((event["transaction"], event["remote"]), ("id7", ["x@example.com"]))
        self.assertEqual((event["recipient"], event["log_level"]), ("all@example.org", LogLevel.warn))

    def test_a_new_transaction_and_a_reset_forget_the_old_one(self) -> None:
        for forget in ("reset", "logout", "mail"):
            avatar = self.avatar(FakeRouter(joe=[box("joe")]))
            envelope = self.ask(avatar, "joe@example.org")
            getattr(avatar, forget)(*((ENVELOPE,) if forget == "mail" else ()))
            with self.assertRaises(KeyError):
                avatar.data(envelope)


class TargetTests(InboundCase):
    def test_each_mailbox_is_a_target_with_its_quota(self) -> None:
        avatar = self.avatar(FakeRouter(joe=[box("joe", quota=5)], all=[box("ann", quota=7), box("bob")]))
        found = self.targets(avatar, "joe@example.org", "all@example.org")
        self.assertEqual(
            [(str(t.path), t.quota) for t in found], [("/mail/joe", 5), ("/mail/ann", 7), ("/mail/bob", 0)]
        )

    def test_who_is_reached_in_two_ways_gets_one_copy(self) -> None:
        avatar = self.avatar(
            FakeRouter(joe=[box("joe")], JOE=[box("joe", "JOE@example.org")], all=[box("ann"), box("joe")])
        )
        found = self.targets(avatar, "joe@example.org", "all@example.org", "JOE@example.org", "joe@example.org")
        self.assertEqual([target.path.name for target in found], ["joe", "ann"])

    def test_the_text_is_accepted_with_the_id_of_the_envelope(self) -> None:
        store = RecordingStore()
        store.deliver = lambda _: Committed()  # type: ignore[method-assign, assignment, return-value]
        rooms = Rooms("mail.example.org", FakeRouter(joe=[box("joe")]), cast("MaildirStore", store), lambda: 0.0)
        avatar = MailAvatar(rooms, "", submission=False)
        delivery = avatar.data(self.ask(avatar, "joe@example.org"))
        verifyObject(IDelivery, delivery)
        committed: Any = asked(delivery.commit)
        self.assertEqual(str(self.successResultOf(ensureDeferred(committed))), "250 2.0.0 Ok: queued as id7")

    def test_trace_fields_stand_in_their_order(self) -> None:
        (target,) = self.targets(self.avatar(FakeRouter(joe=[box("joe", "Joe+x@example.org")])), "joe@example.org")
        names = [line.partition(b":")[0] for line in target.header.split(b"\r\n") if line[:1].isalpha()]
        self.assertEqual(names, [b"Return-Path", b"Delivered-To", b"Received"])
        self.assertIn(b"Return-Path: <a@example.com>\r\nDelivered-To: Joe+x@example.org\r\n", target.header)
        self.assertIn(b"\tby mail.example.org with ESMTP id id7\r\n", target.header)

    def test_delivered_to_has_three_modes(self) -> None:
        one, two, alias = ("joe@example.org",), ("joe@example.org", "ann@example.org"), ("all@example.org",)
        for mode, addresses, named in [
            ("single", one, [True]),
            ("single", two, [False, False]),
            ("single", alias, [False, False]),
            ("always", one, [True]),
            ("always", two, [True, True]),
            ("always", alias, [True, True]),
            ("never", one, [False]),
            ("never", two, [False, False]),
        ]:
            router = FakeRouter(joe=[box("joe")], ann=[box("ann")], all=[box("joe"), box("ann")])
            found = self.targets(self.avatar(router, delivered_to=mode), *addresses)
            for target, is_named in zip(found, named, strict=True):
                field = b"Delivered-To: %s@example.org\r\n" % target.path.name.encode()
                self.assertIs(field in target.header, is_named, f"{mode} {addresses}")
                self.assertEqual(target.header.count(b"Delivered-To"), int(is_named))

    def test_copies_without_delivered_to_share_their_fields(self) -> None:
        first, second = self.targets(self.avatar(FakeRouter(all=[box("joe"), box("ann")])), "all@example.org")
        self.assertEqual(first.header, second.header)


@implementer(IDelivery)
class Committed:
    """A delivery that is done."""

    def write(self, block: bytes) -> None:
        pass

    def prepare(self) -> None:
        pass

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Recorded(Committed):
    """A delivery that keeps its text."""

    text = b""

    def write(self, block: bytes) -> None:
        self.text += block


class EndToEndTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.mail = root / "mail"
        self.accounts = AccountsDatabase(root / "accounts.sqlite3")
        self.addCleanup(self.accounts.close)
        for name, quota in [("joe", 0), ("ann", 1000)]:
            self.accounts.add_account(parse_address(f"{name}@example.org"), ["{PLAIN}x"], quota=quota)
        self.accounts.add_alias(parse_address("all@example.org"), [a.address for a in self.accounts.accounts()])
        names = UniqueNames("h", 1, lambda: 1.5)
        store = MaildirStore(
            Durable(run_in_thread=execute, unique_name=names.next),
            names,
            Quotas(run_in_thread=execute, seconds=lambda: 0.0),
        )
        router = Router(
            {"example.org": LocalDomain("example.org")},
            self.accounts,
            lambda address: mailbox_path(self.mail, address),
        )
        rooms = Rooms("mail.example.org", router, store, lambda: 0.0)
        _, self.avatar, _ = MailRealm(rooms, submission=True).requestAvatar(ANONYMOUS, None, IMailAvatar)

    def test_a_full_mailbox_is_refused_at_rcpt_and_the_others_get_their_mail(self) -> None:
        envelope = dataclasses.replace(ENVELOPE, size=2000)
        self.avatar.mail(envelope)
        full = self.avatar.rcpt(envelope, recipient("ann@example.org"))
        self.assertEqual(self.failureResultOf(ensureDeferred(full), Refusal).value.reply, MAILBOX_FULL)
        self.assertIsNone(self.avatar.rcpt(envelope, recipient("joe@example.org")))

    def files(self, kind: str = "*") -> list[Path]:
        return sorted(path for path in self.mail.rglob("*") if path.is_file() and path.match(f"{kind}/*"))

    async def send(self, text: bytes, *addresses: str, protocol: str = "ESMTP") -> Any:
        envelope = dataclasses.replace(ENVELOPE, protocol=protocol)
        self.avatar.mail(envelope)
        for address in addresses:
            if (room := self.avatar.rcpt(envelope, recipient(address))) is not None:
                await room
            envelope = dataclasses.replace(envelope, recipients=(*envelope.recipients, recipient(address)))
        delivery = self.avatar.data(envelope)
        try:
            if (written := delivery.write(text)) is not None:
                await written
            await asked(delivery.prepare)
            return await asked(delivery.commit)
        except Exception:
            delivery.abort()
            raise

    def test_a_message_lies_in_the_maildirs_of_all_it_was_for(self) -> None:
        sent = self.send(b"Subject: x\r\n\r\ntext\r\n", "all+x@example.org", "JOE@example.org")
        self.assertEqual(self.successResultOf(ensureDeferred(sent)).code, 250)
        found = self.files("new")
        self.assertEqual(sorted(path.parent.parent.name for path in found), ["ann", "joe"])
        for path in found:
            content = path.read_bytes()
            self.assertTrue(content.startswith(b"Return-Path: <a@example.com>\nReceived: from client.example.com"))
            self.assertTrue(content.endswith(b"\nSubject: x\n\ntext\n"))
        self.assertEqual(len({path.stat().st_ino for path in found}), 1)

    def test_when_it_fits_one_mailbox_only_nobody_gets_it(self) -> None:
        sent = self.send(b"x" * 1000 + b"\r\n", "all@example.org")
        self.assertEqual(self.failureResultOf(ensureDeferred(sent), Refusal).value.reply, MAILBOX_FULL)
        self.assertEqual(self.files(), [])

    def test_over_lmtp_only_the_full_mailbox_is_refused(self) -> None:
        sent = self.send(b"x" * 1000 + b"\r\n", "ann@example.org", "joe@example.org", protocol="LMTP")
        self.assertEqual([each.code for each in self.successResultOf(ensureDeferred(sent))], [452, 250])
        self.assertEqual([path.parent.parent.name for path in self.files()], ["joe"])

    def test_over_lmtp_an_alias_with_a_full_mailbox_gets_nothing_that_would_come_twice(self) -> None:
        self.accounts.add_account(parse_address("bob@example.org"), ["{PLAIN}x"])
        sent = self.send(b"x" * 1000 + b"\r\n", "all@example.org", "bob@example.org", protocol="LMTP")
        self.assertEqual([each.code for each in self.successResultOf(ensureDeferred(sent))], [452, 250])
        self.assertEqual([path.parent.parent.name for path in self.files()], ["bob"])

    def test_text_without_a_header_stays_apart_from_our_fields(self) -> None:
        sent = self.send(b"note: no, a text\r\n", "joe@example.org")
        self.successResultOf(ensureDeferred(sent))
        sent = self.send(b"just a text\r\n", "joe@example.org")
        self.successResultOf(ensureDeferred(sent))
        ends = sorted(path.read_bytes().rpartition(b"@mail.example.org>")[2] for path in self.files("new"))
        self.assertEqual(ends, [b"\n\njust a text\n", b"\nnote: no, a text\n"])

    def test_accounts_that_come_and_go_are_seen_at_once_and_nobody_relays(self) -> None:
        self.accounts.remove_account(parse_address("joe@example.org"))
        for address, reply in [("joe@example.org", UNKNOWN_USER), ("x@example.com", RELAYING_DENIED)]:
            with self.assertRaises(Refusal) as caught:
                self.avatar.rcpt(ENVELOPE, recipient(address))
            self.assertEqual(caught.exception.reply, reply)
        self.accounts.add_account(parse_address("joe@example.org"), ["{PLAIN}x"])
        self.assertIsNone(self.avatar.rcpt(ENVELOPE, recipient("joe@example.org")))


class LMTPStore(RecordingStore):
    """Deliveries of which some mailboxes are full."""

    def __init__(self, *full: str) -> None:
        super().__init__()
        self.full = full
        self.partial: list[bool] = []

    def deliver(self, targets: list[Target], *, partial: bool = False) -> Any:
        self.targets.append(targets)
        self.partial.append(partial)
        delivery: Any = Committed()
        delivery.refused = {target.path: Refusal(MAILBOX_FULL) for target in targets if target.path.name in self.full}
        return delivery


class LMTPTests(SynchronousTestCase):
    """Who has no room refuses for themselves only, where each recipient can be told (RFC 2033 4.2)."""

    def commit(self, protocol: str, full: tuple[str, ...], *names: str, **routes: Any) -> Any:
        """The codes of the replies; the bare reply where there is one."""
        self.store = LMTPStore(*full)
        router = FakeRouter(**{name: [box(name)] for name in ("ann", "bob", "joe")} | routes)
        rooms = Rooms("mail.example.org", router, cast("MaildirStore", self.store), lambda: 0.0)
        avatar = MailAvatar(rooms, "", submission=False)
        envelope = dataclasses.replace(ENVELOPE, protocol=protocol)
        for name in names:
            avatar.rcpt(envelope, recipient(f"{name}@example.org"))
            whole = (*envelope.recipients, recipient(f"{name}@example.org"))
            envelope = dataclasses.replace(envelope, recipients=whole)
        delivery: Any = avatar.data(envelope)

        async def both() -> Any:
            await asked(delivery.prepare)
            return await asked(delivery.commit)

        answer = self.successResultOf(ensureDeferred(both()))
        return [each.code for each in answer] if isinstance(answer, tuple) else answer

    def test_each_recipient_has_its_own_reply(self) -> None:
        for protocol in ("LMTP", "LMTPS", "LMTPSA", "UTF8LMTP", "UTF8LMTPS"):
            self.assertEqual(self.commit(protocol, ("bob",), "ann", "bob", "joe"), [250, 452, 250], protocol)
            self.assertEqual(self.store.partial, [True])

    def test_the_same_recipient_twice_has_two_replies_and_one_copy(self) -> None:
        self.assertEqual(self.commit("LMTP", ("bob",), "bob", "ann", "bob"), [452, 250, 452])
        self.assertEqual(len(self.store.targets[0]), 2)

    def test_smtp_and_a_single_recipient_have_one_for_all(self) -> None:
        for protocol, names in [("ESMTP", ("ann", "bob")), ("UTF8SMTPS", ("ann", "bob")), ("LMTP", ("ann",))]:
            self.assertEqual(str(self.commit(protocol, (), *names)), "250 2.0.0 Ok: queued as id7")
            self.assertEqual(self.store.partial, [False])


class SubmissionTests(InboundCase):
    """What the avatar of a submission listener does beyond that of port 25."""

    class Directory:
        def may_send_as(self, account: Address, sender: Address, separator: str) -> bool:
            return sender.key == account.key and separator == "+"

    def submit(
        self, *, submission: bool, user: str = "joe@example.org", sender: str = "joe@example.org"
    ) -> MailAvatar:
        store = RecordingStore()
        self.inner = Recorded()
        store.deliver = lambda _: self.inner  # type: ignore[method-assign, assignment, return-value]
        senders = Senders(self.Directory(), lambda _domain: "+")
        rooms = Rooms(
            "mail.example.org",
            FakeRouter(ann=[box("ann")]),
            cast("MaildirStore", store),
            lambda: 0.0,
            senders=senders,
        )
        avatar = MailAvatar(rooms, user, submission=submission)
        self.envelope = dataclasses.replace(ENVELOPE, sender=parse_address(sender) if sender else None)
        avatar.mail(self.envelope)
        avatar.rcpt(self.envelope, recipient("ann@example.org"))
        return avatar

    def text(self, avatar: MailAvatar, text: bytes) -> bytes:
        envelope = dataclasses.replace(self.envelope, recipients=(recipient("ann@example.org"),))
        delivery: Any = avatar.data(envelope)
        delivery.write(text)
        self.successResultOf(asked(delivery.prepare))
        return self.inner.text

    def test_a_user_writes_as_themselves_only(self) -> None:
        for sender in ("ann@example.org", "joe@example.com"):
            with self.assertRaises(Refusal) as caught:
                self.submit(submission=True, sender=sender)
            self.assertEqual(caught.exception.reply, NOT_YOURS)
        self.submit(submission=True)
        self.submit(submission=True, sender="")

    def test_elsewhere_a_sender_is_nobodys(self) -> None:
        for options in ({"submission": False}, {"submission": True, "user": ""}):
            avatar = self.submit(sender="boss@example.com", **options)
            text = b"From: boss@example.com\r\nDate: x\r\nMessage-ID: <1@example.com>\r\n\r\nbody\r\n"
            self.assertEqual(self.text(avatar, text), text, options)

    def test_only_submission_changes_the_header(self) -> None:
        text = b"From: joe@example.org\r\nBcc: x@example.com\r\n\r\nbody\r\n"
        self.assertEqual(self.text(self.submit(submission=False), text), text)
        sent = self.text(self.submit(submission=True), text)
        self.assertNotIn(b"Bcc", sent)
        self.assertIn(b"\r\nMessage-ID: <id7.0@mail.example.org>\r\n", sent)
        self.assertTrue(sent.endswith(b"From: joe@example.org\r\n\r\nbody\r\n"))

    def test_a_from_that_is_not_theirs_is_refused_at_the_text(self) -> None:
        avatar = self.submit(submission=True)
        with self.assertRaises(Refusal) as caught:
            self.text(avatar, b"From: boss@example.com\r\n\r\nbody\r\n")
        self.assertEqual(caught.exception.reply, NOT_YOURS)
        self.assertEqual(self.inner.text, b"")

    def test_a_loop_is_refused_on_every_listener(self) -> None:
        for submission in (False, True):
            avatar = self.submit(submission=submission)
            with self.assertRaises(Refusal) as caught:
                self.text(avatar, b"From: joe@example.org\r\nDelivered-To: ann@example.org\r\n\r\n")
            self.assertEqual(caught.exception.reply.enhanced, "5.4.6")


class VerifyTests(InboundCase):
    def verify(self, address: str, **targets: Any) -> Any:
        avatar = self.avatar(FakeRouter(**targets))
        return ensureDeferred(avatar.verify(parse_address(address)))

    def test_it_tells_what_rcpt_would_say_and_nothing_of_aliases(self) -> None:
        for targets in ([box("joe")], [box("ann"), box("bob", "secret@example.com")]):
            reply = self.successResultOf(self.verify("All+x@Example.ORG", **{"All+x": targets}))
            self.assertEqual(str(reply), "250 2.1.5 <All+x@Example.ORG>")

    def test_who_is_elsewhere_is_not_known(self) -> None:
        for targets in (
            [Remote(parse_address("x@example.com"))],
            [box("joe"), Remote(parse_address("x@example.com"))],
        ):
            self.assertEqual(self.successResultOf(self.verify("joe@example.org", joe=targets)), CANNOT_VERIFY)

    def test_nobody_is_refused(self) -> None:
        for reply in (UNKNOWN_USER, RELAYING_DENIED):
            refused = self.verify("joe@example.org", joe=Refusal(reply))
            self.assertEqual(self.failureResultOf(refused, Refusal).value.reply, reply)

    def test_the_router_may_take_its_time(self) -> None:
        router = FakeRouter(joe=[box("joe")])
        router.wrap = succeed
        answer = ensureDeferred(self.avatar(router).verify(parse_address("joe@example.org")))
        self.assertEqual(self.successResultOf(answer).code, 250)

    def test_it_is_no_transaction(self) -> None:
        avatar = self.avatar(FakeRouter(joe=[box("joe")]))
        self.successResultOf(ensureDeferred(avatar.verify(parse_address("joe@example.org"))))
        self.assertEqual(avatar._routes, {})


class HoldTests(InboundCase):
    """FUTURERELEASE, RFC 4865: a message of one of our users waits in the spool."""

    def setUp(self) -> None:
        self.disk = HeldOnDisk(self.mktemp())

    def avatar_with_spool(self, router: Any, *, held_messages: int = 5, submission: bool = True) -> MailAvatar:
        avatar = self.avatar(router, may_relay=True)
        rooms = dataclasses.replace(avatar._rooms, spool=self.disk.spool, now=lambda: NOW)
        return MailAvatar(rooms, "anna@example.org", submission=submission, held_messages=held_messages)

    def submit(self, avatar: MailAvatar, **parameters: str) -> None:
        """A whole transaction up to the commit, to Bob."""
        wanted = envelope(parameters=parameters, recipients=())
        avatar.mail(wanted)
        if (room := avatar.rcpt(wanted, recipient("bob@example.org"))) is not None:
            self.successResultOf(ensureDeferred(room))
        wanted = wanted.with_recipient(recipient("bob@example.org"))
        delivery = cast("Any", avatar.data(wanted))
        if self.store.targets:
            return
        text = b"From: <anna@example.org>\r\nBcc: <secret@example.org>\r\n\r\nbody\r\n"
        for step in (lambda: delivery.write(text), delivery.prepare, delivery.commit):
            if (waiting := step()) is not None:
                self.successResultOf(ensureDeferred(waiting))

    def test_it_waits_with_its_trace_and_what_submission_does_to_it(self) -> None:
        self.submit(self.avatar_with_spool(FakeRouter(bob=[box("bob")])), HOLDFOR="60")
        self.assertEqual(self.store.targets, [])
        [entry] = self.disk.folder.entries()[0]
        message = self.disk.folder.read(entry)
        self.assertEqual((message.release, message.received, message.next_try), (NOW + 60, NOW, NOW + 60))
        text = Path(entry.path).read_bytes().partition(b"\n")[2]
        self.assertTrue(text.startswith(b"Received: from client.example.net ([192.0.2.1])\r\n"), text)
        self.assertIn(b"\r\nMessage-ID: <abc23456.", text)
        self.assertNotIn(b"secret", text)

    def test_until_a_time(self) -> None:
        self.submit(self.avatar_with_spool(FakeRouter(bob=[box("bob")])), HOLDUNTIL="2023-11-14T22:14:20Z")
        [entry] = self.disk.folder.entries()[0]
        self.assertEqual(self.disk.folder.read(entry).release, NOW + 60)

    def test_what_needs_no_wait_is_delivered_at_once(self) -> None:
        for parameters in (
            {},
            {"HOLDFOR": "0"},
            {"HOLDUNTIL": "2023-11-14T22:13:20Z"},
            {"HOLDUNTIL": "2001-01-01T00:00:00Z"},
        ):
            avatar = self.avatar_with_spool(FakeRouter(bob=[box("bob")]))
            self.submit(avatar, **parameters)
            self.assertEqual((len(self.store.targets), self.disk.names()), (1, []), parameters)

    def test_where_it_is_not_offered_nothing_waits(self) -> None:
        avatar = self.avatar_with_spool(FakeRouter(bob=[box("bob")]), held_messages=0)
        self.submit(avatar, HOLDFOR="60")
        self.assertEqual((len(self.store.targets), self.disk.names()), (1, []))

    def test_who_is_unknown_is_told_at_once(self) -> None:
        with self.assertRaises(Refusal):
            self.submit(self.avatar_with_spool(FakeRouter(bob=Refusal(UNKNOWN_USER))), HOLDFOR="60")

    def test_only_who_logged_in_can_ask_for_it(self) -> None:
        rooms = dataclasses.replace(self.avatar_with_spool(FakeRouter())._rooms, senders=cast("Senders", object()))
        nobody = MailAvatar(rooms, "", submission=True, held_messages=5)
        with self.assertRaises(Refusal) as caught:
            nobody.mail(envelope(parameters={"HOLDFOR": "60"}))
        self.assertEqual(caught.exception.reply, AUTH_REQUIRED)
        nobody.mail(envelope(parameters={"HOLDFOR": "0"}))

    def test_room_is_asked_for_when_it_is_released(self) -> None:
        for wrap in (None, succeed):
            self.setUp()
            router = FakeRouter(bob=[box("bob", quota=1)])
            router.wrap = wrap or router.wrap
            avatar = self.avatar_with_spool(router)
            asked_for: list[Any] = []
            self.patch(RecordingStore, "check_room", lambda *given, told=asked_for: succeed(told.append(given)))
            self.submit(avatar, HOLDFOR="60")
            self.assertEqual(asked_for, [])
            self.submit(avatar)
            self.assertEqual(len(asked_for), 1)

    def test_too_many_are_refused_for_a_while(self) -> None:
        avatar = self.avatar_with_spool(FakeRouter(bob=[box("bob")]), held_messages=1)
        self.submit(avatar, HOLDFOR="60")
        wanted = envelope("bob@example.org", id="second", parameters={"HOLDFOR": "60"})
        avatar.rcpt(wanted, wanted.recipients[0])
        delivery = cast("Any", avatar.data(wanted))
        self.successResultOf(ensureDeferred(delivery.write(b"Subject: x\r\n\r\n")))
        refused = self.failureResultOf(ensureDeferred(delivery.prepare()), Refusal).value
        self.assertEqual(refused.reply, TOO_MANY_HELD)
        delivery.abort()
        self.assertEqual(len(self.disk.names()), 1)
