"""What comes between: operators' verbs, processes that end, and principals that reach for others.

Whatever a thief sends, the answer is that of a session which is not there.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from tests.model.speaking import CLIENTS, PATHS, Message, Talk, headers_of
from tests.model.world import HOUR_NS, PRINCIPALS, Violated, World

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.clients import ClientTable
from clew.core.identity import identify
from clew.keeper.protocol import Result

NOWHERE: Final = "cs_" + "a" * 26
DURABLE: Final = 3
"""The kind of client that recency leaves alone."""
_TABLE: Final = ClientTable()


# --- thefts ------------------------------------------------------------------------------------


def thief_of(world: World, talk: Talk) -> Principal:
    """Somebody else."""
    return world.rng.choice([one for one in PRINCIPALS if one != talk.principal])


def steal_ids(world: World, talk: Talk) -> None:
    """Another principal sends this conversation's ids, or its content, or its response."""
    if talk.is_stolen:
        return  # what came from elsewhere may be the thief's own
    thief = thief_of(world, talk)
    stolen = world.thefts.get((thief, talk.number))
    if stolen is None:
        world.project()
        stolen = world.begin(CLIENTS.index(talk.client), thief)
        stolen.agent, stolen.tools, stolen.parent = talk.agent, talk.tools, talk.parent
        stolen.ids, stolen.is_stolen = dict(talk.ids), True
        world.thefts[(thief, talk.number)] = stolen
    if world.is_busy(stolen) or stolen not in world.talks:
        return
    stolen.messages = list(talk.messages) if world.rng.random() < 0.6 else stolen.messages
    stolen.last_response = talk.last_response
    world.counts["thefts"] += 1
    world.turn(stolen, final=world.rng.random() < 0.3)
    stolen.last_response = ""


def steal_links(world: World, talk: Talk) -> None:
    """Another principal names this session as its parent, by Clew's id."""
    if talk.session is None or world.place.server is None:
        return
    world.project()
    thief = world.begin(DURABLE, thief_of(world, talk))
    seen = []
    for name in (talk.session, NOWHERE):
        tail = Message(is_assistant=False, text=f"words {world.fresh()}")
        thief.ids = {key: f"{key}-{world.fresh()}" for key in thief.client.id_names}
        sent = world.dispatch(thief, tail, more={"x-clew-parent": name}, is_turn=False)
        seen.append((sent.intent.resolution, sent.intent.flags, sent.intent.parent))
    world.counts["thefts"] += 1
    if seen[0] != seen[1]:
        raise Violated(f"P1: a session that is not theirs is told from none: {seen}")
    world.forget_talk(thief)


def steal_commands(world: World, talk: Talk) -> None:
    """Another principal looks at this session, closes, merges, splits and forgets it."""
    if talk.session is None or world.place.server is None:
        return
    world.project()
    thief, before = thief_of(world, talk), dict(world.prints)
    mine = next((one.session for one in world.talks if one.principal == thief), None)
    for name, more in (
        ("session.close", {"cascade": True}),
        ("session.merge", {"into": mine or NOWHERE}),
        ("session.split", {"alias": next(iter(talk.ids.values()), "none")}),
        ("session.forget", {}),
    ):
        answers = [
            world.place.command(name, session=key, principal=thief, **more)
            for key in (talk.session, NOWHERE)
        ]
        _judge_refusal(answers, name)
    _steal_own(world, talk, thief)
    world.counts["thefts"] += 1
    world.project()
    if world.prints != before:
        raise Violated("P1: a refused command has changed something")


def _steal_own(world: World, talk: Talk, thief: Principal) -> None:
    """What a client may ask of its own session, asked with another's headers."""
    claim = identify(headers_of(talk, {}), _TABLE, PATHS[talk.client.api])
    if claim.session is None:
        return
    held = world.place.house.rows(
        f"SELECT 1 FROM aliases WHERE principal = '{thief}' AND value = '{claim.session.value}'"
    )
    others = [alias for alias in claim.others if alias is not None]
    if held or others:
        return  # the thief has a session of its own by these ids
    none = msgspec.structs.replace(claim, session=Alias("opencode", "nowhere", "opencode"))
    for name in ("session.show_own", "session.close_own"):
        answers = [
            world.place.command(
                name,
                principal=thief,
                claim=msgspec.to_builtins(one),
                idle_before_ns=0,
                cascade=False,
            )
            for one in (claim, none)
        ]
        _judge_refusal(answers, name)


