"""A run in a request's path: dropped before routing, and the parent of what is called below it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.config.schema import Upstream
from clew.core.claim import Alias
from clew.core.clients import ClientTable
from clew.core.identity import below_run, identify
from clew.core.routing import (
    RouteTable,
    choose_route,
    is_answered_here,
    needs_model,
    without_name,
)
from clew.core.run_path import split_run

TABLE = ClientTable()
RUN = Alias("canonical", "run-1", "canonical")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/r/run-1/v1/messages", ("run-1", b"/v1/messages")),
        (b"/r/run-1/u/fast/v1/messages", ("run-1", b"/u/fast/v1/messages")),
        (b"/r/run-1", ("run-1", b"/")),
        (b"/r/run-1/", ("run-1", b"/")),
        (b"/v1/messages", ("", b"/v1/messages")),
        (b"/r/", ("", b"/r/")),
        (b"/r/../v1/messages", ("", b"/r/../v1/messages")),
        (b"/r/run-1//v1/messages", ("", b"/r/run-1//v1/messages")),
        (b"/r/%2e%2e/v1", ("", b"/r/%2e%2e/v1")),
        (b"/r/" + b"x" * 129 + b"/v1", ("", b"/r/" + b"x" * 129 + b"/v1")),
    ],
)
def test_the_run_is_one_segment_of_an_id(path: bytes, expected: tuple[str, bytes]) -> None:
    """A path names a run by one plain segment; anything else stays as it is."""
    assert split_run(path) == expected


@given(st.binary(max_size=40))
def test_what_is_left_of_a_path_is_a_path_of_its_own(rest: bytes) -> None:
    """Dropping a run never leaves a path that servers could read in two ways."""
    run, left = split_run(b"/r/run-1/" + rest)

    assert left.startswith(b"/")
    assert not run or not left.startswith(b"//")


def test_a_run_changes_no_route() -> None:
    """Built-in and configured upstreams, by name or by pattern, are chosen as without it."""
    upstreams = [Upstream(name="fast", url="http://h/base", models=("m*",))]
    table = RouteTable(upstreams)

    named = choose_route(table, b"POST", b"/r/run-1/u/fast/v1/messages?x=1", [])
    matched = choose_route(RouteTable(), b"POST", b"/r/run-1/v1/messages", [])

    assert (named.name, named.target) == ("fast", b"/base/v1/messages?x=1")
    assert (matched.name, matched.target) == ("anthropic", b"/v1/messages")
    assert needs_model(table, b"/r/run-1/v1/messages")
    assert not needs_model(table, b"/r/run-1/u/fast/v1/messages")


def test_a_run_changes_no_reading_of_the_path() -> None:
    """APIs, errors and clients' probes see the path without it."""
    assert without_name(b"/r/run-1/u/fast/v1/messages") == b"/v1/messages"
    assert without_name(b"/r/run-1/v1/messages") == b"/v1/messages"
    assert is_answered_here(b"HEAD", b"/r/run-1")
    assert is_answered_here(b"HEAD", b"/r/run-1/api/hello")


def test_a_session_that_brings_no_parent_hangs_below_the_run() -> None:
    """An agent's own session, and a call without any id, declare the run as their parent."""
    native = identify([(b"x-claude-code-session-id", b"s1")], TABLE)
    silent = identify([], TABLE)

    assert below_run(native, "run-1").parent == RUN
    assert below_run(silent, "run-1").parent == RUN
    assert not below_run(silent, "run-1").is_subagent


def test_what_a_request_says_itself_outranks_the_run_in_its_path() -> None:
    """Its own parent, an attachment, and a canonical session stay as they are."""
    for fields in (
        [(b"x-claude-code-session-id", b"s1"), (b"x-claude-code-agent-id", b"a1")],
        [(b"x-claude-code-session-id", b"s1"), (b"x-clew-parent", b"canonical:outer")],
        [(b"x-claude-code-session-id", b"s1"), (b"x-clew-parent", b"outer")],
        [(b"x-dynamo-session-id", b"s1")],
    ):
        claim = identify(fields, TABLE)

        assert below_run(claim, "run-1") == claim


def test_no_run_changes_nothing() -> None:
    """Without a run in the path the claim is the one the headers made."""
    claim = identify([(b"x-claude-code-session-id", b"s1")], TABLE)

    assert below_run(claim, "") is claim
