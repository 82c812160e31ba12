"""A value that satisfies a JSON schema, so that a real agent accepts a scripted tool call.

Covers what tools of coding agents use; where a schema allows several values the first is taken.
Properties that carry the task of a subagent get the prompt whether required or not, and a required
agent name that is no enumeration gets the name its description gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

PROMPT_NAMES: Final = ("prompt", "message", "task", "query", "objective", "instructions", "input")
"""Property names under which agents take a subagent's task, most specific first."""
AGENT_NAMES: Final = ("subagent_type", "subagent_name", "agent_name", "agent_type", "agent")
MAX_DEPTH: Final = 8
"""A schema that refers to itself ends here."""

Schema = Mapping[str, Any]


def satisfy(schema: Schema, prompt: str = "", agent: str = "") -> Any:
    """A value for ``schema``; its root may hold ``$defs``."""
    return _value(schema, schema, prompt, agent, 0)


def _value(schema: Schema, root: Schema, prompt: str, agent: str, depth: int) -> Any:
    schema = _resolved(schema, root)
    for chosen in ("const", "default"):
        if chosen in schema:
            return schema[chosen]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" and depth < MAX_DEPTH:
        return _object(schema, root, prompt, agent, depth)
    if kind == "array" and depth < MAX_DEPTH:
        item = _value(schema.get("items") or {}, root, prompt, agent, depth + 1)
        return [item] * max(int(schema.get("minItems", 0)), 0)
    return _scalar(str(kind), schema)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """References followed, the first alternative taken, conjunctions merged."""
    for _ in range(MAX_DEPTH):
        if "$ref" in schema:
            schema = _referred(str(schema["$ref"]), root)
        elif schema.get("anyOf") or schema.get("oneOf"):
            alternatives: Sequence[Schema] = schema.get("anyOf") or schema["oneOf"]
            rest = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
            schema = {**rest, **alternatives[0]}
        elif schema.get("allOf"):
            rest = {k: v for k, v in schema.items() if k != "allOf"}
            for part in schema["allOf"]:
                rest |= part
            schema = rest
        else:
            break
    return schema


def _referred(reference: str, root: Schema) -> Schema:
    found: Any = root
    for name in reference.lstrip("#/").split("/"):
        found = found[name]
    return found if isinstance(found, Mapping) else {}


def _object(schema: Schema, root: Schema, prompt: str, agent: str, depth: int) -> dict[str, Any]:
    properties: Mapping[str, Schema] = schema.get("properties") or {}
    required = list(schema.get("required") or ())
    carrier = next((name for name in PROMPT_NAMES if name in properties), "") if prompt else ""
    found: dict[str, Any] = {}
    for name, inner in properties.items():
        if name == carrier and _resolved(inner, root).get("type") == "string":
            found[name] = prompt
        elif name in AGENT_NAMES and name in required and "enum" not in inner:
            found[name] = agent or "general-purpose"
        elif name in required:
            found[name] = _value(inner, root, prompt, agent, depth + 1)
    return found


def _scalar(kind: str, schema: Schema) -> Any:
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
    if kind == "string":
        return "child task".ljust(int(schema.get("minLength", 0)), ".")
    return {"boolean": False, "null": None, "object": {}, "array": []}.get(kind)


def named_agent(description: str) -> str:
    """The first agent that a tool's description lists (``- general: …``); empty when none."""
    found = re.search(r"^\s*[-*]\s+\**([A-Za-z][\w-]*)\**\s*[:(]", description, re.MULTILINE)
    return found[1] if found else ""
