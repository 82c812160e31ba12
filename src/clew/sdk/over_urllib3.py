"""urllib3, and requests over it: every hop passes a connection pool, which has one origin.

What is stamped goes into a copy of the headers for that pool alone, so that a redirect, which
both libraries follow above their pools, starts from what the caller gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from clew.sdk.patching import Hook
from clew.sdk.stamping import stamps


def hooks(library: Any) -> Iterator[Hook]:
    """What is replaced in urllib3."""
    yield Hook(library.HTTPConnectionPool, "urlopen", _around)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def urlopen(
        self: Any,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        given = headers.given if isinstance(headers, _Stamped) else headers
        return original(self, method, url, body, _stamped(self, url, given), *rest, **more)

    return urlopen


class _Stamped(dict[str, str]):
    """Headers with ours among them. ``given``: without; a pool that tries again begins there."""

    __slots__ = ("given",)

    def __init__(self, content: dict[str, str], given: Any) -> None:
        super().__init__(content)
        self.given = given


def _stamped(pool: Any, url: str, given: Any) -> Any:
    headers = pool.headers if given is None else given
    present = {str(name).lower() for name in headers or ()}
    added = stamps(*_origin(pool, url), present.__contains__)
    if not added:
        return given
    # Not `dict(headers)`: of a header that came twice it would keep one.
    return _Stamped({**{name: headers[name] for name in headers or ()}, **added}, given)


def _origin(pool: Any, url: str) -> tuple[str, str, int | None]:
    """Whom the call is for: behind a forward proxy the pool's origin is the proxy's."""
    if pool.proxy is None or url.startswith("/"):
        return pool.scheme, pool.host, pool.port
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port
