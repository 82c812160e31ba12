"""Answers as the simulator's dialects give them, and as a client quotes them in its next request.

Each API has two clients: one that keeps everything as it came, and one that writes the same in
another way (texts as parts, arguments with other spaces and order, chunks apart).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from clew.core.lineage.blocks import Block, Conversation, Digest, Digester
from clew.lab.sim_chat import Chat
from clew.lab.sim_dialect import Answer, Ask, Dialect, Spent, ToolCall
from clew.lab.sim_gemini import Gemini
from clew.lab.sim_messages import Messages
from clew.lab.sim_responses import Responses

DIGESTER = Digester(b"a secret of this installation")
DIALECTS: dict[str, Callable[[], Dialect]] = {
    "chat": Chat,
    "responses": Responses,
    "messages": Messages,
    "gemini": Gemini,
}
PATHS = {
    "chat": b"/v1/chat/completions",
    "responses": b"/v1/responses",
    "messages": b"/v1/messages",
    "gemini": b"/v1beta/models/gemini-2.5-pro:streamGenerateContent",
}
_HISTORY_FIELDS = {
    "chat": "messages",
    "responses": "input",
    "messages": "messages",
    "gemini": "contents",
}


def ask(*, as_array: bool = False) -> Ask:
    """The least request a dialect can answer."""
    return Ask(model="m", stream=True, pieces=(), newest="hi", as_array=as_array)


def answer(
    text: str = "",
    reasoning: str = "",
    calls: Iterable[ToolCall] = (),
    *,
    token: str = "5f333222a7ca4776942a0b1c",
    as_array: bool = False,
) -> Answer:
    """An answer that the simulator could give."""
    made = tuple(calls)
    stop = "tool" if made else "end"
    spent = Spent(input_tokens=1)
    asked = ask(as_array=as_array)
    return Answer(asked, 1, token, 1_700_000_000, text, reasoning, made, stop, spent)


def document(api: str, given: Answer) -> bytes:
    """The answer in one piece."""
    return json.dumps(DIALECTS[api]().document(given)).encode()


def stream(api: str, given: Answer) -> bytes:
    """The answer as events."""
    return b"".join(frame.data for frame in DIALECTS[api]().frames(given))


def body(api: str, *history: Any, **more: Any) -> bytes:
    """A request with these messages, items or contents."""
    return json.dumps({"model": "m", _HISTORY_FIELDS[api]: list(history), **more}).encode()


def user(api: str, *texts: str) -> Any:
    """A user message of these texts, as parts."""
    if api == "gemini":
        return {"role": "user", "parts": [{"text": text} for text in texts]}
    kind = "input_text" if api == "responses" else "text"
    return {"role": "user", "content": [{"type": kind, "text": text} for text in texts]}


def said(api: str, text: str) -> Any:
    """A text of the model in a history."""
    if api == "gemini":
        return {"role": "model", "parts": [{"text": text}]}
    return {"role": "assistant", "content": text}


def quoted(api: str, given: Answer, *, is_rewritten: bool) -> list[Any]:
    """The answer in the next request's history."""
    return _QUOTES[api](given, is_rewritten)


def _respaced(arguments: str) -> str:
    value = json.loads(arguments or "{}")
    return json.dumps(dict(reversed(value.items())), indent=1)


def _chat(given: Answer, is_rewritten: bool) -> list[Any]:
    message = Chat().document(given)["choices"][0]["message"]
    if not is_rewritten:
        return [message]
    parts = [{"type": "text", "text": f"{given.text}\n", "cache_control": {"type": "ephemeral"}}]
    calls = [
        {
            "id": call.call_id,
            "function": {"name": call.name, "arguments": _respaced(call.arguments)},
        }
        for call in given.calls
    ]
    return [{"role": "assistant", "content": parts, "tool_calls": calls or None}]


def _responses(given: Answer, is_rewritten: bool) -> list[Any]:
    items = Responses().document(given)["output"]
    if not is_rewritten:
        return list(items)
    found: list[Any] = []
    for item in items:
        if item["type"] == "message":
            found.append({"role": "assistant", "id": item["id"], "content": f" {given.text}"})
        elif item["type"] == "function_call":
            arguments = _respaced(item["arguments"])
            found.append({**item, "arguments": arguments, "status": None})
        else:
            found.append(item)
    return found


def _messages(given: Answer, is_rewritten: bool) -> list[Any]:
    blocks = Messages().document(given)["content"]
    if is_rewritten:
        blocks = [{**block, "cache_control": {"type": "ephemeral"}} for block in blocks]
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = json.loads(_respaced(json.dumps(block["input"])))
    return [{"role": "assistant", "content": blocks}]


def _gemini(given: Answer, is_rewritten: bool) -> list[Any]:
    if not is_rewritten:
        return [Gemini().document(given)["candidates"][0]["content"]]
    chunks = json.loads(stream("gemini", answer_as_array(given)))
    return [chunk["candidates"][0]["content"] for chunk in chunks]


def answer_as_array(given: Answer) -> Answer:
    """The same answer, streamed without ``alt=sse``."""
    return answer(given.text, given.reasoning, given.calls, token=given.token, as_array=True)


_QUOTES: dict[str, Callable[[Answer, bool], list[Any]]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
    "gemini": _gemini,
}


def digests(blocks: Iterable[Block]) -> set[Digest]:
    """Their digests."""
    return {block.digest for block in blocks}


def of(kind: str, content: str) -> Digest:
    """The digest of one block."""
    return DIGESTER.digest(kind.encode(), content.encode())


def held(found: Conversation | None) -> Conversation:
    """A conversation that is there."""
    assert found is not None
    return found
