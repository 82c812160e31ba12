"""The content of Chat Completions: messages, and answers whole or in deltas.

A stream is put together into the message that a document would hold, so that one reader serves
history, document and stream. Servers differ in their deltas: some give every call the index 0 with
an id of its own, some repeat id and name in each piece, some have no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from clew.core.apis.content import (
    is_whole,
    objects_in,
    objects_of,
    request_of,
    text_in,
    texts_of,
    tool_names,
)
from clew.core.apis.transcript import Transcript
from clew.core.lineage.blocks import Conversation, Digester, Reply

_RESULT_ROLES: Final = frozenset({"tool", "function"})
_CALL_FIELDS: Final = ("function", "custom")
_ARGUMENT_FIELDS: Final = ("arguments", "input")


def conversation(
    body: bytes, digester: Digester, *, has_response_schema: bool
) -> Conversation | None:
    """The content of a request; None where the body has no ``messages``."""
    request = request_of(body)
    if request is None or not isinstance(request.get("messages"), list):
        return None
    transcript = Transcript(digester)
    for message in objects_in(request["messages"]):
        role = message.get("role")
        if role == "user":
            transcript.user(texts_of(message.get("content")))
        elif role == "assistant":
            _read_answer(message, transcript)
            transcript.end_assistant()
        elif isinstance(role, str) and role in _RESULT_ROLES:
            call_id, name = text_in(message, "tool_call_id"), text_in(message, "name")
            transcript.result(call_id, message.get("content"), name=name)
    tools = tool_names(request.get("tools"), *_CALL_FIELDS) | tool_names(request.get("functions"))
    return transcript.conversation(body, tools, has_response_schema=has_response_schema)


def reply(payload: bytes, digester: Digester, *, is_stream: bool) -> Reply:
    """The content of an answer."""
    transcript = Transcript(digester)
    streamed: dict[Any, _Streamed] = {}
    is_first = True
    for chunk in objects_of(payload, is_stream=is_stream):
        if is_first:
            transcript.mark(chunk.get("id"))
            is_first = False
        for choice in objects_in(chunk.get("choices")):
            _read_choice(choice, transcript, streamed)
    for answer in streamed.values():
        _read_answer(answer.message(), transcript)
    return transcript.reply()


def _read_choice(
    choice: dict[str, Any], transcript: Transcript, streamed: dict[Any, _Streamed]
) -> None:
    message, delta = choice.get("message"), choice.get("delta")
    if isinstance(message, dict):
        _read_answer(message, transcript)
    if isinstance(delta, dict):
        index = choice.get("index")
        key = index if isinstance(index, int) else 0
        streamed.setdefault(key, _Streamed()).take(delta, is_last=bool(choice.get("finish_reason")))
    elif choice.get("finish_reason") and not isinstance(message, dict):
        for answer in streamed.values():
            answer.take({}, is_last=True)


def _read_answer(message: dict[str, Any], transcript: Transcript) -> None:
    """One message of the model. Reasoning has two names: DeepSeek's and OpenRouter's."""
    transcript.reasoning(text_in(message, "reasoning_content", "reasoning"))
    for detail in objects_in(message.get("reasoning_details")):
        transcript.mark(detail.get("signature"))
        transcript.mark(detail.get("data"))
    for text in texts_of(message.get("content")):
        transcript.text(text, is_assistant=True)
    transcript.text(text_in(message, "refusal"), is_assistant=True)
    for call in objects_in(message.get("tool_calls")):
        for called in _called(call):
            _read_call(text_in(call, "id"), called, transcript)
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        _read_call("", legacy, transcript)


def _read_call(call_id: str, called: dict[str, Any], transcript: Transcript) -> None:
    given = (called[field] for field in _ARGUMENT_FIELDS if called.get(field) is not None)
    transcript.call(call_id, text_in(called, "name"), next(given, None))


def _called(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is called: a function, or a custom tool."""
    for field in _CALL_FIELDS:
        called = call.get(field)
        if isinstance(called, dict):
            yield called


class _StreamedCall:
    """One call as it comes in pieces."""

    __slots__ = ("call_id", "name", "pieces")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.pieces: list[str] = []

    def take(self, call_id: str, called: dict[str, Any]) -> None:
        """Take in one piece; id and name count once, however often they are sent."""
        self.call_id = self.call_id or call_id
        self.name = self.name or text_in(called, "name")
        self.pieces.append(text_in(called, *_ARGUMENT_FIELDS))


class _Streamed:
    """One choice as it comes in deltas."""

    __slots__ = ("_calls", "_details", "_is_over", "_legacy", "_order", "_pieces")

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = {"content": [], "refusal": [], "reasoning": []}
        self._details: list[dict[str, Any]] = []
        self._calls: dict[Any, _StreamedCall] = {}
        self._order: list[_StreamedCall] = []
        self._legacy: _StreamedCall | None = None
        self._is_over = False

    def take(self, delta: dict[str, Any], *, is_last: bool) -> None:
        """Take in one delta."""
        self._is_over = self._is_over or is_last
        self._pieces["content"] += texts_of(delta.get("content"))
        self._pieces["refusal"].append(text_in(delta, "refusal"))
        self._pieces["reasoning"].append(text_in(delta, "reasoning_content", "reasoning"))
        self._details += objects_in(delta.get("reasoning_details"))
        for call in objects_in(delta.get("tool_calls")):
            called = next(_called(call), {})
            self._call_of(call, called).take(text_in(call, "id"), called)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._legacy = self._legacy or _StreamedCall()
            self._legacy.take("", legacy)

    def message(self) -> dict[str, Any]:
        """The message as a document would hold it, without a call that was cut."""
        found: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._pieces.items()}
        found["reasoning_details"] = self._details
        found["tool_calls"] = [
            {"id": call.call_id, "function": function}
            for call in self._order
            if (function := self._function(call))
        ]
        if self._legacy is not None:
            found["function_call"] = self._function(self._legacy)
        return found

    def _function(self, call: _StreamedCall) -> dict[str, Any] | None:
        arguments = "".join(call.pieces)
        if not self._is_over and not is_whole(arguments):
            return None
        return {"name": call.name, "arguments": arguments}

    def _call_of(self, delta: dict[str, Any], called: dict[str, Any]) -> _StreamedCall:
        index, call_id = delta.get("index"), text_in(delta, "id")
        key = index if isinstance(index, int) else call_id or len(self._order) - 1
        known = self._calls.get(key)
        is_other = known is not None and call_id not in ("", known.call_id) and known.call_id
        if known is None or (is_other and text_in(called, "name")):
            known = self._calls[key] = _StreamedCall()
            self._order.append(known)
            if not isinstance(index, int):
                self._calls[len(self._order) - 1] = known
        return known
