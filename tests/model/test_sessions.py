"""Sessions over whole histories: many principals, every kind of client, everything that happens.

``CLEW_MODEL_STEPS`` is how many steps are played; the long form is ``python -m tests.soak.model``.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.model.playing import ACTIONS, MODES, make_template, step
from tests.model.speaking import CLIENTS
from tests.model.world import PRINCIPALS, World

from clew.config.schema import Sessions as Settings

STEPS = int(os.environ.get("CLEW_MODEL_STEPS", "2000"))
KILO = [client.name for client in CLIENTS].index("kilo")
STEPS_EACH = 50
"""Steps of one example: enough for restarts, verbs and thefts of one world to meet."""


class SessionsOfManyPrincipals(RuleBasedStateMachine):
    """One world; hypothesis chooses what happens next and shrinks what went wrong."""

    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="clew-model-")
        self._loop = asyncio.new_event_loop()
        self._world: World | None = None

    @initialize(mode=st.sampled_from(MODES))
    def begin(self, mode: str) -> None:
        """An empty installation."""
        data = Path(self._directory.name) / "data"
        self._world = World(data, self.template, self._loop, Settings(resume=mode))

    @rule(
        action=st.sampled_from(list(ACTIONS)),
        which=st.integers(0, 60),
        luck=st.integers(0, 2**16),
    )
    def happen(self, action: str, which: int, luck: int) -> None:
        """Something happens."""
        assert self._world is not None
        step(self._world, action, which, luck)

    @invariant()
    def nothing_is_promised_and_broken(self) -> None:
        """What is in the store is right whenever it is looked at."""
        if self._world is not None and self._world.counts["steps"] % 7 == 0:
            self._world.project()

    def teardown(self) -> None:
        """Everything once more, and the end."""
        if self._world is not None:
            self._world.close()
        self._loop.close()
        self._directory.cleanup()


def test_sessions_are_kept_apart_and_found_again(tmp_path: Path) -> None:
    """No effect across principals, no wrong merge, a tree, and labels that are true."""
    SessionsOfManyPrincipals.template = make_template(tmp_path / "template")
    machine: Any = SessionsOfManyPrincipals
    machine.TestCase.settings = settings(
        max_examples=max(1, STEPS // STEPS_EACH),
        stateful_step_count=STEPS_EACH,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    machine.TestCase("runTest").runTest()


def test_the_model_sees_a_false_merge(tmp_path: Path) -> None:
    """Recency alone takes a second conversation for the first one restarted: the judge notices."""
    loop = asyncio.new_event_loop()
    template = make_template(tmp_path / "template")
    world = World(tmp_path / "data", template, loop, Settings(resume="recency"))
    for _ in range(2):
        talk = world.begin(KILO, PRINCIPALS[0])
        world.turn(talk)
        world.finish_all(talk)
        world.project()
    world.close()
    loop.close()

    assert (world.counts["false_merges"], world.counts["resumed"]) == (1, 1)
