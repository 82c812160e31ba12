"""Answers as the vendors give them: whole, and as streams. Figures in them are the tests'."""

from __future__ import annotations

import json
from typing import Any


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event, as most servers write it."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


# Chat Completions

CHAT_USAGE = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "accepted_prediction_tokens": 0},
}
CHAT_HEAD: dict[str, Any] = {
    "id": "chatcmpl-7",
    "object": "chat.completion.chunk",
    "created": 1741570283,
    "model": "gpt-4o-2024-08-06",
}


def chat_chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One chunk with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
    return {**CHAT_HEAD, "choices": [choice], "usage": None, **more}


CHAT_CHUNKS = [
    chat_chunk({"role": "assistant", "content": "", "refusal": None}),
    chat_chunk({"content": "Say [DONE] or "}),
    chat_chunk({"content": "data: [DONE]\n\ndata: [DONE]\n\n é"}),
    {**CHAT_HEAD, "choices": [], "usage": CHAT_USAGE},
]
CHAT_STREAM = b"".join(map(event, CHAT_CHUNKS)) + b"data: [DONE]\n\n"
CHAT_TOOL_STREAM = (
    b"".join(
        event(chat_chunk({"tool_calls": [call]}))
        for call in (
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "shell", "arguments": ""},
            },
            {"index": 0, "function": {"arguments": '{"command":'}},
            {"index": 0, "function": {"arguments": '"ls"}'}},
        )
    )
    + event({**CHAT_HEAD, "choices": [], "usage": CHAT_USAGE})
    + b"data: [DONE]\n\n"
)
CHAT_ERROR_STREAM = (
    event(CHAT_CHUNKS[1])
    + event({"error": {"message": "overloaded", "type": "server_error", "code": 503}})
    + b"data: [DONE]\n\n"
)
CHAT_DOCUMENT = {
    **CHAT_HEAD,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": CHAT_USAGE,
}

# Responses

RESPONSES_USAGE = {
    "input_tokens": 4096,
    "input_tokens_details": {"cached_tokens": 2048, "cache_write_tokens": 1024},
    "output_tokens": 77,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 4173,
}


def response(status: str, usage: Any, **more: Any) -> dict[str, Any]:
    """A response object."""
    return {
        "id": "resp_9",
        "object": "response",
        "created_at": 1741570283,
        "model": "gpt-5.5-2026-04-23",
        "status": status,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "usage": usage,
        **more,
    }


def responses_events(*, end: str = "completed", **more: Any) -> list[dict[str, Any]]:
    """A whole stream's events, without their numbers."""
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    text = "response.completed is said, and message_stop"
    item = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    return [
        {"type": "response.created", "response": response("in_progress", None)},
        {"type": "response.in_progress", "response": response("in_progress", None)},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.output_text.delta", **at, "delta": text[:20], "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": text[20:], "logprobs": []},
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{end}", "response": response(end, RESPONSES_USAGE, **more)},
    ]


def responses_stream(events: list[dict[str, Any]], *, named: bool = True) -> bytes:
    """Events as a stream, numbered, with or without event lines."""
    numbered = [{**row, "sequence_number": number} for number, row in enumerate(events)]
    return b"".join(event(row, row["type"] if named else "") for row in numbered)


RESPONSES_STREAM = responses_stream(responses_events())
RESPONSES_BARE_STREAM = responses_stream(responses_events(), named=False)
RESPONSES_FAILED_STREAM = responses_stream(
    responses_events(end="failed", error={"code": "server_error", "message": "no"})
)
RESPONSES_DOCUMENT = response("completed", RESPONSES_USAGE)

# Messages

MESSAGES_START_USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 1,
    "service_tier": "standard",
}


