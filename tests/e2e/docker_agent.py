"""docker-agent as it is seen on the wire: what it sends to a models gateway, and its history.

From its public sources (`pkg/httpclient`, `pkg/model/provider/base`, `pkg/sessiontitle`,
`pkg/runtime/compactor`, `pkg/modelsgateway`): the headers are set only beside ``X-Cagent-Forward``,
the gateway's own query goes onto every request, a title call bears the session's id, and a
compaction runs as a session of its own under an id of its own.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

USER_AGENT: Final = "Cagent/v1.88.0 (linux; amd64)"
INSTALLATION: Final = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
FIXED: Final = {
    "X-Cagent-Lang": "go",
    "X-Cagent-OS": "linux",
    "X-Cagent-Arch": "amd64",
    "X-Cagent-Runtime": "cagent",
    "X-Cagent-Runtime-Version": "v1.88.0",
    "X-Cagent-Id": INSTALLATION,
}
TITLE: Final = {"X-Cagent-GeneratingTitle": "1"}
COMPACTING: Final = {"X-Cagent-Compacting": "1"}
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "transfer_task",
        "description": "Use this function to transfer a task to the selected team member.",
        "parameters": {
            "type": "object",
            "properties": {"agent": {"type": "string"}, "task": {"type": "string"}},
            "required": ["agent", "task"],
        },
    },
}
TITLE_PROMPT: Final = (
    "Based on the following recent user messages, generate a short title.\n\n1. {}"
)
SUMMARY_PROMPT: Final = "Based on the conversation above, create a comprehensive summary."

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DockerAgent:
    """One installation that is started with ``--models-gateway GATEWAY``."""

    gateway: str
    """With path and query, as the user gave it."""
    forward: str = ""
    """Where its provider is: ``base_url`` of the model, else the provider's own. Empty: the
    gateway is configured as a plain ``base_url``, and no header of its own is sent."""
    token: str = ""
    """``DOCKER_TOKEN``; sent to gateways on loopback and at Docker only."""

    def headers(self, session: str = "", **more: str) -> dict[str, str]:
        """What every call bears."""
        found = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        if self.forward:
            found |= {"X-Cagent-Forward": self.forward, **FIXED}
            found |= {"X-Cagent-Provider": "openai", "X-Cagent-Model": "gpt-5"}
            if session:
                found["X-Cagent-Session-Id"] = session
        return found | more

    def url(self, path: str, query: str = "") -> str:
        """An address below the gateway's, its query joined and sorted by name."""
        parts = urlsplit(self.gateway)
        pairs = sorted(parse_qsl(query) + parse_qsl(parts.query), key=lambda pair: pair[0])
        joined = f"?{urlencode(pairs)}" if pairs else ""
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}{joined}"

    def chat(
        self, messages: list[Message], session: str = "", *, is_bare: bool = False, **more: str
    ) -> httpx.Response:
        """One call of the OpenAI dialect, streamed; ``is_bare``: without tools."""
        body: dict[str, Any] = {"model": "gpt-5", "messages": messages, "stream": True}
        body["stream_options"] = {"include_usage": True}
        if not is_bare:
            body["tools"] = [TOOL]
        headers = self.headers(session, **more)
        return httpx.post(self.url("/v1/chat/completions"), json=body, headers=headers)

    def messages(self, messages: list[Message], session: str = "") -> httpx.Response:
        """One call of the Anthropic dialect."""
        body = {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": messages}
        headers = self.headers(session, **{"anthropic-version": "2023-06-01"})
        headers |= {"X-Cagent-Provider": "anthropic", "X-Api-Key": self.token or "none"}
        return httpx.post(self.url("/v1/messages"), json=body, headers=headers)

    def gemini(self, text: str, session: str = "") -> httpx.Response:
        """One call of the Gemini dialect, streamed."""
        body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        headers = self.headers(session) | {"X-Cagent-Provider": "google"}
        path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
        return httpx.post(self.url(path, "alt=sse"), json=body, headers=headers)

    def models(self) -> httpx.Response:
        """What the model picker asks: without any header of its own."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.get(self.url("/v1/models"), headers=headers)


@dataclass(slots=True)
class Conversation:
    """One session of the agent: its id, and the history it sends."""

    agent: DockerAgent
    session: str = field(default_factory=lambda: str(uuid.uuid4()))
    history: list[Message] = field(default_factory=list)

    def say(self, text: str) -> httpx.Response:
        """A turn; its answer joins the history."""
        self.history.append({"role": "user", "content": text})
        system = {"role": "system", "content": "You are a careful archivist."}
        response = self.agent.chat([system, *self.history], self.session)
        self.history.append({"role": "assistant", "content": text_of(response)})
        return response

    def title(self, text: str) -> httpx.Response:
        """The title call for a user's message, which may come before the turn it is about."""
        messages = [
            {"role": "system", "content": "You generate concise titles."},
            {"role": "user", "content": TITLE_PROMPT.format(text)},
        ]
        return self.agent.chat(messages, self.session, is_bare=True, **TITLE)

    def compact(self, kept: int = 0) -> httpx.Response:
        """Summarise all but the ``kept`` newest messages, under an id that is used for it alone."""
        split = len(self.history) - kept
        old, tail = self.history[:split], self.history[split:]
        messages = [
            {"role": "system", "content": "You summarise conversations."},
            *old,
            {"role": "user", "content": SUMMARY_PROMPT},
        ]
        response = self.agent.chat(messages, str(uuid.uuid4()), is_bare=True, **COMPACTING)
        summary = {"role": "user", "content": f"Session Summary: {text_of(response)}"}
        self.history = [summary, *tail]
        return response


def text_of(response: httpx.Response) -> str:
    """The text of a streamed chat answer."""
    response.raise_for_status()
    pieces = []
    for line in response.text.splitlines():
        data = line.removeprefix("data: ")
        if data != line and data != "[DONE]":
            choices = httpx.Response(200, text=data).json()["choices"]
            pieces += [choice["delta"].get("content") or "" for choice in choices]
    return "".join(pieces)
