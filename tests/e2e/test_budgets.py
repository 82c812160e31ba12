"""Budgets through real processes: k calls' worth admits k, whatever happens meanwhile.

Every call of these tests costs the same, so a budget is told in calls.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import Simulated, simulator_process
from tests.e2e.spending import (
    BODY,
    PATIENCE_S,
    budgets_of,
    call,
    call_at_once,
    named,
    statuses,
    verb,
    wait_settled,
)

CONFIGURATION = """
[server]
workers = 2
[websocket]
mode = "tunnel"
[[upstream]]
name = "simulator"
url = "{url}"
[[budget]]
scope = "tree"
usd = {usd}
"""
A_CALL_USD = 0.0001175
"""What `spending.BODY` costs at the simulator, by the bundled prices; checked below."""
K = 5


def usd(calls: float) -> str:
    """A budget worth so many calls."""
    return f"{calls * A_CALL_USD:.9f}"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider that takes a moment, so that calls are in flight together."""
    with simulator_process("--latency-ms", "50") as running:
        yield running


@pytest.fixture
def host(simulator: Simulated, tmp_path: Path) -> Iterator[Installation]:
    """Two gateway processes, a budget of `K` calls for each tree."""
    simulator.reset()
    text = CONFIGURATION.format(url=simulator.url, usd=usd(K))
    with Installation(tmp_path, text) as running:
        yield running


def test_sixty_four_at_once_get_what_the_budget_is_worth(
    host: Installation, simulator: Simulated
) -> None:
    """Exactly k are admitted, by two processes; the others hear that it is final."""
    answers = call_at_once([host], [named("burst")] * 64)

    assert statuses(answers) == {200: K, 402: 64 - K}
    assert len(simulator.calls()) == K
    refused = next(answer for answer in answers if answer and answer.status_code == 402)
    assert refused.headers["x-clew-error"] == "budget_exceeded"
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert refused.json()["error"]["message"].startswith("clew: the budget of this tree is spent")
    item = wait_settled(host, "tree", "burst")
    assert item["spent_usd"] == usd(K)
    assert item["left_usd"] == "0.000000000"


def test_a_subagent_cannot_outspend_its_tree(host: Installation, simulator: Simulated) -> None:
    """Root and children, each with ids of their own, spend one budget; another tree has its own."""
    assert call(host, named("root")).status_code == 200
    crowd = [named(f"child-{number}", "root") for number in range(16)]
    answers = call_at_once([host], crowd)
    deeper = call(host, named("grandchild", "child-3"))

    assert statuses(answers) == {200: K - 1, 402: 16 - K + 1}
    assert deeper.status_code == 402
    assert call(host, named("elsewhere")).status_code == 200
    assert len(simulator.calls()) == K + 1


def test_a_budget_survives_every_restart(host: Installation, simulator: Simulated) -> None:
    """The keeper's kill, the supervisor's stop: what was spent stays spent."""
    for _ in range(K - 1):
        assert call(host, named("long")).status_code == 200
    host.kill("keeper")
    wait_until(lambda: call(host, named("long")).status_code == 200, 20, "the keeper is back")
    assert host.stop() == 0
    host.start()

    assert wait_until(lambda: call(host, named("long")).status_code, 20) == 402
    assert len(simulator.calls()) == K


def test_a_killed_gateway_admits_nobody_beyond_the_budget(
    host: Installation, simulator: Simulated
) -> None:
    """It held grants, dispatched and not; what it held is given back or spent, never both."""
    assert call(host, named("killed")).status_code == 200
    crowd = [named("killed")] * 32

    def kill_one() -> None:
        wait_until(lambda: len(simulator.requests()) > 1, 20, "a call in flight")
        host.kill("gateway")

    killer = threading.Thread(target=kill_one)
    killer.start()
    first = statuses(call_at_once([host], crowd))
    killer.join()
    wait_settled(host, "tree", "killed")
    rest = statuses(call_at_once([host], crowd))

    assert len(simulator.requests()) <= K
    assert 1 + first[200] + rest[200] <= K
    assert rest[200] + rest[402] == 32


