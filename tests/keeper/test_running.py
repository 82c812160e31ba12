"""The projector's life in the keeper's loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.keeper.projecting import House

from clew.keeper.ballast import Ballast
from clew.keeper.running import Running

DIALECTS = ("sqlite",)


@pytest.mark.parametrize("turns", range(4))
def test_a_pass_that_is_asked_for_at_the_end_holds_nobody_up(tmp_path: Path, turns: int) -> None:
    """The task ends although it is being woken while it is told to leave."""
    house = House(tmp_path)

    async def run() -> None:
        running = Running(
            house.projector(), lambda _keys: [], lambda _known: None, Ballast(tmp_path / "ballast")
        )
        running.start()
        await running.request_pass()
        await asyncio.sleep(0.01)  # it waits for its next pass now
        asked = running.request_pass()
        for _ in range(turns):
            await asyncio.sleep(0)
        ending = asyncio.create_task(running.finish())
        # Nothing here may cancel it: a second cancellation would wake the task that hangs.
        done, _ = await asyncio.wait({ending}, timeout=5)
        assert done == {ending}
        assert asked.done()

    asyncio.run(run())
