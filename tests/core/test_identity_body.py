"""What only a body tells of its session, and what it must not be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clew.core.claim import Alias, Claim, Kind, Lifetime, Scope
from clew.core.clients import ClientTable
from clew.core.identity import FLAGS, identify, identify_with_body

TABLE = ClientTable()
UUID = "5f36c286-1111-2222-3333-444455556666"
Field = tuple[bytes, bytes]


def claim_of(body: object, *headers: Field, path: bytes = b"/v1/responses") -> Claim:
    """The claim of headers and body; JSON text and decoded document give the same."""
    claim = identify(list(headers), TABLE, path)
    found = identify_with_body(claim, list(headers), path, body, TABLE)
    if isinstance(body, dict):
        text = json.dumps(body).encode()
        assert identify_with_body(claim, list(headers), path, text, TABLE) == found
    assert set(found.flags) <= set(FLAGS)
    return found


def session_of(body: object, *headers: Field) -> Alias | None:
    """The session alone."""
    return claim_of(body, *headers).session


def user_id(value: str) -> dict[str, Any]:
    """A Messages body with that user id."""
    return {"metadata": {"user_id": value}, "messages": []}


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"device_id": "d", "account_uuid": "", "session_id": UUID}),
        json.dumps({"session_id": UUID, "device_id": "d"}),
        json.dumps({"team": {"session_id": "not this"}, "note": "x" * 2000, "session_id": UUID}),
        " " + json.dumps({"a": [1, {"session_id": "nor this"}], "session_id": UUID}, indent=1),
    ],
)
def test_claude_codes_user_id_is_parsed_whatever_its_keys(value: str) -> None:
    """Keys in any order, the user's own first, longer than an id may be: the session is found."""
    claim = claim_of(user_id(value))

    assert claim.session == Alias("claude-code", UUID, "claude-code")
    assert claim.root == claim.session


def test_the_older_text_form_names_the_root_only() -> None:
    """user_…_session_<uuid> counts when the session ends it; subagents share it."""
    session = session_of(user_id(f"user_{'a' * 64}_account__session_{UUID}"))

    assert session == Alias("claude-code", UUID, "claude-code", Scope.TREE)


@pytest.mark.parametrize(
    "value",
    [
        f"user_a_session_{UUID}_more",
        f"user_a_session_{UUID}\n",
        f"x user_a_session_{UUID}",
        "user_a_session_not-a-uuid",
        '{"session_id": 5}',
        '{"session_id": ""}',
        '{"session_id": "a b"}',
        '{"session":',
        "{" * 3000,
        "alice@example.com",
    ],
)
def test_any_other_user_id_is_the_end_user(value: str) -> None:
    """Not anchored, not an id, not JSON: no session, no failure."""
    assert session_of(user_id(value)) is None


def test_an_oversize_user_id_is_not_searched() -> None:
    """Beyond 64 KiB it is flagged and left alone."""
    claim = claim_of(user_id(json.dumps({"x": "y" * 70_000, "session_id": UUID})))

    assert claim.session is None
    assert claim.flags == ("user_id_oversize",)


def test_codex_says_in_the_body_what_a_proxy_took_from_the_head() -> None:
    """client_metadata gives thread, root, parent, kind and fork as the headers would."""
    metadata = json.dumps({"request_kind": "turn", "subagent_kind": "review"})
    claim = claim_of(
        {
            "client_metadata": {
                "thread_id": "t",
                "session_id": "r",
                "x-codex-parent-thread-id": "p",
                "x-codex-turn-metadata": metadata,
            },
            "prompt_cache_key": "r",
        }
    )

    assert claim.session == Alias("codex", "t", "codex")
    assert claim.root == Alias("codex", "r", "codex")
    assert claim.parent == Alias("codex", "p", "codex")
    assert (claim.kind, claim.is_subagent) == (Kind.SUBAGENT, True)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ({"session_id": "s", "litellm_session_id": "l"}, "s"),
        ({"litellm_session_id": "l", "metadata": {"session_id": "m"}}, "l"),
        ({"metadata": {"session_id": "m", "cursorConversationId": "c"}}, "m"),
        ({"metadata": {"cursorConversationId": "c", "conversation_id": "v"}}, "c"),
        ({"metadata": {"conversation_id": "v"}, "conversation": "conv_1"}, "v"),
        ({"conversation": "conv_1"}, "conv_1"),
        ({"conversation": {"id": "conv_2"}}, "conv_2"),
    ],
)
def test_the_bodys_fields_name_a_session_in_order(body: dict[str, Any], value: str) -> None:
    """Order 7, each field before the next."""
    session = session_of(body)

    assert session is not None
    assert (session.source, session.value) == ("body", value)
    assert session.scope is Scope.THREAD


