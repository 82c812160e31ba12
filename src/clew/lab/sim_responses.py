"""OpenAI responses as simulated: items instead of messages, and continuation by response id.

An answer that may be stored is kept with its prompt in a bounded map, so that
``previous_response_id`` continues the same cached prefix; an unknown id is refused as there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final

from clew.lab.sim_chat import Chat
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

STORED_RESPONSES: Final = 1_000
"""More than any test continues; a long-running simulator must not grow."""
STORED_BYTES: Final = 64 * 1024 * 1024
"""What the kept prompts may weigh together."""


class Responses:
    """``POST /v1/responses`` and ``/v1/responses/input_tokens``."""

    name = "responses"

    def __init__(self) -> None:
        self._stored: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self._stored_bytes = 0

    def operation(self, path: str) -> Operation | None:
        """Both of its routes."""
        if path.endswith("/responses"):
            return "generate"
        return "count" if path.endswith("/responses/input_tokens") else None

    def read(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Ask:  # noqa: ARG002  the port's
        """Tools, instructions, the continued response, then the items."""
        given = body.get("input") or []
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
        before = self._continued(str(body.get("previous_response_id") or ""))
        offered = [tool for raw in body.get("tools") or () for tool in _tools(raw)]
        extra = [t for item in items for raw in _later_tools(item) for t in _tools(raw)]
        return Ask(
            model=str(body["model"]),
            stream=bool(body.get("stream")),
            pieces=(
                encode_json(body.get("tools") or []),
                encode_json(body.get("instructions") or ""),
                *before,
                *map(encode_json, items),
            ),
            newest=_newest(items),
            tools=(*offered, *extra),
            response_schema=_schema((body.get("text") or {}).get("format") or {}),
            max_tokens=body.get("max_output_tokens"),
            stores=body.get("store") is not False,
        )

    def document(self, answer: Answer) -> Any:
        """``response``, completed."""
        self._keep(answer)
        return _response(answer, "completed", _items(answer))

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """The events of one response, numbered from 0."""
        self._keep(answer)
        numbers = count()
        for kind, payload, tokens in _events(answer):
            event = {"type": kind, "sequence_number": next(numbers), **payload}
            yield Frame(sse(event, kind), tokens)

    def count(self, tokens: int) -> Any:
        """``response.input_tokens``."""
        return {"object": "response.input_tokens", "input_tokens": tokens}

    def error(self, status: int, message: str, token: str) -> Any:
        """As chat's."""
        return Chat().error(status, message, token)

    def _continued(self, response_id: str) -> tuple[bytes, ...]:
        if response_id and response_id not in self._stored:
            raise ValueError(f"Previous response with id '{response_id}' not found.")
        return self._stored.get(response_id, ())

    def _keep(self, answer: Answer) -> None:
        if not answer.ask.stores:
            return
        # The first two pieces are tools and instructions, which every request brings itself.
        kept = (*answer.ask.pieces[2:], *map(encode_json, _items(answer)))
        self._stored[f"resp_{answer.token}"] = kept
        self._stored_bytes += sum(map(len, kept))
        while len(self._stored) > STORED_RESPONSES or self._stored_bytes > STORED_BYTES:
            _, dropped = self._stored.popitem(last=False)
            self._stored_bytes -= sum(map(len, dropped))


def _newest(items: list[dict[str, Any]]) -> str:
    found: list[str] = []
    for item in reversed(items):
        if item.get("role") != "user":
            break
        found.insert(0, join_text(item.get("content"), "input_text", "text"))
    return "\n".join(found)


