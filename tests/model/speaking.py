"""How the clients of the model speak: their headers, their bodies, and the answers they get.

A kind of client is one row: its API, its user agent, how long its ids last, which headers it sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from clew.core.claim import Headers, Principal, SessionKey

PATHS: Final = {
    "chat": b"/v1/chat/completions",
    "messages": b"/v1/messages",
    "responses": b"/v1/responses",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: a text, with tool calls (of the model) or results (of the user)."""

    is_assistant: bool
    text: str
    calls: tuple[tuple[str, str], ...] = ()
    """(id, argument) of each call."""
    results: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Talk:
    """One real conversation, as its client holds it."""

    number: int
    principal: Principal
    client: Client
    agent: str
    """User agent."""
    ids: dict[str, str]
    """What its client names it now; the headers are made of it."""
    tools: tuple[str, ...]
    parent: Talk | None = None
    messages: list[Message] = field(default_factory=list)
    last_response: str = ""
    """The id of its newest response, while its client keeps one."""
    session: SessionKey | None = None
    """Where its newest turn was put."""
    may_take: set[int] = field(default_factory=set)
    """Conversations it is an equal copy of: whichever goes on first is the session."""
    copied: set[int] = field(default_factory=set)
    """Conversations its history comes from, until its first own turn."""
    is_restarted: bool = False
    is_forked: bool = False
    """Its next turn is the first after the copy."""
    is_odd: bool = False
    """Something came between that may lose evidence: a miss is not counted."""
    is_stolen: bool = False
    """Begun under another principal's ids or content, or a copy of such a one."""
    turns: int = 0

    @property
    def root(self) -> Talk:
        """The conversation at the top of its tree."""
        return self if self.parent is None else self.parent.root


@dataclass(frozen=True, slots=True)
class Client:
    """A kind of client."""

    name: str
    api: str
    agents: tuple[str, ...]
    headers: Callable[[Talk], dict[str, str]]
    id_names: tuple[str, ...] = ()
    """Its ids; a fork gets new ones."""
    rotating: tuple[str, ...] = ()
    """Those of its ids that a restart changes."""
    is_durable: bool = True
    """Whether an id names the thread for ever."""
    has_subagents: bool = True
    body: Callable[[Talk], dict[str, Any]] = lambda _talk: {}


def _canonical(talk: Talk) -> dict[str, str]:
    found = {"x-dynamo-session-id": talk.ids["id"]}
    if talk.parent is not None:
        found["x-dynamo-parent-session-id"] = talk.parent.ids["id"]
    return found


def _harness(talk: Talk) -> dict[str, str]:
    """Canonical ids for each of its agents, over one native id for all of them."""
    return _canonical(talk) | {"x-session-id": talk.root.ids["native"]}


def _claude(talk: Talk) -> dict[str, str]:
    found = {"x-claude-code-session-id": talk.root.ids["id"]}
    if talk.parent is not None:
        found["x-claude-code-agent-id"] = talk.ids["agent"]
        if talk.parent.parent is not None:
            found["x-claude-code-parent-agent-id"] = talk.parent.ids["agent"]
    return found


def _opencode(talk: Talk) -> dict[str, str]:
    found = {"x-session-id": talk.ids["id"], "x-session-affinity": talk.ids["affinity"]}
    if talk.parent is not None:
        found["x-parent-session-id"] = talk.parent.ids["id"]
    return found


def _kilo(talk: Talk) -> dict[str, str]:
    found = {"x-session-affinity": talk.ids["affinity"]}
    if "stable" in talk.ids:
        found["x-session-id"] = talk.ids["stable"]
    return found


CLIENTS: Final = (
    Client("canonical", "chat", ("my-harness/1.0",), _canonical, ("id",)),
    Client("harness", "chat", ("other-harness/1.0",), _harness, ("id", "native")),
    Client("claude", "messages", ("claude-cli/2.1.330",), _claude, ("id", "agent")),
    Client("opencode", "chat", ("opencode/1.18.33",), _opencode, ("id", "affinity"), ("affinity",)),
    Client(
        "kilo",
        "chat",
        ("Kilo-Code/5.1",),
        _kilo,
        ("affinity",),
        ("affinity",),
        is_durable=False,
        has_subagents=False,
    ),
    Client("plain", "chat", ("qwen/0.24", "python/1.0"), lambda _talk: {}, is_durable=False),
    Client("plain-messages", "messages", ("python/1.0",), lambda _talk: {}, is_durable=False),
    Client(
        "chain",
        "responses",
        ("openai-python/2.0",),
        lambda _talk: {},
        is_durable=False,
        has_subagents=False,
    ),
    Client(
        "cache-key",
        "responses",
        ("copilot/1.0",),
        lambda _talk: {},
        ("key",),
        is_durable=False,
        body=lambda talk: {"prompt_cache_key": talk.root.ids["key"]},
    ),
)


