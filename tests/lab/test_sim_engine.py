"""Simulated workers of one phase: they serve what is handed over rightly, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.processes import simulator_process

ASKED = {"do_remote_decode": True, "do_remote_prefill": False, "remote_host": None}
MESSAGES = [{"role": "user", "content": "where does the thread lead"}]
PREFILL = {"stream": False, "max_tokens": 1, "kv_transfer_params": ASKED}
Pair = tuple[str, str]


def call(url: str, **members: Any) -> httpx.Response:
    """One chat call."""
    body = {"model": "m", "messages": MESSAGES, **members}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def vllm() -> Iterator[Pair]:
    """A prefill and a decode worker."""
    with (
        simulator_process("--phase", "prefill") as prefill,
        simulator_process("--phase", "decode") as decode,
    ):
        yield prefill.url, decode.url


@pytest.fixture(scope="module")
def sglang() -> Iterator[Pair]:
    """A prefill and a decode worker."""
    with (
        simulator_process("--phase", "prefill", "--engine", "sglang") as prefill,
        simulator_process("--phase", "decode", "--engine", "sglang") as decode,
    ):
        yield prefill.url, decode.url


def handed_over(url: str, **members: Any) -> dict[str, Any]:
    """What a prefill worker hands over."""
    return call(url, **{**PREFILL, **members}).raise_for_status().json()["kv_transfer_params"]


def test_a_hand_over_serves_its_prompt_once(vllm: Pair) -> None:
    """The whole prompt counts as cached at the decode worker; used up, it is worth nothing."""
    prefill, decode = vllm
    given = handed_over(prefill)

    answer = call(decode, kv_transfer_params=given).raise_for_status().json()
    again = call(decode, kv_transfer_params=given)

    usage = answer["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]
    assert again.status_code == 500
    assert "nothing is kept" in again.text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"stream": True}, "not streamed"),
        ({"max_tokens": 2}, "one token"),
        ({"max_completion_tokens": 9}, "one token"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"stream_options": {}}, "stream_options"),
        ({"kv_transfer_params": None}, "missing"),
        ({"kv_transfer_params": {**ASKED, "do_remote_decode": False}}, "do_remote_decode"),
    ],
)
def test_a_prefill_worker_refuses_what_is_no_prefill(
    vllm: Pair, changed: dict[str, Any], reason: str
) -> None:
    """A whole call that lands there is a fault of whoever sent it."""
    answer = call(vllm[0], **{**PREFILL, **changed})

    assert answer.status_code == 400
    assert reason in answer.text


def test_a_decode_worker_refuses_a_hand_over_that_is_not_its_prompts(vllm: Pair) -> None:
    """None, one that nobody gave, one of another prompt, one with other blocks."""
    prefill, decode = vllm
    other = handed_over(prefill, messages=[{"role": "user", "content": "another"}])
    port = urlsplit(decode).port

    assert call(decode).status_code == 400
    assert call(decode, kv_transfer_params=ASKED).status_code == 400
    for wrong in (
        other,
        {**handed_over(prefill), "remote_block_ids": [1]},
        {**handed_over(prefill), "remote_engine_id": "engine-1"},
        {**handed_over(prefill), "remote_request_id": "made-up"},
        {**handed_over(prefill), "remote_port": port},
        {**handed_over(prefill), "remote_port": 1},
    ):
        assert call(decode, kv_transfer_params=wrong).status_code == 500


def room(pair: Pair, number: int) -> dict[str, Any]:
    """The bootstrap members of one room."""
    address = urlsplit(pair[0])
    return {
        "bootstrap_host": address.hostname,
        "bootstrap_port": address.port,
        "bootstrap_room": number,
    }


@pytest.mark.parametrize("first", [0, 1])
def test_workers_meet_in_their_room_whoever_comes_first(sglang: Pair, first: int) -> None:
    """Neither answers before the other has come."""
    members = room(sglang, 100 + first)
    with ThreadPoolExecutor() as pool:
        one = pool.submit(call, sglang[first], **members)
        two = call(sglang[1 - first], **members)
        answers = [one.result(), two] if first == 0 else [two, one.result()]

    assert [answer.status_code for answer in answers] == [200, 200]
    prefill, decode = (answer.json()["usage"] for answer in answers)
    assert prefill["completion_tokens"] == 1
    assert decode["completion_tokens"] > 1


def test_a_room_of_another_prompt_or_server_is_refused(sglang: Pair) -> None:
    """A decode that took it would answer for somebody else's."""
    prefill, decode = sglang
    members = room(sglang, 200)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(call, prefill, **members)
        wrong = call(decode, **members, messages=[{"role": "user", "content": "another"}])
        right = call(decode, **members)
        assert waits.result().status_code == 200
    assert (wrong.status_code, right.status_code) == (500, 200)

    assert call(prefill, **{**members, "bootstrap_port": 1}).status_code == 400
    assert call(prefill).status_code == 400
    assert call(decode).status_code == 400
