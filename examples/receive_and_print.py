"""
Receives mail and prints it: from whom, for whom, what about, and the text.

Run it:  python examples/receive_and_print.py       (Ctrl-C ends it)
Try it:  swaks --server 127.0.0.1:2525 --to you@example.org --header "Subject: hello"
or:      mailserver app run examples/receive_and_print.py
"""

from __future__ import annotations

import sys

import mailserver

TEXT = 2000  # characters of a text that are printed


def printable(text: str) -> str:
    """A stranger's text for a terminal: line ends stay, what would steer the terminal does not."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


class Printer(mailserver.App):
    """Prints what it gets.  It keeps nothing, and says so: a 250 would promise that the mail is safe somewhere."""

    def message(self, envelope, message):
        mail = message.mime  # the mail, decoded
        body = mail.body()  # its part with the text, if there is one
        lines = [
            f"From:     {envelope.sender or '<>'}",
            f"To:       {', '.join(str(each.address) for each in envelope.recipients)}",
            f"Subject:  {mail.headers.get('Subject', '')}",
            *(f"Attached: {part.filename or part.content_type}" for part in mail.attachments),
            "",
            body.text[:TEXT] if body is not None else "",
        ]
        print(printable("\n".join(lines)), flush=True)
        return "Printed, and not kept"


if __name__ == "__main__":
    from twisted.internet import reactor

    server = mailserver.listen(Printer, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2525")
    print(f"Listening on port {server.ports[0]}", flush=True)
    reactor.run()
