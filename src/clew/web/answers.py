"""How the admin port answers: JSON, and one form of error for every refusal.

``{"error": {"code", "message"}}``; the codes are those of `docs/errors.md` and ``bad_parameter``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from clew.core.errors import FAULTS

STALE_HEADER: Final = "x-clew-stale"
"""Sent as ``1`` when the keeper could not be asked: the answer may lag behind the gateways."""
RETRY_AFTER_S: Final = "2"


class Refusal(Exception):  # noqa: N818  an answer, not a fault of the program
    """A request that is answered by an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


def bad_parameter(name: str, why: str) -> Refusal:
    """A parameter that cannot be meant: its name and what is wrong with it."""
    return Refusal(400, "bad_parameter", f"parameter {name!r:.80} {why}")


def refusal_of(code: str, message: str = "") -> Refusal:
    """The refusal of a code of the table."""
    fault = FAULTS[code]
    return Refusal(fault.status, code, message or fault.message)


def answer(content: Any, *, is_fresh: bool = True, headers: Mapping[str, str] = {}) -> Response:
    """200 with JSON; ``content`` may be JSON already."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    extra = dict(headers)
    if not is_fresh:
        extra[STALE_HEADER] = "1"
    return Response(body, media_type="application/json", headers=extra)


def refuse(refusal: Refusal, headers: Mapping[str, str] = {}) -> Response:
    """The refusal as JSON."""
    extra = dict(headers)
    if refusal.status == 401:
        extra["www-authenticate"] = 'Bearer realm="clew admin"'
    if refusal.status == 503:
        extra["retry-after"] = RETRY_AFTER_S
    body = msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})
    return Response(body, refusal.status, extra, media_type="application/json")
