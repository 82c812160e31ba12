"""Where a request goes: which upstream, and which target there. Pure; compiled once.

Rules, in this order:

1. ``X-Cagent-Forward`` names a configured upstream by its url, or the request is refused.
2. ``/u/NAME/…`` names one by its name; the prefix is dropped, as ``/r/RUN`` before it is.
3. Configured upstreams: the first whose path and model patterns fit. A request without a model
   fits every model.
4. Without configured ones, the built-in: the vendor's signs come before the path.

A client never chooses a host: of a target only the path and query are used, they are appended to
the configured url, and a path that a server may read in two ways (dot segments, a leading ``//``,
backslashes, ``#``) has no route. Where Clew lends its own credential, and towards engines, only
calls that cannot read another caller's things pass: everything else has no route either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from clew import headers as h
from clew.config.schema import Upstream
from clew.core.billing import ANTHROPIC, CHATGPT, GOOGLE, OPENAI, secret_of
from clew.core.claim import Headers
from clew.core.errors import ClewError
from clew.core.run_path import split_run

BUILT_IN: Final[tuple[Upstream, ...]] = (
    Upstream(name=ANTHROPIC, url="https://api.anthropic.com"),
    Upstream(name=OPENAI, url="https://api.openai.com"),
    Upstream(name=CHATGPT, url="https://chatgpt.com/backend-api/codex"),
    Upstream(name=GOOGLE, url="https://generativelanguage.googleapis.com"),
)

VENDOR_BY_HOST: Final = {
    "api.anthropic.com": ANTHROPIC,
    "api.openai.com": OPENAI,
    "chatgpt.com": CHATGPT,
    "generativelanguage.googleapis.com": GOOGLE,
}

HEADER_SIGNS: Final[tuple[tuple[str, bytes, str], ...]] = (
    (h.ANTHROPIC_VERSION, b"", ANTHROPIC),
    (h.X_API_KEY, b"sk-ant-", ANTHROPIC),
    (h.AUTHORIZATION, b"sk-ant-", ANTHROPIC),
    (h.CHATGPT_ACCOUNT_ID, b"", CHATGPT),
    (h.GOOGLE_API_KEY, b"", GOOGLE),
)
"""Header, how its secret begins, vendor: the first that a request carries decides."""

PATH_SIGNS: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = (
    (re.compile(rb"/v1beta/"), GOOGLE),
    (re.compile(rb"/v1/messages(?:/|\Z)"), ANTHROPIC),
    (re.compile(rb"/v1/"), OPENAI),
)
"""Beginning of a path, vendor; read where no header is a sign."""

_INFERENCE: Final = re.compile(
    rb"(?:/(?!v1)[\w.-]+)?(?:/v1|/v1beta/openai)?"
    rb"/(?:chat/completions|responses|messages)(?:/.*)?"
    rb"|/.*:(?:generateContent|streamGenerateContent|countTokens)"
)
_MODELS: Final = re.compile(rb"(?:/v1|/v1beta)?/models(?:/[^/]+)*")
_COUNT_TOKENS: Final = (b"/messages/count_tokens", b"/responses/input_tokens", b":countTokens")
_LOCAL_HEADS: Final = frozenset({b"/", b"/api/hello"})

_TWO_WAYS: Final = re.compile(rb"\A//|[\\#\x00-\x20\x7f]|/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE)
_HIDDEN_SLASH: Final = re.compile(rb"%(?:2f|5c|00)|//|;", re.IGNORECASE)
"""What an upstream might resolve to another path; refused where the path is what is checked."""

_NAMED: Final = re.compile(rb"/u/([^/]+)(/.*)?", re.DOTALL)
_ABSOLUTE: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_GOOGLE_KEY: Final = re.compile(rb"(?:\A|(?<=&))key=[^&]*(?:&|\Z)")
_PORTS: Final = {"http": 80, "https": 443}
_FORWARD: Final = h.CAGENT_FORWARD.encode()
_SIGN_HEADERS: Final = tuple((name.encode(), start, vendor) for name, start, vendor in HEADER_SIGNS)


@dataclass(frozen=True, slots=True)
class Route:
    """A chosen destination. ``host`` is empty where the upstream is a set of workers."""

    name: str
    scheme: str
    host: str
    port: int
    base_path: bytes
    target: bytes
    """What stands in the request line upstream: path and query."""
    path: bytes
    """The client's path and query without prefixes, for workers: see `compose_target`."""
    vendor: str
    kind: str
    upstream: Upstream
    has_own_key: bool

    @property
    def authority(self) -> bytes:
        """The ``Host`` field's value; the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _PORTS.get(self.scheme)
        return (host if is_default else f"{host}:{self.port}").encode("ascii")


class Destination:
    """One upstream, compiled."""

    __slots__ = (
        "base_path",
        "has_own_key",
        "host",
        "is_restricted",
        "models",
        "paths",
        "port",
        "scheme",
        "upstream",
        "vendor",
    )

    def __init__(self, upstream: Upstream) -> None:
        origin = split_url(upstream.url) if upstream.url else ("", "", 0, b"")
        self.scheme, self.host, self.port, self.base_path = origin
        self.upstream = upstream
        self.vendor = VENDOR_BY_HOST.get(self.host, "")
        self.has_own_key = bool(upstream.api_key_env or upstream.api_key_file)
        self.is_restricted = upstream.kind == "engine" or self.has_own_key
        self.paths = _patterns(upstream.paths)
        self.models = _patterns(upstream.models)


class RouteTable:
    """Every upstream of one configuration. Raises ValueError on a url that is none."""

    __slots__ = ("by_name", "destinations", "is_built_in")

    def __init__(self, upstreams: Iterable[Upstream] = ()) -> None:
        configured = tuple(upstreams)
        self.is_built_in = not configured
        self.destinations = tuple(Destination(item) for item in configured or BUILT_IN)
        self.by_name = {item.upstream.name: item for item in reversed(self.destinations)}


def split_url(url: str) -> tuple[str, str, int, bytes]:
    """A configured url as (scheme, host, port, base path without trailing slash).

    Raises ValueError for anything but http(s) with a host and nothing beyond a path.
    """
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host or not host.isascii():
        raise ValueError(f"not an http or https url: {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"a url of scheme, host and path only, please: {url!r}")
    path = parts.path.rstrip("/").encode("ascii")
    return parts.scheme, host, parts.port or _PORTS[parts.scheme], path


def _patterns(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """``*`` stands for any text, everything else for itself; None: everything fits."""
    if "*" in patterns:
        return None
    each = (".*".join(re.escape(part) for part in pattern.split("*")) for pattern in patterns)
    return re.compile("|".join(f"(?:{pattern})" for pattern in each), re.DOTALL)


def choose_route(
    table: RouteTable, method: bytes, target: bytes, headers: Headers, model: str = ""
) -> Route:
    """The upstream for a request and the target there.

    ``target`` is the request line's; ``model`` is empty when the request names none. Raises
    ClewError ``no_upstream`` or ``forward_not_allowed``.
    """
    path, query = _path_and_query(target)
    forwarded = _forwarded(table, headers)
    named, path = _named(table, split_run(path)[1])
    if forwarded is not None and named is not None and forwarded is not named:
        raise ClewError("forward_not_allowed", "X-Cagent-Forward and /u/NAME differ; send one")
    found = forwarded or named or _matching(table, path, headers, model)
    if found is None:
        raise ClewError("no_upstream")
    if found.is_restricted and not _passes_restricted(method, path, headers):
        raise ClewError(
            "no_upstream",
            "only inference calls, model lists and token counts pass to this upstream; "
            "call another one with your own credential",
        )
    return _route(found, path, query)


def needs_model(table: RouteTable, target: bytes) -> bool:
    """Whether the model must be read from the body before `choose_route` can decide."""
    if table.is_built_in:
        return False
    path = split_run(target.partition(b"?")[0])[1]
    if _NAMED.fullmatch(path) is not None:
        return False
    text = path.decode("latin-1")
    for item in table.destinations:
        if item.paths is None or item.paths.fullmatch(text) is not None:
            return item.models is not None
    return False


def without_name(path: bytes) -> bytes:
    """A path without its ``/r/RUN`` and ``/u/NAME``: what `is_inference` and the APIs match."""
    path = split_run(path)[1]
    found = _NAMED.fullmatch(path) if path.startswith(b"/u/") else None
    return path if found is None else found[2] or b"/"


def is_inference(method: bytes, path: bytes) -> bool:
    """Whether a request belongs to a session: a POST to an inference path."""
    return method == b"POST" and _INFERENCE.fullmatch(path) is not None


def is_count_tokens(path: bytes) -> bool:
    """Whether a path (no query) only counts tokens."""
    return path.endswith(_COUNT_TOKENS)


def is_answered_here(method: bytes, target: bytes) -> bool:
    """Whether this is a client's probe of its base url, which Clew answers 200 itself."""
    return method == b"HEAD" and split_run(target.partition(b"?")[0])[1] in _LOCAL_HEADS


