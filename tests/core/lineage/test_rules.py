"""Each rule of `docs/lineage.md` by its name."""

from __future__ import annotations

import pytest
from tests.core.lineage.speaking import HOUR_S, NEW, A, B, C, Speaking, asking, reply, said
from tests.core.lineage.world import digest

from clew.core.lineage.blocks import Block, Reply
from clew.core.lineage.index import Limits, Relation
from clew.core.lineage.threads import RETRY_WINDOW_S


@pytest.fixture
def speaking() -> Speaking:
    """Session A has said u1 and was answered a1."""
    made = Speaking()
    made.turn(A, asking("", "u1"), reply("a1"))
    return made


def test_a_history_that_only_one_session_has_shown_continues_it(speaking: Speaking) -> None:
    """What was asked and relayed comes back, with the next question behind it."""
    verdict = speaking.weigh(asking("u1|<a1", "u2"))

    assert (verdict.relation, verdict.session) == (Relation.CONTINUES, A)
    assert len(verdict.evidence) == 2


def test_a_block_of_two_sessions_is_no_evidence(speaking: Speaking) -> None:
    """Equal openings with equal replies name nobody."""
    speaking.turn(B, asking("", "u1"), reply("a1"))

    assert speaking.relation(asking("u1|<a1", "u2")) is Relation.UNRELATED


def test_an_equal_opening_is_told_by_its_reply(speaking: Speaking) -> None:
    """Two sessions that begin alike are kept apart by what was relayed to each."""
    speaking.turn(B, asking("", "u1"), reply("b1"))

    assert speaking.weigh(asking("u1|<a1", "u2")).session == A
    assert speaking.weigh(asking("u1|<b1", "u2")).session == B


def test_an_equal_preamble_is_no_evidence() -> None:
    """Project notes that every session sends join no two of them."""
    speaking = Speaking()
    speaking.turn(A, asking("", "notes|u1"), reply("OK"))
    speaking.turn(B, asking("", "notes|u2"), reply("OK"))

    assert speaking.relation(asking("notes|<OK", "u3")) is Relation.UNRELATED


def test_an_opening_alone_proves_nothing(speaking: Speaking) -> None:
    """A history with the question and another answer is another conversation."""
    assert speaking.relation(asking("u1|<other", "u2")) is Relation.UNRELATED
    assert speaking.weigh(asking("u1", "u2")).reason == "nothing_relayed"


def test_an_answer_alone_proves_nothing(speaking: Speaking) -> None:
    """A "Done." that one session was told so far stands in unseen conversations too."""
    assert speaking.weigh(asking("hi|<a1", "u2")).relation is Relation.UNRELATED
    assert speaking.weigh(asking("<a1", "u2")).reason == "turn_incomplete"


def test_the_models_words_in_a_users_mouth_prove_nothing(speaking: Speaking) -> None:
    """A pasted answer is not a relayed one."""
    assert speaking.weigh(asking("u1|a1", "u2")).reason == "nothing_relayed"


def test_what_nobody_has_shown_must_not_outweigh_the_evidence(speaking: Speaking) -> None:
    """A conversation begun elsewhere that happens to repeat a turn is not that session."""
    request = asking("x1|<y1|u1|<a1", "u2")

    assert speaking.weigh(request).reason == "mostly_unseen"


def test_blocks_may_be_added_moved_and_dropped(speaking: Speaking) -> None:
    """A reminder that wanders from the first message to the newest breaks nothing."""
    speaking.turn(A, asking("u1|<a1", "u2|reminder"), reply("a2"))

    verdict = speaking.weigh(asking("u1|added|<a1|u2|<a2", "u3|reminder"))

    assert (verdict.relation, verdict.session) == (Relation.CONTINUES, A)


def test_a_moved_reminder_does_not_move_the_place(speaking: Speaking) -> None:
    """A reminder shown in two nodes does not make an old history look like the newest one."""
    speaking.turn(A, asking("u1|<a1", "u2|reminder"), reply("a2"))
    speaking.turn(A, asking("u1|<a1|u2|<a2", "u3|reminder"), reply("a3"))

    assert speaking.relation(asking("u1|reminder|<a1", "other")) is Relation.FORKS


