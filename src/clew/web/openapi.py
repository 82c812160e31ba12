"""The API's description: every route, its parameters, bodies, statuses and shapes.

Shapes come from the structs that are sent, so the two cannot differ. Parameters are strict: a
value the description allows is accepted, and any other is refused with 400.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clew import __version__
from clew.core.clients import ClientEntry
from clew.store.bindings import BindingList, BindingState
from clew.store.reads import ClientRow, EventPage, RecordPage, SessionPage
from clew.store.reads_drift import MAX_CLIENTS
from clew.store.reads_keys import KEY_CURSOR, KeyPage
from clew.store.reads_query import (
    EVENT_CURSOR,
    MAX_PAGE,
    REQUEST_CURSOR,
    SESSION_CURSOR,
    Sort,
    State,
    UsageBy,
)
from clew.store.reads_shapes import Session, Totals
from clew.store.reads_usage import MAX_USAGE, Usage
from clew.web.drift import DriftList
from clew.web.fleets import WorkerList
from clew.web.keys import DEFAULT_GRACE, ChangedKey, IssuedKey, KeyRequest, NoRequest
from clew.web.limits import BudgetRequest, LimitList
from clew.web.metering import PlanList, RerateRequest, Rerating
from clew.web.parameters import AGE, MAX_TEXT
from clew.web.readiness import Readiness
from clew.web.verbs import (
    ChangedSession,
    CloseRequest,
    ForgetRequest,
    MergeRequest,
    SplitRequest,
)

Json = dict[str, Any]


class ClientList(msgspec.Struct, frozen=True):
    """What `/api/v1/clients` answers."""

    items: list[ClientEntry]
    seen: list[ClientRow]


_STRUCTS: Final = (
    Session,
    SessionPage,
    RecordPage,
    EventPage,
    Usage,
    Totals,
    Readiness,
    ClientList,
    DriftList,
    WorkerList,
    BindingList,
    PlanList,
    RerateRequest,
    Rerating,
    KeyPage,
    KeyRequest,
    NoRequest,
    ChangedKey,
    IssuedKey,
    CloseRequest,
    MergeRequest,
    SplitRequest,
    ForgetRequest,
    BudgetRequest,
    LimitList,
    ChangedSession,
)
_TEXT: Final[Json] = {"type": "string", "maxLength": MAX_TEXT}
_TIME: Final[Json] = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": AGE},
    ]
}
_KEY_NAME: Final[Json] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The key's id",
    "schema": {"type": "string", "minLength": 1},
}
_NAME: Final[Json] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Clew's id, or an external id that one session alone has; / as %2F",
    "schema": {"type": "string", "minLength": 1},
}


def document() -> Json:
    """The OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clew admin API",
            "version": __version__,
            "description": "The login page's cookie is accepted in place of the bearer token.",
        },
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _paths() -> Json:
    session = "/api/v1/sessions/{id}"
    usage = [
        _query("by", {"enum": [one.value for one in UsageBy], "default": "day"}),
        _query("since", _TIME, "Attempts received from then on."),
        _query("until", _TIME, "Attempts received before then."),
        _query("limit", _count(MAX_USAGE)),
    ]
    return {
        "/health": _get("This process answers.", _inline_status(), is_open=True),
        "/ready": _ready(),
        "/metrics": _get("Prometheus text.", {"type": "string"}, kind="text/plain", is_open=True),
        "/api/v1/openapi.json": _get("This document.", {"type": "object"}),
        "/api/v1/sessions": _get("A page of sessions.", _ref("SessionPage"), _sessions_query()),
        session: _get("One session.", _ref("Session"), [_NAME], is_named=True),
        f"{session}/tree": _get("Its tree, from the root.", _ref("Tree"), [_NAME], is_named=True),
        f"{session}/requests": _get(
            "Its attempts in the order of arrival.",
            _ref("RecordPage"),
            [
                _NAME,
                _query("order", {"enum": ["asc", "desc"], "default": "asc"}),
                _query("limit", _count(MAX_PAGE)),
                _query("cursor", _cursor(REQUEST_CURSOR)),
            ],
            is_named=True,
        ),
        f"{session}/events": _get(
            "What happened to it, oldest first.",
            _ref("EventPage"),
            [
                _NAME,
                _query("limit", _count(MAX_PAGE)),
                _query("cursor", _cursor(EVENT_CURSOR)),
            ],
            is_named=True,
        ),
        "/api/v1/usage": _get("Sums by one property.", _ref("Usage"), usage),
        "/api/v1/usage.csv": _get("The same as CSV.", {"type": "string"}, usage, kind="text/csv"),
        **_client_paths(),
        "/api/v1/workers": _get(
            "The workers of every upstream, and where each one is listed.",
            _ref("WorkerList"),
            [_query("upstream", _TEXT, "Of this upstream only.")],
        ),
        **_binding_paths(),
        "/api/v1/limits": _get(
            "Limits and budgets as they stand.",
            _ref("LimitList"),
            [
                _query("subject", _TEXT, "Of this subject only: Clew's id of a session, a name."),
                _query("limit", _count(MAX_PAGE), "Of each kind."),
            ],
        ),
        **_metering_paths(),
        **_key_paths(),
        **_verb_paths(session),
        "/api/v1/live": _live(),
    }


