"""
The judge, the watcher, the shim and the load themselves: what they find in mailboxes and servers that are made up here.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.crash import shim
from tests.crash.load import Sender, Wire
from tests.crash.mailboxes import DOUBLE, LOST, STRANGE, TORN, UNWANTED, Mailboxes
from tests.crash.messages import Message, compose, inspect
from tests.crash.notes import Notes
from tests.crash.watcher import Watcher

ANNA, BOB = "anna@example.org", "bob@example.org"
TRACE = (
    b"Return-Path: <driver@example.net>\nReceived: from driver.example.net ([127.0.0.1])\n"
    b"\tby mail.example.org with ESMTP id 1; Mon, 2 Mar 2026 10:00:00 +0000\n"
)


class JudgeTests(SynchronousTestCase):
    """Mailboxes in a directory, with what a server could have left in them."""

    def setUp(self) -> None:
        root = Path(self.mktemp())
        self.mailboxes = Mailboxes(root, (ANNA, BOB))
        for address in (ANNA, BOB):
            for folder in ("tmp", "new", "cur"):
                (self.mailboxes.maildir(address) / folder).mkdir(parents=True)
        self.notes = Notes(root / "notes")
        self.addCleanup(self.notes.close)

    def sent(self, name: str, reply: str | None, *recipients: str) -> Message:
        """A message in the notes, with its reply."""
        message = compose(name, 3000, random.Random(name))
        self.notes.sending(message, recipients or (ANNA,))
        if reply is not None:
            self.notes.answered(name, reply)
        return message

    def lies(self, message: Message, place: str, address: str = ANNA) -> Path:
        """The message as a file of a mailbox."""
        path = self.mailboxes.maildir(address) / place
        path.write_bytes(TRACE + message.text.replace(b"\r\n", b"\n"))
        return path

    def kinds(self) -> list[str]:
        """What the judge finds."""
        return sorted(each.kind for each in self.mailboxes.judge(self.notes))

    def test_a_whole_message_in_each_mailbox_is_right(self) -> None:
        message = self.sent("a", "250", ANNA, BOB)
        self.lies(message, "new/1")
        self.lies(message, "cur/1:2,S", BOB)
        self.assertEqual(self.kinds(), [])

    def test_a_message_without_an_answer_may_be_there_or_not(self) -> None:
        self.lies(self.sent("a", None), "new/1")
        self.sent("b", None)
        self.assertEqual(self.kinds(), [])

    def test_an_acknowledged_message_that_is_nowhere_is_lost(self) -> None:
        self.sent("a", "250")
        self.assertEqual(self.kinds(), [LOST])

    def test_an_acknowledged_message_that_one_mailbox_lacks_is_lost(self) -> None:
        self.lies(self.sent("a", "250", ANNA, BOB), "new/1")
        self.assertEqual(self.kinds(), [LOST])

    def test_a_message_in_new_and_in_cur_is_a_double(self) -> None:
        message = self.sent("a", "250")
        self.lies(message, "new/1")
        self.lies(message, "cur/1:2,S")
        self.assertEqual(self.kinds(), [DOUBLE])

    def test_a_double_of_a_message_without_an_answer_is_one_too(self) -> None:
        message = self.sent("a", None)
        self.lies(message, "new/1")
        self.lies(message, "new/2")
        self.assertEqual(self.kinds(), [DOUBLE])

    def test_a_file_that_ends_early_is_torn_and_its_message_lost(self) -> None:
        path = self.lies(self.sent("a", "250"), "new/1")
        os.truncate(path, path.stat().st_size - 1)
        self.assertEqual(self.kinds(), [LOST, TORN])

    def test_an_empty_file_is_torn(self) -> None:
        self.lies(self.sent("a", None), "new/1").write_bytes(b"")
        self.assertEqual(self.kinds(), [TORN])

    def test_an_octet_that_changed_in_the_text_is_torn(self) -> None:
        path = self.lies(self.sent("a", "250"), "new/1")
        path.write_bytes(path.read_bytes()[:-20] + bytes(20))
        self.assertEqual(self.kinds(), [LOST, TORN])

    def test_an_octet_that_changed_in_the_header_is_torn(self) -> None:
        path = self.lies(self.sent("a", "250"), "new/1")
        path.write_bytes(path.read_bytes().replace(b"From: <driver", b"From: <drover"))
        self.assertEqual(self.kinds(), [TORN])

    def test_what_was_refused_must_not_be_there(self) -> None:
        self.lies(self.sent("a", "451 4.3.0"), "new/1")
        self.assertEqual(self.kinds(), [UNWANTED])

    def test_also_when_the_refusal_was_right(self) -> None:
        self.lies(self.sent("a", "451 4.3.0"), "new/1")
        self.notes.settle()
        self.assertEqual(self.kinds(), [UNWANTED])
        self.assertEqual(self.notes.replies(), {})

    def test_mail_of_somebody_else_is_strange(self) -> None:
        self.lies(self.sent("a", None, ANNA), "new/1", BOB)
        self.lies(compose("never-sent", 3000, random.Random(1)), "new/2")
        self.assertEqual(self.kinds(), [STRANGE, STRANGE])

    def test_what_was_acknowledged_behind_a_power_cut_may_be_lost(self) -> None:
        self.lies(self.sent("a", "250"), "new/1")
        kept = self.notes.acknowledged()
        self.sent("b", "250")
        self.assertEqual(self.kinds(), [LOST])
        self.notes.only(kept)
        self.assertEqual(self.kinds(), [])

    def test_files_in_tmp_are_leftovers_unless_their_process_runs(self) -> None:
        directory = self.mailboxes.maildir(ANNA) / "tmp"
        (directory / f"1.M2P{os.getpid()}Q3.host").touch()
        self.assertEqual(self.mailboxes.leftovers(), [])
        self.assertEqual(len(self.mailboxes.temporary()), 1)
        (directory / "1.M2P999999999Q3.host").touch()
        self.assertEqual([path.name for path in self.mailboxes.leftovers()], ["1.M2P999999999Q3.host"])

    def test_a_message_tells_its_id_and_that_it_is_whole(self) -> None:
        message = compose("x-1", 5000, random.Random(1))
        found = inspect(TRACE + message.text.replace(b"\r\n", b"\n"))
        self.assertEqual((found.id, found.digest, found.trouble), ("x-1", message.digest, None))


class WatcherTests(SynchronousTestCase):
    """A directory in which files appear."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.text = TRACE + compose("a", 3000, random.Random(1)).text.replace(b"\r\n", b"\n")
        self.aside = self.directory.with_suffix(".aside")
        self.aside.write_bytes(self.text)
        self.watcher = Watcher([self.directory, self.directory / "missing"])
        self.addCleanup(self.watcher.stop)

    def test_whole_files_that_get_their_name_at_once_are_right(self) -> None:
        os.link(self.aside, self.directory / "1")
        self.aside.rename(self.directory / "2")
        self.assertEqual(self.watcher.stop(), [])
        self.assertEqual(self.watcher.seen, 2)

    def test_a_file_that_is_written_under_its_name_is_found(self) -> None:
        (self.directory / "1").write_bytes(self.text)
        self.assertIn("is written to while it can be seen", str(self.watcher.stop()[-1]))

    def test_a_part_that_gets_its_name_is_found(self) -> None:
        os.truncate(self.aside, 1000)
        self.aside.rename(self.directory / "1")
        self.assertEqual([each.kind for each in self.watcher.stop()], [TORN])


