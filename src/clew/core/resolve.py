"""Which session a claim names: a table of rules, tried in order, the first that fires decides.

Pure: what is known comes in as `Knowledge`, which sees one principal and nothing else, so that no
rule can cross from one caller to another. Each rule answers with what it found or with the stable
reason why it did not fire; `clew explain` prints them all. Lineage and recency are further rules
between `tree` and `new`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from clew.core.claim import Alias, Claim, Scope, SessionKey
from clew.core.session import judge_parent

CANONICAL: Final = "canonical"
RESPONSE_CHAIN: Final = "response-chain"


class Outcome(StrEnum):
    """How a session was found; the value of ``x-clew-resolution``."""

    EXACT = "exact"
    MIGRATED = "migrated"
    RESUMED = "resumed"
    NEW = "new"
    UNATTRIBUTED = "unattributed"


class Session(msgspec.Struct, frozen=True):
    """What resolving needs to know of one session."""

    key: SessionKey
    session_id: str
    """The stable external id."""
    parent: SessionKey | None = None
    parent_id: str = ""
    root: SessionKey | None = None
    is_closed: bool = False
    has_canonical: bool = False
    families: frozenset[str] = frozenset()
    """Families of which it has a durable thread id."""
    named_by: frozenset[str] = frozenset()
    """Families of all its ids, those of a tree that it is the root of included."""
    is_placeholder: bool = False
    """Named as a parent, never seen itself."""


class Knowledge(Protocol):
    """What is known of one principal's sessions."""

    def by_alias(self, family: str, value: str) -> Session | None:
        """The session an external id names."""
        ...

    def by_key(self, key: SessionKey) -> Session | None:
        """The session with this id of Clew's."""
        ...

    def by_response(self, response_id: str) -> Session | None:
        """The session that got this response."""
        ...

    def by_any_id(self, text: str) -> Session | None:
        """A session by Clew's id or by any external id, where exactly one has it."""
        ...

    def derive(self, alias: Alias) -> SessionKey:
        """The key of the session this id opens (`core.session.derive_key`)."""
        ...


class Found(msgspec.Struct, frozen=True):
    """What a rule that fired says."""

    outcome: Outcome
    reason: str
    key: SessionKey | None = None
    session: Session | None = None
    source: str = ""
    forked_from: SessionKey | None = None
    parent: Session | None = None
    """The parent where content alone tells it."""
    is_side: bool = False
    """A call about the session, not a turn of it: its own id names something else."""
    is_other_thread: bool = False
    """Not the thread that a tree-scoped id opened: content told it apart."""
    evidence: tuple[str, ...] = ()


class Tried(msgspec.Struct, frozen=True):
    """One rule of the table: whether it fired, and the stable reason either way."""

    rule: str
    has_fired: bool
    reason: str


class Resolution(msgspec.Struct, frozen=True):
    """The session of one claim, how it was found, and what is to be remembered."""

    outcome: Outcome
    reason: str
    key: SessionKey | None = None
    session_id: str = ""
    source: str = ""
    parent: SessionKey | None = None
    parent_id: str = ""
    root: SessionKey | None = None
    forked_from: SessionKey | None = None
    is_side: bool = False
    is_unnamed: bool = False
    """The request's own id does not name this session."""
    is_child: bool = False
    """Content names the parent: a subagent that sends no id."""
    evidence: tuple[str, ...] = ()
    is_closed: bool = False
    alias_writes: tuple[Alias, ...] = ()
    """Ids of this request that name the session from now on and did not before."""
    flags: tuple[str, ...] = ()
    """What resolving found odd; the claim's own flags are not repeated."""
    tried: tuple[Tried, ...] = ()


Rule = Callable[[Claim, Knowledge], Found | str]


def linked_others(claim: Claim) -> tuple[Alias, ...]:
    """The further ids that mean the same thread as the strongest.

    None beside a canonical id with a parent: a harness gives each of its subagents a canonical id
    over one native id, and they must not be merged through it.
    """
    strongest = claim.session
    if strongest is None or strongest.scope is Scope.TREE:
        return ()
    if strongest.source == CANONICAL and claim.parent is not None:
        return ()
    return claim.others


