"""Rules that read content: lineage (proof) and recency (opt-in), between `tree` and `new`.

What evidence means for an id depends on what the id is:

| id | continues S | forks S | child of S | side call of S | nothing |
|---|---|---|---|---|---|
| none | exact | new, linked | new, below S | S | new |
| restart-lifetime, unknown | resumed | new, linked | new, below S | S | recency, else new |
| names a tree | that thread | new below the root | new below S | S | root's thread or a child |
| durable, unknown | new, linked | new, linked | new | S if marked; linked if it begins as S | new |
| names a tree, unknown; S is in another | new, linked | new, linked | new, below S | S | new |

A session that has a durable id itself is continued under that alone: its bodies are not read, so
content knows its beginning and not how far it has come. Who carries its history is a fork of it.

A response names its session exactly, but for the second main request that follows it with another
body: two children of one response are a fork (`docs/identity.md`, order 8).

Recency is the rule for restart-lifetime headers with all its guards: the same header, one
predecessor only, seen within ``resume_max_age``, no subagent on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from clew.core.claim import Alias, Claim, Kind, Lifetime, Scope, SessionKey
from clew.core.lineage.threads import Relation, Verdict
from clew.core.resolve import RULES, Found, Knowledge, Outcome, Rule, Session

LINEAGE: Final = "lineage"
SIDE_KINDS: Final = frozenset({Kind.TITLE, Kind.SUMMARY, Kind.COMPACTION})
_NAMED_RULES: Final = dict(RULES)
_SAME_THREAD: Final = frozenset({Relation.CONTINUES, Relation.RETRIES})


RECENCY_LOOKED: Final = frozenset(
    {"one_recent_predecessor", "several_predecessors", "no_recent_predecessor"}
)
"""Reasons of recency that hang on when sessions were seen last."""


class Content(msgspec.Struct, frozen=True):
    """What the content of one request says, and the key a session without id would get."""

    verdict: Verdict
    session: Session | None
    """The verdict's session; None where it names none or none that is known any more."""
    fresh: SessionKey


def is_marked(claim: Claim) -> bool:
    """Whether headers say that this call under an id of its own is about some other session."""
    return claim.names_durable_thread and claim.kind in SIDE_KINDS


Predecessors = Callable[[Alias], list[Session]]
"""Sessions, at most two, that an id of the same header named lately (recency)."""


def rules_with(
    content: Content | None, predecessors: Predecessors | None
) -> tuple[tuple[str, Rule], ...]:
    """The table of rules for a request with this content; None: as with ``resume = "off"``."""
    if content is None:
        return RULES
    ours: dict[str, Rule] = {
        "response_chain": lambda claim, knowledge: _response_chain(claim, knowledge, content),
        "tree": lambda claim, knowledge: _tree(claim, knowledge, content),
        "new": lambda claim, knowledge: _new(claim, knowledge, content),
    }
    rules = [(name, ours.get(name, rule)) for name, rule in RULES]
    place = [name for name, _ in rules].index("new")
    rules.insert(place, ("lineage", lambda claim, knowledge: _lineage(claim, knowledge, content)))
    if predecessors is not None:
        rules.insert(place + 1, ("recency", lambda claim, _: _recency(claim, predecessors)))
    return tuple(rules)


def _response_chain(claim: Claim, knowledge: Knowledge, content: Content) -> Found | str:
    found = _NAMED_RULES["response_chain"](claim, knowledge)
    is_taken = content.verdict.relation is Relation.FORKS and content.session is not None
    if isinstance(found, Found) and is_taken and content.session == found.session:
        return "response_has_another_child"
    return found


