"""The rules that read content: proof, recency and their guards, one by one."""

from __future__ import annotations

import pytest
from tests.core.test_resolve import Memory, canonical, derive, native, tree, why

from clew.core.claim import Alias, Claim, Kind, Lifetime, SessionKey
from clew.core.lineage.threads import Relation, Verdict
from clew.core.resolve import Outcome, Resolution, Session, resolve
from clew.core.resolve_content import LINEAGE, Content, rules_with

FRESH = SessionKey("cs_fresh")
NOTHING = Verdict(Relation.UNRELATED, reason="no_evidence")


def rotating(value: str) -> Alias:
    """An id that lasts until its client is restarted."""
    return Alias("kilo", value, "kilo", lifetime=Lifetime.RESTART)


def says(relation: Relation, session: Session) -> Content:
    """Content with evidence for a session."""
    return Content(Verdict(relation, session.key, 3, "shown", ("aa",)), session, FRESH)


def resolved(
    claim: Claim,
    memory: Memory,
    content: Content | None = None,
    predecessors: list[Session] | None = None,
) -> Resolution:
    """By proof, or, with ``predecessors``, by recency where proof is silent."""
    content = content or Content(NOTHING, None, FRESH)
    find = None if predecessors is None else lambda _alias: predecessors
    return resolve(claim, memory, rules_with(content, find))


# --- recency: the rule for headers that rotate, with all its guards ------------------------------


def test_rotation_with_one_recent_predecessor_resumes_it() -> None:
    """The client was restarted and minted a new value for the same header."""
    memory = Memory()
    before = memory.add(rotating("n1"))
    found = resolved(Claim(session=rotating("n2")), memory, predecessors=[before])

    assert (found.outcome, found.key) == (Outcome.RESUMED, before.key)
    assert found.reason == "one_recent_predecessor"
    assert found.alias_writes == (rotating("n2"),)


def test_rotation_with_concurrent_predecessors_is_new() -> None:
    """Which of them was restarted nobody can tell."""
    memory = Memory()
    both = [memory.add(rotating("n1")), memory.add(rotating("n2"))]
    found = resolved(Claim(session=rotating("n3")), memory, predecessors=both)

    assert (found.outcome, why(found, "recency")) == (Outcome.NEW, "several_predecessors")


def test_rotation_without_a_recent_predecessor_is_new() -> None:
    """What was seen too long ago is no predecessor."""
    found = resolved(Claim(session=rotating("n1")), Memory(), predecessors=[])

    assert (found.outcome, why(found, "recency")) == (Outcome.NEW, "no_recent_predecessor")


@pytest.mark.parametrize(
    "claim",
    [
        Claim(session=rotating("n2"), is_subagent=True),
        Claim(session=rotating("n2"), parent=native("main")),
    ],
    ids=["marked", "with a parent"],
)
def test_rotation_never_resumes_for_a_subagent(claim: Claim) -> None:
    """A subagent's first call would otherwise take over its parent's session."""
    memory = Memory()
    found = resolved(claim, memory, predecessors=[memory.add(rotating("n1"))])

    assert (found.outcome, why(found, "recency")) == (Outcome.NEW, "subagents_are_excluded")


@pytest.mark.parametrize("alias", [native("s2"), tree("t2"), canonical("c2")])
def test_recency_is_for_rotating_headers_only(alias: Alias) -> None:
    """A new value of a header that lasts is a new conversation."""
    memory = Memory()
    found = resolved(Claim(session=alias), memory, predecessors=[memory.add(native("s1"))])

    assert (found.outcome, why(found, "recency")) == (Outcome.NEW, "not_a_restart_lifetime_id")


def test_evidence_comes_before_recency() -> None:
    """The session that content proves, not the one seen last."""
    memory = Memory()
    proved, recent = memory.add(rotating("n1")), memory.add(rotating("n2"))
    content = says(Relation.CONTINUES, proved)
    found = resolved(Claim(session=rotating("n3")), memory, content, [recent])

    assert (found.outcome, found.key, found.evidence) == (Outcome.RESUMED, proved.key, ("aa",))


def test_a_known_rotating_id_is_not_looked_for() -> None:
    """The exact alias decides, whatever else is recent."""
    memory = Memory()
    known, other = memory.add(rotating("n1")), memory.add(rotating("n2"))
    found = resolved(Claim(session=rotating("n1")), memory, predecessors=[other])

    assert (found.outcome, found.key) == (Outcome.EXACT, known.key)


def test_a_stable_header_that_appears_migrates_before_recency_is_asked() -> None:
    """Beside the rotating value its session was known by."""
    memory = Memory()
    known, other = memory.add(rotating("n1")), memory.add(rotating("n2"))
    claim = Claim(session=native("s1"), others=(rotating("n1"),))
    found = resolved(claim, memory, predecessors=[other])

    assert (found.outcome, found.key) == (Outcome.MIGRATED, known.key)


# --- proof -------------------------------------------------------------------------------------


def test_proof_resumes_among_concurrent_sessions() -> None:
    """Content tells which one; recency alone could not."""
    memory = Memory()
    memory.add(rotating("n1"))
    proved = memory.add(rotating("n2"))
    found = resolved(Claim(session=rotating("n3")), memory, says(Relation.CONTINUES, proved))

    assert (found.outcome, found.key, found.source) == (Outcome.RESUMED, proved.key, "kilo")


