"""What of a recorded request may be kept in a file: its structure, its ids, none of its prose.

Credentials become ``***``. A text becomes ``text <digest> (<n> chars)``, equal texts by equal
digests, unless it is an id, a number, an answer of the simulator or a line that a scenario said.
Tools become their names. Paths of the run become those of an invented home.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from clew.core.billing import CREDENTIAL_HEADERS

HOME: Final = str(PurePosixPath("/home", "dev"))
WORK: Final = f"{HOME}/project"
SECRET: Final = "***"
_SHORT: Final = 24
"""Characters that no prose worth hiding has."""
_ID: Final = re.compile(r"[\w.:/@+=~-]{1,128}")
_ANSWER: Final = re.compile(r"Reply \d+: [0-9a-f]{24}")
_KEPT: Final = frozenset({"user_id", "arguments", "x-codex-turn-metadata"})
"""Fields that hold JSON as text, in which the ids are."""
_KEPT_CHARS: Final = 1_000
_SAID: Final = re.compile(r"(?:(?s:.{0,100})(?:SPAWNSUB|CHILDTASK)|hi\b).{0,40}")
"""The prompts of the scenarios, with what an agent puts before a task (the time)."""
_RESULT: Final = "output"
"""Of a tool: a subagent's answer there is the parent's input, nothing it was told by the model."""


def masked_headers(headers: Iterable[tuple[str, str]], paths: Mapping[str, str]) -> list[list[str]]:
    """The headers in their order, without ``Host``, length and every credential."""
    kept = []
    for name, value in headers:
        lowered = name.lower()
        if lowered in ("host", "content-length", "connection"):
            continue
        is_secret = lowered.encode() in CREDENTIAL_HEADERS
        kept.append([name, SECRET if is_secret else _moved(value, paths)])
    return kept


def masked_body(body: bytes, paths: Mapping[str, str]) -> Any:
    """The document with its texts masked; None where there is none."""
    if not body:
        return None
    try:
        document = json.loads(_moved(body.decode(), paths))
    except ValueError:
        return f"text {_digest(body.decode(errors='replace'))} ({len(body)} chars)"
    return _masked(document, "")


def _moved(text: str, paths: Mapping[str, str]) -> str:
    for real, invented in paths.items():
        text = text.replace(real, invented)
    return text


def _masked(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, dict):
        return {name: _masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        if key == "tools":
            return [name for tool in value for name in _names(tool)]
        return [_masked(inner, key) for inner in value]
    return value


def _names(tool: Any) -> list[str]:
    """The names of one declared tool; Gemini declares several in one."""
    if not isinstance(tool, dict):
        return []
    declared = tool.get("functionDeclarations") or tool.get("function_declarations")
    if isinstance(declared, list):
        return [name for one in declared for name in _names(one)]
    function = tool.get("function")
    found = function if isinstance(function, dict) else tool
    return [str(found.get("name") or found.get("type") or "")]


def _text(text: str, key: str) -> str:
    is_kept = key in _KEPT and len(text) <= _KEPT_CHARS
    is_answer = key != _RESULT and _ANSWER.fullmatch(text)
    is_plain = is_answer or _ID.fullmatch(text) or _SAID.fullmatch(text.strip())
    if is_kept or is_plain or len(text) <= _SHORT:
        return text
    return f"text {_digest(text)} ({len(text)} chars)"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
