"""
How many messages a second are accepted and durable?  The running server, and beside it aiosmtpd's Mailbox.

In: options (`--help`).  Out: a table on stdout: messages per second of each round, their median, and the ratio.
Both servers run in a process of their own and are sent the same messages by the same client over loopback, in turns.
After each round the files in the Maildirs are counted: a message that is not there ends the benchmark.
aiosmtpd is left out when it is not installed.  bench/README.md says what this measures and what not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECIPIENT = "bench@example.org"
#: Seconds that a server may take to start, and a reply to come.
PATIENCE = 30.0
CONFIGURATION = """\
[server]
hostname = "localhost"
data_dir = "data"
log_format = "json"

[limits]
messages_per_connection = 1000000

[[listener]]
address = "127.0.0.1:{port}"
protocol = "smtp"

[[domain]]
name = "example.org"
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What the client sends.  messages: in all.  size: octets of each.  kept: one connection for many messages."""

    messages: int
    connections: int
    size: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.  name: for the table.  new: the folder in which its messages are files."""

    name: str
    port: int
    new: Path


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """The command, from the moment it listens until the end of the block."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "TZ": "UTC"})
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def mailserver(root: Path) -> Iterator[Server]:
    """Our server, with the account that gets the mail."""
    folder, port = root / "mailserver", free_port()
    (folder / "data").mkdir(parents=True, mode=0o700)
    configuration = folder / "mailserver.toml"
    configuration.write_text(CONFIGURATION.format(port=port))
    # By way of Python: the command `mailserver` of this interpreter may not be in the PATH.
    call = "from mailserver.cli.main import main; main()"
    account = ["--config", str(configuration), "account", "add", RECIPIENT, "--password-stdin"]
    subprocess.run(
        [sys.executable, "-c", call, *account], input=b"never used to log in\n", check=True, stdout=subprocess.DEVNULL
    )
    command = [sys.executable, "-m", "twisted", "--log-level=warn", "mailserver", "--config", str(configuration)]
    with running(command, folder, port):
        yield Server("mailserver", port, folder / "data" / "mail" / "example.org" / "bench" / "new")


@contextlib.contextmanager
def aiosmtpd(root: Path) -> Iterator[Server]:
    """aiosmtpd with the Mailbox that it brings."""
    folder, port = root / "aiosmtpd", free_port()
    folder.mkdir()
    command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}"]
    command += ["-c", "aiosmtpd.handlers.Mailbox", str(folder / "maildir")]
    with running(command, folder, port):
        yield Server("aiosmtpd Mailbox", port, folder / "maildir" / "new")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        """Connect, and say EHLO."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        await client._reply(b"220")
        await client._ask(b"EHLO bench.example.org\r\n", b"250")
        return client

    async def send(self, text: bytes) -> None:
        """One message; every command waits for its reply."""
        await self._ask(b"MAIL FROM:<sender@example.com>\r\n", b"250")
        await self._ask(b"RCPT TO:<%s>\r\n" % RECIPIENT.encode(), b"250")
        await self._ask(b"DATA\r\n", b"354")
        await self._ask(text + b".\r\n", b"250")

    async def close(self) -> None:
        """Say QUIT and hang up."""
        await self._ask(b"QUIT\r\n", b"221")
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _ask(self, command: bytes, code: bytes) -> None:
        self._writer.write(command)
        await self._reply(code)

    async def _reply(self, code: bytes) -> None:
        while True:
            line = await asyncio.wait_for(self._reader.readline(), PATIENCE)
            if not line.startswith(code):
                raise SystemExit(f"expected {code.decode()}, got {line!r}")
            if line[3:4] != b"-":
                return


async def send_all(port: int, load: Load) -> None:
    """All messages of a round, over all connections at once."""
    text = b"Subject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * (load.size // 72)
    waiting = iter(range(load.messages))

    async def one() -> None:
        client = await Client.connect(port) if load.kept else None
        for _ in waiting:
            each = client or await Client.connect(port)
            await each.send(text)
            if client is None:
                await each.close()
        if client is not None:
            await client.close()

    await asyncio.gather(*(one() for _ in range(load.connections)))


def measure(server: Server, load: Load) -> float:
    """Messages per second of one round.  Exits when a message that was accepted is not there."""
    shutil.rmtree(server.new, ignore_errors=True)
    server.new.mkdir(parents=True, mode=0o700)
    begun = time.perf_counter()
    asyncio.run(send_all(server.port, load))
    took = time.perf_counter() - begun
    found = len(list(server.new.iterdir()))
    if found != load.messages:
        raise SystemExit(f"{server.name}: {load.messages} messages were accepted, {found} are there")
    return load.messages / took


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--messages", type=int, default=1000, help="messages in a round (default: 1000)")
    parser.add_argument("--connections", type=int, default=20, help="parallel connections (default: 20)")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message (default: 4096)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (default: 3)")
    parser.add_argument(
        "--directory", help="where the mail lies, on the disk to be measured (default: a temporary one)"
    )
    return parser.parse_args()


def main() -> None:
    """Measure, and print."""
    given = options()
    if min(given.messages, given.connections, given.rounds) < 1 or given.messages > 100_000:
        raise SystemExit("messages: 1 to 100,000; connections and rounds: 1 or more")
    root = Path(tempfile.mkdtemp(prefix="mailserver-bench-", dir=given.directory))
    try:
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(mailserver(root))]
            if importlib.util.find_spec("aiosmtpd") is not None:
                servers.append(stack.enter_context(aiosmtpd(root)))
            for kept in (True, False):
                load = Load(given.messages, given.connections, given.size, kept)
                compare(servers, load, given.rounds)
            if len(servers) == 1:
                print("aiosmtpd is not installed: nothing to compare with")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def compare(servers: list[Server], load: Load, rounds: int) -> None:
    """Some rounds with each server, in turns; the table."""
    how = "kept connections" if load.kept else "a new connection for each message"
    print(f"{load.messages} messages of {load.size} octets, {load.connections} parallel, {how}:")
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.name].append(measure(server, load))
    medians = {name: statistics.median(each) for name, each in found.items()}
    for name, each in found.items():
        print(f"  {name:<18} {medians[name]:8,.0f} messages/s   ({', '.join(f'{rate:,.0f}' for rate in each)})")
    if len(medians) == 2:
        ours, other = medians.values()
        print(f"  ratio of the medians: {ours / other:.2f}")


if __name__ == "__main__":
    main()
