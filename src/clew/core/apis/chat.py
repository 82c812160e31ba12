"""OpenAI's Chat Completions, and the many servers that speak it.

Terminator: ``data: [DONE]``, or a chunk that carries ``error``. Usage: the last object under
``usage`` (``null`` in most chunks; on every chunk with vLLM's ``continuous_usage_stats``; Groq's
under ``x_groq``). ``prompt_tokens`` is the whole prompt. Engines differ in details: vLLM names what
was cached as OpenAI does, SGLang counts ``reasoning_tokens`` beside the details, llama.cpp has
``timings`` in the last chunk also where nobody asked for usage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from clew.core.apis import chat_blocks, render
from clew.core.apis.document import DocumentTap
from clew.core.apis.figures import chars_of, count_of, decoded, name_of
from clew.core.apis.port import Reading, RequestFacts, Tap
from clew.core.apis.sse import StreamTap
from clew.core.errors import ClewError
from clew.core.events import Usage
from clew.core.lineage.blocks import Conversation, Digester, Reply

_PATH: Final = re.compile(rb"(?:^|/)chat/completions(?:/|$)")


class _Function(msgspec.Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    """A delta or a message. Reasoning has two names: DeepSeek's and OpenRouter's."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    text: Any = None


class _Figures(msgspec.Struct, gc=False):
    """A completion but for what was generated, which is left undecoded."""

    id: Any = None
    model: Any = None
    usage: Any = None
    timings: Any = None
    error: Any = None


class _Chunk(_Figures, gc=False):
    """All that is read of a chunk, or of a completion."""

    choices: list[_Choice] | None = None
    x_groq: Any = None