def _later_tools(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Tools that a tool search brought: they stand in its output item."""
    return list(item.get("tools") or ()) if item.get("type") == "tool_search_output" else []


def _tools(raw: Mapping[str, Any], namespace: str = "") -> list[Tool]:
    if raw.get("type") == "namespace":
        name = str(raw.get("name", ""))
        return [tool for inner in raw.get("tools") or () for tool in _tools(inner, name)]
    name = str(raw.get("name") or raw.get("type") or "")
    is_freeform = raw.get("type") == "custom"
    description = str(raw.get("description", ""))
    return [Tool(name, raw.get("parameters") or {}, description, namespace, is_freeform)]


def _schema(text_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if text_format.get("type") == "json_object":
        return {"type": "object"}
    return text_format.get("schema") if text_format.get("type") == "json_schema" else None


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(answer: Answer, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.token}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": parts,
    }


def _reasoning(answer: Answer, summary: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": f"rs_{answer.token}", "type": "reasoning", "summary": summary}


def _call(call: ToolCall, status: str, arguments: str) -> dict[str, Any]:
    kind, field = (
        ("custom_tool_call", "input") if call.is_freeform else ("function_call", "arguments")
    )
    item: dict[str, Any] = {
        "id": f"fc_{call.call_id}",
        "type": kind,
        "status": status,
        "call_id": call.call_id,
        "name": call.name,
        field: arguments,
    }
    if call.namespace:
        item["namespace"] = call.namespace
    return item


def _items(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if answer.reasoning:
        found.append(_reasoning(answer, [{"type": "summary_text", "text": answer.reasoning}]))
    if answer.text:
        found.append(_message(answer, "completed", [_text_part(answer.text)]))
    return found + [_call(call, "completed", call.arguments) for call in answer.calls]


_Event = tuple[str, dict[str, Any], int]


def _events(answer: Answer) -> Iterator[_Event]:
    started = {"response": _response(answer, "in_progress", [])}
    yield "response.created", started, 0
    yield "response.in_progress", started, 0
    index = 0
    if answer.reasoning:
        yield from _reasoning_events(answer, index)
        index += 1
    if answer.text:
        yield from _text_events(answer, index)
        index += 1
    for offset, call in enumerate(answer.calls):
        yield from _call_events(call, index + offset)
    ending = "incomplete" if answer.stop == "length" else "completed"
    yield f"response.{ending}", {"response": _response(answer, ending, _items(answer))}, 0


def _reasoning_events(answer: Answer, index: int) -> Iterator[_Event]:
    place = {"item_id": f"rs_{answer.token}", "output_index": index, "summary_index": 0}
    part = {"type": "summary_text", "text": answer.reasoning}
    opened = {"output_index": index, "item": _reasoning(answer, [])}
    yield "response.output_item.added", opened, 0
    empty = {**place, "part": {"type": "summary_text", "text": ""}}
    yield "response.reasoning_summary_part.added", empty, 0
    for piece in split_tokens(answer.reasoning):
        yield "response.reasoning_summary_text.delta", {**place, "delta": piece}, 1
    yield "response.reasoning_summary_text.done", {**place, "text": answer.reasoning}, 0
    yield "response.reasoning_summary_part.done", {**place, "part": part}, 0
    closed = {"output_index": index, "item": _reasoning(answer, [part])}
    yield "response.output_item.done", closed, 0


def _text_events(answer: Answer, index: int) -> Iterator[_Event]:
    place = {"item_id": f"msg_{answer.token}", "output_index": index, "content_index": 0}
    opened = {"output_index": index, "item": _message(answer, "in_progress", [])}
    yield "response.output_item.added", opened, 0
    yield "response.content_part.added", {**place, "part": _text_part("")}, 0
    for piece in split_tokens(answer.text):
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}, 1
    yield "response.output_text.done", {**place, "text": answer.text, "logprobs": []}, 0
    yield "response.content_part.done", {**place, "part": _text_part(answer.text)}, 0
    done = _message(answer, "completed", [_text_part(answer.text)])
    yield "response.output_item.done", {"output_index": index, "item": done}, 0


def _call_events(call: ToolCall, index: int) -> Iterator[_Event]:
    kind = "custom_tool_call_input" if call.is_freeform else "function_call_arguments"
    field = "input" if call.is_freeform else "arguments"
    place = {"item_id": f"fc_{call.call_id}", "output_index": index}
    opened = {"output_index": index, "item": _call(call, "in_progress", "")}
    yield "response.output_item.added", opened, 0
    for piece in split_tokens(call.arguments):
        yield f"response.{kind}.delta", {**place, "delta": piece}, 1
    yield f"response.{kind}.done", {**place, "name": call.name, field: call.arguments}, 0
    closed = {"output_index": index, "item": _call(call, "completed", call.arguments)}
    yield "response.output_item.done", closed, 0


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    is_over = status != "in_progress"
    return {
        "id": f"resp_{answer.token}",
        "object": "response",
        "created_at": answer.created_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": answer.ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _usage(answer) if is_over else None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    spent = answer.spent
    return {
        "input_tokens": spent.input_tokens,
        "input_tokens_details": {"cached_tokens": spent.cached_tokens},
        "output_tokens": spent.output_tokens,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning_tokens},
        "total_tokens": spent.input_tokens + spent.output_tokens,
    }
