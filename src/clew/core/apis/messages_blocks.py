"""The content of Anthropic's Messages: content blocks, and answers whole or in events.

A tool that the provider runs has its call and its result in the model's own message
(``server_tool_use``, ``…_tool_result``); nobody has to answer it.
"""

from __future__ import annotations

from typing import Any, Final

from clew.core.apis.content import (
    objects_in,
    objects_of,
    request_of,
    text_in,
    texts_of,
    tool_names,
)
from clew.core.apis.transcript import Transcript
from clew.core.lineage.blocks import Conversation, Digester, Reply

_TEXT_FIELDS: Final = {"text": "text", "compaction": "content"}
"""Block type: where its text stands."""
_DELTA_FIELDS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "input"),
    "compaction_delta": ("content", "content"),
}
"""Delta type: its field, and the field of the block that it extends."""


def conversation(
    body: bytes, digester: Digester, *, has_response_schema: bool
) -> Conversation | None:
    """The content of a request; None where the body has no ``messages``."""
    request = request_of(body)
    if request is None or not isinstance(request.get("messages"), list):
        return None
    transcript = Transcript(digester)
    for message in objects_in(request["messages"]):
        content = message.get("content")
        if message.get("role") == "user":
            _read_user(content, transcript)
        elif message.get("role") == "assistant":
            _read_answer(content, transcript)
            transcript.end_assistant()
    tools = tool_names(request.get("tools"))
    return transcript.conversation(body, tools, has_response_schema=has_response_schema)


def reply(payload: bytes, digester: Digester, *, is_stream: bool) -> Reply:
    """The content of an answer."""
    transcript = Transcript(digester)
    streamed = _Streamed()
    for found in objects_of(payload, is_stream=is_stream):
        message = found
        if found.get("type") == "message_start" and isinstance(found.get("message"), dict):
            message = found["message"]
        if message.get("type") == "message":
            transcript.mark(message.get("id"))
            _read_answer(message.get("content"), transcript)
        streamed.take(found)
    _read_answer(streamed.content(), transcript)
    return transcript.reply()


def _read_user(content: Any, transcript: Transcript) -> None:
    transcript.user(texts_of(content))
    for block in objects_in(content):
        if block.get("type") == "tool_result":
            transcript.result(text_in(block, "tool_use_id"), block.get("content"))


def _read_answer(content: Any, transcript: Transcript) -> None:
    if isinstance(content, str):
        transcript.text(content, is_assistant=True)
    for block in objects_in(content):
        _read_block(block, text_in(block, "type"), transcript)


def _read_block(block: dict[str, Any], kind: str, transcript: Transcript) -> None:
    if kind in _TEXT_FIELDS:
        transcript.text(text_in(block, _TEXT_FIELDS[kind]), is_assistant=True)
    elif kind == "thinking":
        transcript.reasoning(text_in(block, "thinking"))
        transcript.mark(block.get("signature"))
    elif kind == "redacted_thinking":
        transcript.mark(block.get("data"))
    elif kind.endswith("tool_use"):
        is_for_client = kind == "tool_use"
        call_id, name = text_in(block, "id"), text_in(block, "name")
        transcript.call(call_id, name, block.get("input"), is_for_client=is_for_client)
    elif kind.endswith("tool_result"):
        call_id = text_in(block, "tool_use_id")
        transcript.result(call_id, block.get("content"), is_assistant=True)


class _Streamed:
    """One message as it comes in events."""

    __slots__ = ("_blocks", "_open")

    def __init__(self) -> None:
        self._blocks: list[tuple[dict[str, Any], dict[str, list[str]]]] = []
        self._open: dict[Any, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        kind, index = event.get("type"), event.get("index")
        if not isinstance(index, int):
            return
        if kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            self._open[index] = len(self._blocks)
            self._blocks.append((event["content_block"], {}))
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            self._extend(index, event["delta"])
        elif kind == "content_block_stop":
            self._open.pop(index, None)

    def content(self) -> list[dict[str, Any]]:
        """The blocks as a document would hold them, without a call that was cut."""
        cut = set(self._open.values())
        return [
            {**block, **{field: _joined(block, field, pieces[field]) for field in pieces}}
            for number, (block, pieces) in enumerate(self._blocks)
            if number not in cut or not text_in(block, "type").endswith("tool_use")
        ]

    def _extend(self, index: int, delta: dict[str, Any]) -> None:
        number = self._open.get(index)
        source, target = _DELTA_FIELDS.get(text_in(delta, "type"), ("", ""))
        if number is not None and source:
            self._blocks[number][1].setdefault(target, []).append(text_in(delta, source))


def _joined(block: dict[str, Any], field: str, pieces: list[str]) -> str:
    """A field's beginning, which only a text has, and what was added to it."""
    return text_in(block, field) + "".join(pieces)