def test_a_stray_reminder_does_not_make_a_fork_the_next_turn(speaking: Speaking) -> None:
    """An older history with a reminder of the turn in flight, or of the newest, is a fork."""
    node = speaking.take(A, asking("u1|<a1", "u2|reminder"), speaking.weigh(asking("u1|<a1", "")))
    assert speaking.relation(asking("u1|reminder|<a1", "other")) is Relation.FORKS

    speaking.index.answered(A, node, reply("a2"))
    assert speaking.relation(asking("u1|reminder|<a1", "other")) is Relation.FORKS


def test_an_unknown_reply_is_made_up_for_by_the_whole_question(speaking: Speaking) -> None:
    """Where a reply could not be read, the question and what came before it name the session."""
    request = asking("u1|<a1", "u2|extra")
    speaking.take(A, request, speaking.weigh(request))

    assert speaking.relation(asking("u1|<a1|u2|extra|<unread", "u3")) is Relation.CONTINUES
    assert speaking.relation(asking("u1|<a1|u2|<unread", "u3")) is Relation.FORKS


def test_a_repeated_reply_does_not_move_the_place(speaking: Speaking) -> None:
    """A "Done." said twice in one session names the session, not how far a history reaches."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("Done."))
    speaking.turn(A, asking("u1|<a1|u2|<Done.", "u3"), reply("Done."))

    assert speaking.relation(asking("u1|<a1|u2|<Done.", "other")) is Relation.FORKS
    assert speaking.relation(asking("u1|<a1|u2|<Done.|u3|<Done.", "u4")) is Relation.CONTINUES


def test_replies_of_nobodys_own_need_the_very_end() -> None:
    """Where every answer is "OK" a history must end as the continued node does."""
    speaking = Speaking()
    speaking.turn(A, asking("", "u1"), reply("OK"))
    speaking.turn(B, asking("", "u2"), reply("OK"))

    assert speaking.weigh(asking("u1|<OK", "next")).session == A
    assert speaking.weigh(asking("u1|added|<OK", "next")).relation is Relation.UNRELATED


def test_a_reminder_of_one_session_does_not_make_anothers_end_its_own() -> None:
    """Two ended alike; what only one has shown may have been put into the other's history."""
    speaking = Speaking()
    speaking.turn(A, asking("", "hi|reminder"), reply("OK"))
    speaking.turn(B, asking("", "hi"), reply("OK"))

    assert speaking.weigh(asking("hi|reminder|<OK", "next")).reason == "nothing_relayed"


def test_how_a_dropped_session_ended_is_remembered() -> None:
    """A session that was let go may still be the one whose history this is."""
    speaking = Speaking(Limits(sessions=2))
    speaking.turn(B, asking("", "hi"), reply("OK"))
    speaking.turn(A, asking("", "hi|reminder"), reply("OK"))
    speaking.turn(C, asking("", "w1"), reply("c1"))

    assert not speaking.index.knows(B)
    assert speaking.weigh(asking("hi|reminder|<OK", "next")).reason == "nothing_relayed"


def test_the_very_history_proves_a_turn_without_words_of_its_own(speaking: Speaking) -> None:
    """Block for block what A showed and was told: its last turn, though others said the same."""
    speaking.turn(B, asking("", "go on"), reply("Done."))
    speaking.turn(A, asking("u1|<a1", "go on"), reply("Done."))
    speaking.turn(A, asking("u1|<a1|go on|<Done.", "go on"), reply("Done."))

    twice = "u1|<a1|go on|<Done.|go on|<Done."
    assert speaking.relation(asking(twice, "u4")) is Relation.CONTINUES
    assert speaking.relation(asking("u1|<a1|go on|<Done.", "other")) is Relation.FORKS
    assert speaking.relation(asking(f"{twice}|go on|<Done.", "u4")) is Relation.FORKS


