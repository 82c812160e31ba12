"""aiohttp: every hop is a request object of its own, stamped as it is sent.

A redirect makes the next one from the headers the caller gave, so nothing is carried over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clew.sdk.patching import Hook
from clew.sdk.stamping import stamps


def hooks(library: Any) -> Iterator[Hook]:
    """What is replaced in aiohttp."""
    yield Hook(library.ClientRequest, "send", _around)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Any, connection: Any) -> Any:  # returns the original's coroutine
        url = self.url
        self.headers.update(stamps(url.scheme, url.host or "", url.port, self.headers.__contains__))
        return original(self, connection)

    return send