def _binding_paths() -> Json:
    return {
        "/api/v1/bindings": _get(
            "Which session holds which worker, the last used first.",
            _ref("BindingList"),
            [
                _query("upstream", _TEXT, "Of this upstream only."),
                _query("worker", _TEXT, "Of this worker only, by its url."),
                _query("state", {"enum": [one.value for one in BindingState]}),
                _query("limit", _count(MAX_PAGE)),
            ],
        ),
    }


def _client_paths() -> Json:
    return {
        "/api/v1/clients": _get(
            "Clients recognised; those seen, busiest first.",
            _ref("ClientList"),
            [_query("limit", _count(MAX_PAGE))],
        ),
        "/api/v1/drift": _get(
            "The share of requests with an id, by client and version.",
            _ref("DriftList"),
            [
                _query("since", _TIME, "Received from then on; a week unless given."),
                _query("until", _TIME, "Received before then."),
                _query("limit", _count(MAX_CLIENTS)),
            ],
        ),
    }


def _metering_paths() -> Json:
    times: Json = {
        name: {"anyOf": [*_TIME["anyOf"], {"type": "null"}]} for name in ("since", "until")
    }
    cursor: Json = {"anyOf": [_cursor(REQUEST_CURSOR), {"type": "null"}]}
    body: Json = {"properties": {**times, "cursor": cursor}}
    return {
        "/api/v1/plans": _get(
            "How far the windows of subscriptions are used.",
            _ref("PlanList"),
            [_query("principal", _TEXT), _query("limit", _count(MAX_PAGE))],
        ),
        "/api/v1/usage/rerate": _post(
            "Price what arrived in a time anew; corrections are new rows.",
            _ref("Rerating"),
            {"allOf": [_ref("RerateRequest"), body]},
        ),
    }


def _verb_paths(session: str) -> Json:
    needing = ("merge", "split")
    rows = (
        ("close", "Close it.", "CloseRequest"),
        ("merge", "Merge it into another; the survivor.", "MergeRequest"),
        ("split", "Split an id off; what came by it.", "SplitRequest"),
        ("forget", "Erase its names; the row without them.", "ForgetRequest"),
        ("budget", "Extend, pause or resume its budgets and its tree's.", "BudgetRequest"),
    )
    return {
        f"{session}/{verb}": _post(
            summary, _ref("ChangedSession"), _ref(body), [_NAME], needs_body=verb in needing
        )
        for verb, summary, body in rows
    }


def _live() -> Json:
    item = _get("Records as they land.", {"type": "string"}, kind="text/event-stream")
    item["get"]["parameters"] = [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "Go on after this event.",
            "schema": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,18})$"},
        }
    ]
    faults = {"400": "A parameter cannot be meant.", "503": "Too many follow, or no store."}
    item["get"]["responses"] |= {
        code: _response(why, _ref("Error")) for code, why in faults.items()
    }
    return item


def _key_paths() -> Json:
    key = "/api/v1/keys/{id}"
    listed = _get(
        "Gateway keys, the newest first.",
        _ref("KeyPage"),
        [
            _query("principal", _TEXT),
            _query("limit", _count(MAX_PAGE)),
            _query("cursor", _cursor(KEY_CURSOR)),
        ],
    )
    grace = {"type": "string", "pattern": AGE, "default": DEFAULT_GRACE}
    rotation: Json = {"type": "object", "properties": {"grace": grace}}
    return {
        "/api/v1/keys": listed | _post("A new key.", _ref("IssuedKey"), _key_request(), made=True),
        f"{key}/rotate": _post(
            "Replace a key; the successor.",
            _ref("IssuedKey"),
            rotation | {"additionalProperties": False},
            [_KEY_NAME],
        ),
        f"{key}/revoke": _post("End a key.", _ref("ChangedKey"), _ref("NoRequest"), [_KEY_NAME]),
    }


