"""Explains one request's identity, rule by rule: what was seen, which row fired, what did not.

Pure: the same `identify` that serves a request gives the claim, and the rows are then compared with
it, so that an explanation cannot say anything the gateway would not do. A credential's value never
enters an explanation.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clew import headers as h
from clew.core.apis.table import api_for
from clew.core.claim import Alias, Claim, Kind, Scope
from clew.core.clients import ClientEntry, ClientTable, client_list
from clew.core.errors import ClewError
from clew.core.identity import FLAGS, below_run, identify, identify_with_body
from clew.core.playback import Playback, Played
from clew.core.request_file import RequestFile
from clew.core.routing import (
    RouteTable,
    choose_route,
    is_answered_here,
    is_inference,
    without_name,
)
from clew.core.run_path import split_run
from clew.core.translate import NOBODY, HeaderPolicy, Outgoing, upstream_fields

CREDENTIALS: Final = frozenset(
    {h.CLEW_KEY, h.AUTHORIZATION, h.X_API_KEY, h.GOOGLE_API_KEY, "cookie", "proxy-authorization"}
)


class Seen(msgspec.Struct, frozen=True):
    """A header that identification reads."""

    header: str
    value: str
    """``***`` for a credential; Codex's turn metadata, which holds paths, only as its size."""


class Step(msgspec.Struct, frozen=True):
    """What one row of the table of clients came to."""

    order: str
    source: str
    reads: tuple[str, ...]
    """Those of its headers or fields that were there."""
    verdict: str
    fired: bool


class Named(msgspec.Struct, frozen=True):
    """An id and how far it reaches."""

    value: str
    source: str
    scope: str
    lifetime: str


class Onward(msgspec.Struct, frozen=True):
    """Where a request goes, and how its head differs there."""

    upstream: str
    target: str
    """Host, path and query."""
    removed: tuple[str, ...]
    """Names of the client's headers that do not go on."""
    added: tuple[str, ...]
    """Lines that Clew adds, its own credential masked."""


class Explanation(msgspec.Struct, frozen=True):
    """Everything that can be said of one request before anything is looked up."""

    method: str
    path: str
    client: str
    seen: tuple[Seen, ...]
    steps: tuple[Step, ...]
    session: Named | None
    parent: Named | None
    root: Named | None
    forked_from: Named | None
    others: tuple[Named, ...]
    attach_to: str
    previous_response_id: str
    kind: str
    final: bool
    flags: dict[str, str]
    """Each flag and what it means."""
    refused: str
    """The code and sentence of the error such a request is answered with; empty: none."""
    conclusion: str
    onward: Onward | None
    label: str = ""
    played: tuple[Played, ...] = ()
    """What each value of ``sessions.resume`` makes of it, after the requests before it."""


def explain(
    request: RequestFile,
    table: ClientTable,
    routes: RouteTable,
    playback: Playback | None = None,
    reply: bytes = b"",
) -> Explanation:
    """Why this request belongs to the session it names; never raises.

    ``playback`` has taken the requests before it; ``reply`` is the answer's document, if known.
    """
    full_path = request.path.partition(b"?")[0]
    path = without_name(full_path)
    belongs = is_inference(request.method.encode(), path)
    refused, onward = "", None
    played: tuple[Played, ...] = ()
    is_ours = is_answered_here(request.method.encode(), request.path)
    claim = Claim(kind=Kind.OTHER)
    try:
        claim = below_run(identify(request.headers, table, path), split_run(full_path)[0])
        if belongs:
            claim = identify_with_body(claim, request.headers, path, request.body, table)
        onward = None if is_ours else _onward(request, claim, routes)
        api = api_for(request.method.encode(), path)
        if playback is not None and api is not None:
            played = playback.take(claim, api, path, request.body, reply)
    except ClewError as error:
        refused = f"{error.fault.code} ({error.fault.status}): {error.detail}"
    return Explanation(
        method=request.method,
        path=request.path.decode("latin-1"),
        client=claim.client,
        seen=_seen(request, table),
        steps=() if refused else tuple(_steps(request, claim, table)),
        session=_named(claim.session),
        parent=_named(claim.parent),
        root=_named(claim.root),
        forked_from=_named(claim.forked_from),
        others=tuple(_alias(alias) for alias in claim.others),
        attach_to=claim.attach_to,
        previous_response_id=claim.previous_response_id,
        kind=claim.kind.value,
        final=claim.final,
        flags={flag: FLAGS.get(flag, "") for flag in claim.flags},
        refused=refused,
        conclusion=_conclusion(claim, refused, is_ours=is_ours, belongs=belongs),
        onward=onward,
        label=request.label,
        played=played,
    )


