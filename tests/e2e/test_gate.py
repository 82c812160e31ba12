"""What chooses an upstream from outside, and what a response tells of its session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.e2e.installation import Installation
from tests.e2e.plain import Answer, Fields, Received, Upstream, ask, upstream

CONFIGURATION = """
[[upstream]]
name = "first"
url = "{first}/base/v1"
[[upstream]]
name = "second"
url = "{second}"
"""
CHAT = "/v1/chat/completions"
FORGED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-clew-session: cs_forged\r\n"
    b"X-Clew-Resolution: exact\r\nx-clew-worker: forged\r\nx-clew-anything: forged\r\n"
    b"x-own: kept\r\ncontent-length: 2\r\n\r\n{}"
)


async def forge(_: Received, writer: asyncio.StreamWriter) -> None:
    """An upstream that is itself a gateway, or pretends to be."""
    writer.write(FORGED)


@pytest.fixture(scope="module")
def first() -> Iterator[Upstream]:
    """The upstream that takes everything."""
    with upstream(forge) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[Upstream]:
    """One that is only reached by name or url."""
    with upstream() as running:
        yield running


@pytest.fixture(scope="module")
def installation(
    first: Upstream, second: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A gateway before both."""
    configuration = CONFIGURATION.format(first=first.url, second=second.url)
    with Installation(tmp_path_factory.mktemp("gate"), configuration) as running:
        yield running


def post(installation: Installation, target: str, *headers: tuple[str, str]) -> Answer:
    """A small POST."""
    return ask(installation.gateway.url, "POST", target, list(headers), b'{"model":"m"}')


def arrived(first: Upstream, second: Upstream) -> tuple[list[str], list[str]]:
    """The targets each upstream got since the last call."""
    found = ([r.target for r in first.received], [r.target for r in second.received])
    first.received.clear()
    second.received.clear()
    return found


def test_a_name_in_the_path_selects_and_is_dropped(
    installation: Installation, first: Upstream, second: Upstream
) -> None:
    """Prefix gone, query kept, a base url's ``/v1`` not doubled."""
    arrived(first, second)
    for target in (f"/u/second{CHAT}?a=b", f"/u/first{CHAT}", CHAT, "/u/second/"):
        assert post(installation, target).status == 200

    assert arrived(first, second) == (
        ["/base/v1/chat/completions", "/base/v1/chat/completions"],
        [f"{CHAT}?a=b", "/"],
    )


def test_forward_selects_a_configured_upstream_by_its_url(
    installation: Installation, first: Upstream, second: Upstream
) -> None:
    """Equal origin and base path, a trailing ``/`` or ``/v1`` ignored; its id then counts."""
    arrived(first, second)
    for value in (second.url, f"{second.url}/", f"{second.url}/v1", f"{second.url}/v1/"):
        answer = post(
            installation, CHAT, ("X-Cagent-Forward", value), ("X-Cagent-Session-Id", "cagent-1")
        )
        assert answer.status == 200, (value, answer)
        assert (answer.get("x-clew-source"), answer.get("x-clew-session-id")) == (
            "cagent",
            "cagent-1",
        )
    answer = post(installation, CHAT, ("X-Cagent-Forward", f"{first.url}/base"))

    assert answer.status == 200
    assert arrived(first, second) == (["/base/v1/chat/completions"], [CHAT] * 4)
    assert all(received.get("x-cagent-forward") is None for received in second.received)


def test_forward_reaches_nothing_that_is_not_configured(
    installation: Installation, first: Upstream, second: Upstream
) -> None:
    """Other hosts, ports, schemes, bases, users and spellings: 400, and nobody is called."""
    arrived(first, second)
    host = second.url.removeprefix("http://")
    for value in (
        "http://169.254.169.254/latest",
        "https://api.openai.com",
        f"https://{host}",
        f"http://{host}/other",
        f"http://{host}.evil.example",
        f"http://evil.example@{host}",
        f"http://{host}@evil.example",
        f"http://{host}/?next",
        f"http://{host}/#x",
        f"http://localhost:{host.partition(':')[2]}",
        f"{first.url}",
        f"file://{host}",
        host,
        "second",
        "not a url",
        "http://[::1",
    ):
        answer = post(installation, CHAT, ("X-Cagent-Forward", value))

        assert (answer.status, answer.get("x-clew-error")) == (400, "forward_not_allowed"), value
    assert arrived(first, second) == ([], [])


def test_a_cagent_id_without_forward_names_no_session(installation: Installation) -> None:
    """It is ignored and flagged: anybody may send one."""
    answer = post(installation, CHAT, ("X-Cagent-Session-Id", "alone"))

    assert (answer.status, answer.get("x-clew-resolution")) == (200, "unattributed")
    installation.settle()
    flags = next(
        record["flags"]
        for record in installation.records()
        if record["request_id"] == answer.get("x-clew-request-id")
    )
    assert json.loads(flags)


def test_a_response_tells_its_session_and_no_forged_one(installation: Installation) -> None:
    """Every ``x-clew-*`` field is this gateway's; an upstream's own never pass."""
    named: Fields = [("X-Dynamo-Session-ID", "told")]
    answers = [post(installation, CHAT, *named) for _ in range(2)]
    nobody = post(installation, CHAT)
    listing = ask(installation.gateway.url, "GET", "/v1/models", named)

    for answer, resolution in zip(answers, ("new", "exact"), strict=True):
        fields = {name: value for name, value in answer.headers if name.startswith("x-clew-")}
        assert set(fields) == {
            "x-clew-request-id",
            "x-clew-resolution",
            "x-clew-source",
            "x-clew-session",
            "x-clew-session-id",
        }
        assert fields["x-clew-resolution"] == resolution
        assert (fields["x-clew-source"], fields["x-clew-session-id"]) == ("canonical", "told")
        assert fields["x-clew-session"] != "cs_forged"
        assert answer.get("x-own") == "kept"
    assert answers[0].get("x-clew-session") == answers[1].get("x-clew-session")
    assert answers[0].get("x-clew-request-id") != answers[1].get("x-clew-request-id")
    for answer in (nobody, listing):
        names = {name.lower() for name, _ in answer.headers if name.lower().startswith("x-clew-")}
        assert names == {"x-clew-request-id", "x-clew-resolution"}
        assert answer.get("x-clew-resolution") == "unattributed"
