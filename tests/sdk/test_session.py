"""A session is a value to be inside of; what calls in it carry follows from where they are."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clew
from clew.core.claim import Kind
from clew.core.clients import ClientTable
from clew.core.identity import identify
from clew.sdk.session import KINDS, Session

HERE = {"x-dynamo-session-id": "run-42"}
BELOW = {
    "x-dynamo-session-id": "run-42/researcher",
    "x-dynamo-parent-session-id": "run-42",
}
ANY_ID = st.text(
    "ABCXYZabcxyz0189._:/@+=~-",
    min_size=1,
    max_size=256,
)


def here() -> str | None:
    """The id of the session this runs in."""
    found = clew.current()
    return found.id if found is not None else None


def test_calls_inside_are_the_sessions() -> None:
    """Inside there is a session, before and after there is none."""
    before = clew.headers()
    with clew.session("run-42") as run:
        inside = clew.headers()

    assert (before, inside, clew.headers()) == ({}, HERE, {})
    assert inside == run.headers()


def test_a_child_names_its_parent() -> None:
    """And the same name is the same child again."""
    run = clew.session("run-42")

    assert run.child("researcher").headers() == BELOW
    assert run.child("researcher") == clew.session("run-42").child("researcher")
    assert run.child().id != run.child().id


def test_a_session_inside_another_is_not_its_child() -> None:
    """Only who says so is a child."""
    with clew.session("run-42"), clew.session("run-43") as other:
        assert clew.headers() == {"x-dynamo-session-id": "run-43"}

    assert clew.session("x", parent=other).parent == "run-43"
    assert clew.session("x", parent="run-44").parent == "run-44"


@pytest.mark.parametrize("text", ["", "my run", "é", "a\n", "x" * 257, "a,b"])
def test_an_id_that_the_gateway_would_refuse_is_refused_at_once(text: str) -> None:
    """Where it is written, not in the middle of a run."""
    for make in (clew.session, clew.session("run").child, lambda one: clew.session(parent=one)):
        with pytest.raises(ValueError, match="cannot name a session"):
            make(text)


@given(st.lists(ANY_ID, min_size=2, max_size=4))
def test_the_gateway_understands_every_id(names: list[str]) -> None:
    """Ids of any depth: each session and its parent are read as they were meant, none is itself."""
    found = [clew.session(names[0])]
    for name in names[1:]:
        if len(name) <= 200:
            found.append(found[-1].child(name))
    table = ClientTable()

    for one in found:
        claim = identify([(n.encode(), v.encode()) for n, v in one.headers().items()], table)
        assert claim.session is not None
        assert claim.session.value == one.id
        assert (claim.parent.value if claim.parent else "") == one.parent
        assert claim.flags == ()
    assert all(below.id != above.id for above, below in pairwise(found))


def test_every_kind_is_one_that_the_gateway_knows() -> None:
    """All but token counts, which the path tells."""
    assert {*KINDS, "count_tokens"} == {kind.value for kind in Kind}


def test_a_kind_keeps_the_session() -> None:
    """A title call is a call of the session that gets the title."""
    with clew.session("run-42"):
        with clew.kind("title"):
            inside = clew.headers()
        assert inside == HERE | {"x-clew-kind": "title"}
        assert clew.headers() == HERE
    with pytest.raises(ValueError, match="no kind of call"):
        clew.kind("poem")  # type: ignore[arg-type]  # what a program without types may write


def test_a_kind_outside_of_any_session_says_nothing() -> None:
    """Nobody's call needs no name."""
    with clew.kind("title"):
        assert clew.headers() == {}


def test_final_is_of_the_session_wherever_it_is_seen() -> None:
    """Views share it; children do not."""
    with clew.session("run-42") as run:
        child = run.child("researcher")
        assert run.final() is run
        assert clew.headers() == HERE | {"x-dynamo-session-final": "true"}
        assert run.kind("summary").is_final
        assert child.headers() == BELOW


def test_leaving_in_the_wrong_order_leaves_the_others_in_place() -> None:
    """A framework that ends its contexts late takes nobody's session away."""
    outer, inner = clew.session("outer"), clew.session("inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert here() is None
    inner.__exit__(None, None, None)
    assert here() is None


def test_decorated_functions_run_inside() -> None:
    """Plain ones, coroutines and generators; outside of their steps the caller is outside."""
    run = clew.session("run-42")

    @run
    def plain() -> str | None:
        return here()

    @run
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return here()

    @run
    def steps() -> Iterator[str | None]:
        got = yield here()
        yield f"{here()} {got}"

    @run
    async def later() -> AsyncIterator[str | None]:
        await asyncio.sleep(0)
        yield here()

    async def all_later() -> list[tuple[str | None, str | None]]:
        return [(one, here()) async for one in later()]

    generator = steps()
    assert plain() == "run-42"
    assert asyncio.run(coroutine()) == "run-42"
    assert (next(generator), here()) == ("run-42", None)
    assert generator.send("word") == "run-42 word"  # type: ignore[attr-defined]  # still a generator
    assert asyncio.run(all_later()) == [("run-42", None)]


def test_a_generator_that_is_thrown_into_or_closed_ends_inside() -> None:
    """Its clean-up is part of it."""
    seen: list[str | None] = []

    @clew.session("run-42")
    def steps() -> Iterator[int]:
        try:
            yield 1
        except KeyError:
            seen.append(here())
        try:
            yield 2
        finally:
            seen.append(here())

    generator = steps()
    next(generator)
    assert generator.throw(KeyError()) == 2  # type: ignore[attr-defined]  # still a generator
    generator.close()  # type: ignore[attr-defined]  # the same

    assert seen == ["run-42", "run-42"]
    assert here() is None


def test_a_decorator_without_an_id_is_a_new_session_each_call() -> None:
    """With an id it is the same."""

    @clew.session()
    def fresh() -> str | None:
        return here()

    @clew.session("run-42").child("researcher")
    def same() -> str | None:
        return here()

    assert fresh() != fresh()
    assert same() == same() == "run-42/researcher"


def test_a_session_works_in_async_with() -> None:
    """As in a plain one."""

    async def main() -> str | None:
        async with clew.session("run-42"):
            await asyncio.sleep(0)
            return here()

    assert asyncio.run(main()) == "run-42"


def test_a_session_goes_through_pickle() -> None:
    """Into other processes."""
    child = clew.session("run-42").child("researcher").kind("side")

    again = pickle.loads(pickle.dumps(child))

    assert (again, repr(again), hash(again)) == (child, repr(child), hash(child))
    assert isinstance(again, Session)
    assert again != "run-42"
