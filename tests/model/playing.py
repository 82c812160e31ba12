"""One step of a world by name and number, and whole random plays of them."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

from tests.model import meddling
from tests.model.speaking import Talk
from tests.model.world import PRINCIPALS, Violated, World

from clew.config.schema import Sessions as Settings
from clew.store.engine import checkpoint, open_sqlite_for_writing
from clew.store.migrate import migrate

MODES: Final = ("proof", "proof", "recency", "off")


def _on_talk(act: Callable[[World, Talk], None]) -> Callable[[World, int], None]:
    def run(world: World, which: int) -> None:
        talk = world.pick(which)
        if talk is not None:
            act(world, talk)

    return run


def _begin(world: World, which: int) -> None:
    principal = world.rng.choice(PRINCIPALS)
    world.turn(world.begin(which, principal))


ACTIONS: Final[Mapping[str, tuple[Callable[[World, int], None], int]]] = {
    "begin": (_begin, 10),
    "together": (lambda world, which: world.together(which, world.rng.choice(PRINCIPALS)), 2),
    "turn": (_on_talk(lambda world, talk: world.turn(talk)), 30),
    "end": (lambda world, which: world.end_one(which), 30),
    "end_all": (_on_talk(lambda world, talk: world.finish_all(talk)), 8),
    "spawn": (_on_talk(lambda world, talk: world.spawn(talk)), 4),
    "fork": (_on_talk(lambda world, talk: world.fork(talk)), 4),
    "retry": (_on_talk(lambda world, talk: world.retry(talk)), 4),
    "side": (_on_talk(lambda world, talk: world.side(talk)), 5),
    "compact": (_on_talk(lambda world, talk: world.compact(talk)), 2),
    "restart": (_on_talk(lambda world, talk: world.restart(talk)), 8),
    "upgrade": (_on_talk(lambda world, talk: world.upgrade(talk)), 2),
    "final": (_on_talk(lambda world, talk: world.turn(talk, final=True)), 2),
    "steal_ids": (_on_talk(meddling.steal_ids), 6),
    "steal_links": (_on_talk(meddling.steal_links), 2),
    "steal_commands": (_on_talk(meddling.steal_commands), 2),
    "close": (_on_talk(meddling.close), 1),
    "merge": (_on_talk(meddling.merge), 1),
    "split": (_on_talk(meddling.split), 1),
    "forget": (_on_talk(meddling.forget), 1),
    "restart_gateway": (meddling.restart_gateway, 2),
    "restart_keeper": (lambda world, _which: meddling.restart_keeper(world), 3),
    "lose_keeper": (lambda world, _which: meddling.lose_keeper(world), 1),
    "let_news_wait": (meddling.let_news_wait, 2),
    "let_time_pass": (meddling.let_time_pass, 1),
}
"""What can happen, and how often it does in a play."""


def step(world: World, action: str, which: int, luck: int) -> None:
    """One thing happens; ``luck`` seeds whatever it leaves to chance."""
    world.rng = Random(luck)
    world.counts["steps"] += 1
    ACTIONS[action][0](world, which)


def make_template(directory: Path) -> Path:
    """A data directory with an empty store, to be copied for each world."""
    directory.mkdir(parents=True)
    engine = open_sqlite_for_writing(directory / "clew.db")
    migrate(engine)
    checkpoint(engine)
    engine.dispose()
    return directory


def play(directory: Path, template: Path, *, seed: int, steps: int, mode: str) -> Counter[str]:
    """A random play; raises Violated with the seed that repeats it."""
    rng = Random(seed)
    names = list(ACTIONS)
    weights = [ACTIONS[name][1] for name in names]
    loop = asyncio.new_event_loop()
    data = directory / f"world-{seed}"
    world = World(data, template, loop, Settings(resume=mode))
    try:
        for number in range(steps):
            action = rng.choices(names, weights)[0]
            step(world, action, rng.randrange(61), rng.randrange(2**16))
            if number % 7 == 0:
                world.project()
        world.close()
    except Violated as fault:
        raise Violated(f"seed {seed}, {mode}, step {world.counts['steps']}: {fault}") from fault
    finally:
        loop.close()
        shutil.rmtree(data, ignore_errors=True)
    return world.counts
