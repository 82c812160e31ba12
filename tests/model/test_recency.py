"""Sessions of clients whose header rotates, by recency, with every guard; the clock is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.model import meddling
from tests.model.playing import make_template
from tests.model.speaking import CLIENTS, Message, Talk
from tests.model.world import HOUR_NS, PRINCIPALS, SECOND_NS, Exchange, World

from clew.config.schema import Sessions as Settings

KILO, PLAIN = ([client.name for client in CLIENTS].index(name) for name in ("kilo", "plain"))
ANN, BOB, _ = PRINCIPALS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An installation that resumes by recency."""
    loop = asyncio.new_event_loop()
    template = make_template(tmp_path / "template")
    made = World(tmp_path / "data", template, loop, Settings(resume="recency"))
    yield made
    made.close()
    loop.close()


def first(world: World, talk: Talk, *, is_ended: bool = True) -> Exchange:
    """A first request of a conversation, in words of its own."""
    text = f"words {world.fresh()} of a conversation"
    sent = world.dispatch(talk, Message(is_assistant=False, text=text))
    if is_ended:
        world.finish_all(talk, text=f"words {world.fresh()} of an answer")
    return sent


def begun(world: World, *, is_ended: bool = True) -> Exchange:
    """A new conversation of the rotating client and its first request."""
    return first(world, world.begin(KILO, ANN), is_ended=is_ended)


def restart_everything(world: World) -> None:
    """Nothing is left but the store."""
    world.project()
    meddling.restart_keeper(world)
    for number in range(2):
        meddling.restart_gateway(world, number)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "after a restart"])
def test_rotation_resumes_the_one_predecessor(world: World, *, is_restarted: bool) -> None:
    """A new value of the same header; also when the session is in the store alone."""
    before = begun(world)
    if is_restarted:
        restart_everything(world)
    after = begun(world)

    assert (after.intent.resolution, after.intent.session) == ("resumed", before.intent.session)
    assert after.intent.reason == "one_recent_predecessor"


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "after a restart"])
def test_concurrent_sessions_are_not_guessed_between(world: World, *, is_restarted: bool) -> None:
    """Two that are recent: the third is new."""
    one = begun(world)
    world.now_ns += 25 * HOUR_NS
    two = begun(world)
    world.dispatch(one.talk, Message(is_assistant=False, text="on with the first"))
    if is_restarted:
        restart_everything(world)
    three = begun(world)

    assert len({each.intent.session for each in (one, two, three)}) == 3
    assert (three.intent.resolution, three.intent.reason) == ("new", "id_seen_first")


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "after a restart"])
@pytest.mark.parametrize(("late_ns", "label"), [(0, "resumed"), (1, "new")])
def test_the_last_nanosecond_of_a_day_counts(
    world: World, late_ns: int, label: str, *, is_restarted: bool
) -> None:
    """``resume_max_age`` is inclusive; what is older is stale."""
    before = begun(world)
    if is_restarted:
        restart_everything(world)
    world.now_ns = before.intent.received_at_ns + 24 * HOUR_NS - SECOND_NS + late_ns

    assert begun(world).intent.resolution == label


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "after a restart"])
def test_a_session_that_never_finished_a_call_is_recent(
    world: World, *, is_restarted: bool
) -> None:
    """It was seen when its call came."""
    before = begun(world, is_ended=False)
    if is_restarted:
        restart_everything(world)
    after = begun(world)

    assert (after.intent.resolution, after.intent.session) == ("resumed", before.intent.session)


def test_subagents_are_neither_resumed_nor_predecessors(world: World) -> None:
    """They carry values of their own, and are recent whenever their parent is."""
    main = begun(world)
    child = world.begin(KILO, ANN)
    tail = Message(is_assistant=False, text="a task of its own")
    spawned = world.dispatch(child, tail, more={"x-parent-session-id": main.talk.ids["affinity"]})
    world.finish_all(child)
    after = begun(world)

    assert spawned.intent.resolution == "new"
    assert (after.intent.resolution, after.intent.session) == ("resumed", main.intent.session)


def test_another_principals_session_is_no_predecessor(world: World) -> None:
    """Recency sees one principal."""
    begun(world)
    other = world.begin(KILO, BOB)

    assert first(world, other).intent.resolution == "new"


def test_a_closed_session_is_no_predecessor(world: World) -> None:
    """A new id is how its client goes on."""
    talk = begun(world).talk
    meddling.close(world, talk)

    assert begun(world).intent.resolution == "new"


def test_a_client_without_an_id_is_not_resumed_by_recency(world: World) -> None:
    """There is no header that could have rotated."""
    first(world, world.begin(PLAIN, ANN))

    assert first(world, world.begin(PLAIN, ANN)).intent.resolution == "new"


def test_what_is_not_projected_yet_is_seen(world: World) -> None:
    """The question waits for a pass, or a second recent session would be overlooked."""
    one = begun(world)
    world.now_ns += 25 * HOUR_NS
    begun(world)
    world.now_ns += HOUR_NS
    world.dispatch(one.talk, Message(is_assistant=False, text="on with the first"))

    assert begun(world).intent.resolution == "new"


def test_one_id_for_several_conversations_is_flagged(world: World) -> None:
    """A static header collapses them into one session: the id is believed, and it shows."""
    talk = begun(world).talk
    world.turn(talk)
    world.finish_all(talk)
    talk.messages = []
    again = first(world, talk)

    assert again.intent.resolution == "exact"
    assert again.intent.flags == ("id_shared_by_threads",)


def test_an_id_with_the_history_of_another_session_is_flagged(world: World) -> None:
    """Two histories under one id."""
    talk = begun(world).talk
    world.now_ns += 25 * HOUR_NS
    other = begun(world).talk
    tail = Message(is_assistant=False, text="on with the other one")
    found = world.dispatch(talk, tail, history=other.messages)

    assert found.intent.resolution == "exact"
    assert found.intent.flags == ("id_shared_by_threads",)


def test_one_conversation_under_its_id_is_not_flagged(world: World) -> None:
    """Turns, a retry of the opening and side calls are what one thread does."""
    talk = world.begin(KILO, ANN)
    world.turn(talk)
    world.retry(talk)
    world.finish_all(talk)
    for _ in range(3):
        world.turn(talk)
        world.finish_all(talk)
    tail = Message(is_assistant=False, text="Title?")
    world.dispatch(talk, tail, history=[], tools=(), is_turn=False)
    world.finish_all(talk)

    flagged = world.place.house.rows("SELECT flags FROM attempts WHERE flags LIKE '%shared%'")
    assert flagged == []