def test_a_history_that_a_session_began_with_is_not_told_by_a_reminder() -> None:
    """Somebody went on from these shared words: a reminder alone names nobody for the next one."""
    speaking = Speaking()
    speaking.turn(C, asking("", "c1|u1"), reply("OK"))
    speaking.turn(A, asking("", "u1|reminder"), reply("OK"))
    assert speaking.weigh(asking("u1|reminder|<OK", "u2")).session == A
    speaking.turn(B, asking("u1|<OK", "v2"), reply("b2"))

    assert speaking.weigh(asking("u1|reminder|<OK", "u2")).session is None


def test_a_question_that_has_lost_its_reminder_is_the_question(speaking: Speaking) -> None:
    """A client takes a reminder out of the last message; all else is as it was."""
    speaking.turn(B, asking("", "v1"), reply("Done."))
    speaking.turn(A, asking("u1|<a1", "reminder|u2"), reply("Done."))

    assert speaking.relation(asking("u1|<a1|u2|<Done.", "u3")) is Relation.CONTINUES
    assert speaking.relation(asking("u1|u2|<Done.", "u3")) is not Relation.CONTINUES


def test_a_replys_own_id_is_in_no_history(speaking: Speaking) -> None:
    """An id that a response bears and no history quotes does not make its end another."""
    marked = Reply((Block(digest("id of it"), True, True), *said("OK", is_assistant=True)))
    speaking.turn(B, asking("", "v1"), reply("OK"))
    speaking.turn(A, asking("u1|<a1", "go on"), marked)

    assert speaking.relation(asking("u1|<a1|go on|<OK", "u3")) is Relation.CONTINUES


def test_a_phrase_under_way_is_no_turn_of_a_strange_history(speaking: Speaking) -> None:
    """A question whose reply is not known proves nothing without the history it had."""
    request = asking("u1|<a1", "continue")
    speaking.take(A, request, speaking.weigh(request))

    assert speaking.relation(asking("continue|u1|<a1|<b1", "u3")) is Relation.FORKS


def test_a_clients_constant_is_no_answer() -> None:
    """Words that a client puts into histories itself prove nothing, even while only one did."""
    speaking = Speaking()
    speaking.turn(A, asking("summary|<Got it.", "u1|constant"), reply("OK"))
    speaking.turn(B, asking("", "hi"), reply("OK"))

    assert speaking.relation(asking("hi|<OK|<Got it.", "u2")) is Relation.UNRELATED
    assert speaking.relation(asking("hi|constant|<OK|<Got it.", "u2")) is Relation.UNRELATED


def test_evidence_for_two_sessions_names_neither(speaking: Speaking) -> None:
    """A mixture of two histories is a conversation of its own."""
    speaking.turn(B, asking("", "v1"), reply("b1"))

    verdict = speaking.weigh(asking("u1|<a1|v1|<b1", "u2"))

    assert verdict.reason == "evidence_for_several_sessions"


def test_calls_are_continued_only_by_their_answers(speaking: Speaking) -> None:
    """A main request that leaves a tool call unanswered is beside the conversation."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("id:1", calls=["id:1"]))
    history = "u1|<a1|u2|<id:1"

    assert speaking.relation(asking(history, "is this a topic?")) is Relation.SIDE
    assert speaking.relation(asking(history, "result", answers=["id:1"])) is Relation.CONTINUES


def test_one_reply_of_a_retried_turn_is_answered(speaking: Speaking) -> None:
    """Two attempts of a turn made different calls: the client answers the one it kept."""
    first = asking("u1|<a1", "u2")
    node = speaking.take(A, first, speaking.weigh(first))
    again = speaking.take(A, first, speaking.weigh(first))
    speaking.index.answered(A, node, reply("id:1", calls=["id:1"]))
    speaking.index.answered(A, again, reply("id:2", calls=["id:2"]))

    request = asking("u1|<a1|u2|<id:2", "result", answers=["id:2"])

    assert speaking.relation(request) is Relation.CONTINUES


def test_a_second_taker_with_another_tail_is_a_fork(speaking: Speaking) -> None:
    """Two copies of one history: the first to go on is the session."""
    speaking.take(A, asking("u1|<a1", "u2"), speaking.weigh(asking("u1|<a1", "u2")))

    verdict = speaking.weigh(asking("u1|<a1", "other"))

    assert (verdict.relation, verdict.session) == (Relation.FORKS, A)


def test_a_fork_names_the_last_common_node(speaking: Speaking) -> None:
    """An old history of a long session forks where it ends."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(A, asking("u1|<a1|u2|<a2", "u3"), reply("a3"))

    assert speaking.weigh(asking("u1|<a1|u2|<a2", "other")).node == 2


