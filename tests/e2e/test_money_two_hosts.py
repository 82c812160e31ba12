"""Two installations on one PostgreSQL share budgets and limits to the last call."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import Simulated, simulator_process
from tests.e2e.spending import call, call_at_once, named, statuses, wait_settled
from tests.store.postgresql import Server, server_process

CONFIGURATION = """
[server]
workers = 2
[store]
url = "{store}"
[[upstream]]
name = "simulator"
url = "{url}"
[[budget]]
scope = "tree"
usd = 0.000587500
[[limit]]
scope = "session"
requests = "40/h"
"""
K = 5
LIMIT = 40
Pair = tuple[Installation, Installation]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider that takes a moment, so that calls are in flight together."""
    with simulator_process("--latency-ms", "50") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """PostgreSQL."""
    with server_process() as running:
        yield running


@pytest.fixture(scope="module")
def hosts(
    server: Server, simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Two hosts, four gateway processes, an empty database."""
    text = CONFIGURATION.format(store=server.database(), url=simulator.url)
    secret = {"CLEW_SECRET": "0123456789abcdef0123456789abcdef"}
    one, two = (
        Installation(tmp_path_factory.mktemp(name), text, secret) for name in ("one", "two")
    )
    with one, two:
        yield one, two


@pytest.fixture(autouse=True)
def _fresh(simulator: Simulated) -> None:
    """Each test counts its own calls."""
    simulator.reset()


def test_sixty_four_at_two_hosts_get_what_the_budget_is_worth(
    hosts: Pair, simulator: Simulated
) -> None:
    """Exactly k of them, whichever host they came to."""
    answers = call_at_once(hosts, [named("burst")] * 64)

    found = statuses(answers)
    assert found[200] == K
    assert found[402] + found[429] == 64 - K
    assert len(simulator.calls()) == K


def test_children_at_two_hosts_spend_one_tree(hosts: Pair, simulator: Simulated) -> None:
    """A tree is one, wherever its parts are served."""
    assert call(hosts[0], named("root")).status_code == 200
    crowd = [named(f"child-{number}", "root") for number in range(32)]
    found = statuses(call_at_once(hosts, crowd))

    assert found == {200: K - 1, 402: 33 - K}
    assert len(simulator.calls()) == K


def test_a_limit_is_one_on_both(hosts: Pair) -> None:
    """Refusals for lack of budget take nothing of it; what is left is seen by either host."""
    answers = [call(host, named("limited")) for host in hosts]

    assert [one.headers["x-ratelimit-remaining-requests"] for one in answers] == ["39", "38"]
    assert {one.headers["x-ratelimit-limit-requests"] for one in answers} == {str(LIMIT)}


def test_a_host_that_is_killed_admits_nobody_beyond_the_budget(
    hosts: Pair, simulator: Simulated
) -> None:
    """Everything of one host dies with calls in flight; back again, its books are settled."""
    one = hosts[0]
    assert call(one, named("killed")).status_code == 200

    def kill_one() -> None:
        wait_until(lambda: len(simulator.requests()) > 1, 20, "a call in flight")
        one.kill_everything()

    killer = threading.Thread(target=kill_one)
    killer.start()
    first = statuses(call_at_once(hosts, [named("killed")] * 32))
    killer.join()
    one.start()
    wait_settled(one, "tree", "killed")
    rest = statuses(call_at_once(hosts, [named("killed")] * 32))

    assert len(simulator.requests()) <= K
    assert 1 + first[200] + rest[200] <= K
    assert rest[402] >= 30


def test_a_keeper_that_stands_still_holds_nobody_else_up(hosts: Pair) -> None:
    """Its host refuses with 503; the other goes on."""
    one, two = hosts
    keeper = one.pid("keeper")
    assert call(two, named("still")).status_code == 200
    os.kill(keeper, signal.SIGSTOP)
    try:
        assert call(one, named("still")).status_code == 503
        assert wait_until(lambda: call(two, named("still")).status_code == 200, 20)
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert wait_until(lambda: call(one, named("still")).status_code == 200, 20)