def headers_of(talk: Talk, more: dict[str, str]) -> Headers:
    """The fields of one request."""
    fields = {"user-agent": talk.agent, **talk.client.headers(talk), **more}
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def body_of(
    talk: Talk, history: list[Message], tail: Message, tools: tuple[str, ...], previous: str = ""
) -> bytes:
    """The body of one request; with ``previous`` it carries its tail alone."""
    api = talk.client.api
    messages = [tail] if previous else [*history, tail]
    document: dict[str, Any] = {"model": "m", **talk.client.body(talk)}
    document |= _BODIES[api](messages)
    if tools:
        document["tools"] = [_TOOLS[api](name) for name in tools]
    if previous:
        document["previous_response_id"] = previous
    return json.dumps(document).encode()


def response_id(api: str, number: int) -> str:
    """The id of an answer, as long as upstreams make them."""
    prefix = {"chat": "chatcmpl-", "messages": "msg_", "responses": "resp_"}[api]
    return f"{prefix}{hashlib.sha256(str(number).encode()).hexdigest()[:32]}"


def reply_of(api: str, said: Message, number: int) -> bytes:
    """The upstream's answer as one document."""
    name = response_id(api, number)
    if api == "chat":
        document: dict[str, Any] = {"id": name, "choices": [{"message": _chat_message(said)}]}
    elif api == "messages":
        content = _messages_message(said)["content"]
        document = {"id": name, "type": "message", "content": content}
    else:
        document = {"id": name, "object": "response", "output": _items(said)}
    return json.dumps(document).encode()


def _chat(messages: list[Message]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [{"role": "system", "content": "You are an agent."}]
    for message in messages:
        for call, text in message.results:
            found.append({"role": "tool", "tool_call_id": call, "content": text})
        if message.text:
            found.append(_chat_message(message))
    return {"messages": found}


def _chat_message(message: Message) -> dict[str, Any]:
    if not message.is_assistant:
        return {"role": "user", "content": message.text}
    found: dict[str, Any] = {"role": "assistant", "content": message.text}
    if message.calls:
        found["tool_calls"] = [
            {"id": call, "type": "function", "function": {"name": "task", "arguments": _args(text)}}
            for call, text in message.calls
        ]
    return found


def _messages(messages: list[Message]) -> dict[str, Any]:
    return {"max_tokens": 100, "messages": [_messages_message(one) for one in messages]}


def _messages_message(message: Message) -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": call, "content": text}
        for call, text in message.results
    ]
    if message.text:
        content.append({"type": "text", "text": message.text})
    for call, text in message.calls:
        content.append({"type": "tool_use", "id": call, "name": "task", "input": {"prompt": text}})
    return {"role": "assistant" if message.is_assistant else "user", "content": content}


def _responses(messages: list[Message]) -> dict[str, Any]:
    return {"input": [item for message in messages for item in _items(message)]}


def _items(message: Message) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"type": "function_call_output", "call_id": call, "output": text}
        for call, text in message.results
    ]
    role, kind = ("assistant", "output_text") if message.is_assistant else ("user", "input_text")
    if message.text:
        content = [{"type": kind, "text": message.text}]
        found.append({"type": "message", "role": role, "content": content})
    for call, text in message.calls:
        item = {"type": "function_call", "call_id": call, "name": "task", "arguments": _args(text)}
        found.append(item)
    return found


def _args(text: str) -> str:
    return json.dumps({"prompt": text})


_BODIES: Final[dict[str, Callable[[list[Message]], dict[str, Any]]]] = {
    "chat": _chat,
    "messages": _messages,
    "responses": _responses,
}
_TOOLS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {
    "chat": lambda name: {"type": "function", "function": {"name": name}},
    "messages": lambda name: {"name": name, "input_schema": {}},
    "responses": lambda name: {"type": "function", "name": name},
}
