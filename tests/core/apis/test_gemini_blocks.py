"""What is a block of Gemini, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.apis.quoting import DIGESTER, body, digests, held, of
from tests.core.apis.samples import GEMINI_ARRAY, GEMINI_ERROR_STREAM, GEMINI_STREAM

from clew.core.apis.gemini import GEMINI
from clew.core.lineage.blocks import Conversation

PATH = b"/v1beta/models/gemini-2.5-pro:generateContent"
SIGNATURE = "CiQB0a1b2c3d4e5f"
TEXT = 'Hello, "error": {}'


def read(*contents: Any, **more: Any) -> Conversation:
    """The content of a request."""
    return held(GEMINI.conversation(PATH, body("gemini", *contents, **more), DIGESTER))


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    """A content of the model."""
    return {"role": "model", "parts": list(parts)}


def test_chunks_are_one_text_however_they_are_kept() -> None:
    """Joined, as parts, or as one content per chunk."""
    joined = read(model({"text": "Hello there"}))
    parts = read(model({"text": "Hello "}, {"text": "there"}))
    contents = read(model({"text": "Hello "}), model({"text": "there"}))

    assert joined.history == parts.history == contents.history
    assert digests(joined.history) == {of("assistant text", "Hello there")}


def test_thoughts_do_not_part_a_text() -> None:
    """Most clients leave them out of the history."""
    with_thought = read(model({"text": "a"}, {"text": "hm", "thought": True}, {"text": "b"}))

    assert digests(with_thought.history) == {of("reasoning", "hm"), of("assistant text", "ab")}
    assert digests(read(model({"text": "ab"})).history) < digests(with_thought.history)


def test_a_call_parts_a_text() -> None:
    """What is said before a call is another block than what is said after it."""
    call = {"functionCall": {"name": "ls", "args": {"b": 1.0, "a": None}}}
    found = read(model({"text": "a"}, call, {"text": "b"}))

    wanted = {of("assistant text", "a"), of("call", 'ls\0{"a":null,"b":1}')}
    assert digests(found.history) == wanted | {of("assistant text", "b")}


def test_a_users_parts_are_blocks_of_their_own() -> None:
    """A reminder may move from one message to the next."""
    found = read(
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}, {"parts": [{"text": "c"}]}
    )

    assert digests(found.tail) == {of("user text", text) for text in "abc"}


def test_a_response_answers_its_call() -> None:
    """By its id where there is one; else it is known by its name."""
    response = {"name": "ls", "response": {"output": "x", "n": 1.0}}
    with_id = {**response, "id": "ls-1732200000123-0f3e5d"}
    found = read({"role": "user", "parts": [{"functionResponse": with_id}]})
    bare = read({"role": "function", "parts": [{"functionResponse": response}]})

    assert found.answers == {of("id", "ls-1732200000123-0f3e5d")}
    assert bare.answers == frozenset()
    assert digests(bare.tail) == {of("result", 'ls\0{"n":1,"output":"x"}')}
    assert found.opening == ""


def test_a_signature_is_an_id_on_any_part() -> None:
    """On a call, a text, or an empty text at the end of a stream; a dummy is none."""
    for part in ({"functionCall": {"name": "ls"}}, {"text": "a"}, {"text": ""}):
        found = read(model({**part, "thoughtSignature": SIGNATURE}))
        assert of("id", SIGNATURE) in digests(found.history)
    dummy = {"text": "", "thoughtSignature": "skip_thought_signature_validator"}
    assert read(model(dummy)).history == ()


@pytest.mark.parametrize("stream", [GEMINI_STREAM, GEMINI_ARRAY, GEMINI_ARRAY[:-1]])
def test_a_stream_is_read_as_events_or_as_an_array(stream: bytes) -> None:
    """The array may lack its end."""
    assert digests(GEMINI.reply(stream, True, DIGESTER).blocks) == {of("assistant text", TEXT)}


def test_what_came_before_an_end_too_early_counts() -> None:
    """An error, or an array that breaks off within a chunk."""
    cut = GEMINI_ARRAY[: GEMINI_ARRAY.index(b'"error') + 2]

    for stream in (GEMINI_ERROR_STREAM, cut):
        assert digests(GEMINI.reply(stream, True, DIGESTER).blocks) == {of("assistant text", "Hel")}


def test_field_names_in_snake_case_are_read() -> None:
    """Protobuf's JSON takes both."""
    camel = [
        model({"functionCall": {"name": "ls", "args": {}}, "thoughtSignature": SIGNATURE}),
        {"parts": [{"functionResponse": {"name": "ls", "response": {"a": 1}}}]},
    ]
    snake = json.loads(
        json.dumps(camel)
        .replace("functionCall", "function_call")
        .replace("functionResponse", "function_response")
        .replace("thoughtSignature", "thought_signature")
    )
    one, other = read(*camel), read(*snake)

    assert (one.history, one.tail) == (other.history, other.tail)


def test_a_token_count_has_the_content_of_its_request() -> None:
    """``:countTokens`` may wrap the request that it counts."""
    inner = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    wrapped = json.dumps({"generateContentRequest": inner}).encode()

    assert digests(held(GEMINI.conversation(PATH, wrapped, DIGESTER)).tail) == {
        of("user text", "hi")
    }


def test_tools_and_schema_are_seen() -> None:
    """Functions by name, the provider's tools by field, masked tools as they are."""
    declared = [{"name": "ls"}, {"name": "cat"}]
    tools = [{"functionDeclarations": declared}, {"googleSearch": {}}, "text e3828b308170"]

    assert read(tools=tools).tools == {"ls", "cat", "googleSearch", "text e3828b308170"}
    for name in ("responseSchema", "responseJsonSchema"):
        assert read(generationConfig={name: {"type": "object"}}).has_response_schema
    assert not read(generationConfig={"temperature": 1}).has_response_schema
