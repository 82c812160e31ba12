"""Google's Gemini: ``:generateContent``, ``:streamGenerateContent``, ``:countTokens``.

A stream has no terminator, its framing ends it; only an error ends it by itself. Every chunk may
carry ``usageMetadata``, cumulative: the last one counts. Without ``alt=sse`` a stream is one JSON
array of the same chunks. ``candidatesTokenCount`` excludes the thoughts, ``promptTokenCount`` the
results of server tools; both are added.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from clew.core.apis import gemini_blocks, render
from clew.core.apis.document import NOTHING_BILLED, DocumentTap
from clew.core.apis.figures import NO_JSON, chars_of, count_of, decoded, name_of, raw_chars
from clew.core.apis.port import Reading, RequestFacts, Tap
from clew.core.apis.sse import StreamTap
from clew.core.errors import ClewError
from clew.core.events import Usage
from clew.core.lineage.blocks import Conversation, Digester, Reply

_PATH: Final = re.compile(
    rb"([^/:%]+)(?::|%3[Aa])(generateContent|streamGenerateContent|countTokens)$"
)

_STATUS_NAMES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    414: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Status to the canonical code of google.rpc.Code."""


class _Part(msgspec.Struct, gc=False):
    text: Any = None
    functionCall: msgspec.Raw = NO_JSON  # noqa: N815  the wire's name
    executableCode: msgspec.Raw = NO_JSON  # noqa: N815  the wire's name
    inlineData: msgspec.Raw = NO_JSON  # noqa: N815  the wire's name


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False):
    content: _Content | None = None
    finishReason: Any = None  # noqa: N815  the wire's name


class _Chunk(msgspec.Struct, gc=False):
    candidates: list[_Candidate] | None = None
    usageMetadata: Any = None  # noqa: N815  the wire's name
    modelVersion: Any = None  # noqa: N815  the wire's name
    responseId: Any = None  # noqa: N815  the wire's name
    promptFeedback: Any = None  # noqa: N815  the wire's name
    totalTokens: Any = None  # noqa: N815  the wire's name
    error: Any = None


class _Request(msgspec.Struct, gc=False):
    generationConfig: Any = None  # noqa: N815  the wire's name


_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_chunks: Final = msgspec.json.Decoder(list[_Chunk]).decode
_decode_request: Final = msgspec.json.Decoder(_Request).decode


class _GeminiStream(StreamTap):
    """A stream of chunks."""

    def __init__(self) -> None:
        super().__init__()
        self._usage: Any = None

    def read(self, name: bytes, data: bytes) -> bool:
        """Take in one chunk."""
        chunk = decoded(_decode_chunk, data)
        if chunk is None:
            return name == b"error" and self.fail()
        self.take(chunk)
        return bool(chunk.error or name == b"error") and self.fail()

    def take(self, chunk: _Chunk) -> None:
        """Take in one decoded chunk. A finish reason completes the answer, not the stream."""
        self.model = self.model or name_of(chunk.modelVersion)
        self.response_id = self.response_id or name_of(chunk.responseId)
        if isinstance(chunk.usageMetadata, dict):
            self._usage = chunk.usageMetadata
        for candidate in chunk.candidates or ():
            if candidate.finishReason:
                self.is_complete = True
            for part in (candidate.content and candidate.content.parts) or ():
                self.output_chars += _generated_chars(part)
        if self.output_chars:
            self.has_output = True
        if isinstance(chunk.promptFeedback, dict) and chunk.promptFeedback.get("blockReason"):
            self.is_complete = True

    def is_terminator(self, name: bytes, data: bytes) -> bool:
        """An error only."""
        chunk = decoded(_decode_chunk, data)
        return name == b"error" or (chunk is not None and bool(chunk.error))

    def usage(self) -> tuple[Usage | None, bool]:
        """The last figures, which are right up to their chunk."""
        return usage_of(self._usage), False


