"""Has a chat stream name its usage where its client did not ask for it (``metering.ask_usage``).

One member goes into the body's bytes (`core.apis.asking`), and the chunk that answers it is taken
out of the stream again (`core.apis.hiding`). Bytes can be taken out of a stream only where it is
not compressed, so such a request goes on with ``accept-encoding: identity``. What cannot be
changed faithfully goes on as it is, flagged ``usage_not_asked``: a body over the bound, in doubt,
or under a digest; a client that refuses the identity coding.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from clew.core.apis import asking
from clew.core.apis.asking import Asked
from clew.core.claim import Headers
from clew.gateway.attempt import Attempt
from clew.gateway.parts import Parts

DIGESTS: Final = frozenset(
    (
        b"content-md5",
        b"digest",
        b"content-digest",
        b"repr-digest",
        b"signature",
        b"signature-input",
        b"x-amz-content-sha256",
    )
)
"""What would not be true of another body (RFC 9530, RFC 9421)."""

_ACCEPT_ENCODING: Final = re.compile(rb"(?im)^accept-encoding[ \t]*:[^\r\n]*\r\n")
_IDENTITY: Final = b"accept-encoding: identity\r\n"
_NO_IDENTITY: Final = re.compile(rb"(?i)(?:^|,)\s*identity\s*;\s*q\s*=\s*0(?:\.0*)?\s*(?:,|$)")
_NO_OTHER: Final = re.compile(rb"(?i)(?:^|,)\s*\*\s*;\s*q\s*=\s*0(?:\.0*)?\s*(?:,|$)")


async def ask_for_usage(parts: Parts, attempt: Attempt, body: bytes | None) -> bytes | None:
    """The body to send; None: the request's own, as it arrives. Raises as ``read_body``.

    The attempt learns of it: its flag, its upstream fields, and whether a chunk is to be hidden.
    """
    request = attempt.request
    if body is None:
        body = await request.read_body(parts.identity_body_bytes)
    if body is None or not _may_change(request.head.headers):
        attempt.flags.append(Asked.NOT_ASKED.value)
        return body
    body, what = asking.ask_for_usage(body)
    if what is not Asked.NOTHING:
        attempt.flags.append(what.value)
    if what is Asked.ASKED:
        attempt.hides_usage = True
        fields = uncompressed(attempt.routed.fields)
        attempt.routed = msgspec.structs.replace(attempt.routed, fields=fields)
    return body


def uncompressed(fields: bytes) -> bytes:
    """Field lines of a request whose answer is to come without a coding."""
    return _ACCEPT_ENCODING.sub(b"", fields) + _IDENTITY


def _may_change(headers: Headers) -> bool:
    """Whether the request may go on with another body, and be answered without compression."""
    for name, value in headers:
        if name in DIGESTS:
            return False
        if name == b"accept-encoding":
            # RFC 9110, section 12.5.3: `*` speaks for what is not named.
            refusal = _NO_IDENTITY if b"identity" in value.lower() else _NO_OTHER
            if refusal.search(value):
                return False
    return True
