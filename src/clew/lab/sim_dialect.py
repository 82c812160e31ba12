"""What every simulated API reads a request into, and what it renders an answer from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from clew.lab.sim_cache import TOKEN_BYTES

encode_json: Final = msgspec.json.encode

Operation = Literal["generate", "count"]
Stop = Literal["end", "tool", "length"]


class Tool(msgspec.Struct, frozen=True):
    """A tool the request offers; ``schema`` is the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    namespace: str = ""
    is_freeform: bool = False
    """Takes a text instead of a JSON object (Responses' custom tools)."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read."""

    model: str
    stream: bool
    pieces: tuple[bytes, ...]
    """The prompt, serialised in the order in which the vendor caches it."""
    newest: str
    """Text of the user messages after the last answer; empty when a tool result is the newest."""
    tools: tuple[Tool, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    wants_usage: bool = True
    cached_pieces: int | None = None
    """How many pieces an explicit cache marker covers; None: the cache is automatic."""
    is_cached_1h: bool = False
    as_array: bool = False
    """Gemini without ``alt=sse`` streams one JSON array."""
    stores: bool = True
    """Responses: whether the answer may be continued by its id."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call the answer makes; ``arguments`` is JSON text (or, for a freeform tool, any text)."""

    call_id: str
    name: str
    arguments: str
    namespace: str = ""
    is_freeform: bool = False


class Spent(msgspec.Struct, frozen=True):
    """The truth of one answer. ``input_tokens`` is the whole prompt, cached parts included."""

    input_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """Of the writes, those that live an hour."""


class Answer(msgspec.Struct, frozen=True):
    """What will be generated for one `Ask`."""

    ask: Ask
    number: int
    """Counts the generating calls of one simulator from 1."""
    token: str
    """24 hexadecimal digits, equal for equal seed and number; ids are made of it."""
    created_s: int
    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    stop: Stop
    spent: Spent


class Frame(msgspec.Struct, frozen=True):
    """A piece of a stream; ``tokens`` of it were generated (0: framing)."""

    data: bytes
    tokens: int = 0


class Dialect(Protocol):
    """One simulated API."""

    name: str

    def operation(self, path: str) -> Operation | None:
        """What a POST to this path asks for; None when it is not this API's."""
        ...

    def read(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Ask:
        """The request; raises KeyError, TypeError or ValueError on what the vendor refuses."""
        ...

    def document(self, answer: Answer) -> Any:
        """The unary answer."""
        ...

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """The streamed answer."""
        ...

    def count(self, tokens: int) -> Any:
        """The answer to a token count."""
        ...

    def error(self, status: int, message: str, token: str) -> Any:
        """The vendor's error body."""
        ...


def split_tokens(text: str) -> list[str]:
    """A text as its tokens, four characters each."""
    return [text[i : i + TOKEN_BYTES] for i in range(0, len(text), TOKEN_BYTES)]


def count_tokens(text: str) -> int:
    """How many tokens `split_tokens` makes."""
    return -(-len(text) // TOKEN_BYTES)


def sse(payload: Any, event: str = "") -> bytes:
    """One server-sent event, with its name where the API gives one."""
    name = f"event: {event}\n".encode() if event else b""
    return b"%bdata: %b\n\n" % (name, encode_json(payload))


def join_text(content: Any, *kinds: str) -> str:
    """The text of a message: a string, or its parts of these types."""
    if isinstance(content, str):
        return content
    parts = content or ()
    return "\n".join(str(part.get("text", "")) for part in parts if part.get("type") in kinds)
