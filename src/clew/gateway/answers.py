"""The heads Clew writes: its own errors and the fields it adds to a response."""

from __future__ import annotations

from http import HTTPStatus
from itertools import compress
from typing import NamedTuple

from clew.core.apis.table import error_api
from clew.core.errors import ClewError
from clew.core.routing import without_name
from clew.gateway.places import Place
from clew.gateway.sessions import Resolved
from clew.wire.heads import ResponseHead, WireError, hop_fields

JSON_TYPE = (b"content-type", b"application/json")


def error_answer(
    error: ClewError, path: bytes, request_id: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, fields and body of an error made here, in the API's own form."""
    fault = error.fault
    headers = [
        JSON_TYPE,
        (b"x-clew-error", fault.code.encode()),
        (b"x-clew-request-id", request_id.encode()),
        *error.fields,
    ]
    if fault.is_retryable:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    else:
        headers.append((b"x-should-retry", b"false"))
    return error.status, headers, error_api(path).render_error(error, request_id)


def refuse_malformed(fault: WireError, request_id: str) -> bytes:
    """The whole response to bytes that are no request; the connection closes after it."""
    error = ClewError(fault.code, fault.detail)
    path = without_name(fault.target.partition(b"?")[0])
    status, headers, body = error_answer(error, path, request_id)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()]
    lines += [b"%b: %b\r\n" % field for field in headers]
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    return b"".join(lines) + body


def identity_fields(session: Resolved, request_id: str) -> bytes:
    """The ``x-clew-*`` lines of a proxied response."""
    lines = f"x-clew-request-id: {request_id}\r\nx-clew-resolution: {session.resolution}\r\n"
    known = session.known
    if known is not None:
        lines += (
            f"x-clew-source: {session.source}\r\nx-clew-session: {known.key}\r\n"
            f"x-clew-session-id: {known.session_id}\r\n"
        )
    return lines.encode()


def binding_fields(place: Place) -> bytes:
    """The lines that say which worker served, and whether the session holds it."""
    lines = f"x-clew-worker: {place.shown}\r\nx-clew-binding: {place.binding}\r\n"
    if place.epoch:
        lines += f"x-clew-epoch: {place.epoch}\r\n"
    return lines.encode()


def response_head(response: ResponseHead, added: bytes) -> bytes:
    """The upstream's head as the client gets it, without framing fields and blank line.

    An upstream's own ``x-clew-*`` fields (a gateway behind this one) give way to ours. Which lines
    go on depends on the names alone, so it is decided once for each shape.
    """
    hop = hop_fields(response)
    shape = response.shape
    known = shape.decision
    if isinstance(known, _Kept) and known.hop is hop:
        kept = known.lines
    else:
        kept = [name not in hop and not name.startswith(b"x-clew-") for name in shape.lowered]
        shape.decision = _Kept(hop, kept)
    line = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
    return b"".join((line, *compress(response.lines, kept), added))


class _Kept(NamedTuple):
    """Which lines of one shape go on."""

    hop: frozenset[bytes]
    lines: list[bool]
