"""The official SDKs get through the gateway exactly what they get from the provider itself.

Every case runs twice from the provider's call 1, once directly and once through the gateway; what
the SDK returns must be equal, and the gateway's record must have the provider's own token counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest
from pydantic import BaseModel
from tests.e2e.processes import Gateway, Simulated

MODEL = "claude-haiku-4-5"
TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
LONG = "Tell me of the labyrinth. " * 60
Case = Callable[[str, dict[str, str]], Any]


# Plain HTTP needs no certificates, and reading them is most of what a client's start costs.
def _openai(url: str, headers: dict[str, str]) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1",
        api_key="sk-test",
        max_retries=0,
        default_headers=headers,
        http_client=openai.DefaultHttpxClient(verify=False),
    )


def _anthropic(url: str, headers: dict[str, str]) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=url,
        api_key="sk-ant-test",
        max_retries=0,
        default_headers=headers,
        http_client=anthropic.DefaultHttpxClient(verify=False),
    )


def _plain(value: Any) -> Any:
    """What the SDK returned, as plain data."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value]


def chat(url: str, headers: dict[str, str]) -> Any:
    """Chat completions, whole."""
    messages: Any = [{"role": "user", "content": LONG}]
    with _openai(url, headers) as client:
        return _plain(client.chat.completions.create(model="gpt-5", messages=messages))


