"""
The configuration: one TOML file, documented frozen classes, all problems at once with their lines.

In: a file.  Out: `Config`, or `ConfigError`.
`load` a file that `find_config` found, or take `development`.  The classes are in `classes`; `sample` writes a file
with every key.
"""

from mailserver.config.classes import (
    TLS,
    AppMatch,
    AppTable,
    Auth,
    CertificateFiles,
    Domain,
    Listener,
    Server,
    Storage,
)
from mailserver.config.loading import DEFAULT_PATH, development, find_config, load, parse, passed_over
from mailserver.config.origins import Effective
from mailserver.config.problems import ConfigError, Problem
from mailserver.config.whole import Config

__all__ = [
    "DEFAULT_PATH",
    "TLS",
    "AppMatch",
    "AppTable",
    "Auth",
    "CertificateFiles",
    "Config",
    "ConfigError",
    "Domain",
    "Effective",
    "Listener",
    "Problem",
    "Server",
    "Storage",
    "development",
    "find_config",
    "load",
    "parse",
    "passed_over",
]