@pytest.mark.parametrize("value", [5, True, "a b", "a\nb", "x" * 600, ["s"]])
def test_an_unusable_field_is_ignored_and_flagged(value: object) -> None:
    """What is no id in the body never fails the call."""
    claim = claim_of({"session_id": value, "metadata": {"session_id": "m"}})

    assert claim.session is not None
    assert claim.session.value == "m"
    assert claim.flags == ("body_id_invalid",)


def test_a_previous_response_counts_only_where_no_id_outranks_it() -> None:
    """Order 8 stands behind headers and order 7, before a cache key."""
    chained = claim_of({"previous_response_id": "resp_1", "prompt_cache_key": "k"})
    named = claim_of({"previous_response_id": "resp_1", "session_id": "s"})
    headed = claim_of({"previous_response_id": "resp_1"}, (b"x-session-affinity", b"n"))

    assert chained.previous_response_id == "resp_1"
    assert chained.session == Alias("prompt-cache-key", "k", "prompt-cache-key", Scope.TREE)
    assert (named.previous_response_id, headed.previous_response_id) == ("", "")


def test_a_cache_key_names_the_root_only() -> None:
    """Parents and subagents share it, so the thread stays open."""
    claim = claim_of({"prompt_cache_key": "k"})

    assert claim.session is not None
    assert claim.session.scope is Scope.TREE
    assert claim.root == claim.session
    assert not claim.names_durable_thread


def test_only_kimis_bare_user_id_is_a_session() -> None:
    """Order 10: everybody else's user_id is the end user."""
    body = user_id("kimi-session-1")

    assert session_of(body, (b"user-agent", b"KimiCLI/1.2.3")) == Alias(
        "metadata-user", "kimi-session-1", "metadata-user"
    )
    assert session_of(body, (b"user-agent", b"curl/8")) is None


def test_user_and_safety_identifier_are_never_identity() -> None:
    """The end user's fields name nobody's session."""
    assert session_of({"user": "u", "safety_identifier": "i", "metadata": {"k": "v"}}) is None


def test_a_durable_body_id_becomes_an_alias_beside_a_rotating_header() -> None:
    """Order 7 does not outrank order 6, but is kept to find the session after a restart."""
    claim = claim_of({"session_id": "s"}, (b"x-session-affinity", b"n"))

    assert claim.session == Alias("generic", "n", "generic", lifetime=Lifetime.RESTART)
    assert claim.others == (Alias("body", "s", "body"),)


def test_an_agents_own_body_id_outranks_a_rotating_header() -> None:
    """Order 3b comes before order 6; the header stays as a further alias."""
    body = user_id(json.dumps({"session_id": UUID}))
    claim = claim_of(body, (b"x-session-affinity", b"n"))

    assert claim.session == Alias("claude-code", UUID, "claude-code")
    assert [alias.value for alias in claim.others] == ["n"]


def test_a_subagent_with_a_broken_agent_id_is_not_made_its_parent_by_the_body() -> None:
    """The body repeats the shared session id; it still names the run only."""
    claim = claim_of(
        user_id(json.dumps({"session_id": UUID})),
        (b"x-claude-code-session-id", UUID.encode()),
        (b"x-claude-code-agent-id", b"a\x01"),
    )

    assert claim.session is not None
    assert claim.session.scope is Scope.TREE
    assert claim.others == ()


def test_a_durable_thread_id_in_the_head_leaves_the_body_unread() -> None:
    """The claim comes back as it went in."""
    headers = [(b"x-session-id", b"s")]
    claim = identify(headers, TABLE)

    assert identify_with_body(claim, headers, b"/v1/x", b'{"session_id":"b"}', TABLE) is claim


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, None, 5, [], "{}"]
)
def test_any_other_body_adds_nothing(body: object) -> None:
    """Broken, deep, foreign: no session and no failure."""
    assert claim_of(body).session is None
