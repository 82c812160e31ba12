"""Bodies of the API's verbs: small, strict JSON. What cannot be meant is refused by name."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from starlette.requests import Request

from clew.web.answers import Refusal, refusal_of

MAX_BODY_BYTES: Final = 65_536

T = TypeVar("T")


async def read_body(request: Request, kind: type[T]) -> T:
    """The body as ``kind``; an empty one is an empty object.

    Raises `Refusal` ``bad_parameter``, or ``request_too_large`` above `MAX_BODY_BYTES`.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise refusal_of("request_too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_parameter", f"the body: {error}") from None
