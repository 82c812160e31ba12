"""The lineage of every scope: weighed and taken in one step, kept in the store as a change log.

A scope is one principal, client product and API: a restart of the client changes none of them.
Scopes are loaded when first asked for and let go least recently used first; what they changed is
written in batches on the store's writing thread, and a reply is acknowledged only once written.
Reads and writes of one scope are in order, because all of it runs on the keeper's loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import sqlalchemy as sa

from clew.config.schema import Sessions
from clew.core.claim import Alias, Claim, Kind, Principal, SessionKey
from clew.core.clients import product_of
from clew.core.lineage.blocks import Conversation
from clew.core.lineage.changes import Change
from clew.core.lineage.index import Limits, ScopeIndex
from clew.core.lineage.threads import SIDE_NODE, Relation, Verdict, is_main
from clew.core.resolve import Outcome, Resolution, Session
from clew.core.resolve_content import Content, Predecessors
from clew.keeper.knowledge import PrincipalKnowledge, survivor
from clew.keeper.protocol import Ask, Told
from clew.store.schema import aliases, lineage_log, sessions

MAX_SCOPES: Final = 256
"""Scopes held in memory; the others wait in the store."""
MAX_LOG_ROWS: Final = 512
"""A longer log is rewritten as one snapshot when its scope is loaded."""
NS_PER_S: Final = 1_000_000_000

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Change]).decode
_LOG: Final = (
    sa.select(lineage_log.c.changes)
    .where(lineage_log.c.scope == sa.bindparam("scope"))
    .order_by(lineage_log.c.id)
)
_PREDECESSORS: Final = (
    sa.select(sessions.c.id)
    .join(aliases, aliases.c.session == sessions.c.id)
    .where(
        aliases.c.principal == sa.bindparam("principal"),
        aliases.c.source == sa.bindparam("source"),
        aliases.c.family == sa.bindparam("family"),
        aliases.c.lifetime == "restart",
        sessions.c.is_subagent.is_(False),
        sessions.c.closed_at_ns.is_(None),
        sessions.c.last_seen_ns >= sa.bindparam("since_ns"),
    )
    .distinct()
    .limit(2)
)


class Unwritten(msgspec.Struct, frozen=True):
    """Changes on their way to the store, by scope, and scopes whose log they replace."""

    changes: dict[str, list[Change]]
    rewritten: frozenset[str]

    def write(self, connection: sa.Connection) -> None:
        """In one transaction, on the writing thread."""
        for scope in self.rewritten:
            connection.execute(sa.delete(lineage_log).where(lineage_log.c.scope == scope))
        rows = [
            {"scope": scope, "changes": _encode(found)} for scope, found in self.changes.items()
        ]
        if rows:
            connection.execute(sa.insert(lineage_log), rows)


class LineageDesk:
    """All scopes of one keeper."""

    def __init__(
        self,
        connection: sa.Connection,
        settings: Sessions,
        new_key: Callable[[], SessionKey],
        limits: Limits | None = None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._new_key = new_key
        self._limits = limits or Limits()
        self._scopes: OrderedDict[str, ScopeIndex] = OrderedDict()
        self._unwritten: dict[str, list[Change]] = {}
        self._rewritten: set[str] = set()

    def configure(self, settings: Sessions) -> None:
        """Take a reloaded configuration."""
        self._settings = settings

    def content(self, ask: Ask, knowledge: PrincipalKnowledge) -> Content | None:
        """What the request's content says; None where lineage does not apply."""
        conversation = ask.conversation
        if conversation is None or self._settings.resume == "off":
            return None
        claim = ask.claim
        verdict = self._scope(scope_of(ask.principal, claim, ask.api)).weigh(
            conversation,
            ask.at_ns / NS_PER_S,
            self._settings.resume_max_age,
            is_subagent=claim.is_subagent,
        )
        session = None
        if verdict.session is not None:
            session = knowledge.by_key(survivor(self._connection, verdict.session))
        if session is not None and session.is_closed:
            session = None
        return Content(verdict, session, self._new_key())

    def predecessors(self, ask: Ask, knowledge: PrincipalKnowledge) -> Predecessors | None:
        """Recency's candidates; None where it is not asked for."""
        if self._settings.resume != "recency":
            return None
        age_ns = int(self._settings.resume_max_age * NS_PER_S)

        def find(alias: Alias) -> list[Session]:
            values = {
                "principal": ask.principal,
                "source": alias.source,
                "family": alias.family,
                "since_ns": ask.at_ns - age_ns,
            }
            keys = self._connection.scalars(_PREDECESSORS, values).all()
            found = [knowledge.by_key(SessionKey(key)) for key in keys]
            return [session for session in found if session is not None]

        return find

    def record(self, ask: Ask, resolution: Resolution, content: Content | None) -> int:
        """Take the request into the index as resolved; its node, `SIDE_NODE` for a side call."""
        conversation, key = ask.conversation, resolution.key
        if content is None or conversation is None or key is None:
            return SIDE_NODE
        scope = scope_of(ask.principal, ask.claim, ask.api)
        index = self._scope(scope)
        now_s = ask.at_ns / NS_PER_S
        verdict = content.verdict if content.verdict.session == key else Verdict(Relation.UNRELATED)
        if not index.knows(key):
            index.open(key, conversation.tools, now_s, is_subagent=ask.claim.is_subagent)
        if self._is_side(ask.claim, resolution, conversation, index, key):
            index.show(key, (*conversation.history, *conversation.tail), SIDE_NODE)
            node = SIDE_NODE
        else:
            node = index.take(key, conversation, verdict, now_s)
        self._note(scope, index)
        return node

    def told(self, message: Told) -> None:
        """A reply was relayed, or the attempt failed and its node is free again."""
        scope = scope_of(message.principal, message.claim, message.api)
        index = self._scope(scope)
        if message.reply is None:
            index.release(message.session, message.node)
        else:
            index.answered(message.session, message.node, message.reply)
        self._note(scope, index)

    def close_session(self, key: SessionKey) -> None:
        """Nothing continues a closed session."""
        for scope, index in self._scopes.items():
            if index.knows(key):
                index.close(key)
                self._note(scope, index)

    @property
    def is_unwritten(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._unwritten)

    def take_unwritten(self) -> Unwritten:
        """What is to be written now; `put_back` when that failed."""
        taken = Unwritten(self._unwritten, frozenset(self._rewritten))
        self._unwritten, self._rewritten = {}, set()
        return taken

    def put_back(self, taken: Unwritten) -> None:
        """The store refused it: keep it for the next try, before what came since."""
        later, self._unwritten = self._unwritten, taken.changes
        for scope, changes in later.items():
            self._unwritten.setdefault(scope, []).extend(changes)
        self._rewritten |= taken.rewritten

    def _is_side(
        self,
        claim: Claim,
        resolution: Resolution,
        conversation: Conversation,
        index: ScopeIndex,
        key: SessionKey,
    ) -> bool:
        if resolution.is_side or claim.kind not in (Kind.TURN, Kind.SUBAGENT):
            return True
        return resolution.outcome is not Outcome.NEW and not is_main(
            conversation, index.first_tools(key)
        )

    def _scope(self, scope: str) -> ScopeIndex:
        index = self._scopes.get(scope)
        if index is not None:
            self._scopes.move_to_end(scope)
            return index
        index = ScopeIndex(self._limits)
        logged = self._connection.scalars(_LOG, {"scope": scope}).all()
        for changes in logged:
            index.restore(_decode(changes))
        pending = self._unwritten.get(scope)
        if pending:
            index.restore(pending)
        if len(logged) > MAX_LOG_ROWS:
            self._rewritten.add(scope)
            self._unwritten[scope] = index.snapshot()
        self._scopes[scope] = index
        while len(self._scopes) > MAX_SCOPES:
            self._scopes.popitem(last=False)
        return index

    def _note(self, scope: str, index: ScopeIndex) -> None:
        changes = index.drain_changes()
        if changes:
            self._unwritten.setdefault(scope, []).extend(changes)


def scope_of(principal: Principal, claim: Claim, api: str) -> str:
    """The scope a request's evidence is weighed in."""
    return "\x1f".join((principal, product_of(claim.client), api))
