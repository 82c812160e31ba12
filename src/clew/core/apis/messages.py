"""Anthropic's Messages.

Terminators: ``message_stop`` and ``error``. Usage: ``message_start`` has the prompt's figures,
each ``message_delta`` cumulative ones; a field that is missing or null keeps the earlier value, an
explicit zero is a zero. ``input_tokens`` excludes what was read from and written to the cache, so
the prompt is the sum of the three. A threshold compaction's tokens stand in ``iterations`` only.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from clew.core.apis import messages_blocks, render
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

# A version stands before it: `/v1/threads/…/messages` is another API's.
_PATH: Final = re.compile(rb"(?:^|/v\d[a-z0-9]*)/messages(?:/|$)")
_ENDS: Final = frozenset({"message_stop", "error"})
_TEXT_BLOCKS: Final = frozenset({"text", "thinking"})
"""Blocks that begin empty; any other one begins with something generated (a tool's name…)."""


class _Delta(msgspec.Struct, gc=False):
    text: Any = None
    thinking: Any = None
    partial_json: Any = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    input: msgspec.Raw = NO_JSON


class _Message(msgspec.Struct, gc=False):
    type: str | None = None
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None
    content: list[_Block] | None = None
    input_tokens: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: Any = None


class _Envelope(msgspec.Struct, gc=False):
    type: str | None = None


class _Request(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    output_config: Any = None
    output_format: Any = None
    max_tokens: Any = None


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_request: Final = msgspec.json.Decoder(_Request).decode


class _MessagesStream(StreamTap):
    """A stream of typed events."""

    terminators = frozenset(end.encode() for end in _ENDS)
    announcement = re.compile(rb"(?:\A|[\r\n])event: ?(?:message_stop|error)[\r\n]")

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}
        self._has_final_usage = False

    def read(self, name: bytes, data: bytes) -> bool:
        """Take in one event."""
        event = decoded(_decode_event, data)
        if event is None:
            return self._read_foreign(name, data)
        if event.delta is not None:
            self._read_delta(event.delta)
        elif event.content_block is not None:
            self._read_block(event.content_block)
        elif event.message is not None:
            self.model = self.model or name_of(event.message.model)
            self.response_id = self.response_id or name_of(event.message.id)
            self._merge(event.message.usage)
        kind = event.type or name.decode("latin-1")
        if isinstance(event.usage, dict):
            self._merge(event.usage)
            if count_of(event.usage.get("output_tokens")) is not None:
                self._has_final_usage = True
        if kind not in _ENDS:
            return False
        return self.fail() if kind == "error" else self.complete()

    def _read_foreign(self, name: bytes, data: bytes) -> bool:
        if name == b"error":
            return self.fail()
        return not data and name == b"message_stop" and self.complete()

    def _read_delta(self, delta: _Delta) -> None:
        generated = delta.text or delta.thinking or delta.partial_json
        if generated:
            self.has_output = True
            self.output_chars += chars_of(generated)

    def _read_block(self, block: _Block) -> None:
        self.output_chars += chars_of(block.name) + chars_of(block.text)
        if self.output_chars or block.type not in _TEXT_BLOCKS:
            self.has_output = True

    def _merge(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage.update({key: value for key, value in usage.items() if value is not None})

    def is_terminator(self, name: bytes, data: bytes) -> bool:
        """By the JSON's type, else by the event's name."""
        event = decoded(_decode_envelope, data)
        return event is not None and (event.type or name.decode("latin-1")) in _ENDS

    def usage(self) -> tuple[Usage | None, bool]:
        """The merged figures; before the first ``message_delta`` the output is a mere start."""
        return usage_of(self._usage), not self._has_final_usage


class _MessagesDocument(DocumentTap):
    """One message, a token count, or a batch."""

    def read(self, document: bytes) -> Reading | None:
        """Take in the message, or the error."""
        message = decoded(_decode_message, document)
        if message is None:
            return None
        usage = usage_of(message.usage)
        is_count = count_of(message.input_tokens) is not None
        if usage is None and (is_count or message.type == "message_batch"):
            usage = NOTHING_BILLED
        return Reading(
            usage=usage,
            model=name_of(message.model),
            response_id=name_of(message.id),
            is_complete=True,
            error="upstream_error" if message.type == "error" or message.error else "",
            output_chars=sum(_block_chars(block) for block in message.content or ()),
        )


def _block_chars(block: _Block) -> int:
    return sum(map(chars_of, (block.name, block.text, block.thinking))) + raw_chars(block.input)


def usage_of(usage: Any) -> Usage | None:
    """A ``usage`` object of this API, its compactions added; None where it holds no count."""
    if not isinstance(usage, dict):
        return None
    if count_of(usage.get("input_tokens")) is None and count_of(usage.get("output_tokens")) is None:
        return None
    total = _one(usage)
    iterations = usage.get("iterations")
    for part in iterations if isinstance(iterations, list) else ():
        if isinstance(part, dict) and part.get("type") == "compaction":
            total = _sum(total, _one(part))
    return total


def _one(usage: dict[str, Any]) -> Usage:
    cached = count_of(usage.get("cache_read_input_tokens")) or 0
    written_5m = first_count(usage, "cache_creation", "ephemeral_5m_input_tokens") or 0
    written_1h = first_count(usage, "cache_creation", "ephemeral_1h_input_tokens") or 0
    written = count_of(usage.get("cache_creation_input_tokens"))
    if written is None:
        written = written_5m + written_1h
    output = count_of(usage.get("output_tokens")) or 0
    thinking = first_count(usage, "output_tokens_details", "thinking_tokens") or 0
    return Usage(
        input_tokens=(count_of(usage.get("input_tokens")) or 0) + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written_1h, written),
        output_tokens=output,
        reasoning_tokens=min(thinking, output),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__))


