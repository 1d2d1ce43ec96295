"""
The tables of the configuration: one frozen class each, every key with its type, its default and its description.

In: tables as `tomllib` gives them, by way of `reading`.  Out: values that the other rooms use.
The sample configuration, `mailserver config show` and the manual are generated from these classes: what stands here
is said nowhere else.  The keys of `[limits]` are the fields of `mailserver.limits.Limits`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from mailserver.config.checked import (
    EXTENSIONS,
    MAX_WORKERS,
    address_pattern,
    app_name,
    as_tuple,
    banner,
    extension,
    file_path,
    hostname,
    instance_of_limits,
    listen_address,
    listener_name,
    machine_name,
    mail_domain,
    mailbox,
    mechanism,
    network,
    one_or_many,
    sender_pattern,
    separator,
    unix_mode,
    unix_owner,
    worker_count,
)
from mailserver.config.quantities import Range, parse_duration, parse_size
from mailserver.limits import DEFAULT_LIMITS, Limits
from mailserver.sockets import ListenAddress, Network

#: Where accounts and mail are kept unless the configuration says otherwise.
DATA_DIR = Path("/var/lib/mailserver")

# The types have names because within a class the name of a field would hide the function of the same name.
FilePath = Annotated[Path, BeforeValidator(file_path)]
Hostname = Annotated[str, AfterValidator(hostname)]
Mailbox = Annotated[str, AfterValidator(mailbox)]
MailDomain = Annotated[str, AfterValidator(mail_domain)]
Separator = Annotated[str, AfterValidator(separator)]
ListenerName = Annotated[str, AfterValidator(listener_name)]
AnyAddress = Annotated[ListenAddress, PlainValidator(listen_address)]
Banner = Annotated[str, AfterValidator(banner)]
Mechanism = Annotated[str, AfterValidator(mechanism)]
Extension = Annotated[str, AfterValidator(extension)]
Networks = Annotated[tuple[Annotated[Network, PlainValidator(network)], ...], BeforeValidator(as_tuple)]
UnixMode = Annotated[str, AfterValidator(unix_mode)]
UnixOwner = Annotated[str, AfterValidator(unix_owner)]
Workers = Annotated[int | Literal["auto"], PlainValidator(worker_count)]
WholeLimits = Annotated[Limits, PlainValidator(instance_of_limits)]
Quota = Annotated[int, BeforeValidator(parse_size), AfterValidator(Range(0, 2**50, "octets"))]
Segments = Annotated[int, AfterValidator(Range(2, 1000, ""))]
SegmentSize = Annotated[
    int, BeforeValidator(parse_size), AfterValidator(Range(1024 * 1024, 1024 * 1024 * 1024, "octets"))
]
BodyLimit = Annotated[int, BeforeValidator(parse_size), AfterValidator(Range(0, 16 * 1024 * 1024, "octets"))]
BannerDelay = Annotated[float, BeforeValidator(parse_duration), AfterValidator(Range(0, 60, "seconds"))]
ShortTime = Annotated[float, BeforeValidator(parse_duration), AfterValidator(Range(0, 3600, "seconds"))]
AppName = Annotated[str, AfterValidator(app_name)]
AddressPattern = Annotated[str, AfterValidator(address_pattern)]
SenderPattern = Annotated[str, AfterValidator(sender_pattern)]
AppTimeout = Annotated[float, BeforeValidator(parse_duration), AfterValidator(Range(1, 3600, "seconds"))]
LongTime = Annotated[float, BeforeValidator(parse_duration), AfterValidator(Range(0, 86_400, "seconds"))]


class Table(BaseModel):
    """A table of the file.  `not_in_file`: fields that only the program sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    not_in_file: ClassVar[frozenset[str]] = frozenset()


