"""
The plugin for pytest: the fixtures `mailserver` and `mailserver_factory`, the marker `mailserver`.

In: `@pytest.mark.mailserver(tls="starttls")`.  Out: a `MailServer` that runs while the test does.
pytest imports it at each of its starts, so it imports nothing else; pytest is no dependency of the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mailserver.testing.blocking import MailServer


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "mailserver(**options): the arguments of the fixture's MailServer")


@pytest.fixture
def mailserver(request: pytest.FixtureRequest) -> Iterator[MailServer]:
    """A mail server for this test; the marker `mailserver` has its arguments."""
    from mailserver.testing.blocking import MailServer

    marker = request.node.get_closest_marker("mailserver")
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    with MailServer(**options) as server:
        yield server


@pytest.fixture
def mailserver_factory() -> Iterator[Callable[..., MailServer]]:
    """Starts mail servers, any number of them, that end with the test: `mailserver_factory(lmtp=True)`."""
    from mailserver.testing.blocking import MailServer

    with ExitStack() as running:

        def start(**options: Any) -> MailServer:
            return running.enter_context(MailServer(**options))

        yield start
