"""The corpus of malformed requests, and the valid twins that must pass, through a live listener."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.wire.house import Call, House, run

CORPUS = Path(__file__).parent.parent / "data" / "malformed_http"
"""Each case: ``raw`` (the bytes, one character a byte), ``reason``, and what must come of it."""


def cases(name: str) -> list[Any]:
    """One file of the corpus as parameters."""
    found = json.loads((CORPUS / f"{name}.json").read_text())
    return [pytest.param(case, id=case["name"]) for case in found]


async def record(call: Call) -> None:
    """An upstream that answers whatever complete request it gets."""
    while True:
        head = (await call.head()).lower()
        length = 0
        if b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await call.body(length)
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def test_the_corpus_is_large_enough() -> None:
    """At least a hundred malformed requests are kept."""
    assert len(cases("refused")) >= 100


@pytest.mark.parametrize("case", cases("refused"))
def test_a_malformed_request_is_refused(case: dict[str, Any]) -> None:
    """It gets its status, the connection closes, and nothing was forwarded."""

    async def story() -> None:
        async with House(record) as house:
            answer = await house.ask(case["raw"].encode("latin-1"))

            assert answer.startswith(f"HTTP/1.1 {case['status']} ".encode()), case["reason"]
            assert b"connection: close\r\n" in answer
            assert answer.count(b"HTTP/1.1 ") == 1
            assert not house.calls

    run(story)


@pytest.mark.parametrize("case", cases("accepted"))
def test_its_valid_twin_passes(case: dict[str, Any]) -> None:
    """It is answered by the upstream, which got exactly its body."""

    async def story() -> None:
        async with House(record) as house:
            client = await house.client()
            client.send(case["raw"].encode("latin-1"))

            assert (await client.head()).startswith(b"HTTP/1.1 200 "), case["reason"]
            assert await client.exactly(2) == b"ok"
            (await house.call()).raw.partition(b"\r\n\r\n")
            sent = house.calls[0].raw.partition(b"\r\n\r\n")[2]
            assert sent == case["body"].encode("latin-1")

    run(story)


def test_refused_bytes_are_refused_one_by_one_too() -> None:
    """How a malformed request is cut into reads does not save it."""

    async def story() -> None:
        async with House(record) as house:
            for name in ("bare-lf-everywhere", "chunk-hexadecimal", "te-space-before-colon"):
                case = next(c.values[0] for c in cases("refused") if c.id == name)
                client = await house.client()
                for byte in case["raw"].encode("latin-1"):
                    client.send(bytes([byte]))
                    await asyncio.sleep(0)

                assert b"HTTP/1.1 400 " in await client.rest()
            assert not house.calls

    run(story)
