"""Threads that share an id or a response, one by one, where a play once found them confused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.model import meddling
from tests.model.playing import make_template
from tests.model.speaking import CLIENTS, Message, Talk
from tests.model.world import HOUR_NS, PRINCIPALS, Exchange, World

from clew.config.schema import Sessions as Settings

CHAIN, SHARED, OPENCODE = (
    [client.name for client in CLIENTS].index(name) for name in ("chain", "cache-key", "opencode")
)
ANN = PRINCIPALS[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An installation as configured by default."""
    loop = asyncio.new_event_loop()
    template = make_template(tmp_path / "template")
    made = World(tmp_path / "data", template, loop, Settings())
    yield made
    made.close()
    loop.close()


def turn(world: World, talk: Talk) -> Exchange:
    """A turn in words of its own, answered."""
    tail = Message(is_assistant=False, text=f"words {world.fresh()} of a conversation")
    sent = world.dispatch(talk, tail)
    world.finish_all(talk, text=f"words {world.fresh()} of an answer")
    world.project()
    return sent


def copy_of(world: World, talk: Talk) -> Talk:
    """Another conversation that goes on from the same response."""
    copy = world.begin(CLIENTS.index(talk.client), talk.principal)
    copy.agent, copy.tools, copy.messages = talk.agent, talk.tools, list(talk.messages)
    copy.last_response, copy.may_take = talk.last_response, {talk.number}
    talk.may_take = {copy.number}
    return copy


@pytest.mark.parametrize("state", ["young", "idle", "closed"])
def test_every_further_child_of_a_response_is_a_fork(world: World, state: str) -> None:
    """However old the session, and also when it was closed: the response names it, once."""
    talk = world.begin(CHAIN, ANN)
    first = turn(world, talk)
    copy = copy_of(world, talk)
    if state == "idle":
        world.now_ns += 30 * HOUR_NS
    elif state == "closed":
        meddling.close(world, talk)
    third = copy_of(world, talk)
    on, forks = turn(world, talk), [turn(world, copy), turn(world, third)]

    assert (on.intent.resolution, on.intent.session) == ("exact", first.intent.session)
    assert [fork.intent.resolution for fork in forks] == ["new", "new"]
    assert {fork.intent.forked_from for fork in forks} == {first.intent.session}
    assert len({fork.intent.session for fork in forks}) == 2


def test_without_the_keeper_a_shared_id_names_no_thread(world: World) -> None:
    """Whose turn it is nobody can tell: a session of its own below the root, and flagged."""
    talk = world.begin(SHARED, ANN)
    root = turn(world, talk)
    meddling.lose_keeper(world)
    child = world.begin(SHARED, ANN)
    child.parent, child.agent = talk, talk.agent
    deferred = turn(world, child)
    meddling.restart_keeper(world)
    again = turn(world, talk)

    assert deferred.intent.resolution == "new"
    assert deferred.intent.session != root.intent.session
    assert deferred.intent.parent == root.intent.session
    assert "lineage_deferred" in deferred.intent.flags
    assert (again.intent.resolution, again.intent.session) == ("exact", root.intent.session)


def test_a_gateway_that_knows_a_parent_by_name_only_does_not_take_it_for_seen(
    world: World,
) -> None:
    """Its first own request is new, also where the snapshot brought the name."""
    main, child = world.begin(OPENCODE, ANN), world.begin(OPENCODE, ANN)
    child.parent = main
    turn(world, child)
    for number in range(2):
        meddling.restart_gateway(world, number)

    assert turn(world, main).intent.resolution == "new"
    assert turn(world, main).intent.resolution == "exact"
