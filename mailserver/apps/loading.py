"""
From the words of the configuration to a class: "package.module:Class" or "path/file.py:Class", and its options.

In: where the class is, a table of options.  Out: the class; the options as its own model made them.
Failures: `AppError` with what is wrong, in words for who wrote the configuration, and the line of the app's own file.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError

from mailserver.apps.app import App
from mailserver.apps.installed import AppSettings, callbacks_of
from mailserver.apps.matching import Match

#: Verbs of the protocol, which no app can take for itself.
OUR_VERBS = frozenset(
    {
        "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "STARTTLS", "AUTH", "VRFY",
        "XCLIENT",
    }
)  # fmt: skip


class AppError(Exception):
    """An app cannot be used.  key: the key of its table that is to blame ("python", "options.url")."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def load_class(source: str, folder: Path) -> type:
    """
    The class that `source` names.  folder: where relative paths start.

    A file is run once for each content; after a change it is run anew.  Raises AppError.
    """
    place, colon, name = source.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise AppError(
            "python", f'"{source}" is no place of a class; write "package.module:Class" or "file.py:Class"'
        )
    module = _file(folder / place) if place.endswith(".py") else _module(place)
    found = getattr(module, name, None)
    if found is None:
        raise AppError("python", f'"{place}" has no class {name}{_others(module)}')
    if not isinstance(found, type):
        raise AppError("python", f'"{name}" in "{place}" is no class')
    check_class(found)
    return found


def whole_source(source: str, folder: Path) -> str:
    """
    The same, with the class where only a file is named ("tickets.py"): the one in it that is an app.

    Raises AppError when there is none, or more than one.
    """
    if not source.endswith(".py"):
        return source
    names = [name for name, _ in _apps_in(_file(folder / source))]
    if len(names) != 1:
        found = f"has several apps: {', '.join(names)}; name one" if names else "has no app: no class with a callback"
        raise AppError("python", f'"{source}" {found}, as in "{source}:{names[0] if names else "Tickets"}"')
    return f"{source}:{names[0]}"


def check_class(cls: type) -> None:
    """Raises AppError for what cannot be an app."""
    if not callbacks_of(cls):
        raise AppError("python", f"{cls.__name__} has none of the callbacks of an app, such as rcpt or message")
    for name in sorted(callbacks_of(cls)):
        _check_arguments(cls, name)
    for name in ("mechanisms", "verbs", "mail_parameters", "rcpt_parameters"):
        given = getattr(cls, name, ())
        if isinstance(given, str) or not all(isinstance(each, str) and each.isascii() for each in given):
            raise AppError("python", f"{cls.__name__}.{name} must be a list or tuple of texts")
    ours = OUR_VERBS & {verb.upper() for verb in getattr(cls, "verbs", ())}
    if ours:
        raise AppError(
            "python", f"{cls.__name__}.verbs holds {', '.join(sorted(ours))}, which the server itself answers"
        )


def _check_arguments(cls: type, name: str) -> None:
    """Raises AppError for a callback that cannot take what it is called with: each mail would be a 451."""
    expected = tuple(inspect.signature(getattr(App, name)).parameters)[1:]
    try:
        signature = inspect.signature(getattr(cls, name))
    except (TypeError, ValueError):
        return  # nobody knows what it takes, such as one written in C
    by_class = isinstance(inspect.getattr_static(cls, name), classmethod | staticmethod)
    try:
        signature.bind(*(() if by_class else (None,)), *expected)
    except TypeError:
        wanted = ", ".join(("self", *expected))
        raise AppError("python", f"{cls.__name__}.{name} must take other arguments: {name}({wanted})") from None


def options_of(cls: type, given: Mapping[str, Any], folder: Path = Path()) -> Any:
    """
    The options as the app's own model makes them; None where it has none.

    A key that the model does not know is an error, unless the model itself says what becomes of it
    (`model_config = ConfigDict(extra=...)`): pydantic alone would drop it, and with it what a slip of the pen meant.

    folder: where relative paths start; validators of the model find it in their context.  Raises AppError with each
    problem.
    """
    model: type[BaseModel] | None = getattr(cls, "Options", None)
    if model is None:
        if given:
            raise AppError("options", f"{cls.__name__} takes no options (it has no Options)")
        return None
    return validated(model, given, "options", {"folder": folder})


