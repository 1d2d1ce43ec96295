"""
`mailserver app`: begin an app of one's own, and try it on a development server.

In: a name, or a file.  Out: three files; or a server that runs until Ctrl-C.
Failures: exit status 1 and a message on stderr: a file that is there already, an app that cannot be used, a port that
cannot be had.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mailserver.cli import app_files
from mailserver.cli.app_run import AppRun, Wanted, error_told
from mailserver.cli.main import DEVELOPMENT_DATA, Invocation


@click.group()
def app() -> None:
    """Begin an app of your own, and try it."""


@app.command()
@click.argument("name")
@click.option(
    "--folder", metavar="DIR", type=click.Path(path_type=Path), default=Path(), help="Where. Default: here."
)
def new(name: str, folder: Path) -> None:
    """
    Write an app that works, its test and its configuration.

    NAME is that of a Python module: small letters, digits and "_". No file is replaced.
    """
    try:
        made = app_files.write(name, folder)
    except app_files.FilesError as error:
        raise click.ClickException(str(error)) from error
    for path in made:
        click.echo(path)
    code = made[0]
    click.echo(f"Try it:   mailserver app run {code}")
    click.echo(f"Test it:  {'' if folder == Path() else f'cd {folder} && '}python -m unittest test_{name}")


def _pairs(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for each in given:
        key, equals, text = each.partition("=")
        if not equals or not key:
            raise click.BadParameter(f'"{each}" is no "key=value"')
        pairs[key] = text
    return pairs


@app.command()
@click.argument("source", metavar="FILE.py[:CLASS]")
@click.option("--port", type=click.IntRange(0, 65535), help="The port for SMTP. Default: 2525, or the next free one.")
@click.option(
    "--option",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_pairs,
    help='An option of the app, as often as there are; a list as TOML has it: \'words=["a", "b"]\'.',
)
@click.option(
    "--match",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help='Recipients that the app is for, such as "tickets+*@example.org". Default: all.',
)
@click.option("--threaded", is_flag=True, help="Run it in a thread, as threaded = true does.")
@click.pass_context
def run(
    ctx: click.Context,
    source: str,
    port: int | None,
    options: dict[str, str],
    patterns: tuple[str, ...],
    *,
    threaded: bool,
) -> None:
    """
    Start a development server with an app in front of it.

    This machine only; mail that the app does not take lies in the inbox of development mode. A changed file is used
    at once; one with an error is told of, and the version before it stays in use. Ctrl-C ends the server.
    """
    invocation: Invocation = ctx.find_object(Invocation) or Invocation()
    if invocation.config is not None:
        raise click.UsageError("app run is a development server; it has no use for --config", ctx)
    wanted = Wanted(source, options, patterns, threaded=threaded, port=port)
    run_app(wanted, Path(invocation.data or DEVELOPMENT_DATA).absolute())


def run_app(wanted: Wanted, data: Path) -> None:
    """Run until the reactor stops."""
    from twisted.internet import reactor as the_reactor
    from twisted.logger import globalLogBeginner

    from mailserver.apps.loading import AppError
    from mailserver.config.ground import unsuited
    from mailserver.foundations import StartError
    from mailserver.logs import observer

    reactor: Any = the_reactor
    if (reason := unsuited(data)) is not None:
        raise click.ClickException(f"--data: {reason}")
    running = AppRun(wanted, data, reactor, click.echo)
    try:
        running.prepare()
    except AppError as error:
        raise click.ClickException(error_told(error, wanted.file)) from error
    except StartError as error:
        raise click.ClickException("\n".join(error.lines)) from error
    globalLogBeginner.beginLoggingTo([observer("text", "info", sys.stderr)], redirectStandardIO=False)
    try:
        running.start()
    except StartError as error:  # such as: another server uses the same data
        raise click.ClickException("\n".join(error.lines)) from error
    reactor.addSystemEventTrigger("before", "shutdown", running.stop)
    reactor.run()
