"""What follows from a request's head alone: API, claim, route, billing, the fields that go on.

Nothing here looks at a clock, a session or a body, so equal heads give equal decisions: one is
kept on the head's shape (`wire.memo`) for as long as the same parts are in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clew.core.apis.chat import CHAT
from clew.core.apis.port import Api
from clew.core.apis.table import api_for
from clew.core.billing import billing_of
from clew.core.claim import Claim
from clew.core.identity import below_run, identify
from clew.core.routing import Route, choose_route, needs_model, without_name
from clew.core.run_path import split_run
from clew.core.translate import kept_fields
from clew.gateway.places import Place
from clew.wire.heads import RequestHead

if TYPE_CHECKING:
    from clew.gateway.parts import Parts

FRAMING_FIELDS = frozenset({b"content-length", b"expect"})
"""Written anew for the upstream, and answered here."""
MAX_RETRIES = 9
"""Retries told apart in a flag; the official SDKs stop at two unless told otherwise."""


class Routed(msgspec.Struct, frozen=True):
    """Where a request goes and what of its head goes with it."""

    route: Route
    billing: str
    fields: bytes
    """The client's field lines as the upstream gets them."""
    asks_usage: bool = False
    """Whether a stream is asked for its usage where the client did not (`gateway.asking`)."""
    place: Place | None = None
    """Where there is no choice: the upstream is one url."""


class Decision(msgspec.Struct, frozen=True):
    """Everything decided from one head."""

    parts: Parts
    path: bytes
    """Without query, ``/r/RUN`` and ``/u/NAME``."""
    method_text: str
    path_text: str
    """The client's path as the record shows it, without query."""
    api: Api | None
    claim: Claim
    routed: Routed | None
    """None where the route wants the model, which only the body tells."""
    model: str = ""
    """The model, where the path names it (Gemini)."""
    is_enough: bool = False
    """Whether no body has to be read: the head names a durable thread, and the route."""


def decided(parts: Parts, head: RequestHead) -> Decision | None:
    """What was decided for an equal head before, with the same parts."""
    known = head.shape.decision
    return known if isinstance(known, Decision) and known.parts is parts else None


def decide(parts: Parts, head: RequestHead) -> Decision:
    """The decision for a head, remembered. Raises ClewError as `identify` and `choose_route`."""
    full_path = head.target.partition(b"?")[0]
    path = without_name(full_path)
    api = api_for(head.method, path)
    claim = below_run(identify(head.headers, parts.clients, path), split_run(full_path)[0])
    if api is not None:
        claim = _with_retry(claim, head)
    is_open = api is not None and needs_model(parts.routes, head.target)
    routed = None if is_open else route_to(parts, head, api, "")
    texts = head.method.decode("latin-1"), full_path.decode("latin-1")
    model = api.request_facts(path, b"").model if api is not None else ""
    is_enough = routed is not None and api is not None and claim.names_durable_thread
    decision = Decision(parts, path, *texts, api, claim, routed, model, is_enough)
    head.shape.decision = decision
    return decision


def route_to(parts: Parts, head: RequestHead, api: Api | None, model: str) -> Routed:
    """The route for a model (empty: none is known)."""
    route = choose_route(parts.routes, head.method, head.target, head.headers, model)
    billing = billing_of(route.vendor, route.kind, head.headers, has_own_key=route.has_own_key)
    policy = parts.places.policy(route)
    kept = kept_fields(head.names, head.headers, policy, FRAMING_FIELDS)
    asking = parts.config.metering.ask_usage
    asks = api is CHAT and (asking == "always" or (asking == "engines" and route.kind == "engine"))
    return Routed(route, billing, b"".join(kept), asks, parts.places.only(route))


def _with_retry(claim: Claim, head: RequestHead) -> Claim:
    """The claim, flagged where the client's SDK says that it tries the same call again.

    Each retry is an attempt of its own, billed by the upstream; the official SDKs send no other
    sign that ties it to the first.
    """
    count = head.get(b"x-stainless-retry-count") or b""
    if not count.isdigit() or len(count) > 4 or not int(count):
        return claim
    return claim.flagged(f"sdk_retry_{min(int(count), MAX_RETRIES)}")
