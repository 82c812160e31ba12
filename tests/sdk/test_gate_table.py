"""Which of a program's calls carry its session: the table, for each transport.

| call                                   | carries              |
|----------------------------------------|----------------------|
| to the gateway                         | id, parent, kind     |
| to a provider, to another port         | nothing              |
| redirected from the gateway elsewhere  | id, then nothing     |
| redirected from elsewhere to it        | nothing, then id     |
| with an id of its own                  | that id, no more     |
| outside of any session                 | nothing              |
"""

from __future__ import annotations

from urllib.parse import quote

import pytest
from tests.sdk.calling import CALLS, Call
from tests.sdk.servers import REDIRECT, Server

import clew

ID, PARENT, KIND = "x-dynamo-session-id", "x-dynamo-parent-session-id", "x-clew-kind"
OURS = (ID, PARENT, KIND, "x-dynamo-session-final")

every_transport = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)


def carried(server: Server) -> list[dict[str, str]]:
    """What each request to a server carried of ours."""
    return [{name: seen[name] for name in OURS if name in seen} for seen in server.seen]


@pytest.fixture(autouse=True)
def instrumented(gateway: Server) -> None:
    """The program has named its gateway, with a path."""
    clew.instrument(f"{gateway.url}/v1")


@every_transport
def test_a_call_to_the_gateway_carries_its_session(call: Call, gateway: Server) -> None:
    """Id, parent, kind and final, and what the caller itself has set."""
    with clew.session("run-42") as run, run.child("researcher").kind("title").final():
        call(f"{gateway.url}/v1/models", {"x-own": "mine"})

    assert carried(gateway) == [
        {ID: "run-42/researcher", PARENT: "run-42", KIND: "title", "x-dynamo-session-final": "true"}
    ]
    assert gateway.seen[0]["x-own"] == "mine"


@every_transport
def test_a_call_to_a_provider_carries_nothing(call: Call, provider: Server) -> None:
    """Another host is no gateway."""
    with clew.session("run-42"):
        call(provider.url, {})

    assert carried(provider) == [{}]


@every_transport
def test_a_call_to_another_port_carries_nothing(call: Call, elsewhere: Server) -> None:
    """An origin is host and port."""
    with clew.session("run-42"):
        call(elsewhere.url, {})

    assert carried(elsewhere) == [{}]


@every_transport
def test_a_redirect_to_another_host_loses_what_was_stamped(
    call: Call, gateway: Server, provider: Server
) -> None:
    """Each hop is judged anew; what the caller set goes on as the library has it."""
    with clew.session("run-42"):
        call(f"{gateway.url}{REDIRECT}{quote(provider.url)}", {"x-own": "mine"})

    assert (carried(gateway), carried(provider)) == ([{ID: "run-42"}], [{}])
    assert provider.seen[0]["x-own"] == "mine"


@every_transport
def test_a_redirect_to_the_gateway_is_stamped(
    call: Call, gateway: Server, elsewhere: Server
) -> None:
    """Also when it began elsewhere."""
    with clew.session("run-42"):
        call(f"{elsewhere.url}{REDIRECT}{quote(gateway.url)}", {})

    assert (carried(elsewhere), carried(gateway)) == ([{}], [{ID: "run-42"}])


@every_transport
def test_a_redirect_within_the_gateway_keeps_its_session(call: Call, gateway: Server) -> None:
    """Once, not twice."""
    with clew.session("run-42"):
        call(f"{gateway.url}{REDIRECT}{quote(gateway.url + '/v1')}", {})

    assert carried(gateway) == [{ID: "run-42"}, {ID: "run-42"}]


@every_transport
@pytest.mark.parametrize("name", ["X-Dynamo-Session-ID", "x_dynamo_session_id"])
def test_an_id_that_the_caller_set_is_kept(call: Call, gateway: Server, name: str) -> None:
    """Nothing is added to it: neither a parent nor a kind that are not its own."""
    with clew.session("run-42") as run, run.child("researcher").kind("title"):
        call(gateway.url, {name: "mine"})

    seen = gateway.seen[0]
    assert seen[name.lower()] == "mine"
    assert carried(gateway) == [{ID: "mine"} if "-" in name else {}]


@every_transport
def test_a_parent_that_the_caller_set_is_kept(call: Call, gateway: Server) -> None:
    """The session is added beside it."""
    with clew.session("run-42") as run, run.child("researcher"):
        call(gateway.url, {"X-Dynamo-Parent-Session-ID": "other"})

    assert carried(gateway) == [{ID: "run-42/researcher", PARENT: "other"}]


@every_transport
def test_outside_of_any_session_nothing_is_carried(call: Call, gateway: Server) -> None:
    """The call goes out as it is."""
    with clew.session("run-42"):
        pass
    call(gateway.url, {})

    assert carried(gateway) == [{}]


@every_transport
def test_without_instrumenting_nothing_is_carried(call: Call, gateway: Server) -> None:
    """`uninstrument` undoes it for clients of every library."""
    clew.uninstrument()
    with clew.session("run-42"):
        call(gateway.url, {})

    assert carried(gateway) == [{}]
