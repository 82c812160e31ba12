"""Plays the requests of a file through the rules, as a keeper that has seen nothing else would.

Three keepers side by side, one for each value of ``sessions.resume``: what each decides, by which
rule, and why the others did not fire. Pure: the rules and the lineage index are the gateway's own,
what is known is held in dictionaries. A file tells no times: its requests come a second apart.
Sessions are called by their order, ``session 1`` first.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.apis.port import Api
from clew.core.claim import Alias, Claim, Kind, Lifetime, Scope, SessionKey
from clew.core.clients import product_of
from clew.core.lineage.blocks import Conversation, Digester
from clew.core.lineage.index import Limits, ScopeIndex
from clew.core.lineage.threads import SIDE_NODE, Relation, Verdict, is_main
from clew.core.resolve import CANONICAL, Outcome, Resolution, Session, Tried, resolve
from clew.core.resolve_content import Content, is_marked, rules_with

MODES: Final = ("proof", "recency", "off")
LIMITS: Final = Limits(digests=100_000, sessions=2_000)
_TURNS: Final = (Kind.TURN, Kind.SUBAGENT)


class Played(msgspec.Struct, frozen=True):
    """What one mode makes of one request."""

    mode: str
    outcome: str
    """exact | migrated | resumed | new | unattributed"""
    session: str
    """``session N``; empty when unattributed."""
    parent: str
    forked_from: str
    reason: str
    kind: str
    evidence: int
    """Digests that only the session found had shown, at most four are kept."""
    content: str
    """What the content alone says; empty where it is not looked at."""
    tried: tuple[Tried, ...]


class Playback:
    """The requests of one file, in order, under every mode."""

    def __init__(self, max_age_s: float) -> None:
        self._digester = Digester(b"playback")
        self._keepers = {mode: _Keeper(mode, max_age_s) for mode in MODES}
        self._now_s = 0.0

    def take(
        self, claim: Claim, api: Api, path: bytes, body: bytes, reply: bytes
    ) -> tuple[Played, ...]:
        """What every mode makes of the next request; ``reply`` is empty where it is not known."""
        self._now_s += 1.0
        content = api.conversation(path, body, self._digester)
        found = []
        for keeper in self._keepers.values():
            scope = (product_of(claim.client), api.name)
            resolution, verdict, node = keeper.decide(claim, scope, content, self._now_s)
            found.append(_played(keeper, claim, resolution, verdict))
            if reply and resolution.key is not None:
                said = api.reply(reply, is_stream=False, digester=self._digester)
                tap = api.unary_tap()
                tap.feed(reply)
                keeper.responses[tap.finish().response_id] = resolution.key
                if verdict is not None:
                    keeper.scopes[scope].answered(
                        resolution.key, node, said, is_seldom_shown=claim.names_durable_thread
                    )
        return tuple(found)


class _Keeper:
    """`core.resolve.Knowledge` of one caller, and its lineage."""

    def __init__(self, mode: str, max_age_s: float) -> None:
        self.mode = mode
        self.scopes: dict[tuple[str, str], ScopeIndex] = {}
        self.responses: dict[str, SessionKey] = {}
        self._max_age_s = max_age_s
        self._sessions: dict[SessionKey, Session] = {}
        self._ids: dict[tuple[str, str], SessionKey] = {}
        self._rotating: dict[SessionKey, tuple[tuple[str, str], float]] = {}
        """(family, source) of sessions that a restart-lifetime id named, and when."""
        self._numbers: dict[SessionKey, int] = {}
        self._made = 0

    # --- Knowledge -----------------------------------------------------------------------------

    def by_alias(self, family: str, value: str) -> Session | None:
        """By external id."""
        return self._sessions.get(self._ids.get((family, value), SessionKey("")))

    def by_key(self, key: SessionKey) -> Session | None:
        """By key."""
        return self._sessions.get(key)

    def by_response(self, response_id: str) -> Session | None:
        """By a response it got."""
        return self._sessions.get(self.responses.get(response_id, SessionKey("")))

    def by_any_id(self, text: str) -> Session | None:
        """By any external id that names exactly one."""
        found = {key for (_, value), key in self._ids.items() if value == text}
        return self._sessions.get(found.pop()) if len(found) == 1 else None

    def derive(self, alias: Alias) -> SessionKey:
        """The session an id opens."""
        return SessionKey(f"{alias.family}\x1f{alias.value}")

    # --- decisions -----------------------------------------------------------------------------

    def decide(
        self, claim: Claim, scope: tuple[str, str], said: Conversation | None, now_s: float
    ) -> tuple[Resolution, Verdict | None, int]:
        """The session of a request, what its content said, and the node it took."""
        content: Content | None = None
        if said is not None and self.mode != "off" and not self._is_settled(claim):
            index = self.scopes.setdefault(scope, ScopeIndex(LIMITS))
            named = self.by_response(claim.previous_response_id)
            verdict = index.weigh(
                said,
                now_s,
                self._max_age_s,
                is_subagent=claim.is_subagent,
                named=named.key if named is not None else None,
                has_own_id=claim.names_durable_thread,
                is_marked=is_marked(claim),
            )
            session = self._sessions.get(verdict.session) if verdict.session is not None else None
            self._made += 1
            content = Content(verdict, session, SessionKey(f"\x1f{self._made}"))

        def recent(alias: Alias) -> list[Session]:
            return [
                self._sessions[key]
                for key, (name, seen_s) in self._rotating.items()
                if name == (alias.family, alias.source) and now_s - seen_s <= self._max_age_s
            ]

        asks_recency = self.mode == "recency"
        resolution = resolve(claim, self, rules_with(content, recent if asks_recency else None))
        self._remember(claim, resolution, now_s)
        if content is None or said is None or resolution.key is None:
            return resolution, None, SIDE_NODE
        index = self.scopes[scope]
        node = self._record(claim, index, resolution, said, verdict=content.verdict, now_s=now_s)
        return resolution, content.verdict, node

    def _is_settled(self, claim: Claim) -> bool:
        """Whether a known id names a durable thread: its later bodies are not read."""
        alias = claim.session
        if alias is None or not claim.names_durable_thread:
            return False
        session = self.by_alias(alias.family, alias.value)
        return session is not None and not session.is_placeholder

    def name(self, key: SessionKey | None) -> str:
        """A session as the reader counts them."""
        if key is None:
            return ""
        return f"session {self._numbers.setdefault(key, len(self._numbers) + 1)}"

    def _record(
        self,
        claim: Claim,
        index: ScopeIndex,
        resolution: Resolution,
        said: Conversation,
        *,
        verdict: Verdict,
        now_s: float,
    ) -> int:
        key = resolution.key
        assert key is not None
        if not index.knows(key):
            index.open(key, said.tools, now_s, is_subagent=claim.is_subagent)
        is_side = resolution.is_side or claim.kind not in _TURNS
        is_known = resolution.outcome is not Outcome.NEW
        if is_side or (is_known and not is_main(said, index.first_tools(key))):
            index.show(key, (*said.history, *said.tail), SIDE_NODE)
            return SIDE_NODE
        mine = verdict if verdict.session == key else Verdict(Relation.UNRELATED)
        return index.take(key, said, mine, now_s)

    def _remember(self, claim: Claim, found: Resolution, now_s: float) -> None:
        key = found.key
        if key is None:
            return
        for above in (found.parent, found.root):
            if above is not None and above != key and above not in self._sessions:
                self._sessions[above] = Session(above, found.parent_id, is_placeholder=True)
        for named, alias in ((found.parent, claim.parent), (found.root, claim.root)):
            if named is not None and alias is not None:
                self._ids.setdefault((alias.family, alias.value), named)
        before = self._sessions.get(key)
        families = before.families if before is not None else frozenset()
        named_by = before.named_by if before is not None else frozenset()
        for alias in found.alias_writes:
            self._ids[(alias.family, alias.value)] = key
            named_by |= {alias.family}
            if alias.scope is Scope.THREAD and alias.lifetime is Lifetime.DURABLE:
                families |= {alias.family}
            if alias.lifetime is Lifetime.RESTART and not claim.is_subagent:
                self._rotating[key] = ((alias.family, alias.source), now_s)
        if key in self._rotating:
            self._rotating[key] = (self._rotating[key][0], now_s)
        self._sessions[key] = Session(
            key=key,
            session_id=found.session_id,
            parent=found.parent,
            parent_id=found.parent_id,
            root=found.root,
            has_canonical=CANONICAL in families,
            families=families,
            named_by=named_by,
        )


def _played(keeper: _Keeper, claim: Claim, found: Resolution, verdict: Verdict | None) -> Played:
    kind = claim.kind
    if found.is_side and kind in _TURNS:
        kind = Kind.SIDE
    elif found.is_child and kind is Kind.TURN:
        kind = Kind.SUBAGENT
    return Played(
        mode=keeper.mode,
        outcome=found.outcome.value,
        session=keeper.name(found.key),
        parent=keeper.name(found.parent),
        forked_from=keeper.name(found.forked_from),
        reason=found.reason,
        kind=kind.value,
        evidence=len(found.evidence),
        content=f"{verdict.relation.value}: {verdict.reason}" if verdict is not None else "",
        tried=found.tried,
    )
