"""
Several listeners in one call: SMTP, SMTP inside TLS, LMTP, and IPv6; then the program goes on, and stops them.

`start` is for programs that know nothing of Twisted: the server runs in a thread beside them.  In gen_smtp it is
`gen_smtp_server:start(Module, [[], [{protocol, ssl}, {port, 1465}]])`.

Run it:  python examples/several_listeners.py       (Ctrl-C ends it)
Try it:  swaks --server 127.0.0.1:2525 --to you@example.org
         swaks --server 127.0.0.1:4650 --tlsc --to you@example.org
         swaks --server 127.0.0.1:2424 --protocol LMTP --to you@example.org
         swaks --server ::1 --port 2525 --to you@example.org
"""

from __future__ import annotations

import time

import mailserver


class Seen(mailserver.App):
    """Says by which door a message has come."""

    def message(self, envelope, message):
        tls = self.session.tls
        return f"{message.size} octets by {self.session.listener}" + (f", {tls.version}" if tls else "")


#: A text says kind and address; a table has the keys of a [[listener]] in the configuration.
LISTENERS = (
    "tcp:127.0.0.1:2525",
    "tls:127.0.0.1:4650",
    {"name": "lmtp", "address": "127.0.0.1:2424", "protocol": "lmtp"},
    "[::1]:2525",
)


def main(*listeners) -> None:
    server = mailserver.start(Seen, *(listeners or LISTENERS))
    try:
        for listener, address in server.addresses:
            print(f"{listener.name} listens on {address}", flush=True)
        while True:  # what the program does else
            time.sleep(1)
    except KeyboardInterrupt:
        pass
    finally:
        mailserver.stop()
        print("stopped", flush=True)


if __name__ == "__main__":
    main()
