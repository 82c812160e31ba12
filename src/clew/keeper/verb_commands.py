"""The keeper's commands about sessions: the verbs, and what a client may see of its own.

Each first has everything projected that is in the journals, so that what a client was answered
counts; then writes; then returns when every connected gateway knows (at most a second).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.core.errors import ClewError
from clew.core.session import derive_key
from clew.keeper.reach import Reach
from clew.keeper.verbs import Done, Verbs
from clew.store.reads_own import own_view

CATCH_UP_S: Final = 1.0
"""How long a verb waits for the journals; after it, it acts on what is projected."""
_NO_SUCH: Final = "these headers name no session; check the id"
FINISH_S: Final = 2.5
"""How long it waits for what it has left to be done below a session; the rest follows."""


async def close_session(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``session``, ``cascade``: close it. Answers ``{session, unconfirmed}``."""
    cascade = bool(arguments.get("cascade"))
    return await _run(
        reach,
        arguments,
        lambda verbs, name, mine: verbs.close(name, cascade=cascade, principal=mine),
    )


async def merge_session(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``session``, ``into``: the second is what remains."""
    into = str(arguments["into"])
    return await _run(reach, arguments, lambda verbs, name, mine: verbs.merge(name, into, mine))


async def split_session(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``session``, ``alias``: what came by the alias is answered."""
    alias = str(arguments["alias"])
    return await _run(reach, arguments, lambda verbs, name, mine: verbs.split(name, alias, mine))


async def forget_session(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``session``: the row without names is answered."""
    return await _run(reach, arguments, lambda verbs, name, mine: verbs.forget(name, mine))


async def show_own(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``principal``, ``claim``: the session a client's headers name, as that client may see it.

    Opens nothing. ``idle_before_ns`` decides what is idle.
    """
    key = await _own(reach, arguments)
    found = own_view(reach.server.connection, key, int(arguments["idle_before_ns"]))
    if found is None:
        raise ClewError("not_found", _NO_SUCH)
    return found


async def close_own(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``principal``, ``claim``, ``cascade``: close the session a client's headers name.

    Answers what `show_own` does, closed.
    """
    key = await _own(reach, arguments)
    await close_session(reach, {**arguments, "session": key, "by": "client"})
    return own_view(reach.server.connection, key, int(arguments["idle_before_ns"]))


async def _own(reach: Reach, arguments: Mapping[str, Any]) -> SessionKey:
    """The session of a claim that is there already; the same answer for "not yours"."""
    await _catch_up(reach)
    claim = msgspec.convert(arguments["claim"], Claim)
    key = reach.server.look_up(Principal(arguments["principal"]), claim)
    if key is None:
        raise ClewError("not_found", _NO_SUCH)
    return key


Verb = Callable[[Verbs, str, str], Done]


async def _run(reach: Reach, arguments: Mapping[str, Any], verb: Verb) -> dict[str, Any]:
    """Have one verb done, told and acknowledged.

    ``unconfirmed`` names gateways that did not acknowledge in time: they act on older news until
    they do.
    """
    await _catch_up(reach)
    name, mine = str(arguments["session"]), str(arguments.get("principal", ""))
    reason = "client" if arguments.get("by") == "client" else "admin"

    def derive(principal: Principal, alias: Alias) -> SessionKey:
        return derive_key(reach.secret, principal, alias.family, alias.value)

    def work(connection: sa.Connection) -> Done:
        verbs = Verbs(connection, derive, reach.random, reach.now_ns(), reason)
        done = verb(verbs, name, mine)
        reach.log.note_verb(connection, done.changed, done.gone)
        # Told by the pass that follows: its news is in the order of the commits.
        reach.running.announce(done.changed)
        return done

    done = await reach.write(work, session=name, by=reason)
    reach.server.retract(done.changed, done.gone)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reach.running.request_pass(), FINISH_S)
    return {"session": done.session, "unconfirmed": await reach.server.confirm()}


async def _catch_up(reach: Reach) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reach.running.request_pass(), CATCH_UP_S)


SESSION_COMMANDS: Final[Mapping[str, Callable[[Reach, Mapping[str, Any]], Awaitable[Any]]]] = {
    "session.close": close_session,
    "session.merge": merge_session,
    "session.split": split_session,
    "session.forget": forget_session,
    "session.show_own": show_own,
    "session.close_own": close_own,
}
