"""The configuration as frozen values: every key of `docs/configuration.md`, its type and default.

Durations and sizes are written as in the file (``"24h"``, ``"2GiB"``) and read by `config.units`
into seconds and bytes while loading; the structs below hold the read values.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown keys are refused."""


class Server(_Section):
    listen: str = "127.0.0.1:2539"
    workers: Positive = 1
    drain_s: NonNegative = 600
    max_body_bytes: Positive = 33_554_432
    header_timeout_s: Positive = 10
    body_idle_s: Positive = 30
    keepalive_s: Positive = 75


class Upstreams(_Section):
    connect_s: Positive = 10
    first_byte_s: NonNegative = 0
    stream_idle_s: NonNegative = 900


class Admin(_Section):
    listen: str = "127.0.0.1:2540"
    token_file: str = ""


class Auth(_Section):
    mode: Literal["none", "keys", "credential"] = "none"
    secret_env: str = "CLEW_SECRET"
    allow_subscription: bool = False


class Client(_Section):
    """A user's own client: values of ``session``, ``parent`` and ``agent`` are header names."""

    name: str
    session: str
    parent: str = ""
    agent: str = ""
    lifetime: Literal["durable", "restart", "request"] = "durable"


class Sessions(_Section):
    resume: Literal["proof", "recency", "off"] = "proof"
    after_close: Literal["", "reject", "allow"] = ""
    resume_max_age: float = 86_400.0
    idle_after: float = 1_800.0
    retention: float = 90 * 86_400.0
    cascade_close: bool = False
    client: tuple[Client, ...] = ()


class Affinity(_Section):
    ttl: float = 0.0
    """Seconds; 0 turns affinity off."""
    binding: Literal["immutable", "rebind", "prefer"] = "immutable"
    place: Literal["least_loaded", "round_robin", "consistent_hash", "prefix"] = "least_loaded"
    subagents: Literal["own", "with_parent"] = "own"


class Upstream(_Section):
    name: str
    url: str = ""
    paths: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    kind: Literal["provider", "engine", "gateway"] = "provider"
    api_key_env: str = ""
    api_key_file: str = ""
    identity_out: str = "none"
    workers: tuple[str, ...] = ()
    discovery: str = "static"
    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    affinity: Affinity = Affinity()


class Claims(_Section):
    store: str = "memory"
    lease_s: Positive = 10
    on_outage: Literal["refuse", "unbound"] = "refuse"


class Store(_Section):
    url: str = ""
    max_bytes: int = 2 * 1024**3


class Journal(_Section):
    sync: Literal["always", "interval", "never"] = "always"
    retention: float = 7 * 86_400.0
    on_failure: Literal["refuse", "serve"] = "refuse"


class Capture(_Section):
    content: Literal["none", "shape", "full"] = "none"
    max_bytes: int = 1024**3
    retention: float = 7 * 86_400.0


class Metering(_Section):
    on_disconnect: Literal["cancel", "drain"] = "cancel"
    ask_usage: Literal["engines", "always", "never"] = "engines"


class Limit(_Section):
    scope: Literal["session", "tree", "principal", "team", "project"]
    requests: str = ""
    tokens: str = ""


class Budget(_Section):
    scope: Literal["session", "tree", "principal", "team", "project"]
    usd: float
    window: Literal["session", "day", "month"] = "session"
    action: Literal["reject", "warn"] = "reject"


class Prices(_Section):
    file: str = ""


class Websocket(_Section):
    mode: Literal["refuse", "tunnel"] = "refuse"


class Trace(_Section):
    sinks: tuple[str, ...] = ("clew",)


class Config(_Section):
    """The whole configuration of one installation."""

    server: Server = Server()
    upstreams: Upstreams = Upstreams()
    admin: Admin = Admin()
    auth: Auth = Auth()
    sessions: Sessions = Sessions()
    upstream: tuple[Upstream, ...] = ()
    """Empty: the built-in upstreams."""
    claims: Claims = Claims()
    store: Store = Store()
    journal: Journal = Journal()
    capture: Capture = Capture()
    metering: Metering = Metering()
    limit: tuple[Limit, ...] = ()
    budget: tuple[Budget, ...] = ()
    prices: Prices = Prices()
    websocket: Websocket = Websocket()
    trace: Trace = Trace()
    data: str = ""
    """The data directory; not a key of the file: ``--data`` or the platform's."""
