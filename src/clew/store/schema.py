"""The store's tables, in SQLAlchemy Core. Times are Unix nanoseconds, money integer nano-dollars.

Rows are keyed so that projection commutes: counters add, first and last times are min and max,
closed wins. Every table that belongs to a caller carries ``principal``.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

metadata: Final = sa.MetaData()

_ns = sa.BigInteger
_id = sa.String(64)
_row_number: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""Of rows without a key of their own; SQLite numbers only an INTEGER, which is as wide there."""


def _counters() -> list[sa.Column[int]]:
    names = (
        "requests",
        "errors",
        "input_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "output_tokens",
        "billed_nanousd",
        "imputed_nanousd",
        "unpriced",
    )
    return [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in names]


sessions: Final = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("principal", sa.String(128), nullable=False),
    sa.Column("session_id", sa.String(1024), nullable=False),
    sa.Column("team", sa.String(128), nullable=False, server_default=""),
    sa.Column("project", sa.String(128), nullable=False, server_default=""),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("client", sa.String(64), nullable=False, server_default=""),
    sa.Column("parent_id", _id),
    sa.Column("root_id", _id, nullable=False),
    sa.Column("depth", sa.Integer, nullable=False, server_default="0"),
    sa.Column("forked_from", _id),
    # A parent named before it was seen: it becomes a full session with its first own request.
    sa.Column("is_placeholder", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("is_subagent", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("opened_at_ns", _ns, nullable=False),
    # Which attempt opened it, and when its parent was claimed: ties and late journals are settled
    # by these, so that the order of projection does not matter.
    sa.Column("opened_by", sa.String(96), nullable=False, server_default=""),
    sa.Column("parent_at_ns", _ns),
    sa.Column("worker_at_ns", _ns, nullable=False, server_default="0"),
    sa.Column("last_seen_ns", _ns, nullable=False),
    sa.Column("closed_at_ns", _ns),
    sa.Column("close_reason", sa.String(64)),
    sa.Column("worker", sa.String(256)),
    *_counters(),
    sa.Index("sessions_by_last_seen", "principal", "last_seen_ns", "id"),
    sa.Index("sessions_by_recency", "last_seen_ns", "id"),
    sa.Index("sessions_by_root", "root_id"),
    sa.Index("sessions_by_parent", "parent_id"),
    sa.Index("sessions_by_external", "session_id"),
)

aliases: Final = sa.Table(
    "aliases",
    metadata,
    sa.Column("principal", sa.String(128), primary_key=True),
    sa.Column("family", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(1024), primary_key=True),
    sa.Column("session", _id, nullable=False),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("scope", sa.String(8), nullable=False),
    sa.Column("lifetime", sa.String(8), nullable=False),
    sa.Column("first_seen_ns", _ns, nullable=False),
    sa.Column("last_seen_ns", _ns, nullable=False),
    sa.Index("aliases_by_session", "session"),
    sa.Index("aliases_by_value", "value"),
)

# How often a session used each model and each kind of call.
tallies: Final = sa.Table(
    "tallies",
    metadata,
    sa.Column("session", _id, primary_key=True),
    sa.Column("dimension", sa.String(8), primary_key=True),  # model | kind
    sa.Column("value", sa.String(256), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
)

attempts: Final = sa.Table(
    "attempts",
    metadata,
    sa.Column("request_id", _id, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("session", _id),
    sa.Column("session_id", sa.String(1024)),
    sa.Column("parent_session_id", sa.String(1024)),
    sa.Column("root", _id),
    sa.Column("principal", sa.String(128), nullable=False),
    sa.Column("team", sa.String(128), nullable=False, server_default=""),
    sa.Column("project", sa.String(128), nullable=False, server_default=""),
    sa.Column("source", sa.String(64)),
    sa.Column("client", sa.String(64), nullable=False, server_default=""),
    sa.Column("resolution", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("transport", sa.String(16), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("path", sa.String(8192), nullable=False),
    sa.Column("upstream", sa.String(64), nullable=False),
    sa.Column("vendor", sa.String(32), nullable=False, server_default=""),
    sa.Column("api", sa.String(16), nullable=False, server_default=""),
    sa.Column("worker", sa.String(256)),
    sa.Column("binding", sa.String(16)),
    sa.Column("epoch", sa.BigInteger),
    # Why this worker; empty where there was no choice.
    sa.Column("placed_by", sa.String(32), nullable=False, server_default=""),
    sa.Column("model", sa.String(256), nullable=False, server_default=""),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("error", sa.String(64), nullable=False, server_default=""),
    sa.Column("received_at_ns", _ns, nullable=False),
    sa.Column("first_byte_us", sa.BigInteger),
    sa.Column("ttft_us", sa.BigInteger),
    sa.Column("total_us", sa.BigInteger),
    sa.Column("overhead_us", sa.BigInteger),
    # Null where the upstream said nothing and nothing could be estimated.
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("cached_tokens", sa.BigInteger),
    sa.Column("cache_write_tokens", sa.BigInteger),
    sa.Column("cache_write_1h_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("reasoning_tokens", sa.BigInteger),
    sa.Column("estimated", sa.Boolean, nullable=False),
    # Null when unpriced; exactly one of them otherwise, by `billing`.
    sa.Column("billed_nanousd", sa.BigInteger),
    sa.Column("imputed_nanousd", sa.BigInteger),
    sa.Column("billing", sa.String(16), nullable=False),
    sa.Column("price_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("request_bytes", sa.BigInteger, nullable=False),
    sa.Column("response_bytes", sa.BigInteger, nullable=False),
    sa.Column("client_disconnected", sa.Boolean, nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # settled | unsettled
    # The session that the attempt's own id opens, whichever it was counted for: what a split
    # takes back by. And its place in the order in which rows landed here (`landing`).
    sa.Column("own", _id),
    sa.Column("landed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("flags", sa.JSON, nullable=False),
    sa.Index("attempts_by_session", "session", "received_at_ns"),
    sa.Index("attempts_by_time", "received_at_ns"),
    sa.Index("attempts_by_root", "root"),
    sa.Index("attempts_by_landing", "landed"),
)

# The worker each session holds, by upstream and phase (empty, prefill, decode).
bindings: Final = sa.Table(
    "bindings",
    metadata,
    sa.Column("session", _id, primary_key=True),
    sa.Column("upstream", sa.String(64), primary_key=True),
    sa.Column("phase", sa.String(8), primary_key=True),
    sa.Column("worker", sa.String(256), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("bound_at_ns", _ns, nullable=False),
    sa.Index("bindings_by_worker", "worker"),
)

# What attempts cost by a later price table: one row for each time one changed, never altered. The
# attempt's own row shows what holds now; the first row here what it was at first.
corrections: Final = sa.Table(
    "corrections",
    metadata,
    sa.Column("id", _row_number, primary_key=True, autoincrement=True),
    sa.Column("request_id", _id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("received_at_ns", _ns, nullable=False),
    sa.Column("at_ns", _ns, nullable=False),
    sa.Column("before_nanousd", sa.BigInteger),  # null: it was unpriced
    sa.Column("after_nanousd", sa.BigInteger, nullable=False),
    sa.Column("is_billed", sa.Boolean, nullable=False),
    sa.Column("before_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("after_version", sa.String(64), nullable=False),
    sa.Index("corrections_by_attempt", "request_id", "attempt"),
    sa.Index("corrections_by_time", "received_at_ns"),
)

# How far the windows of a subscription are used, as its vendor said last (`core.plan`).
plan_windows: Final = sa.Table(
    "plan_windows",
    metadata,
    sa.Column("principal", sa.String(128), primary_key=True),
    sa.Column("vendor", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("used_percent", sa.Float),
    sa.Column("status", sa.String(32), nullable=False, server_default=""),
    sa.Column("window_s", sa.BigInteger),
    sa.Column("resets_at_ns", _ns),
    sa.Column("seen_at_ns", _ns, nullable=False),
)

# Intents whose outcome has not been read yet; what the projector holds over its own restart.
open_attempts: Final = sa.Table(
    "open_attempts",
    metadata,
    sa.Column("request_id", _id, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("journal", sa.String(128), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)

# Which session got a response id (order 8, `previous_response_id`).
responses: Final = sa.Table(
    "responses",
    metadata,
    sa.Column("principal", sa.String(128), primary_key=True),
    sa.Column("response_id", sa.String(256), primary_key=True),
    sa.Column("session", _id, nullable=False),
    sa.Column("seen_ns", _ns, nullable=False),
    sa.Column("own", _id),  # as in attempts
    sa.Index("responses_by_session", "session"),
)

# What happened to a session, and why: opened, aliased, migrated, resumed, forked, closed…
session_events: Final = sa.Table(
    "session_events",
    metadata,
    sa.Column("id", _row_number, primary_key=True, autoincrement=True),
    sa.Column("session", _id, nullable=False),
    sa.Column("at_ns", _ns, nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    # What it is about where it happens once only (``opened``, ``alias:…``); null otherwise.
    sa.Column("subject", sa.String(1200)),
    sa.Column("reason", sa.String(256), nullable=False, server_default=""),
    sa.Column("evidence", sa.JSON),
    sa.Column("before", sa.JSON),
    sa.Column("after", sa.JSON),
    sa.Index("session_events_by_session", "session", "id"),
    sa.Index("session_events_once", "session", "subject", unique=True),
)

# How far each journal file has been projected, committed with the rows: exactly once.
journal_positions: Final = sa.Table(
    "journal_positions",
    metadata,
    sa.Column("journal", sa.String(128), primary_key=True),
    sa.Column("segment", sa.Integer, nullable=False, server_default="0"),
    sa.Column("offset", sa.BigInteger, nullable=False),
)

# Sessions whose children still have to be given their root and depth: trees may be deep, and a
# transaction repairs a bounded part of one.
tree_repairs: Final = sa.Table(
    "tree_repairs",
    metadata,
    sa.Column("session", _id, primary_key=True),
)

# Sessions that were closed together with everything below them, whose children still have to be
# closed: as with `tree_repairs`, a transaction closes a bounded part.
cascades: Final = sa.Table(
    "cascades",
    metadata,
    sa.Column("session", _id, primary_key=True),
    sa.Column("at_ns", _ns, nullable=False),
    sa.Column("beyond", _id, nullable=False, server_default=""),
)

# Where attempts land that the journal names for another session (`core.moves`): the source was
# merged, an id was split off it, or it was forgotten.
moves: Final = sa.Table(
    "moves",
    metadata,
    sa.Column("session", _id, primary_key=True),
    sa.Column("own", _id, primary_key=True),  # empty: every attempt of the session
    sa.Column("until_ns", _ns, primary_key=True),  # 0: whenever it was received
    sa.Column("target", _id, nullable=False),
    sa.Column("at_ns", _ns, nullable=False),
    # What a merged session was, so that it can be split off again.
    sa.Column("saved", sa.JSON),
    sa.Index("moves_by_target", "target"),
)

# One row: the number of the attempt that landed last. A row lock orders several keepers, so that
# numbers become visible in their order.
landing: Final = sa.Table(
    "landing",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
)

# Gateway keys. The key itself is never here, only its keyed hash; rows outlive the key, because
# they say who could call when.
keys: Final = sa.Table(
    "keys",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("name", sa.String(128), nullable=False, server_default=""),
    sa.Column("principal", sa.String(128), nullable=False),
    sa.Column("team", sa.String(128), nullable=False, server_default=""),
    sa.Column("project", sa.String(128), nullable=False, server_default=""),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created_at_ns", _ns, nullable=False),
    sa.Column("expires_at_ns", _ns),
    # Set when it was replaced: until then it is still accepted.
    sa.Column("grace_until_ns", _ns),
    sa.Column("replaced_by", _id),
    sa.Column("revoked_at_ns", _ns),
    # Coarse: gateways report their keys once a minute.
    sa.Column("last_used_ns", _ns),
    sa.Index("keys_by_hash", "hash", unique=True),
    sa.Index("keys_by_creation", "created_at_ns", "id"),
)

# What each lineage scope has changed, in order; compacted when a scope is loaded.
lineage_log: Final = sa.Table(
    "lineage_log",
    metadata,
    sa.Column("id", _row_number, primary_key=True, autoincrement=True),
    sa.Column("scope", sa.String(512), nullable=False),
    sa.Column("changes", sa.LargeBinary, nullable=False),
    # Which installation wrote it, where several share the store; empty where one is alone.
    sa.Column("instance", sa.String(64), nullable=False, server_default=""),
    sa.Index("lineage_log_by_scope", "scope", "id"),
)

# One row in a shared store: by it a keeper sees that its secret is that of the others.
secret_proof: Final = sa.Table(
    "secret_proof",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("proof", sa.LargeBinary(32), nullable=False),
)

# What keepers tell each other of a shared store, in the order of their commits (`store.changes`).
# The first row is there from the beginning: the oldest that is left says how far was forgotten.
changes: Final = sa.Table(
    "changes",
    metadata,
    sa.Column("id", _row_number, primary_key=True, autoincrement=True),
    sa.Column("instance", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("subject", _id, nullable=False),
    sa.Column("detail", sa.LargeBinary),
    sa.Column("at_ns", _ns, nullable=False),
)

# The audit chain of each installation (`core.audit`): its last record, and the last one that is
# known to be on disk in DATA/audit.
audit_heads: Final = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("instance", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("written_seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("written_hash", sa.String(64), nullable=False, server_default=""),
)

# Lines of the chain, committed with what they record, that the files do not hold for certain yet.
audit_outbox: Final = sa.Table(
    "audit_outbox",
    metadata,
    sa.Column("instance", sa.String(64), primary_key=True),
    sa.Column("last_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("lines", sa.LargeBinary, nullable=False),
)

# By what a session's names are sealed in the audit chain. Forgetting a session removes its salt.
audit_salts: Final = sa.Table(
    "audit_salts",
    metadata,
    sa.Column("session", _id, primary_key=True),
    sa.Column("salt", sa.LargeBinary(16), nullable=False),
)

# Why a call found less in the upstream's cache than the call before it (`core.cache_break`).
cache_breaks: Final = sa.Table(
    "cache_breaks",
    metadata,
    sa.Column("request_id", _id, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ns", _ns, nullable=False),
    sa.Column("cause", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, server_default=""),
    sa.Column("block", sa.Integer),
    sa.Column("lost_tokens", sa.BigInteger, nullable=False),
    sa.Column("idle_s", sa.BigInteger, nullable=False),
    sa.Index("cache_breaks_by_time", "at_ns"),
)

# What a budget's subject has spent in one window, and what calls in flight hold of it.
budget_accounts: Final = sa.Table(
    "budget_accounts",
    metadata,
    sa.Column("id", sa.String(320), primary_key=True),  # scope, period and subject as one text
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(256), nullable=False),
    sa.Column("period", sa.String(16), nullable=False),  # 2026-11-22, 2026-11, or empty
    sa.Column("spent_nanousd", sa.BigInteger, nullable=False),
    sa.Column("reserved_nanousd", sa.BigInteger, nullable=False),
    sa.Column("extended_nanousd", sa.BigInteger, nullable=False),
    sa.Column("last_nanousd", sa.BigInteger, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    sa.Column("updated_at_ns", _ns, nullable=False),
    sa.Index("budget_accounts_by_update", "updated_at_ns"),
)

# How far each rate limit of a subject is used up (`core.limits`); a full bucket needs no row.
limit_buckets: Final = sa.Table(
    "limit_buckets",
    metadata,
    sa.Column("id", sa.String(320), primary_key=True),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("subject", sa.String(256), nullable=False),
    sa.Column("rate", sa.String(40), nullable=False),
    sa.Column("full_at_ns", _ns, nullable=False),
    sa.Column("seen_at_ns", _ns, nullable=False),
    sa.Index("limit_buckets_by_full", "full_at_ns"),
)

# Calls that were admitted and not settled, with what they hold of accounts and buckets.
grants: Final = sa.Table(
    "grants",
    metadata,
    sa.Column("id", _id, primary_key=True),  # the request's id
    sa.Column("journal", sa.String(128), nullable=False),  # where its intent will be
    sa.Column("state", sa.String(12), nullable=False),  # granted | unsettled
    sa.Column("at_ns", _ns, nullable=False),
    sa.Column("holds", sa.LargeBinary, nullable=False),
    sa.Index("grants_by_journal", "journal", "state"),
)
