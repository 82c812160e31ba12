"""Errors in each API's form, as the official SDKs understand them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent
from tests.core.apis import samples
from tests.core.apis.reading import BY_NAME, read_stream

from clew.core.errors import FAULTS, ClewError

ERROR = ClewError("upstream_protocol", "the upstream ended early; try again")
BUDGET = ClewError("budget_exceeded")


@pytest.mark.parametrize("code", FAULTS)
@pytest.mark.parametrize("api", sorted(BY_NAME))
def test_every_error_says_who_speaks(api: str, code: str) -> None:
    """Messages begin ``clew:`` and are JSON in every API."""
    error = ClewError(code)
    body = json.loads(BY_NAME[api].render_error(error, "req_1"))

    assert body["error"]["message"] == f"clew: {error.fault.message}"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openais_form(api: str) -> None:
    """Four members; the code is Clew's."""
    body = json.loads(BY_NAME[api].render_error(BUDGET, "req_1"))

    assert body == {
        "error": {
            "message": f"clew: {BUDGET.detail}",
            "type": "insufficient_quota",
            "param": None,
            "code": "budget_exceeded",
        }
    }


def test_anthropics_form() -> None:
    """The request's id stands beside the error."""
    body = json.loads(BY_NAME["messages"].render_error(BUDGET, "req_1"))

    assert body == {
        "type": "error",
        "error": {"type": "billing_error", "message": f"clew: {BUDGET.detail}"},
        "request_id": "req_1",
    }


def test_geminis_form() -> None:
    """Code, message and google.rpc's status."""
    body = json.loads(BY_NAME["gemini"].render_error(ERROR, "req_1"))

    assert body["error"] == {
        "code": 502,
        "message": f"clew: {ERROR.detail}",
        "status": "UNAVAILABLE",
    }


@pytest.mark.parametrize("name", samples.STREAMS)
def test_an_error_after_any_cut_ends_the_stream(name: str) -> None:
    """Behind an event boundary the error event is read as what it is."""
    api, stream = samples.STREAMS[name]
    first_end = stream.find(b"\n\n") + 2
    rendered = BY_NAME[api].render_error_event(ERROR, "req_1")

    reading, closing = read_stream(api, stream[:first_end] + rendered)

    assert (reading.error, reading.is_complete) == ("upstream_error", True)
    assert closing >= 0


def _answering(stream: bytes) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, content=stream, request=request
        )

    return httpx2.MockTransport(answer)


def _read_chat(stream: bytes) -> None:
    client = openai.OpenAI(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=_answering(stream))
    )
    list(client.chat.completions.create(model="m", messages=[], stream=True))


def _read_responses(stream: bytes) -> None:
    client = openai.OpenAI(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=_answering(stream))
    )
    list(client.responses.create(model="m", input="hi", stream=True))


def _read_messages(stream: bytes) -> None:
    client = anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=_answering(stream))
    )
    list(client.messages.create(model="m", max_tokens=9, messages=[], stream=True))


CLIENTS: list[tuple[str, bytes, Callable[[bytes], None], type[Exception]]] = [
    ("chat", samples.event(samples.CHAT_CHUNKS[1]), _read_chat, openai.APIError),
    (
        "responses",
        samples.responses_stream(samples.responses_events()[:4]),
        _read_responses,
        openai.APIError,
    ),
    (
        "messages",
        samples.messages_stream(samples.messages_events({})[:8]),
        _read_messages,
        anthropic.APIStatusError,
    ),
]


@pytest.mark.parametrize(("api", "begun", "read", "raised"), CLIENTS)
def test_the_official_clients_raise(
    api: str, begun: bytes, read: Callable[[bytes], None], raised: type[Exception]
) -> None:
    """A stream that breaks off is an exception with Clew's sentence, never a short answer."""
    rendered = BY_NAME[api].render_error_event(ERROR, "req_1")

    with pytest.raises(raised, match="clew: the upstream ended early"):
        read(begun + rendered)


@pytest.mark.parametrize(("api", "begun", "read", "raised"), CLIENTS)
def test_the_official_clients_raise_within_an_event_too(
    api: str, begun: bytes, read: Callable[[bytes], None], raised: type[Exception]
) -> None:
    """An event the upstream left unfinished never swallows the error."""
    rendered = BY_NAME[api].render_error_event(ERROR, "req_1")
    expected: tuple[type[Exception], ...] = (raised, json.JSONDecodeError)

    with pytest.raises(expected):
        read(begun.removesuffix(b"}\n\n")[:-9] + rendered)


def test_the_responses_events_fit_their_schema() -> None:
    """The official models accept both events."""
    rendered = BY_NAME["responses"].render_error_event(ERROR, "req_1")
    data: list[dict[str, Any]] = [
        json.loads(line[6:]) for line in rendered.splitlines() if line.startswith(b"data: ")
    ]

    assert ResponseErrorEvent.model_validate(data[0]).message == f"clew: {ERROR.detail}"
    assert ResponseFailedEvent.model_validate(data[1]).response.status == "failed"
