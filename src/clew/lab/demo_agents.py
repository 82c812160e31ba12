"""The demo's agents: they talk as the real ones do, over HTTP, with growing histories.

Each agent sends the headers of its model (`docs/identity.md`); nothing in it knows of Clew. What is
expected of them afterwards is said beside them, so that the demo checks itself.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import httpx
import msgspec

TIMEOUT_S: Final = 60.0
_GUIDE: Final = (
    "You work in a repository. Read before you write; keep changes small; say what you did and "
    "what you left out. Tests come with the change, names are whole words, comments say why. "
)
_TOOLS: Final = ("read_file", "write_file", "run_command", "spawn_agent")


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin API must say of one session when the script is over."""

    session_id: str
    source: str
    requests: int
    parent: str = ""
    """The parent's external id."""
    forked_from: str = ""
    """Likewise, of the session this one was forked from."""
    is_closed: bool = False
    note: str = ""
    """What this session shows, for the table."""


class Turn(msgspec.Struct, frozen=True):
    """One call that was made, for the progress line."""

    agent: str
    said: str
    session: str
    resolution: str


class Dialogue(ABC):
    """One conversation's history in one API's form, and how its stream is read."""

    path = ""

    def __init__(self, model: str, preamble: str) -> None:
        self.model = model
        self.preamble = preamble
        self.history: list[dict[str, Any]] = []

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """The request for the history as it stands."""

    @abstractmethod
    def text_of(self, event: Mapping[str, Any]) -> str:
        """The generated text of one stream event."""

    def add(self, role: str, text: str) -> None:
        """Append a message."""
        self.history.append({"role": role, "content": text})

    def copy(self) -> Dialogue:
        """The same history, to go on elsewhere."""
        copied = type(self)(self.model, self.preamble)
        copied.history = list(self.history)
        return copied


class MessagesDialogue(Dialogue):
    """Anthropic messages; the cache marker stands at the newest message."""

    path = "/v1/messages"

    def body(self) -> dict[str, Any]:  # noqa: D102  the base's
        *before, newest = self.history
        marked = {"type": "text", "text": newest["content"], "cache_control": {"type": "ephemeral"}}
        earlier = [
            {"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in before
        ]
        schema = {"type": "object", "properties": {}}
        return {
            "model": self.model,
            "max_tokens": 1_000,
            "stream": True,
            "system": self.preamble,
            "tools": [{"name": name, "input_schema": schema} for name in _TOOLS],
            "messages": [*earlier, {"role": "user", "content": [marked]}],
        }

    def text_of(self, event: Mapping[str, Any]) -> str:  # noqa: D102  the base's
        return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""


class ResponsesDialogue(Dialogue):
    """OpenAI responses, the whole history each time as Codex sends it."""

    path = "/v1/responses"

    def body(self) -> dict[str, Any]:  # noqa: D102  the base's
        return {
            "model": self.model,
            "stream": True,
            "store": False,
            "instructions": self.preamble,
            "tools": [{"type": "function", "name": name, "parameters": {}} for name in _TOOLS],
            "input": [{"type": "message", **message} for message in self.history],
        }

    def text_of(self, event: Mapping[str, Any]) -> str:  # noqa: D102  the base's
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


class ChatDialogue(Dialogue):
    """OpenAI chat completions, usage asked for."""

    path = "/v1/chat/completions"

    def body(self) -> dict[str, Any]:  # noqa: D102  the base's
        return {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "system", "content": self.preamble}, *self.history],
        }

    def text_of(self, event: Mapping[str, Any]) -> str:  # noqa: D102  the base's
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _preamble(agent: str) -> str:
    """Some 2,000 tokens, different for each kind of agent, equal in each of its sessions."""
    return f"You are {agent}.\n" + _GUIDE * 32


def _identifier(name: str) -> str:
    """A UUID that is the same in every run."""
    return str(uuid5(NAMESPACE_URL, f"clew-demo/{name}"))


class Agent:
    """One process of an agent: its connection, its headers, its conversation."""

    def __init__(self, url: str, name: str, headers: Mapping[str, str], dialogue: Dialogue) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self._name = name
        self._headers = dict(headers)
        self.dialogue = dialogue

    def say(self, text: str, **headers: str) -> Turn:
        """One turn. Raises httpx.HTTPError when it fails, and RuntimeError on an empty reply."""
        self.dialogue.add("user", text)
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        with self._client.stream(
            "POST",
            self.dialogue.path,
            json=self.dialogue.body(),
            headers={**self._headers, **extra},
        ) as response:
            if response.is_error:
                response.read()
                raise RuntimeError(f"{self._name}: {response.status_code} {response.text[:300]}")
            lines = [line for line in response.iter_lines() if line.startswith("data: {")]
        reply = "".join(self.dialogue.text_of(json.loads(line[6:])) for line in lines)
        if not reply:
            raise RuntimeError(f"{self._name}: an empty reply to {text!r}")
        self.dialogue.add("assistant", reply)
        named = response.headers
        session = named.get("x-clew-session-id", "")
        return Turn(self._name, text, session, named.get("x-clew-resolution", ""))

    def leave(self) -> None:
        """End the process: its connections are gone."""
        self._client.close()


