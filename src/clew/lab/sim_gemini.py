"""Gemini as simulated: model and operation in the path, SSE or one streamed JSON array."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from clew.lab.sim_dialect import (
    Answer,
    Ask,
    Frame,
    Operation,
    Tool,
    encode_json,
    split_tokens,
)

_PATH: Final = re.compile(
    r"/models/(?P<model>[^/:]+):(?P<call>generateContent|streamGenerateContent|countTokens)$"
)
_FINISH = {"end": "STOP", "tool": "STOP", "length": "MAX_TOKENS"}
_ERRORS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class Gemini:
    """``POST /v1beta/models/MODEL:generateContent`` and its two siblings."""

    name = "gemini"

    def operation(self, path: str) -> Operation | None:
        """By the verb behind the colon."""
        found = _PATH.search(path)
        if found is None:
            return None
        return "count" if found["call"] == "countTokens" else "generate"

    def read(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Ask:
        """Tools, system instruction, contents."""
        found = _PATH.search(path)
        if found is None:
            raise ValueError(path)
        body = {**body, **(body.get("generateContentRequest") or {})}
        settings = body.get("generationConfig") or {}
        contents = body["contents"]
        schema = settings.get("responseJsonSchema") or settings.get("responseSchema")
        return Ask(
            model=found["model"],
            stream=found["call"] == "streamGenerateContent",
            pieces=(
                encode_json(body.get("tools") or []),
                encode_json(body.get("systemInstruction") or {}),
                *map(encode_json, contents),
            ),
            newest=_newest(contents),
            tools=tuple(_tools(body.get("tools") or ())),
            response_schema=_lower_types(schema) if schema else None,
            max_tokens=settings.get("maxOutputTokens"),
            as_array=query.get("alt") != "sse",
        )

    def document(self, answer: Answer) -> Any:
        """One ``GenerateContentResponse``."""
        parts = [_thought(answer.reasoning)] if answer.reasoning else []
        parts += [{"text": answer.text}] if answer.text else []
        parts += [_call(call.name, call.arguments, call.call_id) for call in answer.calls]
        return _response(answer, parts, answer.spent.output_tokens, finish=True)

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """A response a token; each carries the usage so far, the last the finish reason."""
        frame = _array_frames if answer.ask.as_array else _sse_frames
        yield from frame(_responses(answer))

    def count(self, tokens: int) -> Any:
        """``countTokens``."""
        return {"totalTokens": tokens}

    def error(self, status: int, message: str, token: str) -> Any:  # noqa: ARG002  the port's
        """Google's error object."""
        name = _ERRORS.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": message, "status": name}}


def _newest(contents: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for content in reversed(contents):
        parts = content.get("parts") or []
        if any("functionResponse" in part for part in parts):
            return ""
        if content.get("role", "user") != "user":
            break
        found.insert(0, "\n".join(str(part.get("text", "")) for part in parts))
    return "\n".join(found)


def _tools(raw: Any) -> Iterator[Tool]:
    for group in raw:
        for one in group.get("functionDeclarations") or ():
            schema = one.get("parametersJsonSchema") or _lower_types(one.get("parameters") or {})
            yield Tool(str(one.get("name", "")), schema, str(one.get("description", "")))


def _lower_types(schema: Any) -> Any:
    """Gemini writes JSON schema's types in capitals."""
    if isinstance(schema, list):
        return [_lower_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else _lower_types(value)
        for key, value in schema.items()
    }


def _thought(text: str) -> dict[str, Any]:
    return {"text": text, "thought": True}


def _call(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    return {
        "functionCall": {
            "id": call_id,
            "name": name,
            "args": msgspec.json.decode(arguments or "{}"),
        }
    }


def _responses(answer: Answer) -> Iterator[tuple[dict[str, Any], int]]:
    generated = 0
    for piece in split_tokens(answer.reasoning):
        generated += 1
        yield _response(answer, [_thought(piece)], generated), 1
    for piece in split_tokens(answer.text):
        generated += 1
        yield _response(answer, [{"text": piece}], generated), 1
    for call in answer.calls:
        tokens = len(split_tokens(call.arguments))
        generated += tokens
        yield _response(answer, [_call(call.name, call.arguments, call.call_id)], generated), tokens
    yield _response(answer, [{"text": ""}], answer.spent.output_tokens, finish=True), 0


def _sse_frames(responses: Iterator[tuple[dict[str, Any], int]]) -> Iterator[Frame]:
    for response, tokens in responses:
        yield Frame(b"data: %b\r\n\r\n" % encode_json(response), tokens)


def _array_frames(responses: Iterator[tuple[dict[str, Any], int]]) -> Iterator[Frame]:
    before = b"["
    for response, tokens in responses:
        yield Frame(before + encode_json(response), tokens)
        before = b",\r\n"
    yield Frame(b"]")


def _response(
    answer: Answer, parts: list[dict[str, Any]], generated: int, *, finish: bool = False
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = _FINISH[answer.stop]
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(answer, generated),
        "modelVersion": answer.ask.model,
        "responseId": answer.token,
    }


def _usage(answer: Answer, generated: int) -> dict[str, Any]:
    spent = answer.spent
    generated = min(generated, spent.output_tokens)
    thoughts = min(generated, spent.reasoning_tokens)
    usage = {
        "promptTokenCount": spent.input_tokens,
        # Thoughts are counted beside the candidates, not among them.
        "candidatesTokenCount": generated - thoughts,
        "totalTokenCount": spent.input_tokens + generated,
    }
    if spent.cached_tokens:
        usage["cachedContentTokenCount"] = spent.cached_tokens
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return usage
