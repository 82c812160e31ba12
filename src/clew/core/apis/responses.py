"""OpenAI's Responses, as Codex and the SDKs use it.

Terminators: ``response.completed``, ``response.incomplete``, ``response.failed``, ``error``, named
by the event line or by the JSON's ``type`` alone; ``[DONE]``, which some routers add. Usage is in
the terminator's ``response``; ``input_tokens`` is the whole prompt.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from clew.core.apis import render, responses_blocks
from clew.core.apis.document import NOTHING_BILLED, DocumentTap
from clew.core.apis.figures import (
    NO_JSON,
    chars_of,
    count_of,
    decoded,
    first_count,
    name_of,
    raw_chars,
)
from clew.core.apis.port import Reading, RequestFacts, Tap
from clew.core.apis.sse import StreamTap
from clew.core.errors import ClewError
from clew.core.events import Usage
from clew.core.lineage.blocks import Conversation, Digester, Reply

_PATH: Final = re.compile(rb"(?:^|/)responses(?:/|$)")
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_FAILURES: Final = frozenset({"response.failed", "error"})


class _Response(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None
    output: Any = None
    input_tokens: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: Any = None
    response: _Response | None = None
    item: msgspec.Raw = NO_JSON


class _Envelope(msgspec.Struct, gc=False):
    type: str | None = None


class _Request(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    text: Any = None
    max_output_tokens: Any = None


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_response: Final = msgspec.json.Decoder(_Response).decode
_decode_request: Final = msgspec.json.Decoder(_Request).decode


class _ResponsesStream(StreamTap):
    """A stream of typed events."""

    terminators = frozenset(end.encode() for end in _ENDS)
    announcement = re.compile(
        rb"(?:\A|[\r\n])(?:data: ?\[DONE\]"
        rb"|event: ?(?:response\.(?:completed|incomplete|failed)|error)[\r\n])"
    )

    def __init__(self) -> None:
        super().__init__()
        self._usage: Any = None
        self._item_chars = 0

    def read(self, name: bytes, data: bytes) -> bool:
        """Take in one event."""
        event = decoded(_decode_event, data)
        if event is None:
            return self._read_foreign(name, data)
        kind = event.type or name.decode("latin-1")
        if event.delta:
            self.has_output = True
            self.output_chars += chars_of(event.delta)
        elif event.response is not None:
            self._read_response(event.response)
        elif kind == "response.output_item.done":
            self.has_output = True
            self._item_chars += raw_chars(event.item)
        if kind not in _ENDS:
            return False
        return self.fail() if kind in _FAILURES else self.complete()

    def _read_foreign(self, name: bytes, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):
            return self.complete()
        if name == b"error":
            return self.fail()
        return not data and name in self.terminators and self.complete()

    def _read_response(self, response: _Response) -> None:
        self.response_id = self.response_id or name_of(response.id)
        self.model = name_of(response.model) or self.model
        if isinstance(response.usage, dict):
            self._usage = response.usage

    def is_terminator(self, name: bytes, data: bytes) -> bool:
        """By the JSON's type, else by the event's name."""
        if data.startswith(b"[DONE]"):
            return True
        event = decoded(_decode_envelope, data)
        return event is not None and (event.type or name.decode("latin-1")) in _ENDS

    def usage(self) -> tuple[Usage | None, bool]:
        """The terminator's. A server that sends whole items only is measured by those."""
        self.output_chars = self.output_chars or self._item_chars
        return usage_of(self._usage), False


class _ResponsesDocument(DocumentTap):
    """One response, a compaction, or a count of input tokens."""

    def read(self, document: bytes) -> Reading | None:
        """Take in the response, or the error."""
        response = decoded(_decode_response, document)
        if response is None:
            return None
        usage = usage_of(response.usage)
        if usage is None and count_of(response.input_tokens) is not None:
            usage = NOTHING_BILLED
        return Reading(
            usage=usage,
            model=name_of(response.model),
            response_id=name_of(response.id),
            is_complete=True,
            error="upstream_error" if response.error else "",
            output_chars=len(render.encode(response.output)) if response.output else 0,
        )


def usage_of(usage: Any) -> Usage | None:
    """A ``usage`` object of this API; None where it holds no count."""
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage.get("input_tokens"))
    output = count_of(usage.get("output_tokens"))
    if prompt is None and output is None:
        return None
    prompt, output = prompt or 0, output or 0
    reasoning = first_count(usage, "output_tokens_details", "reasoning_tokens") or 0
    cached = first_count(usage, "input_tokens_details", "cached_tokens") or 0
    return Usage(
        input_tokens=prompt,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=first_count(usage, "input_tokens_details", "cache_write_tokens") or 0,
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),
    )


class _Responses:
    """`Api` for Responses."""

    name = "responses"

    def matches(self, path: bytes) -> bool:
        """``…/responses`` and below."""
        return _PATH.search(path) is not None

    def request_facts(self, path: bytes, body: bytes) -> RequestFacts:  # noqa: ARG002  the port's
        """Model and mode."""
        request = decoded(_decode_request, body)
        if request is None:
            return RequestFacts()
        form = request.text.get("format") if isinstance(request.text, dict) else None
        return RequestFacts(
            model=name_of(request.model),
            stream=request.stream is True,
            has_response_schema=isinstance(form, dict)
            and form.get("type") in ("json_schema", "json_object"),
            max_output_tokens=count_of(request.max_output_tokens),
        )

    def conversation(self, path: bytes, body: bytes, digester: Digester) -> Conversation | None:
        """The blocks of a request."""
        has_schema = self.request_facts(path, body).has_response_schema
        return responses_blocks.conversation(body, digester, has_response_schema=has_schema)

    def reply(self, payload: bytes, is_stream: bool, digester: Digester) -> Reply:
        """The blocks of an answer."""
        return responses_blocks.reply(payload, digester, is_stream=is_stream)

    def stream_tap(self) -> Tap:
        """A tap for typed events."""
        return _ResponsesStream()

    def unary_tap(self) -> Tap:
        """A tap for one response."""
        return _ResponsesDocument()

    def render_error(self, error: ClewError, request_id: str) -> bytes:  # noqa: ARG002  the port's
        """``{"error": {"message", "type", "param", "code"}}``."""
        return render.encode({"error": render.openai_error(error)})

    def render_error_event(self, error: ClewError, request_id: str) -> bytes:
        """``error``, then ``response.failed``: clients differ in which of them they raise on.

        The official SDKs raise on the first for its ``error`` member, before they see the second
        (whose unknown response id would confuse their accumulators); Codex passes over the first
        and reads the second. The empty line ends an event the upstream left unfinished.
        """
        detail = render.openai_error(error)
        first = {
            "type": "error",
            "code": detail["code"],
            "message": detail["message"],
            "param": None,
            "sequence_number": 0,
            "error": detail,
        }
        second = {
            "type": "response.failed",
            "sequence_number": 1,
            "response": _failed_response(detail["message"], request_id),
        }
        return b"\n\n" + render.event(first, "error") + render.event(second, "response.failed")


def _failed_response(message: str, request_id: str) -> dict[str, Any]:
    """The least that the schema of a response asks for. Codes of its error are a closed list."""
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": 0,
        "model": "",
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "status": "failed",
        "error": {"code": "server_error", "message": message},
        "incomplete_details": None,
        "usage": None,
    }


RESPONSES: Final = _Responses()
