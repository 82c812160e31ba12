"""Calls that cost the same each, many at once, and what came of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import httpx
from tests.e2e.installation import Installation, wait_until

NANO: Final = 10**9
MODEL: Final = "gpt-4o"
BODY: Final = {
    "model": MODEL,
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "hello there"}],
}
PATIENCE_S: Final = 60.0


def named(session: str, parent: str = "") -> dict[str, str]:
    """A canonical id."""
    found = {"x-dynamo-session-id": session}
    return found | ({"x-dynamo-parent-session-id": parent} if parent else {})


def call(host: Installation, headers: dict[str, str]) -> httpx.Response:
    """One call."""
    url = f"{host.gateway.url}/v1/chat/completions"
    return httpx.post(url, json=BODY, headers=headers, timeout=PATIENCE_S)


def call_at_once(
    hosts: Sequence[Installation], headers: Sequence[dict[str, str]]
) -> list[httpx.Response | None]:
    """As many calls as headers, all at once, round the hosts; None: the connection broke."""

    async def one(client: httpx.AsyncClient, number: int) -> httpx.Response | None:
        url = f"{hosts[number % len(hosts)].gateway.url}/v1/chat/completions"
        try:
            return await client.post(url, json=BODY, headers=headers[number])
        except httpx.TransportError:
            return None

    async def everyone() -> list[httpx.Response | None]:
        limits = httpx.Limits(max_connections=len(headers), max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits) as client:
            return await asyncio.gather(*(one(client, n) for n in range(len(headers))))

    return asyncio.run(everyone())


def statuses(answers: Sequence[httpx.Response | None]) -> Counter[int]:
    """How many of each status; 0: the connection broke."""
    return Counter(0 if answer is None else answer.status_code for answer in answers)


def budgets_of(host: Installation) -> dict[tuple[str, str], dict[str, Any]]:
    """Every budget in use, by scope and subject's external id (else its own name)."""
    host.settle()
    items = host.gateway.admin("/api/v1/limits?limit=500")["items"]
    return {
        (item["scope"], item["session_id"] or item["subject"]): item
        for item in items
        if item["kind"] == "budget"
    }


def wait_settled(host: Installation, scope: str, subject: str) -> dict[str, Any]:
    """The budget, once nothing is in flight any more."""

    def found() -> dict[str, Any] | None:
        item = budgets_of(host).get((scope, subject))
        return item if item and not float(item["reserved_usd"]) else None

    return wait_until(found, 60.0, "nothing is held")


def verb(host: Installation, session: str, **body: Any) -> httpx.Response:
    """A change of a session's budget."""
    return httpx.post(
        f"{host.gateway.admin_url}/api/v1/sessions/{session}/budget",
        headers={"authorization": f"Bearer {host.gateway.token}"},
        json=body,
        timeout=10,
    )
