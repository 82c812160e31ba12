"""What one request says of itself, before anything is looked up.

Three questions are answered separately (`docs/identity.md`): which run (root), which thread of it
(the session), who spawned it (parent). One value never fills two roles.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

Principal = NewType("Principal", str)
"""Who calls, from authentication only. ``local`` where there is none."""

SessionKey = NewType("SessionKey", str)
"""Clew's own session id: ``cs_`` and 26 base32 letters."""

Headers = list[tuple[bytes, bytes]]
"""A request's fields in order, names lower-cased, values stripped of outer white space."""


class Scope(StrEnum):
    """What an id names."""

    THREAD = "thread"
    TREE = "tree"


class Lifetime(StrEnum):
    """How long a client keeps an id: over its restarts, until one, or for one request."""

    DURABLE = "durable"
    RESTART = "restart"
    REQUEST = "request"


class Kind(StrEnum):
    """What a call is for; the ledger has one row a call whatever its kind."""

    TURN = "turn"
    SUBAGENT = "subagent"
    TITLE = "title"
    SUMMARY = "summary"
    COMPACTION = "compaction"
    COUNT_TOKENS = "count_tokens"
    SIDE = "side"
    OTHER = "other"


class Alias(msgspec.Struct, frozen=True, array_like=True):
    """One external id: (family, value) names one session inside a principal.

    A *family* groups the headers that mean the same for one client (`core.clients`).
    """

    family: str
    value: str
    source: str
    scope: Scope = Scope.THREAD
    lifetime: Lifetime = Lifetime.DURABLE


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """The identity one request carries. ``session`` is None for a request without any id."""

    session: Alias | None = None
    """The strongest id. Thread scope: the session itself; tree scope: it names the root only."""
    parent: Alias | None = None
    root: Alias | None = None
    """The run, when the client names it apart from the parent (Claude Code, Codex)."""
    others: tuple[Alias, ...] = ()
    """Further explicit, unshared thread ids of the same request, strongest first (migration)."""
    forked_from: Alias | None = None
    attach_to: str = ""
    """``X-Clew-Parent``: a session of the same principal, by Clew's or any external id."""
    previous_response_id: str = ""
    """Body's ``previous_response_id`` where no id outranks it (order 8)."""
    kind: Kind = Kind.TURN
    client: str = ""
    """Product and version from the user agent, e.g. ``claude-cli/2.1.330``; at most 64 chars."""
    final: bool = False
    is_subagent: bool = False
    flags: tuple[str, ...] = ()
    """What was odd, by stable name: ``native_id_invalid``, ``parent_is_self``…"""

    @property
    def names_durable_thread(self) -> bool:
        """Whether the body need not be read to know the session."""
        found = self.session
        return (
            found is not None and found.scope is Scope.THREAD and found.lifetime is Lifetime.DURABLE
        )

    def flagged(self, *flags: str) -> Claim:
        """This claim with further flags."""
        return msgspec.structs.replace(self, flags=self.flags + flags)
