"""Forks under an id of their own of sessions that show one exchange and go on unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.lineage.speaking import HOUR_S, A, B, C, Speaking, asking, reply

from clew.core.apis.chat import CHAT
from clew.core.claim import SessionKey
from clew.core.lineage.beginnings import MARKS
from clew.core.lineage.blocks import Conversation, Digester, Reply
from clew.core.lineage.index import Limits, Relation, ScopeIndex, Verdict

CAPTURES = Path(__file__).parents[3] / "conformance" / "captures"
LONG = "u1|<a1|u2|<a2|u3|<a3"


def shown(speaking: Speaking, key: SessionKey, request: Conversation, answer: Reply) -> int:
    """A turn of a session that its id names: one of the few that are shown."""
    node = speaking.take(key, request)
    speaking.index.answered(key, node, answer, is_seldom_shown=True)
    return node


def under_own_id(
    speaking: Speaking, request: Conversation, *, is_subagent: bool = False, is_marked: bool = False
) -> Verdict:
    """What the index says to a request whose unknown id names a durable thread."""
    return speaking.index.weigh(
        request,
        speaking.now_s,
        24 * HOUR_S,
        is_subagent=is_subagent,
        has_own_id=True,
        is_marked=is_marked,
    )


@pytest.fixture
def speaking() -> Speaking:
    """Session A has said u1 and was answered a1; what it said since nobody has shown."""
    made = Speaking()
    shown(made, A, asking("", "u1"), reply("a1"))
    return made


def test_a_copy_of_a_session_that_went_on_unseen_is_its_fork(speaking: Speaking) -> None:
    """The first exchange, block for block, links it, whatever follows."""
    found = under_own_id(speaking, asking(LONG, "elsewhere"))

    assert (found.relation, found.session) == (Relation.FORKS, A)
    assert found.reason == "begins_as_the_session"
    assert len(found.evidence) == 1


def test_only_an_id_of_its_own_makes_a_beginning_a_link(speaking: Speaking) -> None:
    """Without one the request may be anybody's next turn: the turn's rule stands alone."""
    assert speaking.weigh(asking(LONG, "elsewhere")).reason == "mostly_unseen"


def test_the_second_fork_is_linked_to_the_origin_as_well(speaking: Speaking) -> None:
    """The first fork quotes what the origin was told, and makes it nobody's else."""
    shown(speaking, B, asking(LONG, "elsewhere"), reply("b1"))

    found = under_own_id(speaking, asking(LONG, "another way"))

    assert (found.relation, found.session) == (Relation.FORKS, A)


def test_a_fork_of_a_fork_is_linked_to_the_fork(speaking: Speaking) -> None:
    """Both begin as the origin did; the longest beginning counts."""
    shown(speaking, B, asking(LONG, "elsewhere"), reply("b1"))

    found = under_own_id(speaking, asking(f"{LONG}|elsewhere|<b1|u7|<b2|u8|<b3", "on"))

    assert (found.relation, found.session) == (Relation.FORKS, B)


def test_age_ends_resuming_and_not_descent(speaking: Speaking) -> None:
    """A durable session's later turns do not touch what is kept of it."""
    speaking.now_s += 72 * HOUR_S

    assert under_own_id(speaking, asking("u1|<a1", "elsewhere")).session == A
    assert under_own_id(speaking, asking(LONG, "elsewhere")).session == A


def test_a_copy_with_fewer_tools_is_a_fork_too(speaking: Speaking) -> None:
    """A request under an id of its own is no side call of another session."""
    request = asking("u1|<a1", "plan only", tools=frozenset())

    assert speaking.weigh(request).relation is Relation.SIDE
    assert under_own_id(speaking, request).relation is Relation.FORKS


def test_what_its_own_blocks_say_outweighs_a_beginning(speaking: Speaking) -> None:
    """A call about another session that quotes this one's beginning is not taken for its copy."""
    speaking.turn(B, asking("u1|<a1", "v1"), reply("b1"))
    speaking.turn(B, asking("u1|<a1|v1|<b1", "v2"), reply("b2"))
    request = asking("u1|<a1|v1|<b1|v2|<b2", "topic?", tools=frozenset())

    assert under_own_id(speaking, request) == speaking.weigh(request)
    assert under_own_id(speaking, request).session == B


def test_reasoning_that_is_not_sent_again_hides_nothing() -> None:
    """One block of the reply behind the question is enough."""
    speaking = Speaking()
    shown(speaking, A, asking("", "u1"), reply("reasoning|a1|call"))

    assert under_own_id(speaking, asking("u1|<a1|<call|u2|<a2|u3|<a3", "on")).session == A


@pytest.mark.parametrize(
    "history",
    [
        "u1|<other|u2|<a2",
        "u0|u1|<a1|u2|<a2",
        "u2|<a2|u1|<a1",
        "u1|u2|<a1",
        "u1",
        "<a1|u1",
        "",
    ],
    ids=["answer", "before", "later", "between", "unanswered", "order", "nothing"],
)
def test_it_must_begin_as_the_session_did(speaking: Speaking, history: str) -> None:
    """The question first, block for block, and the model's own word right behind it."""
    assert under_own_id(speaking, asking(history, "on")).reason != "begins_as_the_session"


def test_two_sessions_that_were_told_the_same_link_nobody(speaking: Speaking) -> None:
    """Equal questions with equal answers are everybody's."""
    shown(speaking, B, asking("", "u1"), reply("a1"))

    assert under_own_id(speaking, asking(LONG, "on")).session is None


def test_an_answer_of_several_sessions_links_nobody(speaking: Speaking) -> None:
    """One run of words that two sessions were told, each a part of, is neither's."""
    shown(speaking, B, asking("", "u1"), reply("b1"))

    assert under_own_id(speaking, asking("u1|<a1|<b1|u2|<a2", "on")).session is None