def test_content_without_an_id_is_exact() -> None:
    """Nothing else names such a session."""
    memory = Memory()
    proved = memory.add(native("s1"))
    found = resolved(Claim(), memory, says(Relation.CONTINUES, proved))

    assert (found.outcome, found.key, found.source) == (Outcome.EXACT, proved.key, LINEAGE)


@pytest.mark.parametrize("alias", [None, rotating("n2")])
def test_a_session_with_a_durable_id_is_forked_by_content(alias: Alias | None) -> None:
    """It went on under its id unread, so its history may have been continued already."""
    memory = Memory()
    home = memory.add(native("s1"), families=frozenset({native("s1").family}))
    found = resolved(Claim(session=alias), memory, says(Relation.CONTINUES, home))

    assert (found.outcome, found.forked_from) == (Outcome.NEW, home.key)
    assert why(found, "lineage") == "session_goes_on_under_its_id"


@pytest.mark.parametrize("is_child", [False, True], ids=["its root", "a thread below"])
def test_a_session_in_the_tree_of_another_id_is_forked_by_content(is_child: bool) -> None:
    """Two ids that name trees for ever are two conversations, however equal what they show."""
    memory = Memory()
    root = memory.add(tree("t1"))
    home = memory.add(native("s1"), root=root.key, named_by=frozenset()) if is_child else root
    found = resolved(Claim(session=tree("t2")), memory, says(Relation.CONTINUES, home))

    assert (found.outcome, found.forked_from) == (Outcome.NEW, home.key)
    assert why(found, "lineage") == "session_goes_on_in_its_tree"


def test_a_session_without_a_tree_is_resumed_under_one() -> None:
    """A client that begins to name its trees goes on with what it had."""
    memory = Memory()
    home = memory.add(rotating("n1"))
    found = resolved(Claim(session=tree("t2")), memory, says(Relation.CONTINUES, home))

    assert (found.outcome, found.key) == (Outcome.RESUMED, home.key)


def test_canonical_subagents_over_one_native_id_are_not_merged() -> None:
    """A harness names each agent; the native id below them is one for all."""
    memory = Memory()
    main = memory.add(canonical("main"), native("n1"))
    for name in ("sub-1", "sub-2"):
        claim = Claim(
            session=canonical(name),
            parent=canonical("main"),
            others=(native("n1"),),
            is_subagent=True,
        )
        found = resolved(claim, memory, says(Relation.CONTINUES, main))

        assert (found.outcome, found.key) == (Outcome.NEW, derive(canonical(name)))
        assert found.parent == main.key


def test_canonical_agents_without_a_parent_are_not_merged_either() -> None:
    """A session that has its canonical id takes no second one."""
    memory = Memory()
    memory.add(canonical("one"), native("n1"))
    claim = Claim(session=canonical("two"), others=(native("n1"),))

    assert resolved(claim, memory).key == derive(canonical("two"))


@pytest.mark.parametrize("kind", [Kind.TITLE, Kind.COMPACTION, Kind.SUMMARY])
@pytest.mark.parametrize("relation", [Relation.CONTINUES, Relation.SIDE])
def test_a_marked_side_call_under_a_foreign_durable_id_attaches(
    kind: Kind, relation: Relation
) -> None:
    """A compaction that carries a session's content belongs to it, not to its own id."""
    memory = Memory()
    home = memory.add(native("s1"))
    claim = Claim(session=Alias("cagent", "other", "cagent"), kind=kind)
    found = resolved(claim, memory, says(relation, home))

    assert (found.outcome, found.key, found.is_side) == (Outcome.EXACT, home.key, True)
    assert (found.is_unnamed, found.alias_writes) == (True, ())


def test_an_unmarked_call_under_a_durable_id_stays_its_own() -> None:
    """A full history under an id of its own is a fork, linked."""
    memory = Memory()
    home = memory.add(native("s1"))
    found = resolved(Claim(session=native("s2")), memory, says(Relation.CONTINUES, home))

    assert (found.outcome, found.key) == (Outcome.NEW, derive(native("s2")))
    assert found.forked_from == home.key


def test_two_children_of_one_response_are_a_fork() -> None:
    """The first goes on; the second is new and linked."""
    memory = Memory()
    home = memory.add(native("s1"))
    memory.responses["resp_1"] = home.key
    claim = Claim(previous_response_id="resp_1")
    first = resolved(claim, memory, says(Relation.CONTINUES, home))
    second = resolved(claim, memory, says(Relation.FORKS, home))

    assert (first.outcome, first.key) == (Outcome.EXACT, home.key)
    assert (second.outcome, second.key, second.forked_from) == (Outcome.NEW, FRESH, home.key)
    assert why(second, "response_chain") == "response_has_another_child"


def test_a_response_of_another_thread_is_no_fork() -> None:
    """What content says of some other session does not matter to a known response."""
    memory = Memory()
    home, other = memory.add(native("s1")), memory.add(native("s2"))
    memory.responses["resp_1"] = home.key
    found = resolved(Claim(previous_response_id="resp_1"), memory, says(Relation.FORKS, other))

    assert (found.outcome, found.key) == (Outcome.EXACT, home.key)