def _exact(claim: Claim, knowledge: Knowledge) -> Found | str:
    alias = claim.session
    if alias is None:
        return "no_id"
    if alias.scope is Scope.TREE:
        return "id_names_a_tree"
    session = knowledge.by_alias(alias.family, alias.value)
    if session is None:
        return "id_unknown"
    if session.is_placeholder:
        return Found(Outcome.NEW, "first_own_request", session.key, session, alias.source)
    return Found(Outcome.EXACT, "id_known", session.key, session, alias.source)


def _migrate(claim: Claim, knowledge: Knowledge) -> Found | str:
    alias = claim.session
    if alias is None or alias.scope is Scope.TREE:
        return "no_thread_id"
    if not claim.others:
        return "no_other_id"
    if alias.source == CANONICAL and claim.parent is not None:
        return "parent_header_present"
    why = "other_ids_unknown"
    for other in claim.others:
        session = knowledge.by_alias(other.family, other.value)
        if session is None or session.is_placeholder:
            continue
        if alias.source == CANONICAL and session.has_canonical:
            why = "has_canonical_already"
            continue
        if alias.family in session.families:
            # One id a process beside one a thread: the shared one must not merge the threads.
            why = "has_own_family_already"
            continue
        if session.is_closed:
            why = "other_session_closed"  # a new id is how a closed session's client goes on
            continue
        return Found(Outcome.MIGRATED, "other_id_known", session.key, session, alias.source)
    return why


def _response_chain(claim: Claim, knowledge: Knowledge) -> Found | str:
    if not claim.previous_response_id:
        return "no_previous_response"
    if claim.session is not None and claim.session.scope is Scope.THREAD:
        return "id_outranks_it"
    session = knowledge.by_response(claim.previous_response_id)
    if session is None:
        return "response_unknown"
    return Found(Outcome.EXACT, "response_known", session.key, session, RESPONSE_CHAIN)


def _tree(claim: Claim, knowledge: Knowledge) -> Found | str:
    alias = claim.session
    if alias is None or alias.scope is not Scope.TREE:
        return "no_tree_id"
    session = knowledge.by_alias(alias.family, alias.value)
    if session is None:
        return "tree_unknown"
    outcome = Outcome.NEW if session.is_placeholder else Outcome.EXACT
    return Found(outcome, "tree_id_names_root", session.key, session, alias.source)


def _new(claim: Claim, knowledge: Knowledge) -> Found | str:
    alias = claim.session
    if alias is None:
        return "no_id"
    return Found(Outcome.NEW, "id_seen_first", knowledge.derive(alias), source=alias.source)


def _unattributed(_claim: Claim, _knowledge: Knowledge) -> Found | str:
    return Found(Outcome.UNATTRIBUTED, "nothing_names_a_session")


RULES: Final[tuple[tuple[str, Rule], ...]] = (
    ("exact", _exact),
    ("migrate", _migrate),
    ("response_chain", _response_chain),
    ("tree", _tree),
    ("new", _new),
    ("unattributed", _unattributed),
)
"""The order of `docs/identity.md`. The last rule always fires."""


def resolve(
    claim: Claim, knowledge: Knowledge, rules: tuple[tuple[str, Rule], ...] = RULES
) -> Resolution:
    """The session of a claim. ``knowledge`` is of the caller's principal alone."""
    tried: list[Tried] = []
    for name, rule in rules:
        answer = rule(claim, knowledge)
        if isinstance(answer, str):
            tried.append(Tried(name, has_fired=False, reason=answer))
            continue
        tried.append(Tried(name, has_fired=True, reason=answer.reason))
        return _complete(claim, knowledge, answer, tuple(tried))
    raise AssertionError("the last rule fires always")


def _complete(
    claim: Claim, knowledge: Knowledge, found: Found, tried: tuple[Tried, ...]
) -> Resolution:
    """Parent, root, aliases and flags of the session a rule has named."""
    key = found.key
    if key is None:
        return Resolution(found.outcome, found.reason, tried=tried)
    session = found.session
    flags: list[str] = []
    parent, parent_id = _parent(claim, knowledge, found, key, flags)
    writes = () if found.is_side else _alias_writes(claim, knowledge, found, flags)
    return Resolution(
        outcome=found.outcome,
        reason=found.reason,
        key=key,
        session_id=_session_id(claim, found, key),
        source=found.source,
        parent=parent,
        parent_id=parent_id,
        root=_root(claim, knowledge, key, session, parent),
        forked_from=_name(knowledge, claim.forked_from) or found.forked_from,
        is_side=found.is_side,
        is_unnamed=_is_unnamed(claim, found),
        is_child=found.parent is not None,
        evidence=found.evidence,
        is_closed=session is not None and session.is_closed,
        alias_writes=writes,
        flags=tuple(flags),
        tried=tried,
    )