def test_a_forks_own_turns_are_its_own(speaking: Speaking) -> None:
    """After a fork each of the two continues itself, and a fork of the fork forks the fork."""
    fork = asking("u1|<a1", "f1")
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(B, fork, reply("b1"))
    speaking.turn(B, asking("u1|<a1|f1|<b1", "f2"), reply("b2"))

    assert speaking.weigh(asking("u1|<a1|u2|<a2", "u3")).session == A
    assert speaking.weigh(asking("u1|<a1|f1|<b1|f2|<b2", "f3")).session == B
    verdict = speaking.weigh(asking("u1|<a1|f1|<b1", "g1"))
    assert (verdict.relation, verdict.session) == (Relation.FORKS, B)


def test_a_copy_under_an_id_links_nothing_in_the_original(speaking: Speaking) -> None:
    """A durable new id that carries a history has nodes of its own; the original's stay open."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    copied = asking("u1|<a1", "c1")
    verdict = speaking.weigh(copied)

    speaking.index.answered(C, speaking.take(C, copied, verdict), reply("c2"))

    assert speaking.weigh(asking("u1|<a1|u2|<a2", "u3")).session == A
    assert speaking.weigh(asking("u1|<a1|c1|<c2", "c3")).session == C


def test_a_copy_of_the_newest_turn_under_an_id_does_not_take_it(speaking: Speaking) -> None:
    """The verdict names the original; the copy's node is numbered apart from the original's."""
    copied = asking("u1|<a1", "c1")
    verdict = speaking.weigh(copied)
    assert verdict.relation is Relation.CONTINUES

    node = speaking.take(C, copied, verdict)
    speaking.index.release(C, node)

    assert node != verdict.node
    assert speaking.weigh(asking("u1|<a1", "u2")).relation is Relation.UNRELATED


def test_a_session_found_by_its_id_takes_its_nodes_too(speaking: Speaking) -> None:
    """Known sessions are taken without a verdict; a copy of their past is a fork none the less."""
    speaking.index.answered(A, speaking.take(A, asking("u1|<a1", "u2"), NEW), reply("a2"))

    assert speaking.relation(asking("u1|<a1", "other")) is Relation.FORKS


def test_an_equal_body_within_a_minute_is_a_retry(speaking: Speaking) -> None:
    """The same turn again gets the same node; a later equal body is a fork."""
    request = asking("u1|<a1", "u2")
    node = speaking.take(A, request, speaking.weigh(request))

    speaking.now_s += RETRY_WINDOW_S
    verdict = speaking.weigh(request)
    assert (verdict.relation, verdict.session) == (Relation.RETRIES, A)
    assert speaking.take(A, request, verdict) == node

    speaking.now_s += 1.0
    assert speaking.relation(request) is Relation.FORKS


def test_a_body_that_was_not_read_is_nobodys_retry(speaking: Speaking) -> None:
    """An empty body digest equals no other."""
    request = asking("u1|<a1", "u2").__class__(history=asking("u1|<a1", "").history)
    speaking.take(A, request, speaking.weigh(request))

    assert speaking.relation(request) is not Relation.RETRIES


def test_a_failed_attempt_releases_its_node(speaking: Speaking) -> None:
    """What failed was no turn: another question may follow the same answer."""
    request = asking("u1|<a1", "u2")
    speaking.index.release(A, speaking.take(A, request, speaking.weigh(request)))

    assert speaking.relation(asking("u1|<a1", "other")) is Relation.CONTINUES


def test_a_node_is_released_when_all_its_attempts_failed(speaking: Speaking) -> None:
    """The first attempt fails while its retry is on its way: the node stays taken."""
    request = asking("u1|<a1", "u2")
    node = speaking.take(A, request, speaking.weigh(request))
    speaking.take(A, request, speaking.weigh(request))

    speaking.index.release(A, node)
    assert speaking.relation(asking("u1|<a1", "other")) is Relation.FORKS

    speaking.index.release(A, node)
    assert speaking.relation(asking("u1|<a1", "other")) is Relation.CONTINUES


def test_an_answered_node_is_never_released(speaking: Speaking) -> None:
    """A late failure of one attempt takes nothing from the one that was answered."""
    request = asking("u1|<a1", "u2")
    node = speaking.take(A, request, speaking.weigh(request))
    speaking.index.answered(A, node, reply("a2"))

    speaking.index.release(A, node)

    assert speaking.relation(asking("u1|<a1", "other")) is Relation.FORKS


def test_a_node_with_two_children_is_free_when_both_have_failed(speaking: Speaking) -> None:
    """A session that its id names went on while another attempt was under way."""
    first, second = asking("u1|<a1", "u2"), asking("u1|<a1", "u3")
    one = speaking.take(A, first, speaking.weigh(first))
    two = speaking.take(A, second)

    speaking.index.release(A, one)
    assert speaking.relation(asking("u1|<a1", "other")) is Relation.FORKS

    speaking.index.release(A, two)
    assert speaking.relation(asking("u1|<a1", "other")) is Relation.CONTINUES


def test_a_turn_taken_again_after_a_failure_keeps_its_place(speaking: Speaking) -> None:
    """The same question again after a failure is evidence for the node that was answered."""
    request = asking("u1|<a1", "u2")
    first = speaking.take(A, request, speaking.weigh(request))
    speaking.index.release(A, first)

    assert speaking.take(A, request, speaking.weigh(request)) == first


@pytest.mark.parametrize("has_schema", [False, True])
def test_what_is_no_main_request_is_a_side_call(speaking: Speaking, *, has_schema: bool) -> None:
    """Fewer tools, or a response schema: attached to the session, never a node of it."""
    tools = frozenset({"read", "write"}) if has_schema else frozenset({"read"})
    request = asking("u1|<a1", "topic?", tools=tools, has_response_schema=has_schema)

    assert speaking.weigh(request).relation is Relation.SIDE
    speaking.side(A, request, reply("no"))
    assert speaking.relation(asking("u1|<a1", "u2")) is Relation.CONTINUES


def test_a_side_call_needs_a_relayed_answer_too(speaking: Speaking) -> None:
    """A call that quotes an opening alone is attached to nobody."""
    request = asking("u1|<other", "topic?", tools=frozenset())

    assert speaking.relation(request) is Relation.UNRELATED


def test_a_side_call_shows_a_whole_turn(speaking: Speaking) -> None:
    """A conversation begun elsewhere that repeats phrases of two turns is no side call."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(A, asking("u1|<a1|u2|<a2", "u3"), reply("a3"))
    none = frozenset[str]()

    assert speaking.relation(asking("x1|u2|<a1|u3|<a2", "x2", tools=none)) is Relation.UNRELATED
    assert speaking.relation(asking("u1|<a1|u2|<a2|u3|<a3", "x2", tools=none)) is Relation.SIDE