class _Request(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    response_format: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None


_NO_DETAILS: Final[Mapping[str, Any]] = MappingProxyType({})
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_figures: Final = msgspec.json.Decoder(_Figures).decode
_decode_request: Final = msgspec.json.Decoder(_Request).decode


class _ChatStream(StreamTap):
    """A stream of chunks."""

    announcement = re.compile(rb"(?:\A|[\r\n])(?:data: ?\[DONE\]|event: ?error[\r\n])")

    def __init__(self) -> None:
        super().__init__()
        self._usage: Any = None
        self._timings: Any = None

    def read(self, name: bytes, data: bytes) -> bool:
        """Take in one chunk."""
        chunk = decoded(_decode_chunk, data)
        if chunk is None:
            return self._read_foreign(name, data)
        if not self.model:
            self.model = name_of(chunk.model)
        if not self.response_id:
            self.response_id = name_of(chunk.id)
        for choice in chunk.choices or ():
            if choice.delta is not None:
                self.output_chars += _generated_chars(choice.delta)
        if self.output_chars:
            self.has_output = True
        if chunk.usage or chunk.x_groq:
            self._usage = chunk.usage or _groq_usage(chunk) or self._usage
        if chunk.timings:
            self._timings = chunk.timings
        if chunk.error or name == b"error":
            return self.fail()
        return False

    def _read_foreign(self, name: bytes, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):
            return self.complete()
        return name == b"error" and self.fail()

    def is_terminator(self, name: bytes, data: bytes) -> bool:
        """``[DONE]``, or an error."""
        if name == b"error" or data.startswith(b"[DONE]"):
            return True
        chunk = decoded(_decode_chunk, data)
        return chunk is not None and bool(chunk.error)

    def usage(self) -> tuple[Usage | None, bool]:
        """The last usage; figures on every chunk are right up to where they stopped."""
        return usage_of(self._usage) or _timed(self._timings), False


class _ChatDocument(DocumentTap):
    """One completion."""

    def read(self, document: bytes) -> Reading | None:
        """Take in the completion, or the error."""
        figures = decoded(_decode_figures, document)
        if figures is None:
            return None
        usage = usage_of(figures.usage) or _timed(figures.timings)
        return Reading(
            usage=usage,
            model=name_of(figures.model),
            response_id=name_of(figures.id),
            is_complete=True,
            error="upstream_error" if figures.error else "",
            output_chars=0 if usage is not None else _document_chars(document),
        )


def _document_chars(document: bytes) -> int:
    """What a completion has generated: all of it, where its form is none that is known."""
    chunk = decoded(_decode_chunk, document)
    if chunk is None:
        return len(document)
    messages = (choice.message for choice in chunk.choices or ())
    return sum(_generated_chars(message) for message in messages if message is not None)


def _generated_chars(message: _Message) -> int:
    content = message.content
    chars = len(content) if type(content) is str else _part_chars(content)
    if message.reasoning_content or message.reasoning:
        chars += chars_of(message.reasoning_content) or chars_of(message.reasoning)
    if message.refusal:
        chars += chars_of(message.refusal)
    for call in message.tool_calls or ():
        if call.function is not None:
            chars += chars_of(call.function.name) + chars_of(call.function.arguments)
    if message.function_call is not None:
        chars += chars_of(message.function_call.name) + chars_of(message.function_call.arguments)
    return chars


def _part_chars(content: Any) -> int:
    """Mistral's content may be a list of parts."""
    if not isinstance(content, list):
        return 0
    return sum(chars_of(part.get("text")) for part in content if isinstance(part, dict))


def _groq_usage(chunk: _Chunk) -> Any:
    return chunk.x_groq.get("usage") if isinstance(chunk.x_groq, dict) else None


def usage_of(usage: Any) -> Usage | None:
    """A ``usage`` object of this API; None where it holds no count."""
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage.get("prompt_tokens"))
    completion = count_of(usage.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    prompt, completion = prompt or 0, completion or 0
    of_prompt = _object(usage.get("prompt_tokens_details"))
    of_completion = _object(usage.get("completion_tokens_details"))
    reasoning = count_of(of_completion.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = count_of(usage.get("reasoning_tokens")) or 0
    # xAI counts reasoning beside the completion; only its total shows it.
    if reasoning and count_of(usage.get("total_tokens")) == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        input_tokens=prompt,
        cached_tokens=min(_cached(usage, of_prompt), prompt),
        cache_write_tokens=count_of(of_prompt.get("cache_write_tokens")) or 0,
        output_tokens=completion,
        reasoning_tokens=min(reasoning, completion),
    )


def _timed(timings: Any) -> Usage | None:
    """llama.cpp's own count; None without all of its parts.

    Its releases before ``cache_n`` count what was not cached only, so that the prompt is unknown.
    """
    if not isinstance(timings, dict):
        return None
    cached, fresh, predicted = (
        count_of(timings.get(name)) for name in ("cache_n", "prompt_n", "predicted_n")
    )
    if cached is None or fresh is None or predicted is None:
        return None
    return Usage(input_tokens=cached + fresh, cached_tokens=cached, output_tokens=predicted)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NO_DETAILS


def _cached(usage: Mapping[str, Any], of_prompt: Mapping[str, Any]) -> int:
    """OpenAI's figure, else DeepSeek's, else Moonshot's."""
    found = count_of(of_prompt.get("cached_tokens"))
    if found is None:
        found = count_of(usage.get("prompt_cache_hit_tokens"))
    if found is None:
        found = count_of(usage.get("cached_tokens"))
    return found or 0


class _Chat:
    """`Api` for Chat Completions."""

    name = "chat"

    def matches(self, path: bytes) -> bool:
        """``…/chat/completions`` and below."""
        return _PATH.search(path) is not None

    def request_facts(self, path: bytes, body: bytes) -> RequestFacts:  # noqa: ARG002  the port's
        """Model and mode; the current name of the output limit before the old one."""
        request = decoded(_decode_request, body)
        if request is None:
            return RequestFacts()
        limit = count_of(request.max_completion_tokens)
        form = request.response_format
        return RequestFacts(
            model=name_of(request.model),
            stream=request.stream is True,
            has_response_schema=isinstance(form, dict)
            and form.get("type") in ("json_schema", "json_object"),
            max_output_tokens=count_of(request.max_tokens) if limit is None else limit,
        )

    def conversation(self, path: bytes, body: bytes, digester: Digester) -> Conversation | None:
        """The blocks of a request."""
        has_schema = self.request_facts(path, body).has_response_schema
        return chat_blocks.conversation(body, digester, has_response_schema=has_schema)

    def reply(self, payload: bytes, is_stream: bool, digester: Digester) -> Reply:
        """The blocks of an answer."""
        return chat_blocks.reply(payload, digester, is_stream=is_stream)

    def stream_tap(self) -> Tap:
        """A tap for chunks."""
        return _ChatStream()

    def unary_tap(self) -> Tap:
        """A tap for one completion."""
        return _ChatDocument()

    def render_error(self, error: ClewError, request_id: str) -> bytes:  # noqa: ARG002  the port's
        """``{"error": {"message", "type", "param", "code"}}``."""
        return render.encode({"error": render.openai_error(error)})

    def render_error_event(self, error: ClewError, request_id: str) -> bytes:  # noqa: ARG002  same
        """A chunk that carries the error, and no ``[DONE]``: both official SDKs raise on it.

        The empty line before it ends an event that the upstream may have left unfinished.
        """
        return b"\n\n" + render.event({"error": render.openai_error(error)})


CHAT: Final = _Chat()
