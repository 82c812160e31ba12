"""httpx and httpx2, sync and async: every hop passes one method, redirects and retries alike.

A redirect copies the request's headers, so what was stamped is noted in the request's
extensions, which are copied too, and taken off before the next hop is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from clew.sdk.patching import Hook
from clew.sdk.stamping import stamps

_STAMPED: Final = "clew.stamped"


def hooks(library: Any) -> Iterator[Hook]:
    """What is replaced in httpx (or httpx2)."""
    yield Hook(library.Client, "_send_single_request", _around)
    yield Hook(library.AsyncClient, "_send_single_request", _around)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Any, request: Any) -> Any:  # also of the async client: it returns its coroutine
        _stamp(request)
        return original(self, request)

    return send


def _stamp(request: Any) -> None:
    headers = request.headers
    for name in request.extensions.get(_STAMPED, ()):
        headers.pop(name, None)
    url = request.url
    added = stamps(url.scheme, url.host, url.port, headers.__contains__)
    if added or _STAMPED in request.extensions:
        for name, value in added.items():  # `update` builds a second Headers first
            headers[name] = value
        # A new dictionary: the old one may be shared with the request that was redirected.
        request.extensions = {**request.extensions, _STAMPED: tuple(added)}
