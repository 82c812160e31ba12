"""The lineage of every scope: weighed and taken in one step, kept in the store as a change log.

A scope is one principal, client product and API: a restart of the client changes none of them.
Scopes are loaded when first asked for and let go by weight (`keeper.lineage_scopes`); what they
changed is written in batches on the store's writing thread (`keeper.lineage_log`), and a reply is
acknowledged only once written.
Reads and writes of one scope are in order, because all of it runs on the keeper's loop.

Where several keepers share the store, each reads what the others have written of a scope before it
weighs content in it. A reply is released only once it is written, so a client that has its answer
is found by any host at its next turn, and a phrase that two hosts have relayed is evidence on
neither. Only what is under way at the same instant may be missed: a turn that two hosts continue at
once is in the session that came first, and a fork from its next turn on where it came second
(`core.lineage.merging`), never two conversations that go on in one session. A reply that was
released unwritten (the store away, flagged) is found where it was relayed alone until it is
written. A subagent without an id finds its parent only where the parent's call was relayed, because
arguments are kept nowhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Final

import sqlalchemy as sa

from clew.config.schema import Sessions
from clew.core.claim import Alias, Claim, Kind, Principal, SessionKey
from clew.core.clients import product_of
from clew.core.lineage.blocks import Conversation
from clew.core.lineage.changes import Change, Cleared
from clew.core.lineage.index import Limits, ScopeIndex
from clew.core.lineage.merging import STRIDE
from clew.core.lineage.threads import SIDE_NODE, Relation, Verdict, is_main
from clew.core.resolve import Outcome, Resolution, Session
from clew.core.resolve_content import Content, Predecessors, is_marked
from clew.keeper.knowledge import PrincipalKnowledge, survivor
from clew.keeper.lineage_log import (
    MAX_LOG_ROWS,
    REWRITE_CHANGES,
    Rewrite,
    Unwritten,
    read_rows,
    without_clearing,
)
from clew.keeper.lineage_scopes import SEPARATOR, Held, Scopes
from clew.keeper.protocol import Ask, Told
from clew.store.changes import ChangeLog
from clew.store.schema import aliases, sessions

NS_PER_S: Final = 1_000_000_000
ID_SHARED: Final = "id_shared_by_threads"
_SAME_HISTORY: Final = frozenset(
    {Relation.CONTINUES, Relation.RETRIES, Relation.FORKS, Relation.SIDE}
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


class LineageDesk:
    """All scopes of one keeper."""

    def __init__(
        self,
        connect: Callable[[], sa.Connection],
        settings: Sessions,
        new_key: Callable[[], SessionKey],
        limits: Limits | None = None,
        *,
        log: ChangeLog | None = None,
        scopes: Scopes | None = None,
    ) -> None:
        self._connect = connect
        self._log = log or ChangeLog()
        self._settings = settings
        self._new_key = new_key
        self._limits = limits or Limits()
        self._scopes = scopes or Scopes()
        self._unwritten = Unwritten({}, {}, self._log)
        self._writing = Unwritten({}, {}, self._log)
        """Taken to be written and not known to be: a scope that is loaded meanwhile needs them."""

    def configure(self, settings: Sessions) -> None:
        """Take a reloaded configuration."""
        self._settings = settings

    def content(self, ask: Ask, knowledge: PrincipalKnowledge) -> Content | None:
        """What the request's content says; None where lineage does not apply."""
        conversation = ask.conversation
        if conversation is None or self._settings.resume == "off":
            return None
        claim = ask.claim
        scope = scope_of(ask.principal, claim, ask.api)
        if self._log.instance:
            self._catch_up(scope)
        previous = claim.previous_response_id
        named = knowledge.by_response(previous) if previous else None
        verdict = self._scope(scope).index.weigh(
            conversation,
            ask.at_ns / NS_PER_S,
            self._settings.resume_max_age,
            is_subagent=claim.is_subagent,
            named=named.key if named is not None else None,
            has_own_id=claim.names_durable_thread,
            is_marked=is_marked(claim),
        )
        session = None
        if verdict.session is not None:
            session = knowledge.by_key(survivor(self._connect(), verdict.session))
        if session is not None and session.is_closed and session != named:
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
            keys = self._connect().scalars(_PREDECESSORS, values).all()
            found = [knowledge.by_key(SessionKey(key)) for key in keys]
            return [session for session in found if session is not None]

        return find

    def oddities(
        self, ask: Ask, resolution: Resolution, content: Content | None
    ) -> tuple[str, ...]:
        """What content says against the id that named the session; asked before `record`.

        An id that is the same in every conversation (a static custom header) is believed and
        flagged: it brings a new opening, or the history of another session. An id that names
        a durable thread says nothing here: what is shown of its thread beside the first request is
        the beginning after a compaction, or of a copy whose title was asked for first.
        """
        conversation, key, alias = ask.conversation, resolution.key, ask.claim.session
        if content is None or conversation is None or key is None or alias is None:
            return ()
        if ask.claim.names_durable_thread:
            return ()
        is_turn = ask.claim.kind in (Kind.TURN, Kind.SUBAGENT)
        if resolution.reason != "id_known" or resolution.is_side or not is_turn:
            return ()
        index = self._scope(scope_of(ask.principal, ask.claim, ask.api)).index
        is_other = (
            content.session is not None
            and content.session.key != key
            and content.verdict.relation in _SAME_HISTORY
        )
        is_shared = is_other or index.begins_anew(key, conversation)
        return (ID_SHARED,) if is_shared else ()

    def record(self, ask: Ask, resolution: Resolution, content: Content | None) -> int:
        """Take the request into the index as resolved; its node, `SIDE_NODE` for a side call."""
        conversation, key = ask.conversation, resolution.key
        if content is None or conversation is None or key is None:
            return SIDE_NODE
        scope = scope_of(ask.principal, ask.claim, ask.api)
        held = self._scope(scope)
        index, now_s = held.index, ask.at_ns / NS_PER_S
        verdict = content.verdict if content.verdict.session == key else Verdict(Relation.UNRELATED)
        if not index.knows(key):
            index.open(key, conversation.tools, now_s, is_subagent=ask.claim.is_subagent)
        if self._is_side(ask.claim, resolution, conversation, index, key):
            index.show(key, (*conversation.history, *conversation.tail), SIDE_NODE)
            node = SIDE_NODE
        else:
            node = index.take(key, conversation, verdict, now_s)
        self._note(scope, held)
        return node

    def told(self, message: Told) -> None:
        """A reply was relayed, or the attempt failed and its node is free again."""
        scope = scope_of(message.principal, message.claim, message.api)
        held = self._scope(scope)
        if message.reply is None:
            held.index.release(message.session, message.node)
        else:
            held.index.answered(
                message.session,
                message.node,
                message.reply,
                is_seldom_shown=message.claim.names_durable_thread,
            )
        self._note(scope, held)

    def close_session(self, key: SessionKey) -> None:
        """Nothing continues a closed session."""
        for scope, held in self._scopes.items():
            if held.index.knows(key):
                held.index.close(key)
                self._note(scope, held)

    def _catch_up(self, scope: str) -> None:
        """Take in what other keepers have written of a scope that is held."""
        held = self._scopes.get(scope)
        if held is None:
            return
        rows = read_rows(self._connect(), scope, held.last)
        others = [row for row in rows if row.instance != self._log.instance]
        if any(isinstance(change, Cleared) for row in others for change in row.changes):
            self._scopes.drop(scope)  # rewritten: rows may be gone that were not read here
            return
        for row in others:
            held.index.merge(row.changes, _slot_of(row.instance))
        held.last = rows[-1].id if rows else held.last
        if others:
            self._scopes.count(scope, held)

    @property
    def is_unwritten(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._unwritten.changes or self._unwritten.rewrites)

    def take_unwritten(self) -> Unwritten:
        """What is to be written now; then `written`, or `put_back` when that failed."""
        self._writing, self._unwritten = self._unwritten, Unwritten({}, {}, self._log)
        return self._writing

    def written(self) -> None:
        """What was taken is kept."""
        self._writing = Unwritten({}, {}, self._log)

    def put_back(self, taken: Unwritten) -> None:
        """The store refused it: keep it for the next try, before what came since."""
        later = self._unwritten
        self._writing = Unwritten({}, {}, self._log)
        self._unwritten = taken
        for scope, rewrite in later.rewrites.items():
            if rewrite.is_whole:
                taken.rewrites[scope] = rewrite
                taken.changes.pop(scope, None)  # they are in it
            else:
                taken.rewrites.setdefault(scope, rewrite)
        for scope, changes in later.changes.items():
            taken.changes.setdefault(scope, []).extend(changes)

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

    def _scope(self, scope: str) -> Held:
        held = self._scopes.get(scope)
        if held is None:
            held = self._load(scope)
            self._scopes.hold(scope, held)
        return held

    def _load(self, scope: str) -> Held:
        own = self._log.instance
        index = ScopeIndex(self._limits, _slot_of(own), STRIDE) if own else ScopeIndex(self._limits)
        rows = read_rows(self._connect(), scope)
        for row in rows:
            _replay(index, row.changes, row.instance)
        last = rows[-1].id if rows else 0
        if len(rows) > MAX_LOG_ROWS and scope not in self._unwritten.rewrites:
            self._unwritten.rewrites[scope] = Rewrite(last, index.snapshot())
        for pending in (self._writing, self._unwritten):
            _replay(index, pending.of(scope), own)
        return Held(index, last)

    def _note(self, scope: str, held: Held) -> None:
        """Keep what has changed to be written; the index weighs something else now."""
        changes = held.index.drain_changes()
        if changes and self._log.instance:
            changes = without_clearing(changes)
        if changes:
            waiting = self._unwritten.changes.setdefault(scope, [])
            waiting.extend(changes)
            held.logged += len(changes)
            if held.logged > REWRITE_CHANGES:
                self._rewrite(scope, held)
            elif len(waiting) > REWRITE_CHANGES:
                waiting[:] = without_clearing(held.index.snapshot())
        self._scopes.count(scope, held)

    def _rewrite(self, scope: str, held: Held) -> None:
        """One snapshot replaces the log, and what waits to be written."""
        self._unwritten.changes.pop(scope, None)
        is_shared = bool(self._log.instance)
        last = held.last if is_shared else None  # who writes alone knows all of it
        self._unwritten.rewrites[scope] = Rewrite(last, held.index.snapshot(), is_all=is_shared)
        held.logged = 0


def _replay(index: ScopeIndex, changes: Iterable[Change], instance: str) -> None:
    """A part of a log, written by this installation; empty: the store is its alone."""
    if instance:
        index.merge(changes, _slot_of(instance))
    else:
        index.restore(changes)


def _slot_of(instance: str) -> int:
    return zlib.crc32(instance.encode()) % STRIDE


def scope_of(principal: Principal, claim: Claim, api: str) -> str:
    """The scope a request's evidence is weighed in."""
    return SEPARATOR.join((principal, product_of(claim.client), api))