def test_a_title_call_before_or_after_joins_nothing() -> None:
    """The opening in a title call makes it shared; the turns are told by their replies."""
    speaking = Speaking()
    speaking.turn(B, asking("", "u1", tools=frozenset()), reply("a title"))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(C, asking("", "u1|name it", tools=frozenset()), reply("another title"))

    assert speaking.weigh(asking("u1|<a1", "u2")).session == A


def test_a_closed_session_is_not_continued(speaking: Speaking) -> None:
    """Its blocks stay its own, and prove nothing for anyone."""
    speaking.index.close(A)

    assert speaking.weigh(asking("u1|<a1", "u2")).reason == "session_closed"


def test_an_idle_session_is_not_continued(speaking: Speaking) -> None:
    """Beyond the age that may be resumed a history opens a new session."""
    speaking.now_s += 24 * HOUR_S + 1

    assert speaking.weigh(asking("u1|<a1", "u2")).reason == "idle_too_long"


def test_a_subagent_continues_subagents_only(speaking: Speaking) -> None:
    """A thread of the other status is never resumed."""
    verdict = speaking.weigh(asking("u1|<a1", "u2"), is_subagent=True)

    assert verdict.reason == "other_subagent_status"


TASK = "Find every caller of the old function and list them"


def test_a_task_in_the_opening_names_the_parent(speaking: Speaking) -> None:
    """A headerless subagent's first message contains the argument of its parent's call."""
    answer = reply("id:1", calls=["id:1"], arguments=(TASK,))
    speaking.turn(A, asking("u1|<a1", "u2"), answer)

    verdict = speaking.weigh(asking("", "task", opening=f"You are a worker. {TASK}"))

    assert (verdict.relation, verdict.session) == (Relation.CHILD, A)


