"""Decides which configurations cannot work, although each value alone is well formed.

A rule yields findings: the keys it looked at (the first is the one to change) and what to do. What
this version does not have is one table, `NOT_YET`: a row leaves it when the feature arrives.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from clew.config.addresses import check_url, masked_url, read_listen
from clew.config.schema import Config, Store, Upstream
from clew.config.units import read_rate
from clew.core.clients import ClientTable, client_list
from clew.core.translate import IDENTITY_OUT

DAY_S: Final = 86_400.0
MAX_TTL_S: Final = 365 * DAY_S
MAX_WORKERS: Final = 256
"""More processes than any host has cores for: a slip of the keyboard, not a wish."""

FORBIDDEN_HEADERS: Final = frozenset(
    # RFC 9110 §7.6.1 and what frames, routes or authenticates a message.
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "accept-encoding",
        "expect",
        "date",
        "via",
        "forwarded",
        "authorization",
        "proxy-authorization",
        "proxy-authenticate",
        "www-authenticate",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-clew-key",
        "anthropic-version",
        "chatgpt-account-id",
        "user-agent",
        "origin",
        "referer",
    )
)
"""Headers whose value decides more than identity; Clew never writes a session id into them."""

BUILT_IN_SOURCES: Final = frozenset(entry.name for entry in client_list(ClientTable()))
"""Names a client of one's own cannot take: a source must mean one thing."""

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_UPSTREAM_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CLIENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SINK: Final = re.compile(r"clew|stderr|dynamo:.+|otlp:.+", re.DOTALL)
_DISCOVERY: Final = re.compile(
    r"static|file:.+|etcd:.+|kubernetes:[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}(?::[a-z0-9-]{1,15})?",
    re.DOTALL,
)
_HEALTH_PATH: Final = re.compile(r"/[A-Za-z0-9._~/%?=&+-]{0,255}", re.ASCII)
_CLAIMS: Final = re.compile(r"memory|file:/.*|etcd:https?://.+", re.DOTALL)
_STORE: Final = re.compile(r"(?:sqlite:///.+|postgresql(?:\+psycopg)?://.+)?", re.DOTALL)


class Finding(NamedTuple):
    """What a rule found: the keys it looked at, the one to change first, and what to do."""

    keys: tuple[str, ...]
    text: str


class NotYet(NamedTuple):
    """A key, whether a configuration asks for more than this version has, and what that is."""

    key: str
    asks: Callable[[Config], bool]
    feature: str


def _any_upstream(test: Callable[[Upstream], bool]) -> Callable[[Config], bool]:
    return lambda config: any(test(upstream) for upstream in config.upstream)


NOT_YET: Final = (
    NotYet(
        "store.max_bytes", lambda c: c.store.max_bytes != Store().max_bytes, "a bound on the store"
    ),
    NotYet("journal.on_failure", lambda c: c.journal.on_failure != "refuse", "serving unrecorded"),
    NotYet("capture.content", lambda c: c.capture.content != "none", "content capture"),
    NotYet("trace.sinks", lambda c: c.trace.sinks != ("clew",), "trace sinks other than clew"),
)
"""What is configured but not in this version. It can only shrink."""


