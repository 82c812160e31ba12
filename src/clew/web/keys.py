"""The admin API's routes for gateway keys. The keeper changes them, the store shows them.

A key is in one answer, that of its making; nothing here writes it anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.core.keys import Purpose
from clew.store.reads_keys import KeyView
from clew.web import parameters
from clew.web.answers import Refusal, answer, refusal_of
from clew.web.bodies import read_body
from clew.web.desk import Desk, desk_of

KEY_ROWS: Final = 100
MAX_NS: Final = 2**63 - 1
DEFAULT_GRACE: Final = "24h"

T = TypeVar("T")


class KeyRequest(Purpose, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a key's creation."""

    expires: str | None = None
    """RFC 3339, a date (its first moment, UTC), or a span from now such as ``90d``."""


class RotateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a rotation."""

    grace: str = DEFAULT_GRACE
    """How long the replaced key is still accepted."""


class NoRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a verb that takes nothing."""


class ChangedKey(KeyView, frozen=True, kw_only=True):
    """A key after a verb. ``unconfirmed``: gateways that may not have heard of it yet."""

    unconfirmed: list[str]


class IssuedKey(ChangedKey, frozen=True, kw_only=True):
    """A new key, with the key itself: shown this once."""

    key: str


async def keys(request: Request) -> Response:
    """A page of keys, or a new one."""
    return await (_create(request) if request.method == "POST" else _list(request))


async def rotate(request: Request) -> Response:
    """Replace a key; the answer is its successor."""
    desk = desk_of(request)
    parameters.read_parameters(request.query_params, parameters.NONE, desk.now_ns())
    body = await read_body(request, RotateRequest)
    # Beyond what a message can carry it is too long in any case; the keeper says so.
    grace_ns = min(_read("grace", lambda: parameters.read_span(body.grace)), MAX_NS)
    arguments = {"id": request.path_params["id"], "grace_ns": grace_ns}
    made = await desk.command("keys.rotate", arguments)
    return await _issued(desk, made)


async def revoke(request: Request) -> Response:
    """End a key at once, everywhere."""
    desk = desk_of(request)
    parameters.read_parameters(request.query_params, parameters.NONE, desk.now_ns())
    await read_body(request, NoRequest)
    done = await desk.command("keys.revoke", {"id": request.path_params["id"]})
    view = await _view(desk, done["id"])
    return answer(ChangedKey(**_fields(view), unconfirmed=done["unconfirmed"]))


async def _list(request: Request) -> Response:
    desk = desk_of(request)
    now_ns = desk.now_ns()
    asked = parameters.read_parameters(request.query_params, parameters.KEYS, now_ns)
    principal, limit = asked.get("principal", ""), asked.get("limit", KEY_ROWS)
    cursor = asked.get("cursor")
    page, is_fresh = await desk.read(lambda: desk.reads.keys(principal, limit, cursor, now_ns))
    return answer(page, is_fresh=is_fresh)


async def _create(request: Request) -> Response:
    desk = desk_of(request)
    now_ns = desk.now_ns()
    parameters.read_parameters(request.query_params, parameters.NONE, now_ns)
    body = await read_body(request, KeyRequest)
    arguments = msgspec.to_builtins(body)
    expires = arguments.pop("expires")
    if expires is not None:
        at_ns = _read("expires", lambda: parameters.read_future(expires, now_ns))
        arguments["expires_at_ns"] = min(at_ns, MAX_NS)
    response = await _issued(desk, await desk.command("keys.create", arguments))
    response.status_code = 201
    return response


async def _issued(desk: Desk, made: dict[str, Any]) -> Response:
    view = await _view(desk, made["id"])
    issued = IssuedKey(**_fields(view), key=made["key"], unconfirmed=made["unconfirmed"])
    return answer(issued)


async def _view(desk: Desk, key_id: str) -> KeyView:
    now_ns = desk.now_ns()
    found, _ = await desk.read(lambda: desk.reads.key(key_id, now_ns))
    if found is None:
        raise refusal_of("not_found", "no key has this id")
    return found


def _fields(view: KeyView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in KeyView.__struct_fields__}


def _read(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise Refusal(400, "bad_parameter", f"{name!r} {error}") from None


KEY_ROUTES: Final = (
    Route("/api/v1/keys", keys, methods=["GET", "POST"]),
    Route("/api/v1/keys/{id}/rotate", rotate, methods=["POST"]),
    Route("/api/v1/keys/{id}/revoke", revoke, methods=["POST"]),
)
