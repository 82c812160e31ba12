"""Two installations, each with its own data, on one PostgreSQL: what one knows the other knows.

Whatever a test waits for must come true within a second (`SOON_S` leaves room for a busy machine).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import Simulated, simulator_process
from tests.store.postgresql import Server, server_process

CONFIGURATION = """
[store]
url = "{store}"
[sessions]
after_close = "reject"
[auth]
mode = "{mode}"
[[upstream]]
name = "simulator"
url = "{url}"
"""
SOON_S = 3.0
ANSWER_S = 4.0
Pair = tuple[Installation, Installation]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider for both."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that these tests may stop."""
    with server_process() as running:
        yield running


@contextmanager
def pair_of(directory: Path, server: Server, simulator: Simulated, mode: str) -> Iterator[Pair]:
    """Two hosts, started at once on an empty database."""
    text = CONFIGURATION.format(store=server.database(), mode=mode, url=simulator.url)
    secret = {"CLEW_SECRET": "0123456789abcdef0123456789abcdef"}
    places = [directory / name for name in ("a", "b")]
    for place in places:
        place.mkdir()
    one, two = (Installation(place, text, secret) for place in places)
    with one, two:
        yield one, two


@pytest.fixture(scope="module")
def hosts(
    server: Server, simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two hosts for everybody who may call."""
    with pair_of(tmp_path_factory.mktemp("hosts"), server, simulator, "none") as pair:
        yield pair


def chat(host: Installation, *messages: dict[str, str], **headers: str) -> httpx.Response:
    """One small chat call, answered in time."""
    body = {"model": "gpt-5", "messages": list(messages) or [user("hello")]}
    began = time.monotonic()
    response = httpx.post(
        f"{host.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30
    )
    assert time.monotonic() - began < ANSWER_S
    return response


def user(text: str) -> dict[str, str]:
    """A user message."""
    return {"role": "user", "content": text}


def said(response: httpx.Response) -> dict[str, str]:
    """The answer as a later history quotes it."""
    return {
        "role": "assistant",
        "content": response.json()["choices"][0]["message"]["content"],
    }


def named(session: str) -> dict[str, str]:
    """A canonical id."""
    return {"x-dynamo-session-id": session}


def opencode(**ids: str) -> dict[str, str]:
    """Headers of a client with several ids."""
    return {"user-agent": "opencode/1.0", **{k.replace("_", "-"): v for k, v in ids.items()}}


def session_of(response: httpx.Response) -> str:
    """Clew's id."""
    assert response.status_code == 200, response.text
    return response.headers["x-clew-session"]


def verb(host: Installation, path: str, **body: Any) -> Any:
    """A change by the admin API."""
    headers = {"authorization": f"Bearer {host.gateway.token}"}
    url = f"{host.gateway.admin_url}/api/v1/{path}"
    return httpx.post(url, headers=headers, json=body, timeout=10).raise_for_status().json()


def shown(host: Installation, key: str) -> dict[str, Any]:
    """A session as the admin API shows it."""
    return host.gateway.admin(f"/api/v1/sessions/{key}")


def is_ready(host: Installation) -> bool:
    """Whether every part says so."""
    return httpx.get(f"{host.gateway.admin_url}/ready", timeout=10).status_code == 200


def test_an_id_is_one_session_on_both_at_once(hosts: Pair) -> None:
    """Its key is derived: nobody has to hear of it first."""
    one, two = hosts

    assert session_of(chat(one, **named("both"))) == session_of(chat(two, **named("both")))


def test_every_request_of_both_is_counted_once(hosts: Pair) -> None:
    """The sums of one session that both serve."""
    one, two = hosts
    for _ in range(5):
        key = session_of(chat(one, **named("counted")))
        chat(two, **named("counted"))
    for host in hosts:
        host.settle()

    assert shown(one, key)["requests"] == shown(two, key)["requests"] == 10
    records = one.gateway.admin(f"/api/v1/sessions/{key}/requests")["items"]
    assert len({record["request_id"] for record in records}) == 10


def test_a_second_id_is_known_to_the_other(hosts: Pair) -> None:
    """A request with two ids there; the second alone here."""
    one, two = hosts
    key = session_of(chat(one, **opencode(x_session_id="ses_1", x_session_affinity="aff_1")))

    def is_known() -> bool:
        return session_of(chat(two, **opencode(x_session_affinity="aff_1"))) == key

    wait_until(is_known, SOON_S)


def test_a_parent_is_known_to_the_other(hosts: Pair) -> None:
    """The child opened there, its tree read here."""
    one, two = hosts
    parent = session_of(chat(one, **named("above")))
    child = session_of(chat(one, **named("below"), **{"x-dynamo-parent-session-id": "above"}))
    one.settle()

    assert shown(two, child)["parent_id"] == parent
    assert session_of(chat(two, **named("below"))) == child


def test_a_close_is_known_to_the_other(hosts: Pair) -> None:
    """The other refuses what comes after, though it knew the session open."""
    one, two = hosts
    key = session_of(chat(one, **named("closing")))
    assert session_of(chat(two, **named("closing"))) == key
    verb(one, f"sessions/{key}/close")

    def refusal() -> str | None:
        return chat(two, **named("closing")).headers.get("x-clew-error")

    wait_until(lambda: refusal() == "session_closed", SOON_S)


def test_a_merge_and_its_split_are_known_to_the_other(hosts: Pair) -> None:
    """Ids lead to the survivor on both, and back."""
    one, two = hosts
    lost, home = (session_of(chat(two, **named(name))) for name in ("lost", "home"))
    two.settle()
    verb(one, f"sessions/{lost}/merge", into=home)
    wait_until(lambda: session_of(chat(two, **named("lost"))) == home, SOON_S)
    two.settle()
    verb(one, f"sessions/{home}/split", alias="lost")

    wait_until(lambda: session_of(chat(two, **named("lost"))) == lost, SOON_S)


def test_a_forgotten_id_is_new_to_the_other(hosts: Pair) -> None:
    """The gateway there does not go on under the old name."""
    one, two = hosts
    key = session_of(chat(two, **named("forget-me")))
    two.settle()
    verb(one, f"sessions/{key}/forget")
    time.sleep(1.0)  # the promise's own second: an earlier request would open it again

    assert chat(two, **named("forget-me")).headers["x-clew-resolution"] == "new"


def test_a_thread_without_id_is_found_by_the_other(hosts: Pair) -> None:
    """Its second turn comes by the other host, its third by the first again."""
    one, two = hosts
    messages = [user("Describe the harbour of a town nobody else asked about.")]
    first = chat(one, *messages)
    messages += [said(first), user("And its lighthouse?")]

    def comes_back(host: Installation) -> httpx.Response | None:
        answer = chat(host, *messages)
        return answer if session_of(answer) == session_of(first) else None

    second = comes_back(two)
    assert second is not None
    messages += [said(second), user("Who keeps it?")]

    assert comes_back(one) is not None


def test_the_server_may_go_and_come_back(hosts: Pair, server: Server) -> None:
    """Readiness says so, known and derivable ids are served, everything is counted afterwards."""
    one, two = hosts
    key = session_of(chat(one, **named("lasting")))
    for host in hosts:
        host.settle()
    pids = [host.pid("keeper") for host in hosts]
    server.stop()
    try:
        wait_until(lambda: not is_ready(one) and not is_ready(two), 10)
        parts = httpx.get(f"{one.gateway.admin_url}/ready", timeout=10).json()["parts"]
        assert not parts["store"]["ready"]
        assert session_of(chat(one, **named("lasting"))) == key
        unheard = session_of(chat(two, **named("unheard")))
        assert session_of(chat(one, **named("unheard"))) == unheard
    finally:
        server.start()
    wait_until(lambda: is_ready(one) and is_ready(two), 10)
    for host in hosts:
        host.settle()

    assert shown(two, key)["requests"] == 2
    assert shown(one, unheard)["requests"] == 2
    assert [host.pid("keeper") for host in hosts] == pids


def test_a_server_that_hangs_holds_nobody_up(hosts: Pair, server: Server) -> None:
    """Stopped as a process, it neither answers nor refuses; requests are answered all the same."""
    one, _ = hosts
    key = session_of(chat(one, **named("hung")))
    one.settle()
    stopped = [server.pid, *(child.pid for child in psutil.Process(server.pid).children())]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert session_of(chat(one, **named("hung"))) == key
        for number in range(3):
            assert chat(one, **named(f"hung-{number}")).status_code == 200
        assert chat(one, user("no id at all")).status_code == 200
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: is_ready(one), 20)
    one.settle()

    assert shown(one, key)["requests"] == 2


def test_no_password_is_in_any_log(hosts: Pair) -> None:
    """Nor is the server's url."""
    for host in hosts:
        assert "postgresql://" not in host.log


def test_gateway_keys_hold_on_both(server: Server, simulator: Simulated, tmp_path: Path) -> None:
    """Made here they open there, revoked there they open nothing here."""
    with pair_of(tmp_path, server, simulator, "keys") as (one, two):
        made = verb(one, "keys", principal="ann")
        sent = {"x-clew-key": made["key"]}
        wait_until(lambda: chat(two, **sent).status_code == 200, SOON_S)
        assert chat(one, **sent).status_code == 200
        verb(two, f"keys/{made['id']}/revoke")

        wait_until(lambda: chat(one, **sent).status_code == 401, SOON_S)