def find_faults(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Every fault of a configuration whose values are well formed one by one."""
    for rule in RULES:
        yield from rule(config, environ)
    for row in NOT_YET:
        if row.asks(config):
            yield Finding((row.key,), f"{row.feature}: not available in this version of Clew")


def _listen_addresses(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    addresses = {"server.listen": config.server.listen, "admin.listen": config.admin.listen}
    for key, text in addresses.items():
        yield from _refused(key, read_listen, text)


def _listen_with_auth(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    try:
        listen = read_listen(config.server.listen)
    except ValueError:
        return
    if config.auth.mode == "none" and not listen.is_loopback:
        yield Finding(
            ("server.listen", "auth.mode"),
            f'{listen} is reachable from other machines and auth.mode is "none"; '
            "listen on 127.0.0.1 or choose another auth.mode",
        )


def _listen_apart(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    same = config.server.listen == config.admin.listen
    if same and not config.server.listen.endswith(":0"):
        yield Finding(
            ("admin.listen", "server.listen"),
            f"{config.admin.listen} is also server.listen; give each its own port",
        )


def _ranges(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    positive = {
        "sessions.idle_after": config.sessions.idle_after,
        "sessions.retention": config.sessions.retention,
        "journal.retention": config.journal.retention,
        "capture.retention": config.capture.retention,
        "store.max_bytes": config.store.max_bytes,
        "capture.max_bytes": config.capture.max_bytes,
        "server.max_body_bytes": config.server.max_body_bytes,
    }
    for key, value in positive.items():
        if value <= 0:
            yield Finding((key,), "must be more than zero")
    if config.server.workers > MAX_WORKERS:
        yield Finding(("server.workers",), f"must be at most {MAX_WORKERS}")
    for key, upstream in _upstreams(config):
        ttl = upstream.affinity.ttl
        if ttl and not 1 <= ttl <= MAX_TTL_S:
            yield Finding((f"{key}.affinity.ttl",), 'must be "0s" (off) or from "1s" to "365d"')


def _memory_claims(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    if config.claims.store != "memory" or config.server.workers == 1:
        return
    for key, upstream in _upstreams(config):
        if upstream.affinity.ttl > 0:
            yield Finding(
                (f"{key}.affinity.ttl", "claims.store", "server.workers"),
                'affinity with claims.store "memory" needs server.workers = 1: processes cannot '
                "see each other's claims; use file: or etcd: claims, or one worker",
            )


def _upstream_names(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    counts = Counter(upstream.name for upstream in config.upstream)
    seen: set[str] = set()
    for key, upstream in _upstreams(config):
        if not _UPSTREAM_NAME.fullmatch(upstream.name):
            yield Finding(
                (f"{key}.name",),
                "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit: "
                "it is a part of the path /u/NAME/",
            )
        if counts[upstream.name] > 1 and upstream.name in seen:
            yield Finding((f"{key}.name",), f'"{upstream.name}" is already an upstream')
        seen.add(upstream.name)


def _upstream_urls(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        if upstream.url:
            yield from _refused(f"{key}.url", check_url, upstream.url)
        for name in ("workers", "prefill", "decode"):
            urls: tuple[str, ...] = getattr(upstream, name)
            for number, url in enumerate(urls):
                yield from _refused(f"{key}.{name}[{number}]", check_url, url)
            if len(set(urls)) != len(urls):
                yield Finding((f"{key}.{name}",), "names the same url twice")


def _upstream_shape(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        two_phase = bool(upstream.prefill or upstream.decode)
        for wrong, name, text in (
            (
                not (upstream.url or upstream.workers or two_phase)
                and (upstream.kind != "engine" or upstream.discovery == "static"),
                "url",
                "is missing; an engine may have workers instead",
            ),
            (
                bool(upstream.workers) and two_phase,
                "workers",
                "excludes prefill and decode; use one or the other",
            ),
            (
                bool(upstream.url) and two_phase,
                "url",
                "excludes prefill and decode; use one or the other",
            ),
            (
                bool(upstream.workers or two_phase) and upstream.discovery != "static",
                "discovery",
                "excludes workers, prefill and decode: they are listed by one of the two",
            ),
            (
                upstream.discovery != "static" and upstream.kind != "engine",
                "discovery",
                'belongs to kind = "engine"; a provider or gateway has a url',
            ),
            (
                bool(upstream.prefill) != bool(upstream.decode),
                "prefill",
                "and decode belong together; give both",
            ),
            (
                bool(upstream.workers or two_phase) and upstream.kind != "engine",
                "workers",
                'belongs to kind = "engine"; a provider or gateway has a url',
            ),
            (
                bool(upstream.api_key_env and upstream.api_key_file),
                "api_key_file",
                "excludes api_key_env; use one or the other",
            ),
        ):
            if wrong:
                yield Finding((f"{key}.{name}",), text)


def _bootstrap_ports(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        ports = upstream.bootstrap_ports
        if not ports:
            continue
        if upstream.hand_over != "sglang":
            yield Finding(
                (f"{key}.bootstrap_ports", f"{key}.hand_over"), 'belongs to hand_over = "sglang"'
            )
        if len(ports) not in (1, len(upstream.prefill)):
            yield Finding(
                (f"{key}.bootstrap_ports", f"{key}.prefill"),
                "must be one port for all of prefill, or one for each in its order",
            )
        if not all(0 < port < 65536 for port in ports):
            yield Finding((f"{key}.bootstrap_ports",), "must be ports, 1 to 65535")


def _upstream_keys(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The value of a name is never repeated: people paste the key itself here."""
    for key, upstream in _upstreams(config):
        variable, file = upstream.api_key_env, upstream.api_key_file
        if variable and not _VARIABLE.fullmatch(variable):
            yield Finding((f"{key}.api_key_env",), "must be the name of an environment variable")
        elif variable and not environ.get(variable):
            yield Finding((f"{key}.api_key_env",), "names a variable that is not set")
        if file and not Path(file).is_file():
            yield Finding((f"{key}.api_key_file",), "names no file")


def _upstream_patterns(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        for name in ("paths", "models"):
            patterns: tuple[str, ...] = getattr(upstream, name)
            if not patterns:
                yield Finding((f"{key}.{name}",), 'must name at least one pattern; "*" is any')
            for number, pattern in enumerate(patterns):
                text = _pattern_fault(name, pattern)
                if text:
                    yield Finding((f"{key}.{name}[{number}]",), text)


def _pattern_fault(name: str, pattern: str) -> str:
    if not pattern or not pattern.isprintable() or " " in pattern:
        return 'must be a pattern without spaces, such as "*" or "my-*"'
    if name == "paths" and pattern[0] not in "/*":
        return 'must begin with "/" or "*", such as "/v1/*"'
    if name == "paths" and ("?" in pattern or "#" in pattern):
        return "must be a path without query or fragment"
    return ""


def _identity_out(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        wanted = upstream.identity_out
        if wanted not in IDENTITY_OUT:
            text = _header_fault(wanted)
            if text:
                words = ", ".join(IDENTITY_OUT)
                yield Finding((f"{key}.identity_out",), f"{text}; or one of {words}")


def _header_fault(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        return "must be a header name (letters, digits, hyphens)"
    if name.lower().replace("_", "-") in FORBIDDEN_HEADERS:
        return f"must not be {name.lower()}: that header frames, routes or authenticates a message"
    return ""


def _clients(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    counts = Counter(client.name for client in config.sessions.client)
    for number, client in enumerate(config.sessions.client):
        key = f"sessions.client[{number}]"
        if not _CLIENT_NAME.fullmatch(client.name):
            yield Finding((f"{key}.name",), "must be 1 to 64 of a-z 0-9 . _ -")
        if client.name in BUILT_IN_SOURCES:
            yield Finding((f"{key}.name",), f'"{client.name}" is a client Clew knows already')
        if counts[client.name] > 1 and number:
            yield Finding((f"{key}.name",), f'"{client.name:.64}" is already a client')
        for name in ("session", "parent", "agent"):
            header: str = getattr(client, name)
            text = _client_header_fault(header) if header or name == "session" else ""
            if text:
                yield Finding((f"{key}.{name}",), text)


def _client_header_fault(name: str) -> str:
    if name.lower().startswith(("x-dynamo-", "x-clew-")):
        return f"must not be {name.lower()}: canonical headers have a meaning of their own"
    return _header_fault(name)


def _admin_token(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    file = config.admin.token_file
    if file and not Path(file).expanduser().is_file():
        yield Finding(
            ("admin.token_file",), "names no file; leave it empty and a token is made at start"
        )


def _auth_secret(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    name = config.auth.secret_env
    if not _VARIABLE.fullmatch(name):
        yield Finding(("auth.secret_env",), "must be the name of an environment variable")
        return
    is_shared = config.claims.store != "memory" or config.store.url.startswith("postgresql")
    if config.auth.mode == "credential" and is_shared and not environ.get(name):
        yield Finding(
            ("auth.secret_env", "auth.mode", "claims.store", "store.url"),
            f"{name} is not set; several gateways with auth.mode "
            '"credential" must share one secret',
        )


def _auth_by_upstream(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    """In mode credential the upstream is what verifies the client's key."""
    if config.auth.mode != "credential":
        return
    for key, upstream in _upstreams(config):
        name = "api_key_env" if upstream.api_key_env else "api_key_file"
        if upstream.api_key_env or upstream.api_key_file:
            yield Finding(
                (f"{key}.{name}", "auth.mode"),
                'with auth.mode "credential" the upstream verifies the client\'s key; one that is '
                'called with Clew\'s own key would let anybody in: use auth.mode "keys"',
            )


def _places(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, pattern, text, expected in (
        ("claims.store", _CLAIMS, config.claims.store, "memory, file:/shared/dir, etcd:http://…"),
        ("store.url", _STORE, config.store.url, "empty, sqlite:///path or postgresql://…"),
    ):
        if not pattern.fullmatch(text):
            yield Finding((key,), f"must be {expected}; found {masked_url(text)!r:.60}")
    for key, upstream in _upstreams(config):
        if not _DISCOVERY.fullmatch(upstream.discovery):
            expected = "static, file:PATH, etcd:PREFIX or kubernetes:NAMESPACE/SERVICE"
            yield Finding((f"{key}.discovery",), f"must be {expected}")


def _discovery(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a source of workers can be asked from here."""
    for key, upstream in _upstreams(config):
        word, _, rest = upstream.discovery.partition(":")
        is_addressed = rest.startswith(("http://", "https://"))
        if word == "etcd" and not is_addressed and not config.claims.store.startswith("etcd:"):
            yield Finding(
                (f"{key}.discovery", "claims.store"),
                "needs etcd's address: etcd:http://HOST:2379/PREFIX, or claims.store = etcd:http://…",
            )
        if word == "etcd" and is_addressed:
            address, _, prefix = rest.partition("://")[2].rpartition("/")
            if not address or not prefix:
                yield Finding((f"{key}.discovery",), "needs a prefix: etcd:http://HOST:2379/PREFIX")
        if word == "kubernetes" and not environ.get("KUBERNETES_SERVICE_HOST"):
            yield Finding(
                (f"{key}.discovery",),
                "kubernetes: works in a pod, and KUBERNETES_SERVICE_HOST is not set here",
            )


def _health(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for key, upstream in _upstreams(config):
        path = upstream.health.path
        if path and not _HEALTH_PATH.fullmatch(path):
            yield Finding(
                (f"{key}.health.path",),
                'must be a path such as "/health", or "" where a connection is proof enough',
            )


def _sinks(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for number, sink in enumerate(config.trace.sinks):
        if not _SINK.fullmatch(sink):
            yield Finding(
                (f"trace.sinks[{number}]",),
                f"must be clew, dynamo:PATH, otlp:URL or stderr; found {masked_url(sink)!r:.60}",
            )
    if len(set(config.trace.sinks)) != len(config.trace.sinks):
        yield Finding(("trace.sinks",), "names the same sink twice")


def _rates(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for number, limit in enumerate(config.limit):
        key = f"limit[{number}]"
        if not (limit.requests or limit.tokens):
            yield Finding((key,), "limits nothing; give requests or tokens")
        yield from _unused_scope(config, f"{key}.scope", limit.scope)
        for name in ("requests", "tokens"):
            text: str = getattr(limit, name)
            if text:
                yield from _refused(f"{key}.{name}", read_rate, text)


def _unused_scope(config: Config, key: str, scope: str) -> Iterator[Finding]:
    """Only gateway keys have a team and a project."""
    if scope in ("team", "project") and config.auth.mode != "keys":
        yield Finding(
            (key, "auth.mode"),
            f'"{scope}" covers nobody with auth.mode "{config.auth.mode}": gateway keys alone '
            'have one; use "principal", or auth.mode "keys"',
        )


def _budgets(config: Config, _: Mapping[str, str]) -> Iterator[Finding]:
    for number, budget in enumerate(config.budget):
        # NaN fails both comparisons.
        if not 0 < budget.usd < 1e9:
            yield Finding((f"budget[{number}].usd",), "must be more than zero and below a billion")
        yield from _unused_scope(config, f"budget[{number}].scope", budget.scope)
    counts = Counter((b.scope, b.window, b.action) for b in config.budget)
    if any(count > 1 for count in counts.values()):
        yield Finding(("budget",), "names the same scope, window and action twice; keep the lower")
    if config.budget and config.journal.on_failure == "serve":
        yield Finding(
            ("journal.on_failure", "budget"),
            '"serve" lets calls through uncounted, which no budget allows; use "refuse"',
        )


def _upstreams(config: Config) -> Iterator[tuple[str, Upstream]]:
    for number, upstream in enumerate(config.upstream):
        yield f"upstream[{number}]", upstream


def _refused(key: str, read: Callable[[str], object], text: str) -> Iterator[Finding]:
    try:
        read(text)
    except ValueError as error:
        yield Finding((key,), str(error))


Rule = Callable[[Config, Mapping[str, str]], Iterator[Finding]]

RULES: Final[tuple[Rule, ...]] = (
    _listen_addresses,
    _listen_with_auth,
    _listen_apart,
    _ranges,
    _memory_claims,
    _upstream_names,
    _upstream_urls,
    _upstream_shape,
    _bootstrap_ports,
    _upstream_keys,
    _upstream_patterns,
    _identity_out,
    _clients,
    _admin_token,
    _auth_secret,
    _auth_by_upstream,
    _places,
    _discovery,
    _health,
    _sinks,
    _rates,
    _budgets,
)