class Server(Table):
    """The machine, its files and its log."""

    hostname: Hostname = Field(
        default_factory=machine_name,
        description="The name that the server gives itself in greetings, Received fields and certificates. "
        "Default: the name of this machine; no DNS is asked.",
        examples=["mail.example.org"],
    )
    data_dir: FilePath = Field(
        default=DATA_DIR,
        description="The folder of accounts and mail. It is made with mode 0700 when only its parent exists. It must "
        "be the server's own: no directory of the system, and none that everybody may write to. "
        "Like every path in this file it may be relative to the folder of this file.",
    )
    user: str | None = Field(
        default=None,
        description="When started as root, become this user as soon as the ports are open. Default: stay who we are.",
        examples=["mailserver"],
    )
    group: str | None = Field(
        default=None,
        description="Become this group too; only together with user. Default: the user's own group.",
        examples=["mailserver"],
    )
    postmaster: Mailbox | None = Field(
        default=None,
        description="The address that gets the mail for <postmaster> where no account or alias has that name "
        "(RFC 5321 4.5.1). Default: such mail is refused as for every unknown user.",
        examples=["admin@example.org"],
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description='"text" for people, "json" for programs: one object a line.'
    )
    log_level: Literal["debug", "info", "warn", "error"] = Field(
        default="info", description="What is logged: this and everything more serious."
    )
    drain_timeout: ShortTime = Field(
        default=30.0,
        description="How long running transactions may take to end after SIGTERM. 0 to 1 h.",
    )
    workers: Workers = Field(
        default=1,
        description=f'How many processes serve: a number up to {MAX_WORKERS}, or "auto", one for each processor that '
        "the server may use. With more than one the process that was started binds the ports and looks after the "
        "others.",
    )


class CertificateFiles(Table):
    """A certificate with its key, in PEM; the client's server name (SNI) chooses one, the first is the default."""

    certificate: FilePath = Field(
        description="The certificate, followed by the intermediate certificates.",
        examples=["/etc/mailserver/tls/fullchain.pem"],
    )
    key: FilePath = Field(
        description="Its private key, without a passphrase. Nobody but the server should be able to read it.",
        examples=["/etc/mailserver/tls/privkey.pem"],
    )


class TLS(Table):
    """Encryption. Without any certificate a self-signed one is made and kept in the data directory."""

    minimum_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="The oldest version of TLS that is spoken (RFC 8996 forbids those before 1.2)."
    )
    check_interval: LongTime = Field(
        default=60.0,
        description="How often the files are looked at, so that a renewed certificate is used without a restart. "
        "0: only on SIGHUP. At most 1 d.",
    )
    certificates: Annotated[tuple[CertificateFiles, ...], BeforeValidator(as_tuple)] = Field(
        default=(), alias="certificate", description="Any number of [[tls.certificate]] tables."
    )


class Storage(Table):
    """How mail is kept."""

    line_endings: Literal["lf", "crlf"] = Field(
        default="lf",
        description='How lines end in Maildir files: "lf" as Maildir readers expect, or "crlf" as on the wire.',
    )
    delivered_to: Literal["single", "always", "never"] = Field(
        default="single",
        description='When a Delivered-To field is added: "single": only to mail for one recipient, so that copies '
        'for several can share one file; "always": each recipient gets a file of its own; "never".',
    )
    default_quota: Quota = Field(
        default=0,
        description='The space of an account that has no quota of its own, for example "2 GiB". 0: no limit.',
    )
    durability: Literal["journal", "filesync", "none"] = Field(
        default="journal",
        description='How a message survives a power cut once it is acknowledged: "journal": many small messages by '
        'one sync of a journal, large ones by a sync of their file; "filesync": each by a sync of its file; "none": '
        "not at all, for tests and development.",
    )
    commit: Literal["auto", "aio", "thread"] = Field(
        default="auto",
        description='How the server waits for the disk: "aio": asynchronous I/O of the Linux kernel; "thread": a '
        'thread; "auto": aio where the machine allows it, else a thread.',
    )
    journal_segments: Segments = Field(
        default=8,
        description="How many files a journal has at most, for each worker. They are made when they are needed.",
    )
    journal_segment_size: SegmentSize = Field(
        default=32 * 1024 * 1024,
        description="The size of each of these files.",
    )
    journal_body_limit: BodyLimit = Field(
        default=256 * 1024,
        description="Messages over this size are not written to the journal but synced as files.",
    )


class Auth(Table):
    """How clients log in."""

    mechanisms: Annotated[tuple[Mechanism, ...], BeforeValidator(as_tuple)] = Field(
        default=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"),
        description="The SASL mechanisms on offer, in this order. All of them only in TLS (see allow_insecure_auth "
        "of a listener). EXTERNAL takes the name in a client certificate; OAUTHBEARER and XOAUTH2 need an app that "
        "judges tokens.",
    )