def _seen(request: RequestFile, table: ClientTable) -> tuple[Seen, ...]:
    found: list[Seen] = []
    for name, value in request.headers:
        if name in table.slots or name.replace(b"_", b"-") in table.slots:
            header = name.decode("latin-1")
            found.append(Seen(header, _shown(header.replace("_", "-"), value)))
    return tuple(found)


def _shown(header: str, value: bytes) -> str:
    if header in CREDENTIALS:
        return "***"
    if header == h.CODEX_TURN_METADATA:
        return f"({len(value)} bytes of JSON)"
    return _text(value)


def _steps(request: RequestFile, claim: Claim, table: ClientTable) -> list[Step]:
    """The rows that found something to read, in their order, and what came of each."""
    fields = _body_fields(request.body)
    present = {name.decode("latin-1") for name, value in request.headers if value}
    found: list[Step] = []
    named_by = ""
    for entry in client_list(table):
        known = present if entry.where == "header" else fields
        reads = tuple(dict.fromkeys(name for name in entry.headers if name in known))
        if not reads:
            continue
        fired, verdict = _verdict(entry, claim, named_by)
        if fired and claim.session is not None:
            named_by = named_by or entry.order
        found.append(Step(entry.order, entry.name, reads, verdict, fired))
    return found


def _verdict(entry: ClientEntry, claim: Claim, named_by: str) -> tuple[bool, str]:
    session = claim.session
    if entry.name == "response-chain" and claim.previous_response_id:
        return True, "looks up the session that got that response"
    if session is not None and session.source == entry.name and not named_by:
        reach = "the thread" if session.scope.value == "thread" else "only the root of the tree"
        return True, f"names {reach}: {session.value}"
    others = [alias.value for alias in claim.others if alias.source == entry.name]
    if others:
        return True, f"adds an alias: {', '.join(others)}"
    if named_by:
        return False, f"not asked further: order {named_by} has named the session"
    return False, f"does not apply: {entry.note or 'no usable id in it'}"


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _body_model(body: bytes) -> str:
    model = _document(body).get("model")
    return model if isinstance(model, str) else ""


def _body_fields(body: bytes) -> set[str]:
    """Dotted names of the body's fields, two deep: as deep as any row reads."""
    document = _document(body)
    found = {name for name, value in document.items() if value}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}" for inner in value if value[inner]}
    return found


def _named(alias: Alias | None) -> Named | None:
    return None if alias is None else _alias(alias)


def _alias(alias: Alias) -> Named:
    return Named(alias.value, alias.source, alias.scope.value, alias.lifetime.value)


def _onward(request: RequestFile, claim: Claim, routes: RouteTable) -> Onward:
    """Upstream, target and headers there. Raises ClewError where there is no route."""
    method, model = request.method.encode(), _body_model(request.body)
    route = choose_route(routes, method, request.path, request.headers, model)
    key = "***" if route.has_own_key else ""
    policy = HeaderPolicy(route.vendor, route.kind, route.upstream.identity_out, key)
    session, parent = claim.session, claim.parent
    outgoing = Outgoing(
        session.value if session is not None and session.scope is Scope.THREAD else "",
        parent.value if parent is not None else "",
        claim.final,
    )
    names = [name for name, _ in request.headers]
    lines = upstream_fields(names, request.headers, policy, b"")
    # Between Clew's own host line and its additions stand the client's.
    own = len(policy.additions(NOBODY))
    kept = {line.partition(b":")[0] for line in lines[1 : len(lines) - own]}
    authority = route.authority.decode() if route.host else "a worker"
    return Onward(
        route.name,
        f"{authority}{route.target.decode('latin-1')}",
        tuple(dict.fromkeys(_text(n) for n in names if n not in kept and n != b"host")),
        tuple(_text(line.strip()) for line in policy.additions(outgoing)),
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _conclusion(claim: Claim, refused: str, *, is_ours: bool, belongs: bool) -> str:
    if is_ours:
        return "answered by Clew itself; no session"
    if refused:
        return "refused; nothing would be forwarded"
    if not belongs:
        return "unattributed: only POSTs to inference paths belong to sessions"
    session = claim.session
    if session is None and claim.previous_response_id:
        return "the session of the previous response, if it is known; else unattributed"
    if session is None:
        return "no id: only its content could tell the session"
    if session.scope.value == "tree":
        return "the id is shared by a whole tree: it names the root, not the thread"
    return f"session {session.value}, named by {session.source}"