def _session_id(claim: Claim, found: Found, key: SessionKey) -> str:
    if found.session is not None:
        return found.session.session_id
    if claim.session is None or _is_unnamed(claim, found):
        return key
    return claim.session.value


def _is_unnamed(claim: Claim, found: Found) -> bool:
    """Whether the request's own id does not name the session found: a side call, another thread
    of the tree that the id names."""
    alias = claim.session
    if alias is None:
        return False
    return found.is_side or (alias.scope is Scope.TREE and found.is_other_thread)


def _name(knowledge: Knowledge, alias: Alias | None) -> SessionKey | None:
    """The session an id names, known or not."""
    if alias is None:
        return None
    session = knowledge.by_alias(alias.family, alias.value)
    return session.key if session is not None else knowledge.derive(alias)


def _parent(
    claim: Claim, knowledge: Knowledge, found: Found, key: SessionKey, flags: list[str]
) -> tuple[SessionKey | None, str]:
    """The parent after this claim, with the external id it was claimed by."""
    session = found.session
    claimed, claimed_id = _claimed_parent(claim, knowledge, found, flags)
    verdict = judge_parent(
        key,
        session.parent if session is not None else None,
        claimed,
        lambda at: _root_of(knowledge, at),
        may_be_ancestor=session is not None,
    )
    if verdict.flag:
        flags.append(verdict.flag)
    if verdict.parent is None:
        return None, ""
    if session is not None and session.parent is not None:
        return session.parent, session.parent_id
    return verdict.parent, claimed_id


def _claimed_parent(
    claim: Claim, knowledge: Knowledge, found: Found, flags: list[str]
) -> tuple[SessionKey | None, str]:
    """Who this request says its parent is: its own header, else content, else ``X-Clew-Parent``."""
    parent, session = claim.parent, claim.session
    is_attached = (
        parent is not None
        and parent.source == CANONICAL
        and (session is None or session.source != CANONICAL)
    )
    if found.parent is not None and (parent is None or is_attached):
        return found.parent.key, found.parent.session_id
    if parent is not None:
        return _name(knowledge, parent), parent.value
    if not claim.attach_to:
        return None, ""
    attached = knowledge.by_any_id(claim.attach_to)
    if attached is None:
        flags.append("attach_unknown")
        return None, ""
    return attached.key, attached.session_id


def _root_of(knowledge: Knowledge, key: SessionKey) -> SessionKey | None:
    """The next step up that matters: a session without parent is above another only as its root.

    Trees may be thousands deep, and a step costs a look-up. A root that is not right yet, because
    the tree was moved just now, lets a circle through to the projector, which breaks it.
    """
    session = knowledge.by_key(key)
    return session.root if session is not None and session.root != key else None


def _root(
    claim: Claim,
    knowledge: Knowledge,
    key: SessionKey,
    session: Session | None,
    parent: SessionKey | None,
) -> SessionKey:
    if parent is None:
        return key
    if session is not None and session.parent is not None and session.root is not None:
        return session.root
    above = knowledge.by_key(parent)
    if above is not None and above.root is not None and not above.is_placeholder:
        return above.root
    named = _name(knowledge, claim.root)
    # An agent's main thread names itself as its run; attached, it has a parent all the same.
    return named if named is not None and named != key else parent


def _alias_writes(
    claim: Claim, knowledge: Knowledge, found: Found, flags: list[str]
) -> tuple[Alias, ...]:
    """Ids to remember; two sessions claimed by one request are flagged, never merged."""
    strongest = claim.session
    if strongest is None or found.source == RESPONSE_CHAIN or _is_unnamed(claim, found):
        return ()
    writes: list[Alias] = []
    for alias in (strongest, *linked_others(claim)):
        session = knowledge.by_alias(alias.family, alias.value)
        if session is None:
            writes.append(alias)
        elif session.key != found.key and "ids_of_two_sessions" not in flags:
            flags.append("ids_of_two_sessions")
    return tuple(writes)
