"""What is said of a request, and that it is what the gateway does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.config.schema import Client, Upstream
from clew.core.clients import ClientTable
from clew.core.explanation import Explanation, explain
from clew.core.request_file import RequestFile
from clew.core.routing import RouteTable


def explained(
    *headers: tuple[bytes, bytes],
    body: bytes = b"{}",
    method: str = "POST",
    path: bytes = b"/v1/messages",
    upstream: Upstream | None = None,
) -> Explanation:
    """One request, explained."""
    routes = RouteTable([upstream] if upstream else ())
    return explain(RequestFile(method, path, list(headers), body), ClientTable(), routes)


def test_the_row_that_fires_is_told_apart_from_those_not_asked() -> None:
    """The canonical header wins; the native one becomes an alias."""
    found = explained((b"x-dynamo-session-id", b"run-1"), (b"x-claude-code-session-id", b"c1"))

    assert [(step.source, step.fired) for step in found.steps] == [
        ("canonical", True),
        ("claude-code", True),
    ]
    assert found.steps[0].verdict == "names the thread: run-1"
    assert found.steps[1].verdict == "adds an alias: c1"
    assert found.conclusion == "session run-1, named by canonical"


def test_an_id_of_the_body_is_explained() -> None:
    """A tree-scoped id names the root only, and the explanation says so."""
    found = explained(body=b'{"prompt_cache_key": "k"}', path=b"/v1/responses")

    assert found.steps[0].verdict == "names only the root of the tree: k"
    assert "names the root, not the thread" in found.conclusion


def test_a_request_without_any_id_says_so() -> None:
    """Only its content could tell."""
    assert explained().conclusion == "no id: only its content could tell the session"


def test_what_is_ignored_is_told_with_its_reason() -> None:
    """Each flag has a sentence."""
    found = explained((b"x-cagent-session-id", b"a"))

    assert "X-Cagent-Forward" in found.flags["cagent_without_forward"]


def test_a_probe_is_answered_here() -> None:
    """It has no route, and needs none."""
    found = explained(method="HEAD", path=b"/api/hello")

    assert (found.refused, found.conclusion) == ("", "answered by Clew itself; no session")


def test_a_get_is_unattributed() -> None:
    """Whatever ids it carries."""
    found = explained((b"x-session-id", b"s"), method="GET", path=b"/v1/models")

    assert found.conclusion.startswith("unattributed")


def test_what_goes_on_is_told() -> None:
    """Identity that is stripped, identity that is added, one's own key masked."""
    upstream = Upstream(
        name="a",
        url="https://api.anthropic.com",
        identity_out="x-my-session",
        api_key_env="KEY",
    )
    found = explained(
        (b"x-dynamo-session-id", b"run-1"), (b"x-api-key", b"sk-ant-canary"), upstream=upstream
    )

    assert found.onward is not None
    assert found.onward.removed == ("x-dynamo-session-id", "x-api-key")
    assert found.onward.added == ("x-api-key: ***", "x-my-session: run-1")


def test_ones_own_client_is_explained() -> None:
    """Its row fires under its own name."""
    table = ClientTable([Client(name="mytool", session="x-mytool")])
    request = RequestFile("POST", b"/v1/messages", [(b"x-mytool", b"m1")])

    found = explain(request, table, RouteTable())

    assert found.session is not None
    assert (found.session.source, found.steps[0].source) == ("mytool", "mytool")


NAMES = st.sampled_from([*ClientTable().slots, b"cookie", b"session-id", b"x_session_id"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=20))), st.binary(max_size=50))
def test_explaining_never_raises_and_repeats_no_credential(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Whatever the request, there is an explanation without secrets."""
    found = explained(*headers, (b"authorization", b"Bearer canary-9"), body=body)

    assert "canary-9" not in repr(found)
