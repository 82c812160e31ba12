"""What the SDK's stamping costs: processor time of one call, as a ratio to the bare client.

One client of httpx and one of the OpenAI SDK call a fast upstream on loopback, alternately bare,
instrumented outside of any session, and instrumented inside a child session. Processor time is
this process's own (user and system), so what the upstream uses is not in it.

    python -m bench.stamping            # starts its own upstream
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import httpx
import openai

import clew

ROUNDS = 15
CALLS = 100
BODY = {"model": "bench-1", "messages": [{"role": "user", "content": "hi"}]}
MODES = ("bare", "outside", "inside")


def _per_call_us(call: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - started) / CALLS * 1e6


def _round(mode: str, url: str, call: Callable[[], object]) -> float:
    """One round of one mode; the client stays, as in a program that instruments late."""
    if mode == "bare":
        return _per_call_us(call)
    clew.instrument(url)
    session = clew.session("run-42").child("bench") if mode == "inside" else nullcontext()
    try:
        with session:
            return _per_call_us(call)
    finally:
        clew.uninstrument()


def _medians(url: str, call: Callable[[], object]) -> dict[str, float]:
    """Median of each mode over the rounds, whose order turns so that no mode is always first."""
    _per_call_us(call)
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(ROUNDS):
        first = number % len(MODES)
        for mode in (*MODES[first:], *MODES[:first]):
            taken[mode].append(_round(mode, url, call))
    return {mode: statistics.median(found) for mode, found in taken.items()}


def line(port: int) -> str:
    """The paragraph of `make bench`: one line a client."""
    url = f"http://127.0.0.1:{port}"
    lines = ["\nStamping a call (clew.sdk), processor time of the calling program"]
    lines.append(f"{'client':<14}{'bare µs':>10}{'outside':>10}{'inside':>10}{'× bare':>9}")
    with (
        httpx.Client(trust_env=False) as client,
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk-bench") as sdk,
    ):
        calls: dict[str, Callable[[], object]] = {
            "httpx": lambda: client.post(f"{url}/v1/chat/completions", json=BODY),
            "openai": lambda: sdk.chat.completions.create(
                model="bench-1", messages=[{"role": "user", "content": "hi"}]
            ),
        }
        for name, call in calls.items():
            found = _medians(url, call)
            bare, outside, inside = (found[mode] for mode in MODES)
            lines.append(
                f"{name:<14}{bare:>10.1f}{outside:>10.1f}{inside:>10.1f}{inside / bare:>9.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure against an upstream of its own."""
    argv = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as upstream:
        assert upstream.stdout is not None
        try:
            print(line(int(upstream.stdout.readline().split()[-1])))
        finally:
            upstream.terminate()


if __name__ == "__main__":
    main()
