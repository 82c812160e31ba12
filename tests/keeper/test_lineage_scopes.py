"""What lineage holds in memory: bounded for each principal, and at nobody else's cost."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.keeper.lineage_talking import Talking, block

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Block, Conversation, Reply
from clew.core.lineage.index import Limits, ScopeIndex
from clew.core.resolve import Outcome
from clew.keeper import lineage
from clew.keeper.lineage_scopes import Held, Scopes

DIALECTS = ("sqlite",)
FLOOD: Final = 4_000
"""Conversations that fill what one principal may hold."""


@pytest.fixture
def talking(tmp_path: Path) -> Iterator[Talking]:
    """A desk over an empty store."""
    made = Talking(tmp_path)
    yield made
    made.close()


def held(weight: int) -> Held:
    """A scope with about this many digests' weight."""
    index = ScopeIndex(Limits())
    blocks = [block(f"{weight} {number}") for number in range(weight)]
    index.show(SessionKey("cs_a"), blocks, 0)
    return Held(index)


def grown_bytes(act: Callable[[], None]) -> int:
    """How much more memory Python holds after ``act`` at its worst."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_session_is_found_after_its_scope_was_let_go(tmp_path: Path) -> None:
    """Evidence that is not in memory is in the store."""
    talking = Talking(tmp_path, scopes=Scopes(principal_bytes=1))
    opening, answer = [block("u1")], [block("a1", is_assistant=True)]
    first, _ = talking.turn("ann", [], opening, answer)
    talking.turn("ann", [], [block("v1")], [block("b1", is_assistant=True)], client="other/1")
    assert len(list(talking.scopes.items())) == 1

    again, outcome = talking.turn("ann", [*opening, *answer], [block("u2")], [])

    assert (again, outcome) == (first, Outcome.EXACT)
    talking.close()


def test_a_heavy_principal_lets_go_of_its_own_scopes_only() -> None:
    """Whoever fills many scopes makes nobody else's wait for the store."""
    scopes = Scopes(principal_bytes=held(300).index.weight_bytes)
    scopes.hold("bob\x1ftool\x1fchat", held(100))
    for number in range(20):
        scopes.hold(f"eve\x1ftool{number}\x1fchat", held(100))

    names = [name for name, _ in scopes.items()]

    assert "bob\x1ftool\x1fchat" in names
    assert names[-1] == "eve\x1ftool19\x1fchat"
    assert len(names) < 5


def test_all_together_the_heaviest_lets_go_first() -> None:
    """Where memory is short for all, it is taken from who holds most of it."""
    scopes = Scopes(total_bytes=held(1_000).index.weight_bytes)
    scopes.hold("bob\x1ftool\x1fchat", held(50))
    for number in range(5):
        scopes.hold(f"eve\x1ftool{number}\x1fchat", held(300))

    assert scopes.get("bob\x1ftool\x1fchat") is not None
    assert scopes.get("eve\x1ftool0\x1fchat") is None
    assert scopes.weight_bytes <= held(1_000).index.weight_bytes


def test_a_scope_in_use_stays_whatever_it_weighs() -> None:
    """One scope alone over the bound is kept: its own bounds hold it."""
    scopes = Scopes(principal_bytes=1, total_bytes=1)
    scopes.hold("eve\x1ftool\x1fchat", held(100))

    assert scopes.get("eve\x1ftool\x1fchat") is not None


def test_a_scope_that_was_let_go_is_not_counted_again() -> None:
    """Counting what somebody still holds in hand changes no sum."""
    scopes = Scopes()
    one = held(100)
    scopes.hold("eve\x1ftool\x1fchat", one)
    scopes.drop("eve\x1ftool\x1fchat")
    scopes.count("eve\x1ftool\x1fchat", one)

    assert scopes.weight_bytes == 0


@pytest.mark.parametrize("blocks", [1, 40])
def test_a_weight_is_about_what_is_measured(blocks: int) -> None:
    """What an index says it weighs is near to what it adds to the process."""
    found: list[ScopeIndex] = []

    def fill() -> None:
        index = ScopeIndex(Limits())
        for number in range(400):
            tail = [block(f"{number} {at}") for at in range(blocks)]
            answer = block(f"answer {number}", is_assistant=True)
            speak(index, SessionKey(f"cs_{number:026d}"), tail, answer)
        found.append(index)

    measured = grown_bytes(fill)

    assert 0.6 < found[0].weight_bytes / measured < 1.8


def test_a_principal_adds_less_than_it_may() -> None:
    """Conversations, long bodies, products and arguments without end stay below the promise."""
    argv = [sys.executable, "-m", "tests.soak.lineage_memory", "--conversations", str(FLOOD)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    weight = re.search(r"scopes weigh (\d+)", done.stdout)
    assert weight is not None
    assert int(weight[1]) > 20, "the flood was too small"


def test_a_log_in_use_is_written_anew_when_it_has_grown_long(
    talking: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope that never leaves memory does not grow its log without end."""
    monkeypatch.setattr(lineage, "REWRITE_CHANGES", 50)
    history = [block("u0"), block("a0", is_assistant=True)]
    first, _ = talking.turn("ann", [], history[:1], history[1:])
    for number in range(1, 60):
        step = [block(f"u{number}"), block(f"a{number}", is_assistant=True)]
        talking.turn("ann", history, step[:1], step[1:])
        history += step
        talking.write()

    assert talking.rows() < 40
    talking.restart()
    assert talking.turn("ann", history, [block("next")], []) == (first, Outcome.EXACT)


def test_a_refused_rewrite_is_kept_for_the_next_try(
    talking: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written is in the next transaction, a scope written anew included."""
    monkeypatch.setattr(lineage, "REWRITE_CHANGES", 3)
    history = [block("u0"), block("a0", is_assistant=True)]
    first, _ = talking.turn("ann", [], history[:1], history[1:])
    taken = talking.desk.take_unwritten()
    step = [block("u1"), block("a1", is_assistant=True)]
    talking.turn("ann", history, step[:1], step[1:])
    talking.desk.put_back(taken)

    talking.write()
    talking.restart()

    found = talking.turn("ann", [*history, *step], [block("u2")], [])
    assert found == (first, Outcome.EXACT)


def test_a_scope_is_loaded_with_what_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope that was let go between two writes is loaded with what neither has written yet."""
    monkeypatch.setattr(lineage, "REWRITE_CHANGES", 3)
    talking = Talking(tmp_path, scopes=Scopes(principal_bytes=1))
    history = [block("u0"), block("a0", is_assistant=True)]
    first, _ = talking.turn("ann", [], history[:1], history[1:])
    talking.desk.take_unwritten()
    step = [block("u1"), block("a1", is_assistant=True)]
    talking.turn("ann", history, step[:1], step[1:])
    talking.turn("ann", [], [block("v1")], [block("b1", is_assistant=True)], client="other/1")

    found = talking.turn("ann", [*history, *step], [block("u2")], [])

    assert found == (first, Outcome.EXACT)
    talking.close()


def speak(index: ScopeIndex, key: SessionKey, tail: list[Block], answer: Block) -> None:
    """A conversation's first turn and its answer."""
    content = Conversation((), tuple(tail), frozenset({"read"}), body=tail[0].digest)
    verdict = index.weigh(content, 1.0, 9.0, is_subagent=False)
    index.answered(key, index.take(key, content, verdict, 1.0), Reply((answer,)))
    index.drain_changes()
