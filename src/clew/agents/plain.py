"""Agents that take their base url from a variable: its value, or a line of a ``.env`` file."""

from __future__ import annotations

from pathlib import PurePath

from clew.agents.bases import Bases, Existing
from clew.agents.lines import value_of
from clew.agents.plan import Child, Form, Situation, base_of, foreign
from clew.agents.table import Variable


def _reads(situation: Situation) -> tuple[str, ...]:
    """The first ``.env`` file counts, from the project upwards, then the home's."""
    if not situation.agent.dotenv:
        return ()
    start = PurePath(situation.directory)
    places = [start, *start.parents, PurePath(situation.home)]
    return tuple(
        dict.fromkeys(str(place / name) for place in places for name in situation.agent.dotenv)
    )


def existing(situation: Situation) -> tuple[Existing, ...]:
    """The variables, as the environment or else the first ``.env`` file sets them."""
    found: list[Existing] = []
    for variable in situation.agent.variables:
        where, url = f"{variable.name} in the environment", situation.environ.get(variable.name, "")
        if not url and situation.files:
            path, text = next(iter(situation.files.items()))
            where, url = f"{variable.name} in {path}", value_of(text, variable.name)
        found.append(Existing(where, variable.name, url, _path(situation, variable)))
    return foreign(situation, found)


def child(situation: Situation, bases: Bases) -> Child:
    """Every variable with its new value; what is missing of the defaults; arguments as they are."""
    agent, found = situation.agent, existing(situation)
    environment = {name: value for name, value in agent.defaults if not situation.environ.get(name)}
    for variable in agent.variables:
        # Two spellings of one setting: the one that was set speaks for both.
        old = next((o for o in found if o.slot == variable.name), found[0] if found else None)
        slot = old.slot if old is not None else variable.name
        environment[variable.name] = base_of(slot, _path(situation, variable), found, bases)
    return Child(environment, situation.arguments)


def _path(situation: Situation, variable: Variable) -> str:
    name, value = situation.agent.bare_with
    return "" if name and situation.environ.get(name) == value else variable.path


FORM = Form(_reads, existing, child)