def test_a_closed_session_and_one_of_another_status_link_nothing(speaking: Speaking) -> None:
    """A subagent that is given its parent's history is its child, not its fork."""
    assert under_own_id(speaking, asking(LONG, "on"), is_subagent=True).session is None
    speaking.index.close(A)
    assert under_own_id(speaking, asking(LONG, "on")).session is None


def test_a_marked_call_finds_a_session_that_was_forked(speaking: Speaking) -> None:
    """Its fork shares all its blocks, and the compaction is the origin's all the same."""
    shown(speaking, B, asking(LONG, "elsewhere"), reply("b1"))

    found = under_own_id(speaking, asking(LONG, "summarise"), is_marked=True)

    assert (found.relation, found.session) == (Relation.SIDE, A)


def test_the_beginning_after_a_compaction_counts_as_one(speaking: Speaking) -> None:
    """The turn that is shown then has the summary before it."""
    shown(speaking, A, asking("summary|<Got it.", "u5"), reply("a5"))

    found = under_own_id(speaking, asking("summary|<Got it.|u5|<a5|u6|<a6|u7|<a7", "on"))

    assert (found.relation, found.session) == (Relation.FORKS, A)


def test_a_restarted_keeper_knows_beginnings(speaking: Speaking) -> None:
    """They are in the log and in its snapshot, and another keeper takes them in."""
    snapshot = list(speaking.index.snapshot())
    restored, merged = ScopeIndex(Limits()), ScopeIndex(Limits(), 2, 1 << 20)
    restored.restore(snapshot)
    merged.merge(snapshot, 1)

    for index in (restored, merged):
        speaking.index = index
        assert under_own_id(speaking, asking(LONG, "on")).session == A


def test_a_forgotten_beginning_is_not_made_anew() -> None:
    """What A was told and the index forgot does not become B's alone."""
    speaking = Speaking(Limits(digests=4))
    shown(speaking, A, asking("", "u1"), reply("a1"))
    shown(speaking, C, asking("", "c1|c2|c3"), reply("c4"))
    shown(speaking, B, asking("", "u1"), reply("a1"))

    assert under_own_id(speaking, asking(LONG, "on")).session is None


def test_few_marks_are_kept_of_a_long_reply() -> None:
    """A reply of many blocks costs no more than `MARKS` digests beside its own."""
    speaking = Speaking()
    words = "|".join(f"w{number}" for number in range(100))
    before = speaking.index.weight_bytes
    speaking.turn(A, asking("", "u1"), reply(words))
    plain = speaking.index.weight_bytes - before

    speaking = Speaking()
    shown(speaking, A, asking("", "u1"), reply(words))

    assert 0 < speaking.index.weight_bytes - before - plain <= MARKS * 200


names = st.sampled_from(["u1", "u2", "go on", "hi"])
words = st.sampled_from(["a1", "a2", "OK", "b1"])


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), names, words), min_size=1, max_size=6),
    names,
    words,
    st.lists(names, max_size=3),
    st.sampled_from([4, 8, 64]),
)
def test_a_link_is_to_who_alone_was_told_it(
    said: list[tuple[SessionKey, str, str]], question: str, word: str, rest: list[str], bound: int
) -> None:
    """Whatever a few sessions said, whatever was forgotten: the one that began so, or nobody."""
    speaking = Speaking(Limits(digests=bound, sessions=4, nodes=4))
    for key, asked, told in said:
        shown(speaking, key, asking("", asked), reply(told))
    history = "|".join([question, f"<{word}", *rest])

    found = under_own_id(speaking, asking(history, "on", tools=frozenset()))

    if found.reason == "begins_as_the_session":
        assert {key for key, *told in said if told == [question, word]} == {found.session}


def rows(agent: str) -> list[dict[str, Any]]:
    """The requests of a capture."""
    return [json.loads(line) for line in (CAPTURES / f"{agent}.jsonl").read_text().splitlines()]


def test_the_recorded_fork_of_kilo_is_linked_when_two_exchanges_were_not_shown() -> None:
    """`kilo-7.7.7.jsonl`: new, an unseen turn more than was recorded, and the fork."""
    digester, speaking = Digester(b"secret"), Speaking()
    new, _, fork = rows("kilo-7.7.7")[:3]
    content = [
        CHAT.conversation(b"", json.dumps(r["body"]).encode(), digester) for r in (new, fork)
    ]
    assert content[0] is not None
    assert content[1] is not None
    message = {"role": "assistant", "content": new["reply"]["text"]}
    said = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()

    shown(speaking, A, content[0], CHAT.reply(said, False, digester))

    assert under_own_id(speaking, content[1]).session == A


def test_the_turn_after_opencodes_title_links_its_fork() -> None:
    """`opencode-1.18.33.jsonl`: the title comes first, the copy begins with the turn."""
    digester, speaking = Digester(b"secret"), Speaking()
    title, first, second = rows("opencode-1.18.33")[:3]
    for row in (title, first):
        request = CHAT.conversation(b"", json.dumps(row["body"]).encode(), digester)
        message = {"role": "assistant", "content": row["reply"]["text"]}
        said = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        assert request is not None
        shown(speaking, A, request, CHAT.reply(said, False, digester))
    body = second["body"]
    body["messages"] += [
        {"role": "assistant", "content": second["reply"]["text"]},
        {"role": "user", "content": "elsewhere"},
    ]

    fork = CHAT.conversation(b"", json.dumps(body).encode(), digester)

    assert fork is not None
    found = under_own_id(speaking, fork)
    assert (found.relation, found.session) == (Relation.FORKS, A)
