"""Which clients still say who they are, held against the table of clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.clients import ClientTable, client_list, client_of
from clew.core.drift import EXPECTED, Traffic, Verdict, findings


def traffic(client: str, first_seen_ns: int = 0, **sources: int) -> Traffic:
    """What one version sent; ``nobody`` is the source of requests without an id."""
    named = {name.replace("_", "-"): count for name, count in sources.items()}
    named[""] = named.pop("nobody", 0)
    total = sum(named.values())
    return Traffic(client=client, requests=total, sources=named, first_seen_ns=first_seen_ns)


def verdict(row: Traffic, *others: Traffic) -> Verdict:
    """What is said of the first."""
    return findings([row, *others])[0].verdict


def test_a_client_that_lost_its_header_is_named() -> None:
    """The sentence has product, version and share."""
    found = findings([traffic("opencode/1.18.18", lineage=12)])[0]

    assert found.verdict is Verdict.LOST
    assert found.text == "OpenCode 1.18.18: 0 % carry a session id; all did by opencode"
    assert (found.product, found.version, found.with_id) == ("opencode", "1.18.18", 0)


def test_a_client_that_carries_its_id_is_as_expected() -> None:
    """All requests, or almost all: a title call that content placed is no loss."""
    assert verdict(traffic("claude-cli/2.1.330", claude_code=95, lineage=5)) is Verdict.AS_EXPECTED


def test_an_id_that_a_user_added_is_no_drift() -> None:
    """The canonical header outranks a client's own, and its user knows of it."""
    assert verdict(traffic("claude-cli/2.1.330", canonical=20)) is Verdict.AS_EXPECTED
    assert verdict(traffic("GeminiCLI-tui/0.61.0", canonical=20)) is Verdict.AS_EXPECTED


def test_an_id_by_another_row_has_moved() -> None:
    """It still names a session, but not as the table says."""
    found = findings([traffic("codex_exec/0.170.0", prompt_cache_key=30)])[0]

    assert found.verdict is Verdict.MOVED
    assert "by prompt-cache-key and no longer by codex" in found.text


def test_a_silent_client_that_speaks_has_gained() -> None:
    """Its row in the table can be better than content."""
    assert verdict(traffic("QwenCode/0.25.0", generic=10)) is Verdict.GAINED
    assert verdict(traffic("QwenCode/0.24.4", lineage=10)) is Verdict.AS_EXPECTED


def test_a_response_chain_is_no_id_of_the_client() -> None:
    """It names the session, but the client sent no id of its own."""
    assert verdict(traffic("opencode/1.19.0", response_chain=10)) is Verdict.LOST


def test_an_unknown_client_is_held_against_its_former_version() -> None:
    """The next lower number, not the one seen before."""
    old = traffic("tool/1.9.0", first_seen_ns=9, generic=10)
    new = traffic("tool/1.10.0", first_seen_ns=1, nobody=10)

    assert verdict(new, old) is Verdict.CHANGED
    assert findings([new, old])[0].text == "tool 1.10.0: 0 % carry a session id; 100 % of 1.9.0"
    assert verdict(old, new) is Verdict.NOT_KNOWN
    assert verdict(new) is Verdict.NOT_KNOWN


def test_a_few_requests_say_nothing() -> None:
    """One odd call of a new version is no alarm."""
    assert verdict(traffic("opencode/2.0.0", lineage=4)) is Verdict.TOO_FEW


def test_a_share_is_never_rounded_to_a_whole() -> None:
    """99.9 % is not all, 0.1 % is not none."""
    almost = findings([traffic("a/1", generic=999, nobody=1)])[0].text
    hardly = findings([traffic("a/1", generic=1, nobody=999)])[0].text

    assert "99 % carry" in almost
    assert "<1 % carry" in hardly


def test_a_missing_user_agent_has_a_name() -> None:
    """Requests without one are one line."""
    assert findings([traffic("", nobody=9)])[0].text == "no user agent: 0 % carry a session id"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (b"claude-cli/2.1.330 (external, sdk-cli)", "Claude Code"),
        (b"codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.169.0)", "Codex"),
        (b"opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14", "OpenCode"),
        (b"Kilo-Code/7.7.7 ai-sdk/provider-utils/4.0.27 runtime/bun/1.3.14", "Kilo"),
        (b"GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)", "Gemini CLI"),
        (b"QwenCode/0.24.4 (linux; x64)", "Qwen Code"),
        (b"factory-cli/0.215.0", "Droid"),
    ],
)
def test_captured_user_agents_find_their_row(user_agent: bytes, name: str) -> None:
    """As real agents write them, product and version read as everywhere else."""
    row = Traffic(client=client_of(user_agent), requests=9, sources={"": 9}, first_seen_ns=0)
    found = findings([row])[0]

    assert found.text.startswith(f"{name} {found.version}:")
    assert found.version[0].isdigit()


def test_every_expected_source_is_one_of_the_tables() -> None:
    """The two tables cannot name different things."""
    names = {entry.name for entry in client_list(ClientTable())}

    assert {source for row in EXPECTED for source in row.sources} <= names


@given(
    st.lists(
        st.builds(
            Traffic,
            client=st.text(max_size=64),
            requests=st.integers(0, 10**9),
            sources=st.dictionaries(st.text(max_size=10), st.integers(0, 10**6), max_size=4),
            first_seen_ns=st.integers(0, 10**18),
        ),
        max_size=8,
    )
)
def test_whatever_clients_call_themselves_each_gets_one_line(rows: list[Traffic]) -> None:
    """Any user agent, any sums: as many findings as rows, in their order."""
    found = findings(rows)

    assert [one.client for one in found] == [row.client for row in rows]
    assert all("carry a session id" in one.text for one in found)