class Listener(Table):
    """One address to listen on. Any number of [[listener]] tables; there must be at least one."""

    not_in_file: ClassVar[frozenset[str]] = frozenset({"line", "next_free_port"})

    address: AnyAddress = Field(
        description='"127.0.0.1:2525", "[::]:25", "mail.example.org:465", "unix:/run/mailserver.sock", '
        '"systemd:NAME" (socket activation), or a port alone: all IPv4 and IPv6 addresses.',
        examples=["25"],
    )
    protocol: Literal["smtp", "submission", "lmtp"] = Field(
        description='"smtp": mail from other servers for our own domains. "submission": mail from our own users. '
        '"lmtp": mail for our own domains from a queue of ours, such as that of Postfix (RFC 2033).',
        examples=["smtp"],
    )
    name: ListenerName = Field(
        description="Its name in the log and in messages. Default: protocol and port, as in smtp-25.",
        examples=["smtp-25"],
    )
    tls: Literal["starttls", "implicit", "off"] = Field(
        description='"starttls": on request of the client; "implicit": from the first byte on; "off". '
        'Default: "starttls", but "implicit" for submission on port 465, and "off" for lmtp.',
        examples=["starttls"],
    )
    tls_required: bool = Field(
        default=False,
        description="Refuse mail and logins without TLS; on port 25 that turns many senders away. Default: true for "
        "submission with TLS, unless allow_insecure_auth is set; else false.",
    )
    client_certificates: Literal["off", "request", "require"] = Field(
        default="off",
        description='Are clients asked for a certificate? "request": they may have one; "require": who has none '
        "cannot connect. A certificate counts when client_ca has signed it.",
    )
    client_ca: FilePath | None = Field(
        default=None,
        description="The certificates (PEM) of those who sign client certificates; needed unless "
        'client_certificates is "off". Default: none.',
        examples=["/etc/mailserver/tls/client-ca.pem"],
    )
    auth: Literal["required", "optional", "off"] = Field(
        description='Must, may or cannot clients log in? Default: "required" for submission, else "off".',
        examples=["off"],
    )
    hostname: Hostname = Field(
        description="The name that the server gives itself here. Default: that of [server].",
        examples=["mail.example.org"],
    )
    banner: Banner | None = Field(
        default=None,
        description="The text behind the host name in the greeting: printable ASCII, at most 200 characters. "
        "Default: ESMTP, or LMTP, and nothing about the software.",
        examples=["ESMTP"],
    )
    allow_insecure_auth: bool = Field(
        default=False,
        description="Allow logins without TLS: passwords cross the line in clear text. Only on a loopback address, "
        "and not with proxy_protocol.",
    )
    bare_newlines: Literal["reject", "fix", "strip", "ignore"] = Field(
        description="What to do with a CR or LF that stands alone within a message (the end of a message is always "
        'CRLF "." CRLF): "reject" the message, "fix" it into CRLF, "strip" it, or "ignore" it. '
        'Default: "reject" for smtp, "fix" for submission and lmtp.',
        examples=["reject"],
    )
    banner_delay: BannerDelay = Field(
        default=0.0,
        description="How long the greeting waits; a client that talks before it is refused (554). Spam software "
        "does; every mail server waits. At most 60 s.",
    )
    extensions_off: Annotated[tuple[Extension, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description=f"Extensions that are left out of the reply to EHLO, of {', '.join(EXTENSIONS)}.",
    )
    vrfy: bool = Field(
        default=False,
        description="Let VRFY tell which users exist. Spammers would like that; without it the answer is always 252.",
    )
    unix_mode: UnixMode = Field(
        default="0600",
        description='The mode of the file of a "unix:" address, in octal: who may connect. Only for such an address.',
    )
    unix_owner: UnixOwner | None = Field(
        default=None,
        description='The owner of that file, "user:group" or "user"; to change it the server must start as root. '
        "Default: who the server was started as.",
        examples=["mailserver:postfix"],
    )
    proxy_protocol: bool = Field(
        default=False,
        description="Each connection starts with a header of the PROXY protocol, version 1 or 2, in which a proxy "
        "says who the client is. Connections without it are closed.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description='Where those proxies are: addresses and networks such as ["192.0.2.1", "2001:db8::/64"]; '
        "connections from elsewhere are closed. None is wider than a /8 or, of IPv6, a /16. Needed with "
        'proxy_protocol; on a "unix:" address unix_mode says who may connect.',
    )
    xclient: Networks = Field(
        default=(),
        description="Addresses and networks whose filters and tests may say with XCLIENT who the client is; none is "
        "wider than a /8 or, of IPv6, a /16. An empty list switches the command off.",
    )
    limits: WholeLimits = Field(
        default=DEFAULT_LIMITS,
        description="Keys of [limits] with other values for this listener. Default: all as in [limits].",
        examples=[{"message_size": "100 MiB", "errors": 30}],
    )
    line: int = Field(default=0, description="The line of the table in its file; 0 when it comes from no file.")
    next_free_port: bool = Field(default=False, description="Development mode: take the next port when it is in use.")


class AppMatch(Table):
    """Whose turn it is: an app is asked about what fits all of these. What is left out fits everything."""

    listener: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = Field(
        default=(), description="Names of listeners, one or a list.", examples=[["smtp-25"]]
    )
    recipients: Annotated[tuple[AddressPattern, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        description='Patterns of recipients, one or a list, such as "tickets+*@example.org" or '
        '"*@lists.example.org"; '
        '"*" stands for any characters, "?" for one. "*" alone: everybody, of any domain.',
        examples=[["tickets+*@example.org"]],
    )
    senders: Annotated[tuple[SenderPattern, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        description='Patterns of senders; "<>" is the null sender of bounces.',
        examples=[["*@example.com"]],
    )
    networks: Annotated[Networks, BeforeValidator(one_or_many)] = Field(
        default=(), description="Addresses and networks of clients, one or a list.", examples=[["192.0.2.0/24"]]
    )


class AppTable(Table):
    """An app: your own code, or a program, that decides about mail or takes it. Any number of [[app]] tables."""

    name: AppName = Field(
        description="Its name in the log and in statistics. Apps are asked in their order in this file. Each has one "
        "of python, command, webhook, discard and reject.",
        examples=["tickets"],
    )
    python: str | None = Field(
        default=None,
        description='The class: "package.module:Class", or "path/file.py:Class". Every callback of `mailserver.App` '
        "that it has is called; with `message` it takes the mail that it matches. Default: none.",
        examples=["tickets.py:Tickets"],
    )
    command: dict[str, Any] | None = Field(
        default=None,
        description="A program that gets each message on its standard input; the keys of this table are in "
        "docs/destinations.md. Default: none.",
        examples=[{"run": ["/usr/local/bin/ticket", "{recipient}"]}],
    )
    webhook: dict[str, Any] | None = Field(
        default=None,
        description="A web address that gets each message by POST; the keys of this table are in "
        "docs/destinations.md. Default: none.",
        examples=[{"url": "https://www.example.org/hooks/mail", "secret_file": "/etc/mailserver/hook.secret"}],
    )
    discard: bool = Field(default=False, description="Take the mail and throw it away.")
    reject: str | None = Field(
        default=None,
        description="Refuse the recipients with this text (550 5.7.1). Default: none.",
        examples=["Closed"],
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="What the class itself wants to know; checked against its `Options`. Only with python.",
        examples=[{"folder": "/srv/tickets"}],
    )
    match: AppMatch = Field(
        default_factory=AppMatch,
        description="Whose turn it is; a table with listener, recipients, senders and networks, all of them "
        "optional. "
        "An app that takes mail needs recipients: addresses that it matches need no account.",
        examples=[{"recipients": ["tickets+*@example.org"]}],
    )
    timeout: AppTimeout = Field(
        default=60.0,
        description="How long each of its callbacks may take; then it is cancelled and the client gets 451. 1 s to "
        "1 h.",
    )
    threaded: bool = Field(
        default=False, description="Run it in a thread: for code that blocks, such as a database client."
    )
    isolated: bool = Field(
        default=False,
        description="Run it in a process of its own, which is started again when it dies. Only with python.",
    )
    separator: Separator = Field(
        default="+", description="What stands between user and detail in the addresses that the app sees."
    )


class Domain(Table):
    """One domain whose mail is delivered here. Any number of [[domain]] tables."""

    name: MailDomain = Field(
        description="The domain; international names as they are written, or in their xn-- form.",
        examples=["example.org"],
    )
    catch_all: Mailbox | None = Field(
        default=None,
        description="The address that gets the mail for unknown users of the domain. Default: it is refused.",
        examples=["admin@example.org"],
    )
    separator: Separator = Field(
        default="+",
        description="user+detail is delivered to user: the character between both. An empty text switches this off.",
    )
