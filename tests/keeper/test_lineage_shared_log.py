"""The log of a scope that several keepers write: it stays short, and nobody's part is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.keeper.lineage_talking import Talking, block

from clew.config.schema import Sessions as Settings
from clew.core.claim import SessionKey
from clew.core.resolve import Outcome
from clew.keeper import lineage
from clew.keeper.lineage import LineageDesk
from clew.store.changes import ChangeLog

DIALECTS = ("postgresql",)
"""Only a server is shared."""


class Sharing(Talking):
    """One of several keepers; between two turns it leaves the store to the others."""

    def __init__(self, data: Path, instance: str) -> None:
        self._instance = instance
        super().__init__(data)

    def begin(self) -> None:
        """A keeper that knows what is in the store."""
        self.desk = LineageDesk(
            lambda: self.connection,
            Settings(),
            lambda: SessionKey(f"cs_{self._instance}{next(self._numbers):025d}"),
            log=ChangeLog(self._instance),
            scopes=self.scopes,
        )

    def turn(self, *said: Any, **more: Any) -> tuple[SessionKey, Outcome]:
        """As it is, and the connection is free again."""
        try:
            return super().turn(*said, **more)
        finally:
            self.connection.rollback()


@pytest.fixture
def keepers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Sharing]]:
    """Makes keepers on one store, whose logs are long after fifty changes."""
    monkeypatch.setattr(lineage, "REWRITE_CHANGES", 50)
    made: list[Sharing] = []

    def make(instance: str) -> Sharing:
        made.append(Sharing(tmp_path, instance))
        made[-1].connection.rollback()
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


def talk(keeper: Sharing, turns: int) -> tuple[SessionKey, list[Any]]:
    """A conversation of so many turns; its session and its history."""
    name = keeper._instance
    history = [block(f"{name} u0"), block(f"{name} a0", is_assistant=True)]
    first, _ = keeper.turn("ann", [], history[:1], history[1:])
    keeper.write()
    for number in range(1, turns):
        step = [block(f"{name} u{number}"), block(f"{name} a{number}", is_assistant=True)]
        keeper.turn("ann", history, step[:1], step[1:])
        history += step
        keeper.write()
    return first, history


def test_a_shared_log_in_use_is_written_anew_too(keepers: Callable[[str], Sharing]) -> None:
    """While nobody else writes it, it does not grow without end, and a restart reads all of it."""
    one = keepers("a")
    first, history = talk(one, 60)

    assert one.rows() < 40
    one.restart()
    assert one.turn("ann", history, [block("next")], []) == (first, Outcome.EXACT)


def test_what_another_has_written_meanwhile_is_not_replaced(
    keepers: Callable[[str], Sharing],
) -> None:
    """A snapshot that was made before stands beside it; both conversations go on anywhere."""
    one, two = keepers("a"), keepers("b")
    two.recent = one.recent  # the sessions themselves are known to both, as the store has them
    first, history = talk(one, 20)
    one.turn("ann", history, [block("waits")], [block("a waits", is_assistant=True)])
    history += [block("waits"), block("a waits", is_assistant=True)]
    scope, held = next(iter(one.scopes.items()))
    one.desk._rewrite(scope, held)
    other, others = talk(two, 2)
    one.write()

    for keeper in (one, two):
        keeper.restart()
    assert two.turn("ann", history, [block("next")], []) == (first, Outcome.EXACT)
    assert one.turn("ann", others, [block("more")], []) == (other, Outcome.EXACT)


def test_a_shared_phrase_stays_shared_when_the_log_is_written_anew(
    keepers: Callable[[str], Sharing],
) -> None:
    """What two sessions have shown is no evidence after the snapshot, nor after a restart."""
    one = keepers("a")
    done = block("Done.", is_assistant=True)
    one.turn("ann", [], [block("first")], [done])
    one.turn("ann", [], [block("second")], [done])
    one.write()
    talk(one, 60)
    one.restart()

    _, outcome = one.turn("ann", [block("third"), done], [block("and now")], [])

    assert outcome is Outcome.NEW


def test_a_rewrite_that_was_refused_loses_nothing(keepers: Callable[[str], Sharing]) -> None:
    """It is in the next transaction, with what was learnt since."""
    one = keepers("a")
    first, history = talk(one, 20)
    scope, held = next(iter(one.scopes.items()))
    one.desk._rewrite(scope, held)
    taken = one.desk.take_unwritten()
    step = [block("u after"), block("a after", is_assistant=True)]
    one.turn("ann", history, step[:1], step[1:])
    one.desk.put_back(taken)
    one.write()
    one.restart()

    found = one.turn("ann", [*history, *step], [block("next")], [])
    assert found == (first, Outcome.EXACT)
