"""
The command `mailserver`: its options, and the table of its subcommands.

In: the command line.  Out: exit status 0; 1 for a configuration with problems and for everything that a command could
not do; 2 for a command line that is wrong.  Problems go to stderr, one a line.
A subcommand's module is imported when it is used: `mailserver --help` must not wait for the whole house.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailserver import __version__

if TYPE_CHECKING:
    from mailserver.config import Config, ConfigError

#: Subcommand -> where it is, and its line in the help (so that the help need not import it).
COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("mailserver.cli.init:init", "Set up a real mail server for a domain."),
    "app": ("mailserver.cli.app:app", "Begin an app of your own, and try it."),
    "config": ("mailserver.cli.config:config", "Check, show or write the configuration."),
    "domain": ("mailserver.cli.domain:domain", "Add, list and remove domains beside those of the configuration."),
    "account": ("mailserver.cli.account:account", "Add, list and change accounts."),
    "alias": ("mailserver.cli.alias:alias", "Add, list and remove aliases."),
    "dkim": ("mailserver.cli.dkim:dkim", "Make and show the keys that mail is signed with."),
    "journal": ("mailserver.cli.journal:journal", "Check and recover the journals of the mail storage."),
    "spool": ("mailserver.cli.spool:spool", "List, release and delete messages that wait for their release."),
    "stats": ("mailserver.cli.stats:stats", "Show what the running server has counted."),
}

#: The data directory of development mode, in the current folder.
DEVELOPMENT_DATA = Path("mailserver-data")


@dataclass(frozen=True, slots=True)
class Invocation:
    """
    The options before the subcommand; `ctx.obj` of every command.

    config: of `--config`.  data: of `--data`.  None: not given.
    """

    config: str | None = None
    data: str | None = None


class Problems(click.ClickException):
    """A configuration that cannot be used: every problem on a line of its own, exit status 1."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))

    def show(self, file: Any = None) -> None:
        """Nothing but the problems: each line says already what it is about."""
        click.echo(self.message, file=file, err=file is None)


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The command, imported now; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """The list in the help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; problems of the configuration, wherever they are found, end it with status 1."""
        try:
            return super().invoke(ctx)
        except _config_error() as error:  # evaluated, and imported, only after something was raised
            raise Problems(error) from error


def _config_error() -> type[ConfigError]:
    from mailserver.config import ConfigError

    return ConfigError


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="FILE",
    help="The configuration. Default: $MAILSERVER_CONFIG, else /etc/mailserver/mailserver.toml when it exists, "
    "else development mode.",
)
@click.option("--data", metavar="DIR", help=f"The data directory of development mode. Default: {DEVELOPMENT_DATA}.")
@click.version_option(__version__, prog_name="mailserver")
@click.pass_context
def mailserver(ctx: click.Context, config: str | None, data: str | None) -> None:
    """Manage a mail server. It is run by `twistd mailserver`."""
    ctx.obj = Invocation(config, data)


def config_of(ctx: click.Context) -> Config:
    """
    The configuration that this command works with: that of the file, or of development mode when there is none.

    Raises ConfigError, and click.UsageError when `--data` is given although there is a file.
    """
    from mailserver.config import development, find_config, load, passed_over
    from mailserver.config.ground import unsuited

    invocation: Invocation = ctx.find_object(Invocation) or Invocation()
    path = find_config(invocation.config, os.environ)
    if path is None:
        data = Path(invocation.data or DEVELOPMENT_DATA)
        if (reason := unsuited(data.absolute())) is not None:
            raise click.UsageError(f"--data: {reason}", ctx)
        return _told(development(data, passed_over()))
    if invocation.data is not None:
        raise click.UsageError(f"--data is for development mode, but there is a configuration: {path}", ctx)
    return load(path)


def _told(config: Config) -> Config:
    """Whoever expected to work with the server's configuration must hear that this is another one."""
    for warning in config.warnings:
        click.echo(warning, err=True)
    return config


def main() -> None:
    """The entry point of the command."""
    mailserver(prog_name="mailserver")
