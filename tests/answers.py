"""What `IDelivery` and its kind answer: a value, a Deferred, a coroutine, or an exception; as one thing for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


def asked(step: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """The step's answer as a Deferred, also when it is there at once or was raised."""
    return maybeDeferred(step, *arguments)
