"""Directories are made so that they survive a power cut; what the file system is, is asked of the kernel."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import Files, make_directories
from mailserver.durable.files import HAS_SYNCFS, OPEN_DIRECTORY, fsync_brings_names, mount_identity
from tests.durable.disk import RecordingFiles, Sync


class MakeDirectoriesTests(SynchronousTestCase):
    def test_missing_parents_are_made_and_every_parent_synced_once(self) -> None:
        files, root = RecordingFiles(), Path(self.mktemp()).absolute()
        root.mkdir()
        make_directories(root / "d" / "u" / "new", root / "d" / "u" / "cur", files=files)
        self.assertEqual(sorted(root.glob("d/u/*")), [root / "d/u/cur", root / "d/u/new"])
        self.assertEqual(stat.S_IMODE(os.stat(root / "d").st_mode), 0o700)
        synced = [operation.path for operation in files.operations if isinstance(operation, Sync)]
        self.assertEqual(sorted(synced), [root, root / "d", root / "d" / "u"])
        made = len(files.operations)
        make_directories(root / "d" / "u" / "new", files=files)
        self.assertEqual(len(files.operations), made)

    def test_whatever_fails_the_directories_are_gone_again(self) -> None:
        # mkdir: b, its missing parent a, b again, c; then open, fsync and close of the two parents
        for fail_at in range(10):
            files, root = RecordingFiles(fail_at), Path(self.mktemp()).absolute()
            root.mkdir()
            with self.assertRaises(OSError) as raised:
                make_directories(root / "a" / "b", root / "a" / "c", files=files)
            self.assertEqual(raised.exception.errno, errno.EIO)
            self.assertEqual(list(root.iterdir()), [], files.calls)

    def test_where_nothing_can_be_made_it_ends(self) -> None:
        class Nowhere(Files):
            def mkdir(self, path: Path, mode: int) -> None:
                raise FileNotFoundError(errno.ENOENT, "gone", str(path))

        self.assertRaises(FileNotFoundError, make_directories, Path("a/b"), files=Nowhere())

    def test_a_parent_that_is_there_and_yet_missing_is_an_error(self) -> None:
        """As below /proc: mkdir says ENOENT although the parent exists."""
        root = Path(self.mktemp())
        root.mkdir()

        class Odd(Files):
            def mkdir(self, path: Path, mode: int) -> None:
                if path == root:
                    raise FileExistsError(errno.EEXIST, "there", str(path))
                raise FileNotFoundError(errno.ENOENT, "gone", str(path))

        self.assertRaises(FileNotFoundError, make_directories, root / "a", files=Odd())

    def test_something_else_in_the_way_is_an_error(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        (root / "file").write_bytes(b"")
        self.assertRaises(FileExistsError, make_directories, root / "file")
        self.assertRaises(NotADirectoryError, make_directories, root / "file" / "below")


class FileSystemTests(SynchronousTestCase):
    def test_a_pseudo_file_system_is_not_trusted_with_names(self) -> None:
        self.assertFalse(fsync_brings_names(Path("/proc")))
        self.assertFalse(fsync_brings_names(Path(self.mktemp())))

    def test_a_mount_has_one_identity_and_another_mount_another(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        own = mount_identity(root)
        if not own:
            self.assertEqual(mount_identity(Path("/proc")), b"")
            return
        self.assertLessEqual(len(own), 32)
        self.assertEqual(mount_identity(root.absolute().parent), own)
        self.assertNotEqual(mount_identity(Path("/proc")), own)
        self.assertEqual(mount_identity(root / "missing"), b"")

    def test_syncfs_tells_its_error(self) -> None:
        if not HAS_SYNCFS:
            return
        descriptor = Files().open(Path("."), OPEN_DIRECTORY)
        Files().syncfs(descriptor)
        os.close(descriptor)
        with self.assertRaises(OSError) as raised:
            Files().syncfs(descriptor)
        self.assertEqual(raised.exception.errno, errno.EBADF)
