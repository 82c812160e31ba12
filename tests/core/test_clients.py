"""The table of clients, and what a user agent is read as."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config.schema import Client
from clew.core.clients import (
    KIND_HEADERS,
    MEMO_AGENTS,
    ClientTable,
    client_list,
    client_of,
    product_of,
)
from clew.core.identity import FLAGS

PAGE = Path(__file__).parents[2] / "docs" / "identity.md"


@pytest.mark.parametrize(
    ("user_agent", "client", "product"),
    [
        (b"claude-cli/2.1.330 (external, sdk-cli)", "claude-cli/2.1.330", "claude-cli"),
        (b"codex_exec/0.169.0 (Debian 12.0.0; x86_64)", "codex_exec/0.169.0", "codex_exec"),
        (b"GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux)", "GeminiCLI-tui/0.61.0", "GeminiCLI-tui"),
        (b"OpenAI/Python 2.24.0", "OpenAI/Python/2.24.0", "OpenAI/Python"),
        (b"Anthropic/JS 0.91.1", "Anthropic/JS/0.91.1", "Anthropic/JS"),
        (b"tool/v1.2", "tool/v1.2", "tool"),
        (b"python-requests", "python-requests", "python-requests"),
        (b"", "", ""),
        (b"\x00\xff", "", ""),
    ],
)
def test_a_user_agent_is_read_as_product_and_version(
    user_agent: bytes, client: str, product: str
) -> None:
    """The version is what an update changes, the product what it does not."""
    assert client_of(user_agent) == client
    assert product_of(client) == product


@given(st.binary(max_size=300))
def test_a_client_is_short_printable_ascii(user_agent: bytes) -> None:
    """Nothing of a user agent can break a log line or a table."""
    client = client_of(user_agent)

    assert len(client) <= 64
    assert client.isascii()
    assert all("!" <= char <= "~" for char in client)


def test_remembered_user_agents_are_bounded() -> None:
    """A client that invents user agents cannot grow the table."""
    table = ClientTable()
    for number in range(MEMO_AGENTS + 10):
        table.agent(b"tool/%d" % number, b"")
    table.agent(b"x" * 5000, b"")

    assert len(table._agents) <= MEMO_AGENTS


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "cookie", "x-dynamo-session-id"])
def test_a_users_row_cannot_read_a_credential(name: str) -> None:
    """A secret must never become an id."""
    with pytest.raises(ValueError, match="cannot name a session"):
        ClientTable((Client(name="bad", session=name),))


def test_the_public_list_is_in_order_and_whole() -> None:
    """Canonical, the user's, the built-in rows, the body's fields, lineage."""
    entries = client_list(ClientTable((Client(name="mine", session="x-mine"),)))

    assert [entries[0].name, entries[1].name, entries[-1].name] == ["canonical", "mine", "lineage"]
    orders = dict.fromkeys(entry.order for entry in entries)
    assert list(orders) == [
        "1", "1u", "2", "3", "3b", "4", "4b", "4c", "5", "6", "7", "8", "9", "10", "11", "12"
    ]  # fmt: skip
    shared = next(entry for entry in entries if entry.name == "generic")
    assert shared.lifetime == "durable/restart"
    assert "session_id" in shared.headers


def test_every_client_header_and_flag_is_documented() -> None:
    """`docs/identity.md` names each source, header, kind mark and flag of the code."""
    page = PAGE.read_text(encoding="utf-8")
    for entry in client_list(ClientTable()):
        assert f"`{entry.name}`" in page, entry.name
        for header in entry.headers:
            assert f"`{header}`" in page, header
    for header, _ in KIND_HEADERS:
        assert f"`{header}" in page, header
    for flag in FLAGS:
        assert f"`{flag}`" in page, flag