def _lineage(claim: Claim, knowledge: Knowledge, content: Content) -> Found | str:
    verdict, session = content.verdict, content.session
    if session is None:
        return verdict.reason or "no_evidence"
    if verdict.relation is Relation.SIDE or (
        verdict.relation in _SAME_THREAD and claim.kind in SIDE_KINDS
    ):
        return _side(claim, content, session)
    if verdict.relation not in _SAME_THREAD:
        return verdict.reason  # a fork or a child is new: the rule `new` links it
    if claim.names_durable_thread:
        return "durable_id_is_a_fork"
    if session.families:
        return "session_goes_on_under_its_id"
    if _is_of_another_tree(claim.session, session, knowledge):
        return "session_goes_on_in_its_tree"
    outcome = Outcome.EXACT if claim.session is None else Outcome.RESUMED
    source = LINEAGE if claim.session is None else claim.session.source
    return Found(outcome, verdict.reason, session.key, session, source, evidence=verdict.evidence)


def _is_of_another_tree(alias: Alias | None, session: Session, knowledge: Knowledge) -> bool:
    """Whether a session stands in a tree that another durable id of this family names.

    The id itself names none: the rule ``tree`` would have found it.
    """
    if alias is None or alias.scope is not Scope.TREE or alias.lifetime is not Lifetime.DURABLE:
        return False
    root = knowledge.by_key(session.root) if session.root not in (None, session.key) else session
    return alias.family in (root or session).named_by


def _side(claim: Claim, content: Content, session: Session) -> Found | str:
    if claim.names_durable_thread and claim.kind not in SIDE_KINDS:
        return "durable_id_is_no_side_call"
    return Found(
        Outcome.EXACT,
        content.verdict.reason,
        session.key,
        session,
        LINEAGE,
        is_side=True,
        evidence=content.verdict.evidence,
    )


def _recency(claim: Claim, predecessors: Predecessors) -> Found | str:
    alias = claim.session
    if alias is None or alias.lifetime is not Lifetime.RESTART or alias.scope is Scope.TREE:
        return "not_a_restart_lifetime_id"
    if claim.is_subagent or claim.parent is not None:
        return "subagents_are_excluded"
    found = predecessors(alias)
    if len(found) != 1:
        return "several_predecessors" if found else "no_recent_predecessor"
    return Found(Outcome.RESUMED, "one_recent_predecessor", found[0].key, found[0], alias.source)


def _tree(claim: Claim, knowledge: Knowledge, content: Content) -> Found | str:
    """The thread of a tree: by evidence inside it, else the root's if that is not open yet."""
    alias = claim.session
    if alias is None or alias.scope is not Scope.TREE:
        return "no_tree_id"
    root = knowledge.by_alias(alias.family, alias.value)
    if root is None or root.is_placeholder:
        return "tree_unknown"
    session, verdict = content.session, content.verdict
    is_inside = session is not None and session.root in (root.key, root.root)
    if session is not None and is_inside and verdict.relation in (*_SAME_THREAD, Relation.SIDE):
        return Found(
            Outcome.EXACT,
            verdict.reason,
            session.key,
            session,
            alias.source,
            is_side=verdict.relation is Relation.SIDE,
            is_other_thread=session.key != root.key,
            evidence=verdict.evidence,
        )
    if claim.kind is not Kind.TURN and claim.kind is not Kind.SUBAGENT:
        return Found(Outcome.EXACT, "tree_id_names_root", root.key, root, alias.source)
    parent = session if session is not None and is_inside else root
    return Found(
        Outcome.NEW,
        "another_thread_of_the_tree",
        content.fresh,
        source=alias.source,
        parent=parent,
        is_other_thread=True,
    )


def _new(claim: Claim, knowledge: Knowledge, content: Content) -> Found | str:
    verdict, session = content.verdict, content.session
    is_child = verdict.relation is Relation.CHILD and session is not None
    is_linked = verdict.relation in (*_SAME_THREAD, Relation.FORKS) and session is not None
    alias = claim.session
    return Found(
        Outcome.NEW,
        verdict.reason if is_child or is_linked else "id_seen_first" if alias else "opens_a_thread",
        knowledge.derive(alias) if alias is not None else content.fresh,
        source=alias.source if alias is not None else LINEAGE,
        forked_from=session.key if session is not None and is_linked else None,
        parent=session if is_child else None,
        evidence=verdict.evidence if is_linked else (),
    )