def test_a_task_of_two_sessions_names_no_parent(speaking: Speaking) -> None:
    """Two sessions that gave the same task are told apart by nothing."""
    for key, opening in ((A, "u2"), (B, "v1")):
        speaking.turn(key, asking("", opening), reply(f"r {key}", arguments=(TASK,)))

    assert speaking.relation(asking("", "task", opening=TASK)) is Relation.UNRELATED


def test_a_path_within_a_task_says_nothing_more(speaking: Speaking) -> None:
    """The longest argument decides; another session's path inside it does not blur it."""
    task = "Review /srv/some/project/main.py with care"
    speaking.turn(A, asking("", "u2"), reply("r1", arguments=(task,)))
    speaking.turn(B, asking("", "v1"), reply("r2", arguments=("/srv/some/project/main.py",)))

    assert speaking.weigh(asking("", "task", opening=task)).session == A


def test_tasks_of_two_sessions_in_one_opening_name_no_parent(speaking: Speaking) -> None:
    """An opening with one argument of each is nobody's child."""
    speaking.turn(A, asking("", "u2"), reply("r1", arguments=("first argument here",)))
    speaking.turn(B, asking("", "v1"), reply("r2", arguments=("second argument there",)))
    opening = "first argument here, second argument there"

    assert speaking.relation(asking("", "task", opening=opening)) is Relation.UNRELATED


def test_yesterdays_argument_is_no_task(speaking: Speaking) -> None:
    """A path quoted long after the call spawns nothing; nor does one of a closed session."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2", arguments=(TASK,)))
    speaking.index.close(A)
    assert speaking.relation(asking("", "task", opening=TASK)) is Relation.UNRELATED

    speaking.turn(B, asking("", "v1"), reply("b1", arguments=(TASK + "!",)))
    speaking.now_s += 2 * HOUR_S
    assert speaking.relation(asking("", "task", opening=TASK + "!")) is Relation.UNRELATED


def test_compaction_is_continued_by_what_it_kept(speaking: Speaking) -> None:
    """A rewritten history with its newest turn is still the session's."""
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(A, asking("u1|<a1|u2|<a2", "summarise"), reply("summary"))

    verdict = speaking.weigh(asking("summary|<Got it.|summarise|<summary", "u3"))

    assert (verdict.relation, verdict.session) == (Relation.CONTINUES, A)


def test_looking_changes_nothing(speaking: Speaking) -> None:
    """Weighing twice, or weighing something else between, gives equal verdicts."""
    request = asking("u1|<a1", "u2")
    before = speaking.weigh(request)
    speaking.weigh(asking("u1|<a1|x|<y", "z"))

    assert speaking.weigh(request) == before
    assert speaking.index.drain_changes()
    speaking.weigh(request)
    assert speaking.index.drain_changes() == []
