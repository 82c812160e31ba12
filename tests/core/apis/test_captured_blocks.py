"""The recorded requests of real agents: each relayed answer is found where it is quoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.core.apis.quoting import DIGESTER, answer, digests, stream

from clew.core.apis.table import api_for
from clew.core.lineage.blocks import Conversation, Reply
from clew.lab.sim_dialect import ToolCall

CAPTURES = sorted((Path(__file__).parents[3] / "conformance" / "captures").glob("*.jsonl"))

QUOTED = {
    "claude-code-2.1.197": 1,
    "claude-code-2.1.330": 6,
    "cline-3.0.65": 1,
    "codex-0.169.0": 6,
    "continue-cn-1.5.47": 1,
    "copilot-cli-1.0.102": 3,
    "droid-0.215.0": 1,
    "gemini-cli-0.61.0": 1,
    "hermes-agent-0.19.0": 1,
    "kilo-7.7.7": 3,
    "openai-agents-py-0.24.0": 2,
    "opencode-1.18.33": 2,
    "pi-0.74.2": 2,
    "qwen-code-0.24.4": 4,
}
"""Replies that stand in a later history of the same file."""


def rows(path: Path) -> list[dict[str, Any]]:
    """The capture's inference calls in order."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in found if api_of(row) is not None]


def api_of(row: dict[str, Any]) -> Any:
    """The API that a captured request speaks."""
    return api_for(row["method"].encode(), row["path"].partition("?")[0].encode())


def asked(row: dict[str, Any]) -> Conversation:
    """The content of a captured request."""
    body = json.dumps(row["body"]).encode()
    found = api_of(row).conversation(row["path"].partition("?")[0].encode(), body, DIGESTER)
    assert isinstance(found, Conversation)
    return found


def replied(row: dict[str, Any]) -> Reply:
    """The content of its answer, streamed as the capture's upstream streamed it."""
    reply, api = row["reply"], api_of(row)
    call = reply.get("tool_call")
    calls = [ToolCall(call["id"], call["name"], call["arguments"])] if call else []
    streamed = stream(api.name, answer(reply.get("text", ""), calls=calls))
    found = api.reply(streamed, True, DIGESTER)
    assert isinstance(found, Reply)
    return found


def is_quoted(row: dict[str, Any], later: dict[str, Any]) -> bool:
    """Whether the later request's body has the answer's text or the id of its call in it."""
    reply = row["reply"]
    needle = reply["tool_call"]["id"] if "tool_call" in reply else reply["text"]
    return needle in json.dumps(later["body"]) and api_of(row) is api_of(later)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_relayed_answer_is_found_in_every_history_that_quotes_it(path: Path) -> None:
    """Each of its blocks, but for the ids that the capture's upstream minted otherwise."""
    captured, found = rows(path), set()
    for number, row in enumerate(captured):
        relayed = replied(row)
        bare = digests(replied({**row, "reply": {"text": ""}}).blocks)
        for later in captured[number + 1 :]:
            if not is_quoted(row, later):
                continue
            history = asked(later).history
            wanted = {block.digest for block in relayed.blocks if block.is_assistant} - bare
            if "tool_call" in row["reply"]:
                wanted = {digest for digest in wanted if digest not in item_ids(row)}
            shown = digests(block for block in history if block.is_assistant)
            assert wanted - item_ids(row) <= shown, (row["n"], later["n"])
            assert relayed.calls <= asked(later).answers, (row["n"], later["n"])
            found.add(row["n"])
    assert len(found) == QUOTED[path.stem]


def item_ids(row: dict[str, Any]) -> set[Any]:
    """Ids that the simulator gives to the items of Responses, unlike the capture's upstream."""
    token = answer().token
    names = [f"{kind}_{token}" for kind in ("msg", "rs", "resp")]
    if "tool_call" in row["reply"]:
        names.append(f"fc_{row['reply']['tool_call']['id']}")
    return {DIGESTER.digest(b"id", name.encode()) for name in names}


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_every_captured_request_has_content(path: Path) -> None:
    """An opening, something in its tail, and its tools by name."""
    for row in rows(path):
        found = asked(row)
        where = row["n"]
        assert found.opening, where
        assert found.tail, where
        names = [tool for tool in row["body"].get("tools") or () if isinstance(tool, str)]
        assert found.tools == frozenset(names), where
        assert not found.has_response_schema, where


def test_a_child_is_named_by_its_parents_argument() -> None:
    """Qwen Code's subagent sends no id; its task stands in its opening."""
    path = next(path for path in CAPTURES if path.stem.startswith("qwen-code"))
    by_number = {row["n"]: row for row in rows(path)}

    arguments = replied(by_number[5]).arguments
    assert "CHILDTASK say hi" in arguments
    assert "CHILDTASK say hi" in asked(by_number[7]).opening
