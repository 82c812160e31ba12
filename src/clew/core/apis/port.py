"""What an API's file must answer, and what a response tap reads as the bytes pass."""

from __future__ import annotations

from typing import Protocol

import msgspec

from clew.core.errors import ClewError
from clew.core.events import Usage
from clew.core.lineage.blocks import Conversation, Digester, Reply


class RequestFacts(msgspec.Struct, frozen=True):
    """What a request body says beside its content."""

    model: str = ""
    stream: bool = False
    has_response_schema: bool = False
    max_output_tokens: int | None = None


class Reading(msgspec.Struct, frozen=True):
    """What a response said, read from the decoded copy of its payload."""

    usage: Usage | None = None
    model: str = ""
    response_id: str = ""
    is_complete: bool = False
    """The API's own terminator was seen (stream) or the document was whole (unary)."""
    error: str = ""
    """``upstream_error`` when the stream carried the API's error event."""
    output_chars: int = 0
    """Characters of generated text seen: the ground of an estimate where no usage came.

    Of a whole document that names its usage they need not be counted.
    """
    is_usage_estimated: bool = False
    """Whether ``usage.output_tokens`` was estimated because the stream ended before its figure."""
    flags: tuple[str, ...] = ()
    """What kept the tap from reading all of it, by stable name: ``tap_*``."""


class Tap(Protocol):
    """Reads one response's decoded payload, piece by piece, without changing a byte."""

    @property
    def has_output(self) -> bool:
        """Whether a generated token has passed (time to first token)."""
        ...

    def feed(self, payload: bytes) -> int:
        """Read one piece; return where in it the closing span begins, -1 while it has not.

        The closing span of a stream begins with the terminator event, also when that event was
        split over several pieces: then it begins at 0 of the piece that completes it. A unary
        document has none (always -1): its framing ends it.
        """
        ...

    def finish(self) -> Reading:
        """What was read; called once, when the response ended, however it ended."""
        ...


class Api(Protocol):
    """One API: its route, its taps and its error forms. Everything about it is in its file."""

    name: str

    def matches(self, path: bytes) -> bool:
        """Whether a POST to this path (no query) is an inference call of this API."""
        ...

    def request_facts(self, path: bytes, body: bytes) -> RequestFacts:
        """Model and mode, from a body that may be anything; never raises."""
        ...

    def conversation(self, path: bytes, body: bytes, digester: Digester) -> Conversation | None:
        """The blocks of a request body, for lineage; never raises.

        None where there is nothing to look at: no conversation, over 4 MiB, or too many blocks.
        """
        ...

    def reply(self, payload: bytes, is_stream: bool, digester: Digester) -> Reply:
        """The blocks of a relayed and decoded response payload, whole or cut; never raises.

        They have the digests that the same answer has when a later request quotes it. A tool call
        that was cut is left out.
        """
        ...

    def stream_tap(self) -> Tap:
        """A tap for ``text/event-stream``."""
        ...

    def unary_tap(self) -> Tap:
        """A tap for one JSON document (bounded copy)."""
        ...

    def render_error(self, error: ClewError, request_id: str) -> bytes:
        """The error as this API's JSON body."""
        ...

    def render_error_event(self, error: ClewError, request_id: str) -> bytes:
        """The error as this API's server-sent event(s), for a stream already begun."""
        ...
