"""
The server as a part of an asyncio program: both share one loop, and callbacks may await what asyncio knows.

The reactor of Twisted that runs on asyncio must be installed before anything imports another one.

Run it:  python examples/asyncio_app.py       (Ctrl-C ends it)
Try it:  swaks --server 127.0.0.1:2525 --to you@example.org --header "Subject: hello"
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import mailserver


async def work(queue: asyncio.Queue) -> None:
    """What the program does with messages, one after the other."""
    count = 0
    while True:
        subject, done = await queue.get()
        await asyncio.sleep(0)  # a database, another server
        count += 1
        print(f"{count}: {subject!r}", flush=True)
        if not done.done():  # the client may be gone
            done.set_result(f"Message {count} is done")


async def main(where: str) -> None:
    from twisted.internet import asyncioreactor

    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor

    queue: asyncio.Queue = asyncio.Queue(maxsize=100)

    async def take(envelope, message):
        """An app can be a function.  It hands the message over, and waits: then the client gets its 250."""
        done = asyncio.get_running_loop().create_future()
        await queue.put((message.mime.headers.get("Subject", ""), done))
        return await asyncio.wait_for(done, timeout=30)

    reactor.startRunning(installSignalHandlers=False)  # the loop runs already, and asyncio sees to Ctrl-C
    server = mailserver.listen(take, where)
    print(f"Listening on port {server.ports[0]}", flush=True)
    try:
        await work(queue)
    finally:
        await server.stop().asFuture(asyncio.get_running_loop())
        print("stopped", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2525"))
