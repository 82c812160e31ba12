"""The content of Responses: items, and answers whole or in events.

Items say by their type whose they are: ``…_output`` is a result, ``…_call`` a call, and a call
without ``call_id`` is the provider's own. Everything that passed is shown: the items of
``response.output_item.done`` and those of the final response, which some servers leave empty and
some give other ids. Of an item that was cut, the text that passed counts.
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

_ARGUMENT_FIELDS: Final = ("arguments", "input", "action", "operation", "code", "queries")
_GENERATED: Final = frozenset(
    {"reasoning", "compaction", "compaction_summary", "item_reference", "mcp_approval_request"}
)
"""Types of the model's items that are no calls; a reference names any of them by its id."""
_TEXT_DELTAS: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})


def conversation(
    body: bytes, digester: Digester, *, has_response_schema: bool
) -> Conversation | None:
    """The content of a request; None where the body has no ``input``."""
    request = request_of(body)
    if request is None:
        return None
    given = request.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        return None
    transcript = Transcript(digester)
    if isinstance(request.get("previous_response_id"), str):
        transcript.mark(request["previous_response_id"])
        transcript.end_assistant()
    for item in objects_in(given):
        _read_item(item, transcript)
    tools = tool_names(request.get("tools"), "tools", "function")
    return transcript.conversation(body, tools, has_response_schema=has_response_schema)


def reply(payload: bytes, digester: Digester, *, is_stream: bool) -> Reply:
    """The content of an answer."""
    transcript = Transcript(digester)
    cut = _Cut()
    for found in objects_of(payload, is_stream=is_stream):
        response = found.get("response")
        if isinstance(response, dict):
            _read_response(response, transcript)
        elif found.get("object") == "response" or isinstance(found.get("output"), list):
            _read_response(found, transcript)
        item = found.get("item")
        if found.get("type") == "response.output_item.done" and isinstance(item, dict):
            _read_item(item, transcript)
        cut.take(found)
    for item in cut.items():
        _read_item(item, transcript)
    return transcript.reply()


def _read_response(response: dict[str, Any], transcript: Transcript) -> None:
    transcript.mark(response.get("id"))
    for item in objects_in(response.get("output")):
        _read_item(item, transcript)


def _read_item(item: dict[str, Any], transcript: Transcript) -> None:
    kind = text_in(item, "type")
    if kind in ("", "message"):
        _read_message(item, transcript)
    elif kind.endswith("_output"):
        transcript.result(text_in(item, "call_id"), item.get("output"))
    elif kind == "mcp_approval_response":
        transcript.result(text_in(item, "approval_request_id"), str(item.get("approve")))
    elif kind.endswith("_call") or kind in _GENERATED:
        _read_generated(item, kind, transcript)
        transcript.end_assistant()


def _read_message(item: dict[str, Any], transcript: Transcript) -> None:
    texts = texts_of(item.get("content"))
    if item.get("role") == "user":
        transcript.mark(item.get("id"), is_assistant=False)
        transcript.user(texts)
    elif item.get("role") == "assistant":
        transcript.mark(item.get("id"))
        for text in texts:
            transcript.text(text, is_assistant=True)
        transcript.end_assistant()


def _read_generated(item: dict[str, Any], kind: str, transcript: Transcript) -> None:
    """Reasoning, a call, a compaction, or a reference to any of them by its id."""
    transcript.mark(item.get("id"), name=text_in(item, "name"))
    transcript.mark(item.get("encrypted_content"))
    if kind == "reasoning":
        for text in (*texts_of(item.get("summary")), *texts_of(item.get("content"))):
            transcript.reasoning(text)
    elif kind.endswith("_call"):
        given = (item[field] for field in _ARGUMENT_FIELDS if item.get(field) is not None)
        name = text_in(item, "name") or kind
        is_whole = item.get("status") != "incomplete"
        call_id = text_in(item, "call_id")
        transcript.call(call_id, name, next(given, None), is_for_client=is_whole)


class _Cut:
    """Texts of messages whose end has not come."""

    __slots__ = ("_ids", "_texts")

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._texts: dict[int, dict[int, list[str]]] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event."""
        kind, at = event.get("type"), event.get("output_index")
        if not isinstance(at, int):
            return
        item = event.get("item")
        if kind == "response.output_item.added" and isinstance(item, dict):
            self._ids[at] = text_in(item, "id")
        elif kind == "response.output_item.done":
            self._texts.pop(at, None)
        elif isinstance(kind, str) and kind in _TEXT_DELTAS:
            part = event.get("content_index")
            pieces = self._texts.setdefault(at, {})
            key = part if isinstance(part, int) else 0
            pieces.setdefault(key, []).append(text_in(event, "delta"))

    def items(self) -> list[dict[str, Any]]:
        """The messages as far as they came."""
        return [
            {"role": "assistant", "id": self._ids.get(at), "content": list(map("".join, texts))}
            for at, texts in ((at, parts.values()) for at, parts in self._texts.items())
        ]