def test_extend_pause_and_resume(host: Installation) -> None:
    """An operator gives more, stops, and lets go on; each is on record."""
    for _ in range(K):
        assert call(host, named("given")).status_code == 200
    assert call(host, named("given")).status_code == 402

    assert verb(host, "given", extend_usd=float(usd(1))).status_code == 200
    assert call(host, named("given")).status_code == 200
    assert call(host, named("given")).status_code == 402
    assert verb(host, "given", extend_usd=usd(9), pause=True).status_code == 200
    paused = call(host, named("given"))
    assert paused.status_code == 402
    assert "paused" in paused.json()["error"]["message"]
    assert verb(host, "given", pause=False).status_code == 200
    assert call(host, named("given")).status_code == 200
    assert budgets_of(host)["tree", "given"]["extended_usd"] == usd(10)
    events = host.gateway.admin("/api/v1/sessions/given/events")["items"]
    assert [one["after"] for one in events if one["type"] == "budget"] == [
        {"extend_nanousd": 117_500},
        {"extend_nanousd": 1_057_500, "pause": True},
        {"pause": False},
    ]


FORMS = [
    ("/v1/chat/completions", {"messages": []}, ("error", "type"), "insufficient_quota"),
    ("/v1/responses", {"input": "hi"}, ("error", "code"), "budget_exceeded"),
    ("/v1/messages", {"messages": [], "max_tokens": 9}, ("error", "type"), "billing_error"),
    ("/v1beta/models/gemini-2.5-pro:generateContent", {}, ("error", "code"), 402),
]


@pytest.mark.parametrize(("path", "body", "place", "word"), FORMS, ids=[f[0] for f in FORMS])
def test_each_api_hears_it_in_its_own_form(
    host: Installation, path: str, body: dict[str, Any], place: tuple[str, str], word: Any
) -> None:
    """Terminal, so that no SDK tries again."""
    assert call(host, named("forms")).status_code == 200
    assert verb(host, "forms", pause=True).status_code == 200
    answer = httpx.post(
        f"{host.gateway.url}{path}",
        json={"model": "gpt-4o", **body},
        headers=named("forms"),
        timeout=PATIENCE_S,
    )

    assert answer.status_code == 402
    assert answer.headers["x-should-retry"] == "false"
    outer, inner = place
    assert answer.json()[outer][inner] == word


def test_codex_hears_it_in_a_way_that_it_takes_for_final(host: Installation) -> None:
    """It would send a call answered 402 five times more."""
    assert call(host, named("codex")).status_code == 200
    assert verb(host, "codex", pause=True).status_code == 200
    agent = {"user-agent": "codex_exec/0.169.0", **named("codex")}
    answer = httpx.post(
        f"{host.gateway.url}/v1/responses",
        json={"model": "gpt-4o", "input": "hi"},
        headers=agent,
        timeout=PATIENCE_S,
    )

    assert answer.status_code == 400
    assert answer.headers["x-clew-error"] == "budget_exceeded"
    assert answer.json()["error"]["type"] == "insufficient_quota"


def test_what_cannot_be_counted_is_refused(host: Installation, simulator: Simulated) -> None:
    """A model without a price; a websocket. Counting tokens is free."""
    url = f"{host.gateway.url}/v1/chat/completions"
    unpriced = httpx.post(
        url, json=BODY | {"model": "own-7b"}, headers=named("odd"), timeout=PATIENCE_S
    )
    upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
    tunnel = httpx.get(f"{host.gateway.url}/v1/responses", headers=upgrade, timeout=PATIENCE_S)
    counted = httpx.post(
        f"{host.gateway.url}/v1/messages/count_tokens",
        json={"model": "own-7b", "messages": [{"role": "user", "content": "hi"}]},
        headers=named("odd"),
        timeout=PATIENCE_S,
    )

    assert unpriced.status_code == 402
    assert "has no price" in unpriced.json()["error"]["message"]
    assert tunnel.status_code == 426
    assert counted.status_code == 200
    assert [one["target"] for one in simulator.requests()] == ["/v1/messages/count_tokens"]


def test_while_the_keeper_is_away_nothing_is_spent(
    host: Installation, simulator: Simulated
) -> None:
    """503, with a time to come back; the call goes on when the keeper is back."""
    assert call(host, named("away")).status_code == 200
    keeper = host.pid("keeper")
    os.kill(keeper, signal.SIGSTOP)
    try:
        refused = call(host, named("away"))
    finally:
        os.kill(keeper, signal.SIGCONT)

    assert refused.status_code == 503
    assert refused.headers["x-clew-error"] == "store_unavailable"
    assert int(refused.headers["retry-after"]) > 0
    assert len(simulator.calls()) == 1
    assert wait_until(lambda: call(host, named("away")).status_code == 200, 10, "it goes on")
    # The refused one's grant, given while nobody listened, holds nothing.
    assert wait_settled(host, "tree", "away")["reserved_usd"] == "0.000000000"