def chat_stream(url: str, headers: dict[str, str]) -> Any:
    """Chat completions, streamed with usage."""
    messages: Any = [{"role": "user", "content": LONG}]
    with _openai(url, headers) as client:
        chunks = client.chat.completions.create(
            model="gpt-5", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        return _plain(chunks)


def chat_tool(url: str, headers: dict[str, str]) -> Any:
    """Chat completions, a streamed tool call."""
    function = {"name": "weather", "parameters": TOOL_SCHEMA}
    tools: Any = [{"type": "function", "function": function}]
    messages: Any = [{"role": "user", "content": "CALLTOOL weather"}]
    with (
        _openai(url, headers) as client,
        client.chat.completions.stream(
            model="gpt-5", messages=messages, tools=tools, stream_options={"include_usage": True}
        ) as stream,
    ):
        return _plain(stream.get_final_completion())


def responses(url: str, headers: dict[str, str]) -> Any:
    """Responses, whole, then continued by id."""
    with _openai(url, headers) as client:
        first = client.responses.create(model="gpt-5", input=LONG)
        second = client.responses.create(
            model="gpt-5", input="And then?", previous_response_id=first.id
        )
        return _plain([first, second])


def responses_stream(url: str, headers: dict[str, str]) -> Any:
    """Responses, every event of a stream."""
    with _openai(url, headers) as client:
        return _plain(client.responses.create(model="gpt-5", input=LONG, stream=True))


def responses_tool(url: str, headers: dict[str, str]) -> Any:
    """Responses, a streamed tool call."""
    tools: Any = [{"type": "function", "name": "weather", "parameters": TOOL_SCHEMA}]
    with (
        _openai(url, headers) as client,
        client.responses.stream(model="gpt-5", input="CALLTOOL weather", tools=tools) as stream,
    ):
        return _plain(stream.get_final_response())


def messages(url: str, headers: dict[str, str]) -> Any:
    """Messages, whole, twice: the second reads the cache."""
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    asked: Any = [{"role": "user", "content": [marked, {"type": "text", "text": "Go on."}]}]
    with _anthropic(url, headers) as client:
        create = client.messages.create
        return _plain([create(model=MODEL, max_tokens=99, messages=asked) for _ in range(2)])


def messages_stream(url: str, headers: dict[str, str]) -> Any:
    """Messages, every event of a stream."""
    asked: Any = [{"role": "user", "content": LONG}]
    with _anthropic(url, headers) as client:
        events = client.messages.create(model=MODEL, max_tokens=99, messages=asked, stream=True)
        return _plain(events)


def messages_tool(url: str, headers: dict[str, str]) -> Any:
    """Messages, a streamed tool call."""
    tools: Any = [{"name": "weather", "input_schema": TOOL_SCHEMA}]
    asked: Any = [{"role": "user", "content": "CALLTOOL weather"}]
    with (
        _anthropic(url, headers) as client,
        client.messages.stream(model=MODEL, max_tokens=99, messages=asked, tools=tools) as stream,
    ):
        return _plain(stream.get_final_message())


CASES: tuple[Case, ...] = (
    chat,
    chat_stream,
    chat_tool,
    responses,
    responses_stream,
    responses_tool,
    messages,
    messages_stream,
    messages_tool,
)


@pytest.fixture
def session_id() -> str:
    """A session of this test alone."""
    return f"sdk-{uuid4()}"


def _records(gateway: Gateway, session_id: str) -> Iterator[dict[str, Any]]:
    found = gateway.admin(f"/api/v1/sessions/{session_id}/requests")["items"]
    yield from sorted(found, key=lambda record: record["received_at"])


def _same_tokens(record: dict[str, Any], call: dict[str, Any]) -> bool:
    planned = call["planned"].items()
    return all(record[field] == value for field, value in planned if field in record)


@pytest.mark.parametrize("coding", ["identity", "gzip", "br", "deflate"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_answer_is_the_same_with_and_without_the_gateway(
    simulator: Simulated, gateway: Gateway, session_id: str, case: Case, coding: str
) -> None:
    """Objects, events, ids and usage are equal, and the record has the provider's counts."""
    headers = {"accept-encoding": coding, "x-dynamo-session-id": session_id}
    simulator.reset()
    direct = case(simulator.url, headers)
    simulator.reset()
    relayed = case(gateway.url, headers)

    assert relayed == direct
    calls, records = simulator.calls(), list(_records(gateway, session_id))
    assert len(calls) == len(records)
    for record, call in zip(records, calls, strict=True):
        assert _same_tokens(record, call), (record, call)
        assert (record["status"], record["error"]) == (200, None)
        assert call["encoding"] == coding


@pytest.mark.parametrize("status", [429, 500, 529])
@pytest.mark.parametrize("case", [chat, chat_stream, messages, messages_stream])
def test_an_error_is_the_providers_own(
    simulator: Simulated, gateway: Gateway, session_id: str, case: Case, status: int
) -> None:
    """The SDK raises the same class with the same body; the record shows the status and no cost."""
    headers = {"x-sim-error": str(status), "x-dynamo-session-id": session_id}
    simulator.reset()
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as direct:
        case(simulator.url, headers)
    simulator.reset()
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as relayed:
        case(gateway.url, headers)

    assert type(relayed.value) is type(direct.value)
    assert relayed.value.body == direct.value.body
    assert relayed.value.status_code == status
    (record,) = _records(gateway, session_id)
    assert (record["status"], record["output_tokens"] or 0) == (status, 0)
    assert record["error"] == "upstream_error"


@pytest.mark.parametrize("case", [chat_stream, messages_stream, responses_stream])
def test_a_stream_that_dies_is_an_error_for_the_sdk(
    simulator: Simulated, gateway: Gateway, session_id: str, case: Case
) -> None:
    """A cut never looks like a short answer, and its record is an error."""
    headers = {
        "x-sim-cut": "3",
        "x-dynamo-session-id": session_id,
        "accept-encoding": "identity",
    }
    simulator.reset()
    with pytest.raises((openai.APIError, anthropic.APIError)):
        case(gateway.url, headers)

    (record,) = _records(gateway, session_id)
    assert record["error"] == "upstream_protocol"
    assert simulator.calls()[0]["generated_tokens"] == 3


def test_what_the_provider_receives_is_what_the_sdk_sent(
    simulator: Simulated, gateway: Gateway, session_id: str
) -> None:
    """Bodies and the SDK's own headers arrive unchanged; identity and hop-by-hop headers do not."""
    headers = {"x-dynamo-session-id": session_id}
    simulator.reset()
    chat_tool(simulator.url, headers)
    chat_tool(gateway.url, headers)

    direct, relayed = simulator.requests()
    dropped = {"host", "connection", "x-dynamo-session-id"}

    def kept(request: dict[str, Any]) -> list[tuple[str, str]]:
        named = [(name.lower(), value) for name, value in request["headers"]]
        return sorted(pair for pair in named if pair[0] not in dropped)

    assert relayed["body"] == direct["body"]
    assert kept(relayed) == kept(direct)
    assert "x-dynamo-session-id" not in {name.lower() for name, _ in relayed["headers"]}