def compose_target(base_path: bytes, path: bytes, vendor: str = "") -> bytes:
    """A request's path (query allowed) below a base path.

    A base that ends with ``/v1`` does not double the path's own; ChatGPT's endpoint has none.
    """
    has_version = path.startswith(b"/v1/") or path.partition(b"?")[0] == b"/v1"
    if has_version and vendor == CHATGPT:
        path = path[3:]
    elif has_version and base_path.endswith(b"/v1"):
        base_path = base_path[:-3]
    return base_path + path if path.startswith(b"/") else base_path + b"/" + path


def _path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Path and ``?query`` of a target; an absolute form's authority is unused (RFC 9112 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :] or b"/"
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/") or _TWO_WAYS.search(path) is not None:
        raise ClewError("no_upstream", "this path has no single reading; send a plain one")
    return path, mark + query


def _named(table: RouteTable, path: bytes) -> tuple[Destination | None, bytes]:
    found = _NAMED.fullmatch(path)
    if found is None:
        return None, path
    named = table.by_name.get(found[1].decode("latin-1"))
    rest = found[2] or b"/"
    if named is None or rest.startswith(b"//"):
        raise ClewError("no_upstream", "/u/NAME names no upstream of the configuration")
    return named, rest


def _forwarded(table: RouteTable, headers: Headers) -> Destination | None:
    values = {value for name, value in headers if name == _FORWARD and value}
    if not values:
        return None
    try:
        (value,) = values
        wanted = split_url(value.decode("ascii"))
    except ValueError as fault:
        raise ClewError("forward_not_allowed") from fault
    for item in table.destinations:
        origin = (item.scheme, item.host, item.port)
        if origin == wanted[:3] and _plain_base(item.base_path) == _plain_base(wanted[3]):
            return item
    raise ClewError("forward_not_allowed")


