"""What this gateway knows of sessions: a bounded cache that the keeper feeds.

A known alias is answered here. An unknown one is asked of the keeper once, whatever number of
requests bring it at the same time; other sessions are not held up. With the keeper away an id
that names a thread still gets its session, because the key is derived from it.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.core.session import derive_key
from clew.keeper.link import KeeperAway, KeeperLink
from clew.keeper.protocol import Known

GENERATION_ALIASES: Final = 20_000
"""Aliases a cache generation holds; two generations bound the cache at about 30 MiB."""

AliasKey = tuple[Principal, str, str]


class Resolved(msgspec.Struct, frozen=True):
    """The session of one request. ``known`` is None: unattributed."""

    known: Known | None
    resolution: str
    source: str = ""
    flags: tuple[str, ...] = ()


UNATTRIBUTED: Final = Resolved(known=None, resolution="unattributed")


class Sessions:
    """One gateway's view of the sessions."""

    def __init__(self, link: KeeperLink, secret: bytes) -> None:
        self._link = link
        self._secret = secret
        self._young: dict[AliasKey, Known] = {}
        self._old: dict[AliasKey, Known] = {}
        self._derived: dict[AliasKey, Known] = {}
        """Sessions opened while the keeper was away; believed only for as long as it is."""
        self._asking: dict[AliasKey, asyncio.Future[Resolved]] = {}
        self.asks = 0
        self.keeper_away = 0

    def learn(self, known: Known) -> None:
        """Take in what the keeper says of a session; a later word replaces an earlier one."""
        for family, value in known.aliases:
            self._keep((known.principal, family, value), known)

    def find(self, principal: Principal, claim: Claim) -> Resolved | None:
        """The session when this gateway knows it and the claim tells nothing new of it."""
        alias = claim.session
        if alias is None:
            return None if claim.previous_response_id else UNATTRIBUTED
        key = (principal, alias.family, alias.value)
        known = self._get(key)
        if known is None and self._derived and not self._link.is_connected:
            known = self._derived.get(key)
        if known is None:
            return None
        parent = claim.parent
        if parent is None or parent.value == known.parent_id:
            return Resolved(known, "exact", alias.source)
        if known.parent is None:
            return None
        return Resolved(known, "exact", alias.source, ("parent_differs",))

    async def resolve(self, principal: Principal, claim: Claim, at_ns: int, api: str) -> Resolved:
        """The session of a claim; asks the keeper where this gateway cannot know."""
        found = self.find(principal, claim)
        if found is not None:
            return found
        alias = claim.session
        if alias is None:
            return await self._ask(principal, claim, at_ns, api)
        key = (principal, alias.family, alias.value)
        running = self._asking.get(key)
        if running is not None:
            first = await asyncio.shield(running)
            # The first request opened the session; by then it exists.
            return self.find(principal, claim) or first
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._ask(principal, claim, at_ns, api)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # waiters see it; nobody waiting is no fault
            raise
        finally:
            del self._asking[key]
        future.set_result(answer)
        return answer

    async def _ask(self, principal: Principal, claim: Claim, at_ns: int, api: str) -> Resolved:
        self.asks += 1
        try:
            answer = await self._link.ask(principal, claim, at_ns, api)
            self._derived.clear()
        except KeeperAway:
            self.keeper_away += 1
            return self._derive(principal, claim)
        if answer.known is None:
            return Resolved(None, "unattributed", "", answer.flags)
        alias = claim.session
        if alias is not None:
            self._keep((principal, alias.family, alias.value), answer.known)
        self.learn(answer.known)
        return Resolved(answer.known, answer.resolution, answer.source, answer.flags)

    def _derive(self, principal: Principal, claim: Claim) -> Resolved:
        """The session as its own id names it, for as long as the keeper is away."""
        alias = claim.session
        if alias is None:
            return Resolved(None, "unattributed", "", ("keeper_away",))
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

    def _keep(self, key: AliasKey, known: Known) -> None:
        if len(self._young) >= GENERATION_ALIASES:
            self._old = self._young
            self._young = {}
        self._young[key] = known