def _judge_refusal(answers: list[Result], name: str) -> None:
    told = {(one.ok, one.error, one.detail) for one in answers}
    if any(one.ok for one in answers) or len(told) != 1:
        raise Violated(f"P1: {name} answers {told} to one whose session it is not")


# --- operators ---------------------------------------------------------------------------------


def close(world: World, talk: Talk) -> None:
    """An operator closes a session."""
    if talk.session is not None:
        _do(world, talk, "session.close", cascade=world.rng.random() < 0.5)
        for one in world.talks:
            one.is_odd = one.is_odd or one.principal == talk.principal


def merge(world: World, talk: Talk) -> None:
    """An operator says that two conversations are one, also of two principals (refused)."""
    other = world.rng.choice(world.talks)
    if talk.session is None or other.session is None or other is talk:
        return
    into = world.now_at(other.session)
    result = _do(world, talk, "session.merge", into=into)
    if result is not None and result.ok:
        if other.principal != talk.principal:
            raise Violated("P1: sessions of two principals were merged")
        world.join(talk.number, other.number)
        world.counts["merges"] += 1


def split(world: World, talk: Talk) -> None:
    """An operator takes an id out of a session again."""
    if talk.session is None or not talk.ids:
        return
    result = _do(world, talk, "session.split", alias=world.rng.choice(list(talk.ids.values())))
    if result is not None and result.ok:
        made = SessionKey(result.value["session"])
        world.seen.add(made)
        world.home[made] = talk.principal
        world.owners.setdefault(made, talk.number)
        world.counts["splits"] += 1


def forget(world: World, talk: Talk) -> None:
    """An operator erases a session's names: its ids open new ones."""
    if talk.session is None:
        return
    key = world.now_at(talk.session)
    gone = {key} | {one for one in world.seen if world.now_at(one) == key}
    result = _do(world, talk, "session.forget")
    if result is not None and result.ok:
        world.seen -= gone
        for one in gone:
            world.owners.pop(one, None)
        for other in world.talks:
            if other.session in gone:
                other.session, other.is_odd = None, True
        world.counts["forgets"] += 1


def _do(world: World, talk: Talk, name: str, **more: Any) -> Result | None:
    if world.place.server is None or talk.session is None:
        return None
    world.project()
    world.actors.add(talk.principal)
    result = world.place.command(name, session=world.now_at(talk.session), **more)
    for one in world.talks:
        if one.principal == talk.principal:
            one.is_odd = True
    world.project()
    return result


# --- processes and time ------------------------------------------------------------------------


def restart_gateway(world: World, which: int) -> None:
    """A gateway dies with what it relays, and is started again."""
    number = which % 2
    lost = [one for one in world.running if one.gateway is world.place.gateways[number]]
    for one in lost:
        one.talk.is_odd = True
    world.actors.update(PRINCIPALS)  # everybody's attempts that were under way are left unsettled
    world.running = [one for one in world.running if one not in lost]
    world.place.restart_gateway(number)


def restart_keeper(world: World) -> None:
    """The keeper is started again on its store."""
    if world.place.server is not None:
        world.place.stop_keeper()
    world.place.start_keeper()


def lose_keeper(world: World) -> None:
    """The keeper is gone until it is started again."""
    if world.place.server is not None:
        world.place.stop_keeper()


def let_news_wait(world: World, which: int) -> None:
    """News of changes waits on its way to the gateways, or arrives."""
    world.place.is_prompt = bool(which % 2)
    for gateway in world.place.gateways:
        gateway.link.deliver()


def let_time_pass(world: World, which: int) -> None:
    """Up to two days, with nothing under way."""
    while world.running:
        world.end_one(which)
    world.now_ns += HOUR_NS * (1 + which % 48)
    for one in world.talks:
        one.is_odd = True
