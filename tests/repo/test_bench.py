"""The measuring tools measure what they say; no test judges a time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import load, processor_time
from bench.metering import metering_line
from bench.run import Sample, summarise

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def upstream() -> Iterator[int]:
    """A running upstream's port."""
    argv = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[-1])
        process.terminate()


@pytest.mark.parametrize(("chunks", "rest_ms"), [(0, 0), (0, 10), (5, 0)])
def test_the_generator_sends_exactly_what_was_planned(
    upstream: int, chunks: int, rest_ms: int
) -> None:
    """Every request is answered and counted once, unary, with rests, and streamed."""
    plan = load.Plan(
        upstream,
        connections=4,
        requests=42,
        sessions=10,
        chunks=chunks,
        pace_ms=1,
        rest_ms=rest_ms,
    )

    measured = asyncio.run(load.run(plan))

    assert (measured.requests, measured.errors) == (42, 0)
    assert measured.seconds > rest_ms / 1000 * 9  # each connection rests nine times at least
    assert measured.p99_ms >= measured.p50_ms > 0


def test_an_upstream_that_is_not_there_is_errors_not_a_hang() -> None:
    """A plan ends also when nothing answers."""
    plan = load.Plan(port=1, connections=3, requests=3, sessions=1)

    measured = asyncio.run(load.run(plan))

    assert (measured.requests, measured.errors) == (3, 3)


def test_percentiles_of_nothing_and_of_few() -> None:
    """Nearest rank, and zero where nothing was measured."""
    assert load.percentile(array("d"), 0.99) == 0.0
    assert load.percentile(array("d", [3.0, 1.0, 2.0]), 0.5) == 2.0


def test_ratios_are_of_medians_over_the_rounds() -> None:
    """One odd round does not decide."""
    calm = load.Measured(10, 0, 1.0, 1, 1, 1, 1, 1, 1)
    samples = [
        Sample("unary", name, number, 10, time_us, time_us, calm)
        for name, times in (("nginx", (20.0, 22.0, 90.0)), ("clew", (66.0, 60.0, 70.0)))
        for number, time_us in enumerate(times)
    ]

    rows = {row["proxy"]: row for row in summarise(samples)}

    assert rows["clew"]["worker_us"] == 66.0
    assert rows["clew"]["ratio_to_nginx"] == 3.0


def test_processor_time_of_a_process_that_left_counts_as_none() -> None:
    """A child that was started again does not end the run."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert processor_time.used_s([process.pid]) == 0.0
    assert processor_time.command_line(process.pid) == ""


def test_metering_is_the_ratio_of_two_streams() -> None:
    """Of one proxy in one run; nothing is said where one of them is missing or went wrong."""
    read = {"scenario": "stream", "proxy": "clew", "worker_us": 30.0, "errors": 0}
    unread = {"scenario": "unread", "proxy": "clew", "worker_us": 20.0, "errors": 0}

    assert metering_line([read, unread]).endswith("× 1.50")
    assert metering_line([read]) == metering_line([read, unread | {"errors": 1}]) == ""
