"""
Files that survive a power cut; nobody else calls fsync, link or rename for mail.

The door is `Durable` (door).  Behind it: drafts that nobody sees yet (drafts), a commit in a thread that works on
every file system (commit), and the quick ways: files are put in their places (placing), and a committer makes all
that wait durable with one turn of the disk (committers: fsync of the files; journal: one fdatasync for many small
messages).  How they wait for the disk: a thread, or the kernel's asynchronous I/O (aio).  What a journal's octets
mean is in records, its files are in segments, and what is done about them after a crash in recovery.  All calls to
the operating system are in files.  `storage` chooses among these by the configuration, and is what starts and stops.
"""

from mailserver.durable.door import Durable
from mailserver.durable.drafts import MEMORY, Draft, NewFile, Pace
from mailserver.durable.files import Files, Layout, RunInThread, make_directories

__all__ = ["MEMORY", "Draft", "Durable", "Files", "Layout", "NewFile", "Pace", "RunInThread", "make_directories"]
