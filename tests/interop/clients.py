"""
Real clients, each as one function: what to send, where, how to log in; out comes what the client says.

A client that is not installed makes its tests skip, with the reason.  All output is text; a client that fails raises
`ClientFailed` with it, so that a test can look at the reply in it.
"""

from __future__ import annotations

import contextlib
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Seconds that one client may take.
CLIENT_TIME = 60.0
HELO = "client.example.net"
SENDER = "sender@example.net"


class ClientFailed(AssertionError):  # noqa: N818 - it says what happened
    """The client ended with a status that is not 0."""


@dataclass(frozen=True)
class Errand:
    """
    One message to send.

    text: with CRLF.  tls: "off", "starttls" or "implicit".  mechanism: SASL; "" for no login.
    """

    address: tuple[str, int]
    text: bytes
    recipients: Sequence[str] = ("anna@example.org",)
    sender: str = SENDER
    tls: str = "off"
    mechanism: str = ""
    user: str = ""
    password: str = ""


def missing(program: str) -> str | None:
    """Why tests with this program are skipped; None when it is there."""
    return None if shutil.which(program) else f"{program} is not installed"


def call(command: Sequence[str], stdin: bytes = b"") -> str:
    """Run a client; its output, errors and all."""
    try:
        done = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CLIENT_TIME, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ClientFailed(f"{command[0]} did not end: {(error.stdout or b'').decode('utf-8', 'replace')}") from error
    told = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise ClientFailed(f"{command[0]} ended with {done.returncode}: {told}")
    return told


def swaks(errand: Errand, directory: Path) -> str:
    """swaks, which shows the whole dialogue."""
    del directory
    host, port = errand.address
    command = ["swaks", "--server", host, "--port", str(port), "-6" if ":" in host else "-4", "--timeout", "30"]
    command += ["--helo", HELO, "--from", errand.sender, "--to", ",".join(errand.recipients)]
    command += {"off": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}[errand.tls]
    if errand.mechanism:
        command += ["--auth", errand.mechanism, "--auth-user", errand.user, "--auth-password", errand.password]
    # Without its own idea of line ends and dots the text on the wire is exactly this.
    stuffed = errand.text.replace(b"\r\n.", b"\r\n..")
    stuffed = b"." + stuffed if stuffed.startswith(b".") else stuffed
    return call([*command, "--no-data-fixup", "--data", "-"], stuffed + b".\r\n")


def curl(errand: Errand, directory: Path) -> str:
    """curl, with smtp:// or smtps://."""
    host, port = errand.address
    scheme = "smtps" if errand.tls == "implicit" else "smtp"
    text = directory / "upload.eml"
    text.write_bytes(errand.text)
    place = f"[{host}]" if ":" in host else host
    command = ["curl", "--silent", "--show-error", "--verbose", "--insecure", "--globoff", "--max-time", "50"]
    command += ["--url", f"{scheme}://{place}:{port}/{HELO}", "--mail-from", errand.sender, "-T", str(text)]
    for recipient in errand.recipients:
        command += ["--mail-rcpt", recipient]
    if errand.tls == "starttls":
        command.append("--ssl-reqd")
    if errand.mechanism:
        command += ["--user", f"{errand.user}:{errand.password}", "--login-options", f"AUTH={errand.mechanism}"]
    return call(command)


def msmtp(errand: Errand, directory: Path) -> str:
    """msmtp, which takes the message with LF and is told everything by its own configuration."""
    host, port = errand.address
    lines = ["account default", f"host {host}", f"port {port}", f"from {errand.sender}", f"domain {HELO}"]
    lines += ["timeout 30", "tls " + ("off" if errand.tls == "off" else "on"), "set_date_header off"]
    if errand.tls != "off":
        lines += ["tls_certcheck off", "tls_starttls " + ("on" if errand.tls == "starttls" else "off")]
    if errand.mechanism:
        lines += [f"auth {errand.mechanism.lower()}", f"user {errand.user}", f"password {errand.password}"]
    else:
        lines.append("auth off")
    settings = directory / "msmtprc"
    settings.write_text("\n".join(lines) + "\n", "utf-8")
    settings.chmod(0o600)
    command = ["msmtp", "-C", str(settings), "--debug", "--", *errand.recipients]
    return call(command, errand.text.replace(b"\r\n", b"\n"))


def openssl(errand: Errand, directory: Path) -> str:
    """openssl s_client, fed the whole dialogue at once: everything behind the handshake is pipelined."""
    del directory
    host, port = errand.address
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    command = ["openssl", "s_client", "-connect", place, "-quiet"]
    if errand.tls == "starttls":
        command += ["-starttls", "smtp", "-name", HELO]
    lines = [f"EHLO {HELO}", f"MAIL FROM:<{errand.sender}>", *(f"RCPT TO:<{each}>" for each in errand.recipients)]
    stuffed = errand.text.replace(b"\r\n.", b"\r\n..")
    wire = "".join(f"{line}\r\n" for line in [*lines, "DATA"]).encode() + stuffed + b".\r\nQUIT\r\n"
    return call(command, wire)


def smtplib_send(errand: Errand, directory: Path) -> str:
    """Python's smtplib."""
    del directory
    with session(errand.address, errand.tls) as client:
        if errand.mechanism:
            log_in(client, errand.mechanism, errand.user, errand.password)
        options = ["BODY=8BITMIME"]
        if not all(each.isascii() for each in (errand.sender, *errand.recipients)):
            options.append("SMTPUTF8")
        try:
            refused = client.sendmail(errand.sender, list(errand.recipients), errand.text, options)
        except smtplib.SMTPException as error:
            raise ClientFailed(str(error)) from error
    return str(refused)


def unverified() -> ssl.SSLContext:
    """A context that takes every certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def session(
    address: tuple[str, int], tls: str = "off", context: ssl.SSLContext | None = None
) -> Iterator[smtplib.SMTP]:
    """A greeted smtplib client."""
    context = context or unverified()
    host, port = address
    client: smtplib.SMTP
    if tls == "implicit":
        client = smtplib.SMTP_SSL(host, port, local_hostname=HELO, timeout=30, context=context)
    else:
        client = smtplib.SMTP(host, port, local_hostname=HELO, timeout=30)
    try:
        if tls == "starttls":
            client.ehlo()
            client.starttls(context=context)
        client.ehlo()
        yield client
    finally:
        client.close()


def log_in(client: smtplib.SMTP, mechanism: str, user: str, password: str, *, initial: bool = True) -> None:
    """AUTH with this mechanism and no other."""
    client.user, client.password = user, password  # type: ignore[attr-defined]  # where smtplib's own look
    methods: dict[str, Any] = {
        "PLAIN": client.auth_plain,
        "LOGIN": client.auth_login,
        "CRAM-MD5": client.auth_cram_md5,
    }
    client.auth(mechanism, methods[mechanism], initial_response_ok=initial)


#: What can send an `Errand`, and the program that it needs.
CLIENTS = {
    "swaks": (swaks, "swaks"),
    "curl": (curl, "curl"),
    "msmtp": (msmtp, "msmtp"),
    "openssl": (openssl, "openssl"),
    "smtplib": (smtplib_send, ""),
}