class _GeminiDocument(DocumentTap):
    """One answer, a token count, or an array of chunks."""

    def read(self, document: bytes) -> Reading | None:
        """Take in the answer, or the error."""
        is_array = document.lstrip()[:1] == b"["
        chunks = decoded(_decode_chunks, document) if is_array else None
        if not is_array:
            chunk = decoded(_decode_chunk, document)
            chunks = None if chunk is None else [chunk]
        if chunks is None:
            return None
        stream = _GeminiStream()
        for chunk in chunks:
            stream.take(chunk)
            if chunk.error:
                stream.fail()
        reading = stream.finish()
        usage = reading.usage
        if usage is None and any(count_of(chunk.totalTokens) is not None for chunk in chunks):
            usage = NOTHING_BILLED
        return msgspec.structs.replace(reading, usage=usage, is_complete=True)


def _generated_chars(part: _Part) -> int:
    whole = map(raw_chars, (part.functionCall, part.executableCode, part.inlineData))
    return chars_of(part.text) + sum(whole)


def usage_of(usage: Any) -> Usage | None:
    """A ``usageMetadata`` object; None where it holds no count."""
    if not isinstance(usage, dict):
        return None
    figures = {
        name: count_of(usage.get(name))
        for name in (
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "cachedContentTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
        )
    }
    if all(figure is None for figure in figures.values()):
        return None
    prompt, tools, cached, candidates, thoughts = (figure or 0 for figure in figures.values())
    return Usage(
        input_tokens=prompt + tools,
        cached_tokens=min(cached, prompt + tools),
        output_tokens=candidates + thoughts,
        reasoning_tokens=thoughts,
    )


class _Gemini:
    """`Api` for Gemini."""

    name = "gemini"

    def matches(self, path: bytes) -> bool:
        """One of the three verbs behind a model, under any version or prefix."""
        return _PATH.search(path) is not None

    def request_facts(self, path: bytes, body: bytes) -> RequestFacts:
        """Model and mode are in the path; schema and limit in ``generationConfig``."""
        found = _PATH.search(path)
        model = found[1].decode("latin-1") if found else ""
        stream = found is not None and found[2] == b"streamGenerateContent"
        request = decoded(_decode_request, body)
        config = request.generationConfig if request is not None else None
        if not isinstance(config, dict):
            return RequestFacts(model=name_of(model), stream=stream)
        schemas = ("responseSchema", "responseJsonSchema", "_responseJsonSchema")
        return RequestFacts(
            model=name_of(model),
            stream=stream,
            has_response_schema=any(isinstance(config.get(name), dict) for name in schemas),
            max_output_tokens=count_of(config.get("maxOutputTokens")),
        )

    def conversation(self, path: bytes, body: bytes, digester: Digester) -> Conversation | None:
        """The blocks of a request."""
        has_schema = self.request_facts(path, body).has_response_schema
        return gemini_blocks.conversation(body, digester, has_response_schema=has_schema)

    def reply(self, payload: bytes, is_stream: bool, digester: Digester) -> Reply:
        """The blocks of an answer."""
        return gemini_blocks.reply(payload, digester, is_stream=is_stream)

    def stream_tap(self) -> Tap:
        """A tap for chunks of ``alt=sse``."""
        return _GeminiStream()

    def unary_tap(self) -> Tap:
        """A tap for one answer, or the array of a stream without ``alt=sse``."""
        return _GeminiDocument()

    def render_error(self, error: ClewError, request_id: str) -> bytes:  # noqa: ARG002  the port's
        """``{"error": {"code", "message", "status"}}``."""
        return render.encode(_error(error))

    def render_error_event(self, error: ClewError, request_id: str) -> bytes:  # noqa: ARG002  same
        """A chunk that is the error; the empty line before it ends an unfinished event."""
        return b"\n\n" + render.event(_error(error))


def _error(error: ClewError) -> dict[str, Any]:
    status = error.fault.status
    return {
        "error": {
            "code": status,
            "message": render.message_of(error),
            "status": _STATUS_NAMES.get(status, "UNKNOWN"),
        }
    }


GEMINI: Final = _Gemini()
