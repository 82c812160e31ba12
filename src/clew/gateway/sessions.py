"""What this gateway knows of sessions: a bounded cache that the keeper feeds.

A known alias is answered here. An unknown one is asked of the keeper once, whatever number of
requests bring it at the same time; other sessions are not held up. With the keeper away an id
that names a thread still gets its session, because the key is derived from it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Final

import msgspec

from clew.core.claim import Alias, Claim, Kind, Principal, Scope, SessionKey
from clew.core.lineage.blocks import Conversation, Reply
from clew.core.resolve_content import LINEAGE
from clew.core.session import derive_key, format_key
from clew.gateway.unshown import Unshown
from clew.keeper.link import KeeperAway, KeeperLink
from clew.keeper.protocol import Known, Lost, Told

GENERATION_ALIASES: Final = 10_000
"""Aliases a cache generation holds; two generations bound the cache at about 10 MiB."""

MAIN_KINDS: Final = (Kind.TURN, Kind.SUBAGENT)
KEY_BYTES: Final = 16
TELL_S: Final = 1.0
"""How long a closing span waits for the keeper to keep its blocks."""

MAX_CLOSED: Final = 10_000
"""Sessions closed here that the keeper has not confirmed: far more than while it restarts."""

LOST_CODES: Final = frozenset({"session_worker_lost", "session_claim_expired"})

AliasKey = tuple[Principal, str, str]


class Resolved(msgspec.Struct, frozen=True):
    """The session of one request. ``known`` is None: unattributed."""

    known: Known | None
    resolution: str
    source: str = ""
    flags: tuple[str, ...] = ()
    is_weighed: bool = False
    """The keeper weighed the content: it must be told what became of the request."""
    node: int = 0
    is_side: bool = False
    is_unnamed: bool = False
    is_child: bool = False
    forked_from: SessionKey | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()

    def claim_of(self, claim: Claim) -> Claim:
        """The claim as content has completed it, for the record and the projection."""
        if self.is_unnamed:
            claim = msgspec.structs.replace(claim, session=None, others=())
        if self.is_side and claim.kind in MAIN_KINDS:
            return msgspec.structs.replace(claim, kind=Kind.SIDE)
        if self.is_child and claim.kind is Kind.TURN:
            return msgspec.structs.replace(claim, kind=Kind.SUBAGENT)
        return claim


UNATTRIBUTED: Final = Resolved(known=None, resolution="unattributed")


class Sessions:
    """One gateway's view of the sessions."""

    def __init__(self, link: KeeperLink, secret: bytes, resume: str) -> None:
        self._link = link
        self.resume = resume
        """``sessions.resume``: ``off`` reads no content."""
        self._secret = secret
        self._young: dict[AliasKey, Known] = {}
        self._old: dict[AliasKey, Known] = {}
        self._derived: dict[AliasKey, Known] = {}
        """Sessions opened while the keeper was away; believed only for as long as it is."""
        self._closed: dict[SessionKey, None] = {}
        self._asking: dict[AliasKey, asyncio.Future[Resolved]] = {}
        self._unshown = Unshown()
        self.asks = 0
        self.keeper_away = 0

    def learn(self, known: Known) -> bool:
        """Take in what the keeper says of a session; a later word replaces an earlier one.

        True: it is closed now, and was open as far as this gateway knew.
        """
        is_news = known.is_closed and any(
            (before := self._peek((known.principal, family, value))) is not None
            and not before.is_closed
            for family, value in known.aliases
        )
        if known.is_closed or known.gone:
            self._closed.pop(known.key, None)
        for family, value in known.gone:
            self._drop((known.principal, family, value), known.key)
        known = _with_shared_texts(known)
        for family, value in known.aliases:
            self._keep((known.principal, family, value), known)
        return is_news

    def note_lost(self, known: Known, upstream: str, code: str) -> None:
        """A session was refused with this code; said where it lost its worker or claim."""
        if code in LOST_CODES:
            self._link.tell_lost(Lost(known.key, upstream, code, time.time_ns()))

    def close(self, key: SessionKey) -> None:
        """An exchange that ended here closed this session: known at once, and told by the journal.

        Kept until the keeper says the same, because what it says meanwhile may be older.
        """
        self._closed[key] = None
        if len(self._closed) > MAX_CLOSED:
            del self._closed[next(iter(self._closed))]

    def note_failed(self, known: Known, claim: Claim) -> None:
        """A turn whose content was shown failed; a durable thread shows its next one instead."""
        if claim.names_durable_thread and claim.kind in MAIN_KINDS:
            self._unshown.show_next(known.key)

    def is_closed(self, known: Known) -> bool:
        """Whether a session was closed, as far as anybody has told this gateway."""
        return known.is_closed or known.key in self._closed

    def find(self, principal: Principal, claim: Claim) -> Resolved | None:
        """The session when this gateway knows it and the claim tells nothing new of it.

        Only an id that names a durable thread can be answered here: for any other, content may
        tell more, and the keeper must see every turn.
        """
        if self.resume != "off" and not claim.names_durable_thread:
            return None
        found = self._known(principal, claim)
        if self._unshown.keys and found is not None and self._unshown.wants(found.known, claim):
            return None
        return found

    def _known(self, principal: Principal, claim: Claim) -> Resolved | None:
        alias = claim.session
        if alias is None:
            return None if claim.previous_response_id else UNATTRIBUTED
        key = (principal, alias.family, alias.value)
        known = self._get(key)
        if known is None and self._derived and not self._link.is_connected:
            known = self._derived.get(key)
        if known is None or known.is_placeholder:
            return None  # named as a parent only: its first own request opens it
        parent = claim.parent
        if parent is None or parent.value == known.parent_id:
            return Resolved(known, "exact", alias.source)
        if known.parent is None:
            return None
        return Resolved(known, "exact", alias.source, ("parent_differs",))

    async def resolve(
        self,
        principal: Principal,
        claim: Claim,
        at_ns: int,
        api: str,
        conversation: Conversation | None = None,
    ) -> Resolved:
        """The session of a claim; asks the keeper where this gateway cannot know."""
        found = self.find(principal, claim)
        if found is not None:
            return found
        alias = claim.session
        if alias is None or not claim.names_durable_thread:
            return await self._ask(principal, claim, at_ns, api, conversation)
        key = (principal, alias.family, alias.value)
        while (running := self._asking.get(key)) is not None:
            first = await asyncio.shield(running)
            # The first request opened the session; by then it exists.
            again = self.find(principal, claim)
            if again is not None or not self._unshown.wants(first.known, claim):
                return again or msgspec.structs.replace(first, is_weighed=False)
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._ask(principal, claim, at_ns, api, conversation)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # waiters see it; nobody waiting is no fault
            raise
        finally:
            del self._asking[key]
        future.set_result(answer)
        return answer

    async def tell(
        self, principal: Principal, claim: Claim, api: str, session: Resolved, reply: Reply | None
    ) -> bool:
        """Have a relayed reply kept (None: the attempt failed); False where nobody kept it."""
        assert session.known is not None
        message = Told(0, principal, claim, api, session.known.key, session.node, reply)
        try:
            await self._link.tell(message, TELL_S)
        except KeeperAway:
            return False
        return True

    async def _ask(
        self,
        principal: Principal,
        claim: Claim,
        at_ns: int,
        api: str,
        conversation: Conversation | None,
    ) -> Resolved:
        self.asks += 1
        try:
            answer = await self._link.ask(principal, claim, at_ns, api, conversation)
            self._derived.clear()
        except KeeperAway:
            self.keeper_away += 1
            return self._without_keeper(principal, claim)
        if answer.known is None:
            return Resolved(None, "unattributed", "", answer.flags)
        self.learn(answer.known)
        self._unshown.note(
            claim,
            answer,
            is_weighed=conversation is not None,
            has_tools=conversation is None or bool(conversation.tools),
        )
        alias = claim.session
        if alias is not None and not answer.is_unnamed:
            self._keep((principal, alias.family, alias.value), answer.known)
        return Resolved(
            answer.known,
            answer.resolution,
            answer.source,
            answer.flags,
            is_weighed=conversation is not None,
            node=answer.node,
            is_side=answer.is_side,
            is_unnamed=answer.is_unnamed,
            is_child=answer.is_child,
            forked_from=answer.forked_from,
            reason=answer.reason,
            evidence=answer.evidence,
        )

    def _without_keeper(self, principal: Principal, claim: Claim) -> Resolved:
        """What can be said while the keeper is away: an id of a thread names it, known or not."""
        alias = claim.session
        if alias is None:
            return self._defer(principal)
        found = self._known(principal, claim) or self._derive(principal, claim, alias)
        if alias.scope is Scope.TREE and self.resume != "off":
            return self._defer(principal, found.known, alias.source)
        return found

    def _derive(self, principal: Principal, claim: Claim, alias: Alias) -> Resolved:
        """The session as its own id names it, for as long as the keeper is away."""
        key = self._key(principal, alias)
        parent = self._key(principal, claim.parent) if claim.parent else None
        root = self._key(principal, claim.root) if claim.root else parent or key
        known = Known(
            key=key,
            principal=principal,
            session_id=alias.value,
            parent=parent,
            parent_id=claim.parent.value if claim.parent else "",
            root=root,
            is_closed=False,
            aliases=((alias.family, alias.value),),
        )
        if len(self._derived) >= GENERATION_ALIASES:
            self._derived.clear()
        self._derived[(principal, alias.family, alias.value)] = known
        return Resolved(known, "new", alias.source, ("keeper_away",))

    def _defer(
        self, principal: Principal, above: Known | None = None, source: str = LINEAGE
    ) -> Resolved:
        """A session of its own: without the keeper nobody can tell whose turn this is.

        ``above`` is the root of the tree that the request's id names.
        """
        if self.resume == "off":
            return Resolved(None, "unattributed", "", ("keeper_away",))
        key = format_key(os.urandom(KEY_BYTES))
        known = Known(
            key=key,
            principal=principal,
            session_id=key,
            parent=above.key if above else None,
            parent_id=above.session_id if above else "",
            root=above.root if above else key,
            is_closed=False,
            aliases=(),
        )
        flags = ("keeper_away", "lineage_deferred")
        return Resolved(known, "new", source, flags, is_unnamed=above is not None)

    def _key(self, principal: Principal, alias: Alias) -> SessionKey:
        known = self._get((principal, alias.family, alias.value))
        return (
            known.key if known else derive_key(self._secret, principal, alias.family, alias.value)
        )

    def _get(self, key: AliasKey) -> Known | None:
        known = self._young.get(key)
        if known is None:
            known = self._old.get(key)
            if known is not None:
                self._keep(key, known)
        return known

    def _peek(self, key: AliasKey) -> Known | None:
        return self._young.get(key) or self._old.get(key)

    def _drop(self, key: AliasKey, session: SessionKey) -> None:
        for generation in (self._young, self._old):
            known = generation.get(key)
            if known is not None and known.key == session:
                del generation[key]

    def _keep(self, key: AliasKey, known: Known) -> None:
        if len(self._young) >= GENERATION_ALIASES:
            self._old = self._young
            self._young = {}
        self._young[key] = known


def _with_shared_texts(known: Known) -> Known:
    """The same, each text in memory once: as it is read from the keeper it is a third more."""
    key, name = known.key, known.session_id
    return msgspec.structs.replace(
        known,
        principal=Principal(sys.intern(known.principal)),
        root=key if known.root == key else known.root,
        aliases=tuple(
            (sys.intern(family), name if value == name else value)
            for family, value in known.aliases
        ),
        families=tuple(map(sys.intern, known.families)),
    )
