"""The admin API's verbs of sessions: the keeper does them, the store shows what came of it.

Each answers the session to look at afterwards, and the gateways that may not have heard yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clew.store.reads import UnknownSessionError
from clew.store.reads_shapes import Session
from clew.web import parameters
from clew.web.answers import answer, refusal_of
from clew.web.bodies import read_body
from clew.web.desk import Desk, desk_of
from clew.web.limits import BudgetRequest, budget_arguments


class CloseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a close."""

    cascade: bool | None = None
    """Everything below too; as ``sessions.cascade_close`` says unless given."""


class MergeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a merge."""

    into: str
    """What remains: Clew's id, or an external id that one session alone has."""


class SplitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a split."""

    alias: str
    """An id of the session, or Clew's id of one that was merged into it."""


class ForgetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a forgetting, which takes nothing."""


class ChangedSession(Session, frozen=True, kw_only=True):
    """A session after a verb. ``unconfirmed``: gateways that may not have heard of it yet."""

    unconfirmed: list[str]


async def close(request: Request, name: str) -> Response:
    """Close it."""
    desk = desk_of(request)
    body = await _read(request, CloseRequest)
    cascades = desk.launch.config.sessions.cascade_close
    cascade = cascades if body.cascade is None else body.cascade
    return await _do(desk, "session.close", name, {"cascade": cascade})


async def merge(request: Request, name: str) -> Response:
    """Merge it into another; the survivor."""
    desk = desk_of(request)
    body = await _read(request, MergeRequest)
    into = await _key_of(desk, body.into)
    return await _do(desk, "session.merge", name, {"into": into})


async def split(request: Request, name: str) -> Response:
    """Split an id off; what came by it."""
    body = await _read(request, SplitRequest)
    return await _do(desk_of(request), "session.split", name, {"alias": body.alias})


async def forget(request: Request, name: str) -> Response:
    """Erase its names; the row without them."""
    await _read(request, ForgetRequest)
    return await _do(desk_of(request), "session.forget", name, {})


async def budget(request: Request, name: str) -> Response:
    """Extend, pause or resume its budgets."""
    desk = desk_of(request)
    body = await _read(request, BudgetRequest)
    return await _do(desk, "session.budget", name, budget_arguments(desk, body))


async def _read(request: Request, kind: type[Any]) -> Any:
    parameters.read_parameters(request.query_params, parameters.NONE, desk_of(request).now_ns())
    return await read_body(request, kind)


async def _do(desk: Desk, command: str, name: str, arguments: dict[str, Any]) -> Response:
    key = await _key_of(desk, name)
    done = await desk.command(command, {"session": key, **arguments})
    shown, is_fresh = await desk.read(lambda: desk.reads.session(done["session"], desk.now_ns()))
    fields = {field: getattr(shown, field) for field in Session.__struct_fields__}
    return answer(ChangedSession(**fields, unconfirmed=done["unconfirmed"]), is_fresh=is_fresh)


async def _key_of(desk: Desk, name: str) -> str:
    """Clew's id of a session that is named in any way. Raises `Refusal`."""
    try:
        found, _ = await desk.read(lambda: desk.reads.session(name, desk.now_ns()))
    except UnknownSessionError as unknown:
        raise refusal_of("not_found", unknown_text(unknown)) from None
    return found.id


def unknown_text(unknown: UnknownSessionError) -> str:
    """What to do about an id that names no session, or several."""
    if not unknown.candidates:
        return "no session has this id; list them at /api/v1/sessions"
    some = ", ".join(unknown.candidates)
    return f"several sessions have this id; use Clew's own, such as {some}"


VERBS: Final[dict[str, Callable[[Request, str], Awaitable[Response]]]] = {
    "close": close,
    "merge": merge,
    "split": split,
    "forget": forget,
    "budget": budget,
}