class _Messages:
    """`Api` for Messages."""

    name = "messages"

    def matches(self, path: bytes) -> bool:
        """``/v1/messages`` and below: count_tokens and batches too."""
        return _PATH.search(path) is not None

    def request_facts(self, path: bytes, body: bytes) -> RequestFacts:  # noqa: ARG002  the port's
        """Model and mode; the schema's present name, and its beta one."""
        request = decoded(_decode_request, body)
        if request is None:
            return RequestFacts()
        config = request.output_config
        form = config.get("format") if isinstance(config, dict) else None
        return RequestFacts(
            model=name_of(request.model),
            stream=request.stream is True,
            has_response_schema=isinstance(form or request.output_format, dict),
            max_output_tokens=count_of(request.max_tokens),
        )

    def conversation(self, path: bytes, body: bytes, digester: Digester) -> Conversation | None:
        """The blocks of a request."""
        has_schema = self.request_facts(path, body).has_response_schema
        return messages_blocks.conversation(body, digester, has_response_schema=has_schema)

    def reply(self, payload: bytes, is_stream: bool, digester: Digester) -> Reply:
        """The blocks of an answer."""
        return messages_blocks.reply(payload, digester, is_stream=is_stream)

    def stream_tap(self) -> Tap:
        """A tap for typed events."""
        return _MessagesStream()

    def unary_tap(self) -> Tap:
        """A tap for one message."""
        return _MessagesDocument()

    def render_error(self, error: ClewError, request_id: str) -> bytes:
        """``{"type": "error", "error": {"type", "message"}, "request_id"}``."""
        return render.encode(_error(error, request_id))

    def render_error_event(self, error: ClewError, request_id: str) -> bytes:
        """The ``error`` event, on which the official SDKs raise.

        One line end before it: an event the upstream left unfinished thereby *becomes* the error
        event, since its last ``event`` line wins, and still raises.
        """
        return b"\n" + render.event(_error(error, request_id), "error")


def _error(error: ClewError, request_id: str) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": error.fault.anthropic_type, "message": render.message_of(error)},
        "request_id": request_id,
    }


MESSAGES: Final = _Messages()