def validated(model: type[BaseModel], given: Mapping[str, Any], name: str, context: Any = None) -> Any:
    """
    A table of one's own as its model makes it.  name: what it is called, in errors.  context: of validators.

    Raises AppError with each problem, and with keys that the model does not know.
    """
    known = _keys(model)
    made: Any = None
    wrong: list[tuple[str, str]] = []
    try:
        made = model.model_validate(dict(given), context=context)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            place = ".".join(map(str, each["loc"]))
            unknown = each["type"] == "extra_forbidden" and place in given
            words = _unknown(place, known) if unknown else str(each["msg"]).removeprefix("Value error, ")
            wrong.append((place, words))
    if model.model_config.get("extra") is None:
        wrong += [(key, _unknown(key, known)) for key in given if key not in known]
    if wrong:
        (place, text), *others = wrong
        more = "".join(f"; {other}: {words}" for other, words in others)
        raise AppError(f"{name}.{place}" if place else name, text + more)
    return made


def _keys(model: type[BaseModel]) -> set[str]:
    """What its fields may be called in a configuration: their names, and other names that they have."""
    keys = set(model.model_fields)
    for field in model.model_fields.values():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        for choice in choices:
            if isinstance(choice, AliasPath):
                keys.add(str(choice.path[0]))
            elif choice is not None:
                keys.add(choice)
    return keys


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; there are {', '.join(sorted(known))}"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise AppError("python", f'"{name}" cannot be imported: {_where(error)}') from error


def _file(path: Path) -> Any:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise AppError("python", f"{path}: {error.strerror}") from error
    # A name of its own for each content: two files may have the same name, and a changed one is another module.
    digest = hashlib.sha256(str(path.resolve()).encode() + b"\0" + text).hexdigest()[:16]
    name = f"mailserver_app_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppError("python", f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for what lies beside it
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - this is what the operator asks for
    except Exception as error:
        del sys.modules[name]
        raise AppError("python", f"{path} cannot be run: {_where(error)}") from error
    return module


def _where(error: BaseException) -> str:
    """The error, with the last line of code that it came through."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    if last is None or "importlib" in last.filename or last.filename == __file__:
        return text
    return f"{text} ({last.filename}:{last.lineno})"


def _others(module: Any) -> str:
    """The classes of a module that could have been meant."""
    names = [name for name, _ in _apps_in(module)]
    return f"; it has {', '.join(names)}" if names else ""


def _apps_in(module: Any) -> list[tuple[str, type]]:
    """The classes of a module that are apps, by name; a second name of one does not count."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and (value.__module__, value.__name__) == (module.__name__, name)
        and callbacks_of(value)
    ]


#: key of an app's table -> the class that does it, when no code of the user's own is needed.
READY = {
    "command": "mailserver.apps.command:Command",
    "webhook": "mailserver.apps.webhook:Webhook",
    "discard": "mailserver.apps.ready:Discard",
    "reject": "mailserver.apps.ready:Reject",
}


def settings_of(table: Any, folder: Path) -> AppSettings:
    """
    An `[[app]]` table (`config.AppTable`) as settings.  folder: where relative paths start.

    Raises AppError: which key, and what is wrong.
    """
    kinds = [kind for kind in ("python", *READY) if getattr(table, kind) not in (None, False)]
    if len(kinds) != 1:
        what = "one of python, command, webhook, discard and reject"
        raise AppError(kinds[1] if kinds else "name", f"needs {what}, and only one" if kinds else f"needs {what}")
    (kind,) = kinds
    given: Any = getattr(table, kind)
    if kind == "python":
        cls = load_class(given, folder)
        options = _options(table.options, cls, "options", folder)
    else:
        if table.options:
            raise AppError("options", f"belongs to python; what {kind} wants to know stands in its own table")
        place, _, name = READY[kind].partition(":")
        cls = getattr(importlib.import_module(place), name)
        words = given if isinstance(given, Mapping) else {"text": given} if isinstance(given, str) else {}
        options = _options(words, cls, kind, folder)
    timeout: float = table.timeout
    if kind != "python":
        # It watches over its own time; before that comes the wait for its turn.
        timeout = max(timeout, getattr(options, "timeout", 0.0) + table.timeout)
    for key in ("isolated", "threaded"):
        if getattr(table, key) and kind != "python":
            raise AppError(key, f"is for python only; {kind} never blocks")
    match = Match(
        listeners=tuple(table.match.listener),
        recipients=tuple(table.match.recipients),
        senders=tuple(table.match.senders),
        networks=tuple(table.match.networks),
    )
    return AppSettings(
        name=table.name,
        app=cls,
        options=options,
        match=match,
        timeout=timeout,
        threaded=table.threaded,
        isolated=table.isolated,
        separator=table.separator,
        source=given if kind == "python" else "",
        folder=folder,
        configured=table.options,
    )


def _options(given: Mapping[str, Any], cls: type, key: str, folder: Path) -> Any:
    try:
        return options_of(cls, given, folder)
    except AppError as error:
        raise AppError(error.key.replace("options", key, 1), str(error)) from None