def message(usage: Any, content: Any = ()) -> dict[str, Any]:
    """A message object."""
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def messages_events(delta_usage: dict[str, Any]) -> list[dict[str, Any]]:
    """A stream with thinking, text and a tool call."""

    def delta(index: int, kind: str, **value: str) -> dict[str, Any]:
        return {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": kind, **value},
        }

    def start(index: int, **block: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    return [
        {"type": "message_start", "message": message(MESSAGES_START_USAGE)},
        start(0, type="thinking", thinking="", signature=""),
        {"type": "ping"},
        delta(0, "thinking_delta", thinking="hm, message_stop"),
        delta(0, "signature_delta", signature="EqQBCgIYAhIM"),
        {"type": "content_block_stop", "index": 0},
        start(1, type="text", text=""),
        delta(1, "text_delta", text="event: message_stop\n\nevent: error\n\n"),
        {"type": "content_block_stop", "index": 1},
        start(2, type="tool_use", id="toolu_1", name="Bash", input={}),
        delta(2, "input_json_delta", partial_json='{"command":'),
        delta(2, "input_json_delta", partial_json=' "ls"}'),
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": delta_usage,
        },
        {"type": "message_stop"},
    ]


def messages_stream(events: list[dict[str, Any]]) -> bytes:
    """Events as a stream."""
    return b"".join(event(row, row["type"]) for row in events)


MESSAGES_STREAM = messages_stream(
    messages_events(
        {
            "output_tokens": 89,
            "cache_read_input_tokens": None,
            "output_tokens_details": {"thinking_tokens": 40},
        }
    )
)
MESSAGES_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
MESSAGES_ERROR_STREAM = messages_stream([*messages_events({})[:8], MESSAGES_ERROR])
MESSAGES_DOCUMENT = message(
    {**MESSAGES_START_USAGE, "output_tokens": 12},
    [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
    ],
)

# Gemini

GEMINI_USAGE = {
    "promptTokenCount": 700,
    "cachedContentTokenCount": 512,
    "toolUsePromptTokenCount": 30,
    "candidatesTokenCount": 21,
    "thoughtsTokenCount": 9,
    "totalTokenCount": 760,
}


def gemini_chunk(text: str, usage: Any, **candidate: Any) -> dict[str, Any]:
    """One chunk."""
    content = {"parts": [{"text": text}], "role": "model"}
    return {
        "candidates": [{"content": content, "index": 0, **candidate}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-pro",
        "responseId": "r-1",
    }


GEMINI_CHUNKS = [
    gemini_chunk("Hel", {"promptTokenCount": 700, "totalTokenCount": 700}),
    gemini_chunk('lo, "error": {}', GEMINI_USAGE, finishReason="STOP"),
]
GEMINI_STREAM = b"".join(event(chunk).replace(b"\n", b"\r\n") for chunk in GEMINI_CHUNKS)
GEMINI_ERROR = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
GEMINI_ERROR_STREAM = event(GEMINI_CHUNKS[0]) + event(GEMINI_ERROR)
GEMINI_ARRAY = json.dumps(GEMINI_CHUNKS, indent=2).encode()

STREAMS: dict[str, tuple[str, bytes]] = {
    "chat": ("chat", CHAT_STREAM),
    "chat tools": ("chat", CHAT_TOOL_STREAM),
    "chat error": ("chat", CHAT_ERROR_STREAM),
    "chat crlf": ("chat", CHAT_STREAM.replace(b"\n", b"\r\n")),
    "chat cr": ("chat", CHAT_STREAM.replace(b"\n", b"\r")),
    "chat without space": ("chat", b": ping\n\n" + CHAT_STREAM.replace(b"data: ", b"data:")),
    "chat with mark": ("chat", b"\xef\xbb\xbf" + CHAT_STREAM),
    "responses": ("responses", RESPONSES_STREAM),
    "responses without names": ("responses", RESPONSES_BARE_STREAM),
    "responses failed": ("responses", RESPONSES_FAILED_STREAM),
    "responses crlf": ("responses", RESPONSES_STREAM.replace(b"\n", b"\r\n")),
    "messages": ("messages", MESSAGES_STREAM),
    "messages error": ("messages", MESSAGES_ERROR_STREAM),
    "messages cr": ("messages", MESSAGES_STREAM.replace(b"\n", b"\r")),
    "gemini": ("gemini", GEMINI_STREAM),
    "gemini error": ("gemini", GEMINI_ERROR_STREAM),
}
"""Name to (API, bytes)."""