def claude_code(url: str) -> Iterator[Turn]:
    """A root that spawns a subagent in its second turn; both share the session header."""
    root = _identifier("claude")
    headers = {
        "user-agent": "claude-cli/2.1.330 (external, cli)",
        "anthropic-version": "2023-06-01",
        "x-api-key": "sk-ant-demo",
        "x-claude-code-session-id": root,
    }
    guide = _preamble("a coding agent")
    model = "claude-sonnet-4-5"
    main = Agent(url, "claude-code", headers, MessagesDialogue(model, guide))
    yield main.say("Why does the login test fail on Mondays?")
    yield main.say("Have an agent look for other tests that read the clock.")
    child_headers = {**headers, "x-claude-code-agent-id": "a0f31c7be2d94485a"}
    guide = _preamble("a searching agent")
    child = Agent(url, "  subagent", child_headers, MessagesDialogue(model, guide))
    yield child.say("List every test that reads the wall clock.")
    yield child.say("Leave out those that freeze it.")
    child.leave()
    yield main.say("It found three. Give them the fixed clock, too.")
    yield main.say("Run the suite.")
    main.leave()


def codex(url: str) -> Iterator[Turn]:
    """A thread with a child thread, and later a fork that copies the history."""
    thread, child, fork = (_identifier(f"codex-{part}") for part in ("root", "child", "fork"))

    def headers(own: str, root: str, **more: str) -> dict[str, str]:
        extra = {name.replace("_", "-"): value for name, value in more.items()}
        return {
            "user-agent": "codex_cli_rs/0.169.0 (demo)",
            "originator": "codex_cli_rs",
            "authorization": "Bearer sk-demo",
            "session-id": root,
            "thread-id": own,
            **extra,
        }

    guide = _preamble("a coding agent in a terminal")
    main = Agent(url, "codex", headers(thread, thread), ResponsesDialogue("gpt-5", guide))
    yield main.say("Port the importer to the new schema.")
    spawned = headers(child, thread, x_codex_parent_thread_id=thread)
    helper = Agent(url, "  child thread", spawned, ResponsesDialogue("gpt-5", guide))
    yield helper.say("Write the migration for the importer.")
    yield helper.say("And the way back.")
    helper.leave()
    yield main.say("Merge the migration.")
    source = json.dumps({"thread_id": fork, "forked_from_thread_id": thread})
    forked = headers(fork, fork, x_codex_turn_metadata=source)
    other = Agent(url, "  fork", forked, main.dialogue.copy())
    main.leave()
    yield other.say("Try it without the migration instead.")
    other.leave()


def opencode(url: str) -> Iterator[Turn]:
    """A session that ends with its process and goes on in a new one, under the same id."""
    session = "ses_demo7421Qdv5q"
    headers = {
        "user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.23",
        "authorization": "Bearer sk-demo",
        "x-session-id": session,
        "x-session-affinity": session,
    }
    guide = _preamble("an open coding agent")
    first = Agent(url, "opencode", headers, ChatDialogue("gpt-5-mini", guide))
    yield first.say("Add a dark theme.")
    yield first.say("The buttons, too.")
    first.leave()
    again = Agent(url, "  restarted", headers, first.dialogue.copy())
    yield again.say("Where were we?")
    again.leave()


def curl(url: str) -> Iterator[Turn]:
    """Any program at all: one header names the session, another ends it."""
    headers = {"user-agent": "curl/8.5.0", "authorization": "Bearer sk-demo"}
    headers["x-dynamo-session-id"] = "nightly-report"
    script = Agent(url, "curl", headers, ChatDialogue("gpt-5", "Be brief."))
    yield script.say("Summarise the night's failures.")
    yield script.say("In one line.", x_dynamo_session_final="true")
    script.leave()


SCRIPT: Final[tuple[Callable[[str], Iterator[Turn]], ...]] = (claude_code, codex, opencode, curl)
CALLS: Final = 16

_CODEX_ROOT: Final = _identifier("codex-root")
EXPECTED: Final = (
    Expected(session_id=_identifier("claude"), source="claude-code", requests=4),
    Expected(
        session_id="a0f31c7be2d94485a",
        source="claude-code",
        requests=2,
        parent=_identifier("claude"),
        note="subagent",
    ),
    Expected(session_id=_CODEX_ROOT, source="codex", requests=2),
    Expected(
        session_id=_identifier("codex-child"),
        source="codex",
        requests=2,
        parent=_CODEX_ROOT,
        note="child thread",
    ),
    Expected(
        session_id=_identifier("codex-fork"),
        source="codex",
        requests=1,
        forked_from=_CODEX_ROOT,
        note="fork",
    ),
    Expected(session_id="ses_demo7421Qdv5q", source="opencode", requests=3, note="over a restart"),
    Expected(
        session_id="nightly-report",
        source="canonical",
        requests=2,
        is_closed=True,
        note="closed by header",
    ),
)