class ShimTests(SynchronousTestCase):
    """A small program with the library."""

    if shim.missing() is not None:
        skip = shim.missing()

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="mailserver-crash-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.root)], check=True)
        (self.root / "data").mkdir()
        self.shim = shim.Shim(self.root, self.root / "data")
        self.addCleanup(self.shim.close)

    def run_program(self, text: str) -> str:
        """What a Python program prints, in the directory above the data."""
        done = subprocess.run(
            [sys.executable, "-c", "import os, errno, ctypes\n" + text],
            cwd=self.root,
            env={**os.environ, **self.shim.environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_only_calls_below_the_root_fail(self) -> None:
        self.shim.arm("open", errno.EMFILE)
        told = self.run_program(
            "open('outside', 'w')\ntry: open('data/inside', 'w')\nexcept OSError as error: print(error.errno)"
        )
        self.assertEqual(told, str(errno.EMFILE))
        self.assertEqual((self.shim.counts().failed, self.shim.counts().loaded), (1, 1))

    def test_a_path_with_the_spared_word_is_left_alone(self) -> None:
        self.shim.arm("open", errno.EMFILE)
        self.assertEqual(self.run_program("open('data/accounts.db', 'w'); print('good')"), "good")

    def test_the_call_behind_those_that_are_skipped_fails_and_no_other(self) -> None:
        self.shim.arm("write", errno.EIO, skip=2, times=1)
        told = self.run_program(
            "fd = os.open('data/x', os.O_CREAT | os.O_WRONLY)\n"
            "for number in range(5):\n"
            "    try: os.write(fd, b'x')\n"
            "    except OSError: print(number)"
        )
        self.assertEqual(told, "2")

    def test_a_short_write_writes_half(self) -> None:
        self.shim.arm("write", shim.SHORT)
        told = self.run_program("print(os.write(os.open('data/x', os.O_CREAT | os.O_WRONLY), bytes(100)))")
        self.assertEqual(told, "50")

    def test_names_that_cannot_be_had(self) -> None:
        self.shim.arm("rename link unlink", errno.EROFS)
        told = self.run_program(
            "open('data/x', 'w')\n"
            "for call in (lambda: os.rename('data/x', 'data/y'), lambda: os.unlink('data/x'),\n"
            "             lambda: os.link('data/x', 'data/y', follow_symlinks=False)):\n"
            "    try: call()\n"
            "    except OSError as error: print(error.errno, end=' ')"
        )
        self.assertEqual(told, f"{errno.EROFS} {errno.EROFS} {errno.EROFS}")

    def test_a_sync_that_is_repeated_after_it_has_failed_is_counted(self) -> None:
        self.shim.arm("fsync", errno.EIO, times=1)
        self.run_program(
            "def sync(fd):\n"
            "    try: os.fsync(fd)\n"
            "    except OSError: pass\n"
            "fd = os.open('data/x', os.O_CREAT | os.O_WRONLY)\n"
            "sync(fd)\nsync(fd)\nos.close(fd)\nsync(os.open('data/x', os.O_WRONLY))"
        )
        self.assertEqual((self.shim.counts().failed, self.shim.counts().repeated), (1, 1))

    def test_a_request_of_kernel_aio_fails_when_it_comes_back(self) -> None:
        self.shim.arm("fsync", errno.EIO)
        numbers = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}.get(os.uname().machine)
        if numbers is None:
            raise SkipTest("the numbers of these system calls are not known here")
        told = self.run_program(
            "import struct\n"
            f"setup, submit, events = {numbers}\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "context = ctypes.c_ulong(0)\n"
            "if libc.syscall(setup, 8, ctypes.byref(context)):\n"
            "    print('none')\n"
            "    raise SystemExit\n"
            "fd = os.open('data/x', os.O_CREAT | os.O_RDONLY)\n"
            "request = ctypes.create_string_buffer(struct.pack('=QIiHhIQQqQII', 7, 0, 0, 3, 0, fd, 0, 0, 0, 0, 0, 0))\n"
            "before = request.raw\n"
            "several = (ctypes.c_void_p * 1)(ctypes.addressof(request))\n"
            "assert libc.syscall(submit, context, ctypes.c_long(1), several) == 1\n"
            "found = ctypes.create_string_buffer(32)\n"
            "assert libc.syscall(events, context, ctypes.c_long(1), ctypes.c_long(1), found, None) == 1\n"
            "data, _, result, _ = struct.unpack('=QQqq', found.raw)\n"
            "print(data, result, request.raw == before)\n"
        )
        if told == "none":
            raise SkipTest("this machine has no kernel AIO")
        self.assertEqual(told, f"7 {-errno.EIO} True")
        self.assertEqual((self.shim.counts().failed, self.shim.counts().aio), (1, 1))


class WireTests(SynchronousTestCase):
    """The driver's client, against a few replies from a socket."""

    def replies(self, *told: bytes) -> tuple[Wire, list[bytes]]:
        """A connection whose other end says this, one for each time that it has read something."""
        door = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(door.close)
        heard: list[bytes] = []

        def serve() -> None:
            peer, _ = door.accept()
            with peer:
                for number, reply in enumerate((b"220 here\r\n", b"250-here\r\n250 SIZE\r\n", *told)):
                    if number:
                        heard.append(peer.recv(65536))
                    peer.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join, 30)
        wire = Wire(door.getsockname(), Sender("test"))
        self.addCleanup(wire.close)
        return wire, heard

    def test_only_the_reply_to_the_text_is_an_acknowledgement(self) -> None:
        wire, _ = self.replies(b"250 2.1.0 OK\r\n", b"250 2.1.5 OK\r\n", b"354 go\r\n", b"452 4.3.1 full\r\n")
        message = compose("a", 1000, random.Random(1))
        self.assertEqual(wire.deliver(message, Sender("test"), [ANNA]), "452 4.3.1")

    def test_a_connection_that_ends_before_the_reply_is_no_acknowledgement(self) -> None:
        wire, _ = self.replies(b"250 2.1.0 OK\r\n", b"250 2.1.5 OK\r\n", b"354 go\r\n")
        message = compose("a", 1000, random.Random(1))
        self.assertRaises(OSError, wire.deliver, message, Sender("test"), [ANNA])

    def test_dots_are_stuffed(self) -> None:
        wire, heard = self.replies(b"250 2.1.0 OK\r\n", b"250 2.1.5 OK\r\n", b"354 go\r\n", b"250 2.0.0 OK\r\n")
        message = compose("a", 1000, random.Random(1))
        self.assertEqual(wire.deliver(message, Sender("test"), [ANNA]), "250")
        self.assertIn(b"\r\n..\r\n...\r\n..odd\r\n", heard[-1])
        self.assertTrue(heard[-1].endswith(b"\r\n.\r\n"))

    def test_a_chunk_that_is_refused_ends_the_message(self) -> None:
        wire, _ = self.replies(b"250 2.1.0 OK\r\n", b"250 2.1.5 OK\r\n", b"250 2.0.0 OK\r\n", b"451 4.3.0 no\r\n")
        message = compose("a", 1000, random.Random(1))
        self.assertEqual(wire.deliver(message, Sender("test", verb="BDAT"), [ANNA]), "451 4.3.0")