def _key_request() -> Json:
    expires: Json = {"properties": {"expires": {"anyOf": [*_TIME["anyOf"], {"type": "null"}]}}}
    return {"allOf": [_ref("KeyRequest"), expires]}


def _sessions_query() -> list[Json]:
    return [
        _query("principal", _TEXT),
        _query("state", {"enum": [one.value for one in State]}),
        _query("source", _TEXT),
        _query("q", _TEXT, "A prefix of Clew's id, the external id or any alias."),
        _query("since", _TIME, "Sessions seen since then."),
        _query("root", _TEXT, "Sessions of the tree that this session belongs to."),
        _query("sort", {"enum": [one.value for one in Sort], "default": "last_seen"}),
        _query("limit", _count(MAX_PAGE)),
        _query("cursor", _cursor(SESSION_CURSOR), "From `next`; its order rules over `sort`."),
    ]


def _get(
    summary: str,
    schema: Json,
    query: list[Json] | None = None,
    *,
    kind: str = "application/json",
    is_open: bool = False,
    is_named: bool = False,
) -> Json:
    responses: Json = {"200": _response("The answer.", schema, kind)}
    faults = {"403": "Host or Origin are not this port's."}
    if not is_open:
        faults["401"] = "The token is missing or wrong."
    if query:
        faults["400"] = "A parameter cannot be meant; the message names it."
    if is_named:
        faults["400"] = "A parameter is unknown; the message names it."
        faults["404"] = "No session has this id, or several have it."
    if query or is_named:
        faults["503"] = "The store cannot be read now."
    responses |= {code: _response(why, _ref("Error")) for code, why in sorted(faults.items())}
    operation: Json = {"summary": summary, "responses": responses}
    if query:
        operation["parameters"] = query
    if is_open:
        operation["security"] = []
    return {"get": operation}


def _post(
    summary: str,
    schema: Json,
    body: Json,
    names: list[Json] | None = None,
    *,
    made: bool = False,
    needs_body: bool = False,
) -> Json:
    """A verb. ``made``: it needs its body and answers 201."""
    faults = {
        "400": "The body or a parameter cannot be meant; the message names it.",
        "401": "The token is missing or wrong.",
        "403": "Host or Origin are not this port's.",
        "409": "The present state forbids it; the message says why.",
        "413": "The body is too large.",
        "503": "The keeper or the store cannot be reached now.",
    }
    if names:
        faults["404"] = "Nothing has this id."
    responses: Json = {"201" if made else "200": _response("Done.", schema)}
    responses |= {code: _response(why, _ref("Error")) for code, why in sorted(faults.items())}
    content = {"application/json": {"schema": body}}
    operation: Json = {"summary": summary, "responses": responses}
    operation["requestBody"] = {"required": made or needs_body, "content": content}
    if names:
        operation["parameters"] = names
    return {"post": operation}


def _ready() -> Json:
    item = _get("Whether every part can serve.", _ref("Readiness"), is_open=True)
    item["get"]["responses"]["503"] = _response("A part cannot.", _ref("Readiness"))
    return item


def _schemas() -> Json:
    _, schemas = msgspec.json.schema_components(
        _STRUCTS, ref_template="#/components/schemas/{name}"
    )
    schemas["Error"] = _object(error=_object(code={"type": "string"}, message={"type": "string"}))
    node = _object(
        session=_ref("Session"),
        children={"type": "array", "items": _ref("Node")},
        totals=_ref("Totals"),
    )
    extra: Json = {"count": {"type": "integer", "minimum": 1}, "truncated": {"type": "boolean"}}
    schemas["Node"] = node
    schemas["Tree"] = _object(**node["properties"], **extra)
    return schemas


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _inline_status() -> Json:
    return _object(status={"const": "ok"})


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _response(description: str, schema: Json, kind: str = "application/json") -> Json:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _query(name: str, schema: Json, description: str = "") -> Json:
    row: Json = {"name": name, "in": "query", "required": False, "schema": schema}
    return row | ({"description": description} if description else {})


def _count(most: int) -> Json:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _cursor(pattern: str) -> Json:
    return {"type": "string", "pattern": pattern}
