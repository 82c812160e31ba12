"""OpenAI chat completions as simulated: the cache is automatic, usage comes where asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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

_FINISH = {"end": "stop", "tool": "tool_calls", "length": "length"}


class Chat:
    """``POST /v1/chat/completions``."""

    name = "chat"

    def operation(self, path: str) -> Operation | None:
        """Generates; nothing is counted here."""
        return "generate" if path.endswith("/chat/completions") else None

    def read(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Ask:  # noqa: ARG002  the port's
        """Tools come before messages in the cached prompt."""
        messages = body["messages"]
        options = body.get("stream_options") or {}
        return Ask(
            model=str(body["model"]),
            stream=bool(body.get("stream")),
            pieces=(
                encode_json(body.get("tools") or []),
                *(encode_json(message) for message in messages),
            ),
            newest=_newest(messages),
            tools=tuple(map(_tool, body.get("tools") or ())),
            response_schema=_schema(body.get("response_format") or {}),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            wants_usage=bool(options.get("include_usage")) or not body.get("stream"),
        )

    def document(self, answer: Answer) -> Any:
        """``chat.completion``."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text or None,
            "refusal": None,
            "annotations": [],
        }
        if answer.calls:
            message["tool_calls"] = [_call(call) for call in answer.calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _FINISH[answer.stop],
        }
        head = _head(answer, "chat.completion")
        return {**head, "choices": [choice], "usage": _usage(answer)}

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """Role first, then one delta a token, the finish reason, usage where asked, ``[DONE]``."""
        yield _delta(answer, {"role": "assistant", "content": "", "refusal": None})
        for piece in split_tokens(answer.text):
            yield _delta(answer, {"content": piece}, tokens=1)
        for index, call in enumerate(answer.calls):
            yield _delta(answer, {"tool_calls": [{"index": index, **_call(call, "")}]})
            for piece in split_tokens(call.arguments):
                part = {"index": index, "function": {"arguments": piece}}
                yield _delta(answer, {"tool_calls": [part]}, tokens=1)
        yield _delta(answer, {}, finish=_FINISH[answer.stop])
        if answer.ask.wants_usage:
            chunk = {**_head(answer, "chat.completion.chunk"), "choices": []}
            yield Frame(sse({**chunk, "usage": _usage(answer)}))
        yield Frame(b"data: [DONE]\n\n")

    def count(self, tokens: int) -> Any:
        """Not part of this API."""
        return {"input_tokens": tokens}

    def error(self, status: int, message: str, token: str) -> Any:  # noqa: ARG002  the port's
        """OpenAI's error object, which Responses shares."""
        kind, code = {
            429: ("tokens", "rate_limit_exceeded"),
            503: ("server_error", "overloaded"),
            500: ("server_error", None),
        }.get(status, ("invalid_request_error", None))
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _newest(messages: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for message in reversed(messages):
        if message["role"] != "user":
            break
        found.insert(0, join_text(message.get("content"), "text"))
    return "\n".join(found)


def _tool(raw: Mapping[str, Any]) -> Tool:
    function = raw.get("function") or raw.get("custom") or {}
    name = str(function.get("name", ""))
    return Tool(
        name,
        function.get("parameters") or {},
        str(function.get("description", "")),
        is_freeform=raw.get("type") == "custom",
    )


def _schema(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if response_format.get("type") == "json_object":
        return {"type": "object"}
    return (response_format.get("json_schema") or {}).get("schema")


def _call(call: ToolCall, arguments: str | None = None) -> dict[str, Any]:
    text = call.arguments if arguments is None else arguments
    function = {"name": call.name, "arguments": text}
    return {"id": call.call_id, "type": "function", "function": function}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.token}",
        "object": kind,
        "created": answer.created_s,
        "model": answer.ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_sim",
    }


def _delta(
    answer: Answer, delta: dict[str, Any], *, finish: str | None = None, tokens: int = 0
) -> Frame:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk: dict[str, Any] = {**_head(answer, "chat.completion.chunk"), "choices": [choice]}
    if answer.ask.wants_usage:
        chunk["usage"] = None
    return Frame(sse(chunk), tokens)


def _usage(answer: Answer) -> dict[str, Any]:
    spent = answer.spent
    return {
        "prompt_tokens": spent.input_tokens,
        "completion_tokens": spent.output_tokens,
        "total_tokens": spent.input_tokens + spent.output_tokens,
        "prompt_tokens_details": {"cached_tokens": spent.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": spent.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
