"""What `instrument` reaches, when, and how it is undone."""

from __future__ import annotations

import functools
import types
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import urllib3
from tests.sdk.calling import sync_httpx
from tests.sdk.servers import Server

import clew
from clew.sdk.patching import Hook

ID = "x-dynamo-session-id"


def methods() -> list[Any]:
    """Every method that is replaced while instrumented."""
    return [
        httpx.Client._send_single_request,
        httpx.AsyncClient._send_single_request,
        httpx2.Client._send_single_request,
        httpx2.AsyncClient._send_single_request,
        urllib3.HTTPConnectionPool.urlopen,
        aiohttp.ClientRequest.send,
    ]


def test_undone_the_libraries_are_as_they_were() -> None:
    """However often it was done."""
    before = methods()
    for _ in range(2):
        clew.instrument("http://127.0.0.1:2539")
        assert all(now is not old for now, old in zip(methods(), before, strict=True))
    once = methods()
    clew.instrument("http://127.0.0.1:2540")
    assert methods() == once
    clew.uninstrument()
    clew.uninstrument()

    assert methods() == before


def test_clients_that_exist_already_are_reached(gateway: Server) -> None:
    """Whoever instruments late misses no client."""
    with httpx.Client(verify=False) as client:
        clew.instrument(gateway.url)
        with clew.session("run-42"):
            client.get(gateway.url)

    assert gateway.seen[0][ID] == "run-42"


def test_a_request_that_is_sent_again_carries_the_session_it_is_sent_in(gateway: Server) -> None:
    """What an earlier send stamped is not taken for the caller's own."""
    clew.instrument(gateway.url)
    with httpx.Client(verify=False) as client:
        request = client.build_request("GET", gateway.url)
        for name in ("one", "two"):
            with clew.session(name):
                client.send(request)
        client.send(request)

    assert [seen.get(ID) for seen in gateway.seen] == ["one", "two", None]


@pytest.mark.parametrize("several", [False, True])
def test_gateways_are_named_by_argument_and_by_environment(
    gateway: Server, elsewhere: Server, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """Both count, and each may name several."""
    if several:
        clew.instrument([gateway.url, elsewhere.url])
    else:
        monkeypatch.setenv("CLEW_GATEWAY", f"{elsewhere.url}/v1, http://unused.example")
        clew.instrument(gateway.url)
    with clew.session("run-42"):
        sync_httpx(gateway.url, {})
        sync_httpx(elsewhere.url, {})

    assert (gateway.seen[0][ID], elsewhere.seen[0][ID]) == ("run-42", "run-42")


def test_instrumenting_again_forgets_the_gateways_of_before(
    gateway: Server, elsewhere: Server
) -> None:
    """The last word counts."""
    clew.instrument(gateway.url)
    clew.instrument(elsewhere.url)
    with clew.session("run-42"):
        sync_httpx(gateway.url, {})

    assert ID not in gateway.seen[0]


def test_without_any_gateway_it_says_that_nothing_will_happen() -> None:
    """Instead of silently doing nothing."""
    with pytest.warns(clew.ClewWarning, match="CLEW_GATEWAY"):
        clew.instrument()


def test_what_is_wrong_is_said_at_once() -> None:
    """A gateway that is no URL, a library that is not known."""
    with pytest.raises(ValueError, match=r"like http://127\.0\.0\.1:2539"):
        clew.instrument("127.0.0.1:2539")
    with pytest.raises(ValueError, match="no such transport"):
        clew.instrument("http://127.0.0.1:2539", transports=["http"])


def test_only_the_libraries_asked_for_are_reached() -> None:
    """And they are named in the answer."""
    before = methods()

    assert clew.instrument("http://127.0.0.1:2539", transports=["urllib3"]) == ("urllib3",)

    assert [now is old for now, old in zip(methods(), before, strict=True)] == (
        [True] * 4 + [False, True]
    )


def test_a_release_without_the_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way out, instead of an AttributeError from inside."""
    monkeypatch.delattr(httpx.Client, "_send_single_request")

    with pytest.raises(RuntimeError, match="this release of httpx has no Client"):
        clew.instrument("http://127.0.0.1:2539", transports=["httpx"])


def test_a_wrapper_that_another_tool_put_on_top_stays() -> None:
    """Ours below it then does nothing; it is not replaced a second time either."""

    class Library:
        def call(self) -> str:
            return "original"

    hook = Hook(Library, "call", lambda found: lambda self: f"stamped {found(self)}")
    hook.install()
    ours = Library.call

    @functools.wraps(ours)
    def theirs(self: Library) -> str:
        return f"traced {ours(self)}"

    Library.call = theirs  # type: ignore[method-assign]  # what tracing tools do
    hook.remove()

    assert isinstance(Library.call, types.FunctionType)
    assert Library().call() == "traced stamped original"
