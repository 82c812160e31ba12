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


class Server(_Section, frozen=True):
    """The gateway port: address, processes, limits."""

    listen: str = "127.0.0.1:2539"
    workers: Positive = 1
    drain_s: NonNegative = 600
    max_body_bytes: Positive = 33_554_432
    header_timeout_s: Positive = 10
    body_idle_s: Positive = 30
    keepalive_s: Positive = 75


class Upstreams(_Section, frozen=True):
    """Time limits towards every upstream."""

    connect_s: Positive = 10
    first_byte_s: NonNegative = 0
    stream_idle_s: NonNegative = 900


class Admin(_Section, frozen=True):
    """The admin port."""

    listen: str = "127.0.0.1:2540"
    token_file: str = ""


class Auth(_Section, frozen=True):
    """How a caller becomes a principal."""

    mode: Literal["none", "keys", "credential"] = "none"
    secret_env: str = "CLEW_SECRET"  # noqa: S105  the name of a variable
    allow_subscription: bool = False


class Client(_Section, frozen=True):
    """A user's own client: values of ``session``, ``parent`` and ``agent`` are header names."""

    name: str
    session: str
    parent: str = ""
    agent: str = ""
    lifetime: Literal["durable", "restart", "request"] = "durable"


class Sessions(_Section, frozen=True):
    """How requests become sessions, and how long those live."""

    resume: Literal["proof", "recency", "off"] = "proof"
    after_close: Literal["", "reject", "allow"] = ""
    resume_max_age: float = 86_400.0
    idle_after: float = 1_800.0
    retention: float = 90 * 86_400.0
    cascade_close: bool = False
    client: tuple[Client, ...] = ()


class Affinity(_Section, frozen=True):
    """Whether and how a session keeps its worker."""

    ttl: float = 0.0
    """Seconds; 0 turns affinity off."""
    binding: Literal["immutable", "rebind", "prefer"] = "immutable"
    place: Literal["least_loaded", "round_robin", "consistent_hash", "prefix"] = "least_loaded"
    subagents: Literal["own", "with_parent"] = "own"


class Health(_Section, frozen=True):
    """How the workers of an upstream are probed."""

    path: str = "/health"
    """Empty: to connect is enough."""
    interval_s: Positive = 2
    rise: Positive = 2
    """Probes passed in a row until a worker that was down is up."""
    fall: Positive = 3
    """Probes in a row that a worker was unwell in until it is down."""


class Upstream(_Section, frozen=True):
    """One destination; the first that matches a request wins."""

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
    hand_over: Literal["vllm", "sglang"] = "vllm"
    """How the workers of two phases are told of each other."""
    bootstrap_ports: tuple[int, ...] = ()
    """Of SGLang's prefill workers, in their order, or one for all; empty: its own default."""
    affinity: Affinity = Affinity()
    health: Health = Health()


class Claims(_Section, frozen=True):
    """Where bindings are coordinated."""

    store: str = "memory"
    lease_s: Positive = 10
    on_outage: Literal["refuse", "unbound"] = "refuse"


class Store(_Section, frozen=True):
    """Where sessions and records are kept."""

    url: str = ""
    max_bytes: int = 2 * 1024**3


class Journal(_Section, frozen=True):
    """How dispatches and outcomes reach the disk."""

    sync: Literal["always", "interval", "never"] = "always"
    retention: float = 7 * 86_400.0
    on_failure: Literal["refuse", "serve"] = "refuse"


class Capture(_Section, frozen=True):
    """Whether request content is kept."""

    content: Literal["none", "shape", "full"] = "none"
    max_bytes: int = 1024**3
    retention: float = 7 * 86_400.0


class Metering(_Section, frozen=True):
    """How usage is learnt."""

    on_disconnect: Literal["cancel", "drain"] = "cancel"
    ask_usage: Literal["engines", "always", "never"] = "engines"
    cache_breaks: bool = True
    """Whether prompts are compared, as digests, to say why an upstream's cache broke."""


class Limit(_Section, frozen=True):
    """A rate limit."""

    scope: Literal["session", "tree", "principal", "team", "project"]
    requests: str = ""
    tokens: str = ""


class Budget(_Section, frozen=True):
    """A spending limit."""

    scope: Literal["session", "tree", "principal", "team", "project"]
    usd: float
    window: Literal["session", "day", "month"] = "session"
    action: Literal["reject", "warn"] = "reject"


class Prices(_Section, frozen=True):
    """Overrides of the bundled price table."""

    file: str = ""


class Websocket(_Section, frozen=True):
    """What happens to a websocket upgrade."""

    mode: Literal["refuse", "tunnel"] = "refuse"


class Trace(_Section, frozen=True):
    """Where trace records go."""

    sinks: tuple[str, ...] = ("clew",)


class Config(_Section, frozen=True):
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
