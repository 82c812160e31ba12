"""Malformed HTTP through a running gateway: refused, closed, and nothing of it forwarded (P5)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.plain import Upstream, ask, exchange, upstream
from tests.e2e.processes import Gateway, gateway_process

CORPUS = Path(__file__).parents[1] / "data" / "malformed_http"
CONFIGURATION = """
[[upstream]]
name = "recorder"
url = "{url}"
"""
STATUSES = {400: "bad_request", 413: "request_too_large", 414: "target_too_long"}
STATUSES[431] = "header_too_large"
AT_ONCE = 8


@pytest.fixture(scope="module")
def recorder() -> Iterator[Upstream]:
    """An upstream that would accept everything."""
    with upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(recorder: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway in front of it."""
    directory = tmp_path_factory.mktemp("malformed")
    with gateway_process(directory, CONFIGURATION.format(url=recorder.url)) as running:
        yield running


def cases(name: str) -> list[dict[str, Any]]:
    """One file of the corpus."""
    return json.loads((CORPUS / f"{name}.json").read_text())


def raw_of(case: dict[str, Any], extra: str = "") -> bytes:
    """A case's bytes, addressed to this gateway; ``extra`` lines stand after its Host line."""
    return case["raw"].replace("Host: a\r\n", f"Host: 127.0.0.1\r\n{extra}", 1).encode("latin-1")


async def send_all(url: str, raws: list[bytes]) -> list[bytes]:
    """Each on a connection of its own, a few at once; a connection left open is a failure."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(raw: bytes) -> bytes:
        async with free:
            return await exchange(url, raw, patience_s=20)

    return await asyncio.gather(*(one(raw) for raw in raws))


@pytest.mark.parametrize("extra", ["", "X-Dynamo-Session-ID: named\r\n"], ids=["no id", "id"])
def test_every_malformed_request_is_refused_and_nothing_arrives(
    gateway: Gateway, recorder: Upstream, extra: str
) -> None:
    """One answer of its status and code, the connection closed, no whole request upstream."""
    recorder.received.clear()
    refused = cases("refused")

    answers = asyncio.run(send_all(gateway.url, [raw_of(case, extra) for case in refused]))

    for case, answer in zip(refused, answers, strict=True):
        _assert_refused(case, answer)
    assert len(refused) >= 100
    assert recorder.received == []
    assert ask(gateway.url, "GET", "/clew/v1/health").status == 200


def _assert_refused(case: dict[str, Any], answer: bytes) -> None:
    where = (case["name"], case["reason"], answer[:300])
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    status = int(answer[9:12])
    assert status in STATUSES, where
    assert status == case["status"], where
    assert body.count(b"HTTP/1.1 4") == 0, where
    assert b"connection: close" in lines, where
    code = next(line for line in lines if line.startswith(b"x-clew-error: "))[14:].decode()
    assert code in (STATUSES[status], "ambiguous_header"), where
    assert b"x-should-retry: false" in lines, where
    assert json.loads(body)["error"]["message"].startswith("clew:"), where


def test_a_malformed_head_opens_no_connection_to_the_upstream(
    gateway: Gateway, recorder: Upstream
) -> None:
    """What is refused by its head alone is refused before anything is opened."""
    before = recorder.connections
    bodiless = [case for case in cases("refused") if case["raw"].startswith("GET /v1/models ")]

    asyncio.run(send_all(gateway.url, [raw_of(case) for case in bodiless]))

    assert len(bodiless) > 30
    assert recorder.connections == before


def test_the_valid_twins_pass(gateway: Gateway, recorder: Upstream) -> None:
    """Requests one byte away from malformed ones are forwarded with exactly their body."""
    passed = [case for case in cases("accepted") if _is_routable(case["raw"])]
    for case in passed:
        recorder.received.clear()
        raw = raw_of(case, "Connection: close\r\n")
        answer = asyncio.run(exchange(gateway.url, raw, patience_s=20))

        assert answer.startswith(b"HTTP/1.1 200 "), (case, answer)
        assert [r.body for r in recorder.received] == [case["body"].encode("latin-1")], case
    assert len(passed) >= 15


def _is_routable(raw: str) -> bool:
    """Whether it goes on from here: a path, this Host, and room for one more field."""
    return "\r\nHost: a\r\n" in raw and " /v1/" in raw and raw.count("\r\n") < 100
