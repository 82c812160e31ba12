"""The recorded requests of real agents that send no thread id, placed by their content alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clew.core.apis.table import api_for
from clew.core.claim import SessionKey
from clew.core.clients import product_of
from clew.core.lineage.blocks import Conversation, Digester
from clew.core.lineage.index import SIDE_NODE, Limits, Relation, ScopeIndex

CAPTURES = sorted((Path(__file__).parents[3] / "conformance" / "captures").glob("*.jsonl"))
DIGESTER = Digester(b"secret")


def rows(path: Path) -> list[dict[str, Any]]:
    """The requests of a file that only their content can place."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in found if "thread" in row["expect"]]


def payload(api: str, reply: dict[str, Any]) -> dict[str, Any]:
    """The answer as one document of this API."""
    text, call = reply.get("text"), reply.get("tool_call")
    if api == "chat":
        calls = call and [{"id": call["id"], "type": "function", "function": call}]
        message = {"role": "assistant", "content": text, "tool_calls": calls}
        return {"choices": [{"index": 0, "message": message}]}
    if api == "messages":
        return {"role": "assistant", "content": [{"type": "text", "text": text}]}
    if api == "responses" and call:
        return {"output": [{"type": "function_call", "call_id": call["id"], **call}]}
    if api == "responses":
        content = [{"type": "output_text", "text": text}]
        return {"output": [{"type": "message", "role": "assistant", "content": content}]}
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}


class Desk:
    """Places requests as the keeper does, one index a scope."""

    def __init__(self) -> None:
        self.scopes: dict[tuple[str, str], ScopeIndex] = {}
        self.made = 0

    def place(self, row: dict[str, Any]) -> tuple[SessionKey, SessionKey | None, Relation]:
        """The session of one request, its parent, and how it was found."""
        path = row["path"].encode()
        api = api_for(b"POST", path.partition(b"?")[0])
        assert api is not None
        agent = next(value for name, value in row["headers"] if name.lower() == "user-agent")
        scope = (product_of(agent), api.name)
        index = self.scopes.setdefault(scope, ScopeIndex(Limits()))
        content = api.conversation(path, json.dumps(row["body"]).encode(), DIGESTER)
        assert content is not None
        verdict = index.weigh(content, float(row["n"]), 3600.0, is_subagent=False)
        parent = verdict.session if verdict.relation is Relation.CHILD else None
        key = verdict.session
        if key is None or verdict.relation in (Relation.CHILD, Relation.FORKS):
            self.made += 1
            key = SessionKey(f"cs_{self.made}")
            index.open(key, content.tools, float(row["n"]))
        node = self._take(index, key, content, row, verdict.relation)
        said = json.dumps(payload(api.name, row["reply"])).encode()
        index.answered(key, node, api.reply(said, False, DIGESTER))
        return key, parent, verdict.relation

    def _take(
        self,
        index: ScopeIndex,
        key: SessionKey,
        content: Conversation,
        row: dict[str, Any],
        relation: Relation,
    ) -> int:
        if relation is Relation.SIDE:
            index.show(key, (*content.history, *content.tail), SIDE_NODE)
            return SIDE_NODE
        verdict = index.weigh(content, float(row["n"]), 3600.0, is_subagent=False)
        return index.take(key, content, verdict, float(row["n"]))


@pytest.mark.parametrize("path", [p for p in CAPTURES if rows(p)], ids=lambda path: path.stem)
def test_a_capture_without_ids_falls_into_its_threads(path: Path) -> None:
    """Equal threads are one session, different ones are not, side calls and parents are known."""
    desk = Desk()
    sessions: dict[str, SessionKey] = {}
    for row in rows(path):
        expect, where = row["expect"], f"{path.name}:{row['n']}"
        key, parent, relation = desk.place(row)
        assert key == sessions.setdefault(expect["thread"], key), where
        assert len(set(sessions.values())) == len(sessions), where
        if expect.get("kind") == "side":
            assert relation is Relation.SIDE, where
        if expect.get("parent_thread"):
            assert parent == sessions[expect["parent_thread"]], where
