"""
An attachment store: mail to files@example.org, and what is attached lies in a folder.

folder/content/ab/abcdef...       each file once, named by the SHA-256 of what is in it
folder/mails/ID/report.pdf        a link to it for each message, under a name that is safe

A sender's file name may be "../../etc/passwd", so no name is used as it came.  Files are read in blocks, however
large; one that is over the limit refuses its message, and leaves nothing behind.

Run it:  mailserver app run examples/attachments.py --threaded --option folder=files
Try it:  swaks --server 127.0.0.1:2525 --to files@example.org --attach @README.md

[[app]]
name = "attachments"
python = "examples/attachments.py:Attachments"
match = { recipients = "files@example.org" }
options = { folder = "/srv/files", largest = 10000000 }
threaded = true              # it works with files, and the reactor shall not wait for the disk
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from pydantic import BaseModel

import mailserver

LONGEST_NAME = 100  # characters


class Options(BaseModel):
    """folder: of the store.  largest: octets of one attachment.  most: attachments of one message."""

    folder: Path = Path("files")
    largest: int = 25_000_000
    most: int = 100


class Attachments(mailserver.App):
    """One message at a time for each connection; two of them may store the same file at once, and that is fine."""

    Options = Options

    def message(self, envelope, message):
        parts = message.mime.attachments
        if len(parts) > self.options.most:
            self.refuse(552, "5.3.4", f"More than {self.options.most} attachments")
        mails = self.options.folder / "mails"
        mails.mkdir(parents=True, exist_ok=True)
        # All of a message or nothing: its folder is made aside, and gets its name when it is whole.
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=mails))
        try:
            for part in parts:
                content = self.store(part)
                os.link(content, making / free_name(making, safe_name(part.filename)))
            sync(making)
            os.rename(making, mails / envelope.id)
            sync(mails)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        self.log.info("{count} attachments in {id}", count=len(parts), id=envelope.id)
        return f"{len(parts)} attachments kept as {envelope.id}"

    def store(self, part) -> Path:
        """The file with this content, which is on the disk when this returns."""
        store = self.options.folder / "content"
        store.mkdir(exist_ok=True)
        digest, size = hashlib.sha256(), 0
        descriptor, name = tempfile.mkstemp(prefix=".making-", dir=store)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for block in part.blocks():
                    size += len(block)
                    if size > self.options.largest:
                        self.refuse(552, "5.3.4", f"An attachment has more than {self.options.largest} octets")
                    digest.update(block)
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            place = store / digest.hexdigest()[:2] / digest.hexdigest()
            if not place.parent.is_dir():
                place.parent.mkdir(exist_ok=True)
                sync(store)
            os.replace(name, place)  # whoever was there before had the same octets
            sync(place.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return place


def safe_name(name: str) -> str:
    """A name that stays in its folder, is not hidden, and can be typed: letters, digits and a few marks."""
    name = re.split(r"[/\\]", name)[-1]
    name = re.sub(r"[^\w.+@ -]", "_", name).strip(". ")
    stem, dot, extension = name.rpartition(".")
    if dot and len(extension) <= 10:
        name = f"{stem[: LONGEST_NAME - 11].rstrip('. ')}.{extension}"
    return name[:LONGEST_NAME] or "unnamed"


def free_name(folder: Path, name: str) -> str:
    """The same, or with a number where a message has two files of one name."""
    stem, extension = os.path.splitext(name)
    number, free = 2, name
    while (folder / free).exists():
        free, number = f"{stem}-{number}{extension}", number + 1
    return free


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
