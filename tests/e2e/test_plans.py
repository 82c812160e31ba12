"""What a vendor's answer says of a subscription reaches the admin API."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.e2e.installation import Installation
from tests.e2e.plain import Received, ask, upstream

CONFIGURATION = """
[[upstream]]
name = "own"
url = "{url}"
"""
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
    b"anthropic-ratelimit-unified-5h-utilization: 0.5\r\n"
    b"anthropic-ratelimit-unified-5h-status: allowed\r\n\r\n{}"
)


async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
    """As a vendor answers a subscriber."""
    writer.write(ANSWER)


def test_a_subscribers_window_is_shown_and_an_api_keys_is_not(tmp_path: Path) -> None:
    """Who pays by the token has no plan; headers that say so are somebody else's."""
    with (
        upstream(answer) as vendor,
        Installation(tmp_path, CONFIGURATION.format(url=vendor.url)) as running,
    ):
        for number, secret in enumerate(("sk-ant-api03-k", "sk-ant-oat01-t")):
            fields = [("authorization", f"Bearer {secret}"), ("x-dynamo-session-id", f"s{number}")]
            ask(running.gateway.url, "POST", "/v1/messages", fields, b'{"model":"m"}')
            running.settle()
            found = running.gateway.admin("/api/v1/plans")["items"]
            assert len(found) == number

    (window,) = found
    assert (window["name"], window["used_percent"], window["window_s"]) == ("5h", 50.0, 18_000)
    assert (window["principal"], window["status"]) == ("local", "allowed")