def _plain_base(base_path: bytes) -> bytes:
    return base_path.rstrip(b"/").removesuffix(b"/v1").rstrip(b"/")


def _matching(table: RouteTable, path: bytes, headers: Headers, model: str) -> Destination | None:
    if table.is_built_in:
        vendor = _vendor_by_sign(path, headers)
        return table.by_name[vendor] if vendor else None
    text = path.decode("latin-1")
    for item in table.destinations:
        if item.paths is not None and item.paths.fullmatch(text) is None:
            continue
        if not model or item.models is None or item.models.fullmatch(model) is not None:
            return item
    return None


def _vendor_by_sign(path: bytes, headers: Headers) -> str:
    for wanted, start, vendor in _SIGN_HEADERS:
        for name, value in headers:
            if name == wanted and value and secret_of(name, value).startswith(start):
                return vendor
    for pattern, vendor in PATH_SIGNS:
        if pattern.match(path) is not None:
            return vendor
    return ""


def _passes_restricted(method: bytes, path: bytes, headers: Headers) -> bool:
    """Calls by which one caller cannot reach what another left at the upstream."""
    if _HIDDEN_SLASH.search(path) is not None:
        return False
    if is_inference(method, path):
        return True
    if method == b"GET" and _INFERENCE.fullmatch(path) is not None:
        return any(name == b"upgrade" for name, _ in headers)
    return method in (b"GET", b"HEAD") and _MODELS.fullmatch(path) is not None


def _route(found: Destination, path: bytes, query: bytes) -> Route:
    if b"key=" in query and _must_lose_google_key(found):
        query = _without_google_key(query)
    return Route(
        name=found.upstream.name,
        scheme=found.scheme,
        host=found.host,
        port=found.port,
        base_path=found.base_path,
        target=compose_target(found.base_path, path, found.vendor) + query,
        path=path + query,
        vendor=found.vendor,
        kind=found.upstream.kind,
        upstream=found.upstream,
        has_own_key=found.has_own_key,
    )


def _must_lose_google_key(found: Destination) -> bool:
    is_other_vendor = found.vendor not in ("", GOOGLE)
    return found.has_own_key or is_other_vendor or found.upstream.kind == "engine"


def _without_google_key(query: bytes) -> bytes:
    """A query without ``key=``, in which Google's clients may carry their credential."""
    left = _GOOGLE_KEY.sub(b"", query[1:]).removesuffix(b"&")
    return b"?" + left if left else b""
