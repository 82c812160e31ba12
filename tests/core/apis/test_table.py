"""Which API a path speaks, and in whose form an error is said."""

from __future__ import annotations

import pytest

from clew.core.apis.table import APIS, api_for, error_api


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/openai/v1/chat/completions", "chat"),
        (b"/openai/deployments/responses/chat/completions", "chat"),
        (b"/u/responses/v1/chat/completions", "chat"),
        (b"/v1/messages", "messages"),
        (b"/v1/messages/count_tokens", "messages"),
        (b"/v1/messages/batches", "messages"),
        (b"/anthropic/v1/messages", "messages"),
        (b"/v1/responses", "responses"),
        (b"/v1/responses/compact", "responses"),
        (b"/backend-api/codex/responses", "responses"),
        (b"/v1beta/models/gemini-2.5-pro:generateContent", "gemini"),
        (b"/v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini"),
        (b"/v1beta/models/gemini-2.5-pro%3AcountTokens", "gemini"),
        (b"/v1/projects/p/publishers/google/models/g:generateContent", "gemini"),
        (b"/v1/threads/thread_1/messages", None),
        (b"/v1/embeddings", None),
        (b"/v1/completions", None),
        (b"/v1/chat/completionsx", None),
        (b"/v1/messagesx", None),
        (b"/v1beta/models/g:embedContent", None),
        (b"/", None),
    ],
)
def test_a_path_names_its_api(path: bytes, name: str | None) -> None:
    """Under any prefix, and below the path itself; nothing else is inference."""
    api = api_for(b"POST", path)

    assert (api.name if api is not None else None) == name


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_only_a_post_is_inference(method: bytes) -> None:
    """Reading a stored response belongs to no session."""
    assert api_for(method, b"/v1/responses/resp_1") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/messages", "messages"),
        (b"/u/x/v1/messages/batches/b/cancel", "messages"),
        (b"/v1beta/models", "gemini"),
        (b"/v1/projects/p/models/g:generateContent", "gemini"),
        (b"/v1/models", "chat"),
        (b"/v1/responses", "responses"),
        (b"/anything", "chat"),
    ],
)
def test_errors_take_the_paths_form(path: bytes, name: str) -> None:
    """Anthropic's and Gemini's on their paths, else OpenAI's."""
    assert error_api(path).name == name


def test_names_are_unique() -> None:
    """A name is written into the journal and must mean one API."""
    assert len({api.name for api in APIS}) == len(APIS) == 4
