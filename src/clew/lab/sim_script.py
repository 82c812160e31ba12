"""What the simulator answers: scripted replies first, then directives in the prompt, then a line.

Directives stand in the newest user text: ``SPAWNSUB`` (or ``SPAWNSUB:agent``, where the tool wants
a name that it does not list) calls the offered subagent tool with the prompt ``CHILDTASK say hi``;
``CALLTOOL name`` calls that tool. Arguments satisfy the tool's schema. A subagent that must report
by a tool of its own (`REPORT_TOOLS`) does so at once.
Everything else is a text of its own: ``Reply n: <hex>``. Equal seed and order give equal answers.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict, deque
from typing import Any, Final

import msgspec

from clew.lab.sim_dialect import Ask, Tool, ToolCall, count_tokens
from clew.lab.sim_schema import named_agent, satisfy

SUBAGENT_TOOLS: Final = (
    "Agent",
    "Task",
    "task",
    "agent",
    "spawn_agent",
    "invoke_agent",
    "subagent",
    "Subagent",
    "use_subagents",
)
"""Names under which coding agents offer a subagent, in the order of preference."""
REPORT_TOOLS: Final = ("complete_task",)
"""Gemini CLI's subagents end with it, and are asked again until they do."""
_SPAWN_DIRECTIVE: Final = re.compile(r"SPAWNSUB(?::([\w-]+))?")
CHILD_PROMPT: Final = "CHILDTASK say hi"
MAX_QUEUED_REPLIES: Final = 100_000
"""A whole benchmark may be scripted ahead; more is a mistake."""
_CALL_DIRECTIVE: Final = re.compile(r"CALLTOOL (\S+)")
_FILLER: Final = "and so the thread goes on through the labyrinth, "


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call of a scripted reply; ``arguments`` is an object or JSON text."""

    name: str
    arguments: Any = msgspec.field(default_factory=dict)
    id: str = ""


class ScriptedReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the queue; several fields may be given together."""

    text: str = ""
    reasoning: str = ""
    tool_call: ScriptedCall | None = None
    status: int = 200
    """Other than 200: the vendor's error of that status."""
    cut_after: int | None = None
    """Drop the connection after this many generated tokens (0: before the first)."""
    delay_ms: float = 0.0
    """Added to the latency."""


class Plan(msgspec.Struct, frozen=True):
    """What one call is answered."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    status: int = 200
    cut_after: int | None = None
    delay_ms: float = 0.0


class Script:
    """The queues of scripted replies and the rules behind them. One simulator's state."""

    def __init__(self, seed: int, reply_tokens: int) -> None:
        self._seed = seed
        self._reply_tokens = reply_tokens
        self._queues: defaultdict[str, deque[ScriptedReply]] = defaultdict(deque)

    def token(self, number: int) -> str:
        """24 hexadecimal digits for the call of this number."""
        return hashlib.sha256(f"{self._seed}:{number}".encode()).hexdigest()[:24]

    def queue(self, replies: list[ScriptedReply], key: str = "") -> int:
        """Append to a queue; how many wait in it now. Raises ValueError above the bound."""
        waiting = self._queues[key]
        if len(waiting) + len(replies) > MAX_QUEUED_REPLIES:
            raise ValueError(f"more than {MAX_QUEUED_REPLIES} replies")
        waiting.extend(replies)
        return len(waiting)

    def clear(self) -> None:
        """Drop all scripted replies."""
        self._queues.clear()

    def plan(self, ask: Ask, number: int, key: str) -> Plan:
        """The answer to one call; consumes a scripted reply where one waits."""
        waiting = self._queues.get(key)
        if waiting:
            return self._scripted(waiting.popleft(), number)
        call = self._directed(ask, number)
        if call is not None:
            return Plan(calls=(call,))
        if ask.response_schema is not None:
            value = satisfy(ask.response_schema)
            return Plan(text=msgspec.json.encode(value).decode())
        return Plan(text=self._line(number))

    def _scripted(self, reply: ScriptedReply, number: int) -> Plan:
        calls: tuple[ToolCall, ...] = ()
        if reply.tool_call is not None:
            given = reply.tool_call.arguments
            given = msgspec.json.decode(given) if isinstance(given, str) else given
            text = msgspec.json.encode(given).decode()
            call_id = reply.tool_call.id or self._call_id(number)
            calls = (ToolCall(call_id, reply.tool_call.name, text),)
        text = reply.text or ("" if calls else self._line(number))
        return Plan(text, reply.reasoning, calls, reply.status, reply.cut_after, reply.delay_ms)

    def _directed(self, ask: Ask, number: int) -> ToolCall | None:
        asked = _CALL_DIRECTIVE.search(ask.newest)
        spawns = _SPAWN_DIRECTIVE.search(ask.newest)
        agent = ""
        names: tuple[str, ...] = REPORT_TOOLS
        if asked is not None:
            names = (asked[1],)
        elif spawns is not None and CHILD_PROMPT not in ask.newest:
            agent, names = spawns[1] or "", SUBAGENT_TOOLS
        tool = next((t for name in names for t in ask.tools if t.name == name), None)
        return None if tool is None else self._call(tool, agent, number)

    def _call(self, tool: Tool, agent: str, number: int) -> ToolCall:
        value = satisfy(tool.schema, CHILD_PROMPT, agent or named_agent(tool.description))
        text = CHILD_PROMPT if tool.is_freeform else msgspec.json.encode(value).decode()
        return ToolCall(self._call_id(number), tool.name, text, tool.namespace, tool.is_freeform)

    def _call_id(self, number: int) -> str:
        return f"call_{self.token(number)}"

    def _line(self, number: int) -> str:
        line = f"Reply {number}: {self.token(number)}"
        missing = self._reply_tokens - count_tokens(line)
        if missing <= 0:
            return line
        return (line + " " + _FILLER * (missing * 4 // len(_FILLER) + 1))[: self._reply_tokens * 4]
