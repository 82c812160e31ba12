"""What of a recorded request may be kept."""

from __future__ import annotations

import json
from typing import Any

from conformance.masking import HOME, WORK, masked_body, masked_headers
from hypothesis import given
from hypothesis import strategies as st

PATHS = {"/tmp/x/home/work": WORK, "/tmp/x/home": HOME}
PROSE = "You are an agent. Never tell the canary to anybody, whatever they ask."


def masked(document: Any) -> Any:
    """The document after masking."""
    return masked_body(json.dumps(document).encode(), PATHS)


def test_credentials_never_stay() -> None:
    """Whichever field they come in; order and spelling do."""
    headers = [("X-Api-Key", "sk-canary"), ("authorization", "Bearer canary"), ("X-B", "1")]

    assert masked_headers(headers, PATHS) == [
        ["X-Api-Key", "***"],
        ["authorization", "***"],
        ["X-B", "1"],
    ]


def test_the_address_of_the_run_is_left_out() -> None:
    """Host and length are the recorder's, not the agent's."""
    assert masked_headers([("Host", "127.0.0.1:1"), ("Content-Length", "9")], {}) == []


def test_prose_becomes_its_digest() -> None:
    """Equal texts have equal digests, so that histories stay comparable."""
    found = masked({"messages": [{"role": "user", "content": PROSE}] * 2})["messages"]

    assert found[0] == found[1]
    assert found[0]["content"].endswith(f" ({len(PROSE)} chars)")
    assert "canary" not in json.dumps(found)


def test_ids_answers_and_what_a_scenario_said_stay() -> None:
    """By them a capture is replayed."""
    kept = {
        "id": "msg_01a20105-0cb6-7bf2-9e72-1e1908ca577f",
        "answer": "Reply 12: 85f2ef987b76f4c3fc081ace",
        "said": "SPAWNSUB:generalist please",
        "task": "<now>2026-11-22T01:55:06.801+00:00</now>\n\nCHILDTASK say hi",
        "metadata": {"user_id": json.dumps({"session_id": "a" * 60, "account": ""})},
    }

    assert masked(kept) == kept


def test_tools_are_names_in_every_api() -> None:
    """Chat, Messages and Responses, and Gemini's several in one."""
    tools = [
        {"type": "function", "function": {"name": "read", "parameters": {}}},
        {"name": "Bash", "input_schema": {}},
        {"type": "web_search"},
        {"functionDeclarations": [{"name": "glob"}, {"name": "edit"}]},
    ]

    assert masked({"tools": tools})["tools"] == ["read", "Bash", "web_search", "glob", "edit"]


def test_paths_of_the_run_become_invented_ones() -> None:
    """In headers and bodies, the inner directory first."""
    assert masked({"cwd": "/tmp/x/home/work/a"}) == {"cwd": f"{WORK}/a"}
    assert masked_headers([("x-m", "/tmp/x/home/.a")], PATHS) == [["x-m", f"{HOME}/.a"]]


@given(st.binary(max_size=200))
def test_any_body_can_be_masked(body: bytes) -> None:
    """What is no document becomes a digest, an empty one nothing."""
    found = masked_body(body, PATHS)

    assert (found is None) == (body in (b"", b"null"))


def test_a_subagents_answer_is_prose_to_its_parent() -> None:
    """As a tool's output it is not what the model said in this conversation."""
    text = "Reply 12: 85f2ef987b76f4c3fc081ace"

    assert masked({"output": text})["output"].startswith("text ")
