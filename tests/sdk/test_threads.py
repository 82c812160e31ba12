"""Sessions in tasks and threads: each sees its own, and who loses one is told."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.sdk.calling import sync_httpx
from tests.sdk.servers import Server

import clew

MANY = 100
ID = "x-dynamo-session-id"


def here() -> str | None:
    """The id of the session this runs in."""
    found = clew.current()
    return found.id if found is not None else None


def ids(server: Server) -> list[tuple[str | None, str]]:
    """Which session each request was of, and which number its caller gave it."""
    return sorted((seen.get(ID), seen["x-number"]) for seen in server.seen)


def expected() -> list[tuple[str | None, str]]:
    """What a hundred callers, each in a session of its own number, must leave behind."""
    return sorted((f"run-{number}", str(number)) for number in range(MANY))


def test_a_hundred_tasks_each_send_their_own_id(gateway: Server) -> None:
    """Side by side, over one client, two calls each."""
    clew.instrument(gateway.url)
    barrier = asyncio.Barrier(MANY)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        async with clew.session(f"run-{number}"):
            await barrier.wait()
            for _ in range(2):
                await client.get(gateway.url, headers={"x-number": str(number)})

    async def main() -> None:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(verify=False, limits=limits, timeout=60) as client:
            await asyncio.gather(*(one(client, number) for number in range(MANY)))

    asyncio.run(main())

    assert ids(gateway) == sorted(expected() * 2)


def test_a_hundred_threads_each_send_their_own_id(gateway: Server) -> None:
    """Each enters a session of its own."""
    clew.instrument(gateway.url)
    barrier = threading.Barrier(MANY)

    def one(number: int) -> None:
        with clew.session(f"run-{number}"):
            barrier.wait(60)
            sync_httpx(gateway.url, {"x-number": str(number)})

    threads = [threading.Thread(target=one, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ids(gateway) == expected()


def test_a_carrying_executor_submits_with_the_callers_session() -> None:
    """Each task has the session it was submitted in, whichever thread runs it."""
    with clew.carrying(ThreadPoolExecutor(4)) as pool:
        futures = []
        for number in range(MANY):
            with clew.session(f"run-{number}"):
                futures.append(pool.submit(here))
        with clew.session("mapped"):
            mapped = list(pool.map(lambda _: here(), range(3)))

        assert [one.result() for one in futures] == [f"run-{n}" for n in range(MANY)]
        assert mapped == ["mapped"] * 3
        assert pool.submit(here).result() is None


def test_a_carried_function_runs_in_its_session_elsewhere() -> None:
    """Threads, the event loop's executor, and coroutines for another loop."""

    async def later() -> str | None:
        await asyncio.sleep(0)
        return here()

    async def main() -> str | None:
        return await asyncio.get_running_loop().run_in_executor(None, carried)

    with clew.session("run-42"):
        carried, coroutine = clew.carry(here), clew.carry(later)

    assert (carried(), here()) == ("run-42", None)
    assert asyncio.run(main()) == "run-42"
    assert asyncio.run(coroutine()) == "run-42"
    assert clew.carry(here) is here


def in_a_thread(function: Callable[[], None]) -> None:
    """Run it in a plain thread, which inherits nothing; raise what it raised."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result()


def test_a_call_that_lost_its_session_is_warned_of(gateway: Server) -> None:
    """In a plain thread, while its starter is inside a session; it says what to do."""
    clew.instrument(gateway.url)

    def call() -> None:
        sync_httpx(gateway.url, {"x-number": "0"})

    with clew.session("run-42"):
        with pytest.warns(clew.ClewWarning, match=r"clew\.carry"):
            in_a_thread(call)
        in_a_thread(clew.carry(call))

    assert [seen.get(ID) for seen in gateway.seen] == [None, "run-42"]


def test_nobody_is_warned_without_reason(gateway: Server, provider: Server) -> None:
    """Not of calls elsewhere, nor when no session is open, nor beside a task of the same thread."""
    clew.instrument(gateway.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_a_thread(lambda: sync_httpx(gateway.url, {}))
        with clew.session("run-42"):
            in_a_thread(lambda: sync_httpx(provider.url, {}))

    assert [seen.get(ID) for seen in (*gateway.seen, *provider.seen)] == [None, None]


def test_a_session_left_in_another_thread_is_left(gateway: Server) -> None:
    """No thread counts as inside for ever."""
    clew.instrument(gateway.url)
    run = clew.session("run-42")
    run.__enter__()
    context = contextvars.copy_context()
    in_a_thread(lambda: context.run(run.__exit__, None, None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_a_thread(lambda: sync_httpx(gateway.url, {}))
    run.__exit__(None, None, None)

    assert here() is None
