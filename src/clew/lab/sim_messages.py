"""Anthropic messages as simulated: the cache works up to the last ``cache_control`` marker only.

``input_tokens`` there is what lies behind the marker; the part before it is read or created.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from clew.lab.sim_dialect import (
    Answer,
    Ask,
    Frame,
    Operation,
    Tool,
    ToolCall,
    encode_json,
    join_text,
    split_tokens,
    sse,
)

_STOP = {"end": "end_turn", "tool": "tool_use", "length": "max_tokens"}
_BLOCK_FIELDS = {
    "text": ("text", "text_delta", "text"),
    "thinking": ("thinking", "thinking_delta", "thinking"),
    "tool_use": ("input", "input_json_delta", "partial_json"),
}
"""Block type: its content's field, and the type and field of a delta."""
_ERRORS = {
    400: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class Messages:
    """``POST /v1/messages`` and ``/v1/messages/count_tokens``."""

    name = "messages"

    def operation(self, path: str) -> Operation | None:
        """Both of its routes."""
        if path.endswith("/messages"):
            return "generate"
        return "count" if path.endswith("/messages/count_tokens") else None

    def read(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Ask:  # noqa: ARG002  the port's
        """Tools, system and messages, block by block, in the order of the vendor's cache."""
        blocks = list(_blocks(body))
        marks = [at + 1 for at, block in enumerate(blocks) if _marker(block)]
        last = blocks[marks[-1] - 1] if marks else {}
        output = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        return Ask(
            model=str(body["model"]),
            stream=bool(body.get("stream")),
            pieces=tuple(encode_json(_unmarked(block)) for block in blocks),
            newest=_newest(body["messages"]),
            tools=tuple(map(_tool, body.get("tools") or ())),
            response_schema=output.get("schema"),
            max_tokens=body.get("max_tokens"),
            cached_pieces=marks[-1] if marks else 0,
            is_cached_1h=_marker(last).get("ttl") == "1h",
        )

    def document(self, answer: Answer) -> Any:
        """``message``."""
        stop = _STOP[answer.stop]
        content = _content(answer)
        return {**_message(answer, content), "stop_reason": stop, "usage": _usage(answer)}

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """The events of one message; the first names the input, the last but one the output."""
        # The vendor counts the first token in the opening event already.
        opening = {**_usage(answer), "output_tokens": 1}
        yield _event("message_start", {"message": {**_message(answer, []), "usage": opening}})
        yield _event("ping", {})
        for index, block in enumerate(_content(answer)):
            yield from _block_events(index, block)
        delta = {"stop_reason": _STOP[answer.stop], "stop_sequence": None}
        yield _event("message_delta", {"delta": delta, "usage": _usage(answer)})
        yield _event("message_stop", {})

    def count(self, tokens: int) -> Any:
        """``count_tokens``."""
        return {"input_tokens": tokens}

    def error(self, status: int, message: str, token: str) -> Any:
        """Anthropic's error object."""
        kind = _ERRORS.get(status, "api_error")
        error = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": f"req_{token}"}


def _blocks(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from body.get("tools") or ()
    system = body.get("system") or []
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            yield {"role": message["role"], "part": part}


def _marker(block: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = block.get("part") or block
    return inner.get("cache_control") or {}


def _unmarked(block: dict[str, Any]) -> dict[str, Any]:
    """Without its marker: clients move it to the newest message at every turn."""
    if "part" in block:
        return {**block, "part": _unmarked(block["part"])}
    return {key: value for key, value in block.items() if key != "cache_control"}


def _newest(messages: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for message in reversed(messages):
        content = message["content"]
        parts = [] if isinstance(content, str) else content
        if any(part.get("type") == "tool_result" for part in parts):
            return ""
        if message["role"] == "assistant":
            break
        found.insert(0, join_text(content, "text"))
    return "\n".join(found)


def _tool(raw: Mapping[str, Any]) -> Tool:
    description = str(raw.get("description", ""))
    return Tool(str(raw.get("name", "")), raw.get("input_schema") or {}, description)


def _content(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if answer.reasoning:
        signature = f"sig-{answer.token}"
        found.append({"type": "thinking", "thinking": answer.reasoning, "signature": signature})
    if answer.text:
        found.append({"type": "text", "text": answer.text})
    found += [_tool_use(call) for call in answer.calls]
    return found


def _tool_use(call: ToolCall) -> dict[str, Any]:
    given = msgspec.json.decode(call.arguments or "{}")
    return {"type": "tool_use", "id": call.call_id, "name": call.name, "input": given}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[Frame]:
    kind = block["type"]
    field, delta_kind, carrier = _BLOCK_FIELDS[kind]
    is_tool = kind == "tool_use"
    text = encode_json(block[field]).decode() if is_tool else block[field]
    opened = {**block, field: {} if is_tool else ""}
    if kind == "thinking":
        opened["signature"] = ""
    yield _event("content_block_start", {"index": index, "content_block": opened})
    for piece in split_tokens(text):
        delta = {"type": delta_kind, carrier: piece}
        yield _event("content_block_delta", {"index": index, "delta": delta}, tokens=1)
    if kind == "thinking":
        signed = {"type": "signature_delta", "signature": block["signature"]}
        yield _event("content_block_delta", {"index": index, "delta": signed})
    yield _event("content_block_stop", {"index": index})


def _event(kind: str, payload: dict[str, Any], *, tokens: int = 0) -> Frame:
    return Frame(sse({"type": kind, **payload}, kind), tokens)


def _message(answer: Answer, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.token}",
        "type": "message",
        "role": "assistant",
        "model": answer.ask.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    spent = answer.spent
    written_1h = spent.cache_write_1h_tokens
    return {
        "input_tokens": spent.input_tokens - spent.cached_tokens - spent.cache_write_tokens,
        "cache_creation_input_tokens": spent.cache_write_tokens,
        "cache_read_input_tokens": spent.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": spent.cache_write_tokens - written_1h,
            "ephemeral_1h_input_tokens": written_1h,
        },
        "output_tokens": spent.output_tokens,
        "service_tier": "standard",
    }
