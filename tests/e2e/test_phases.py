"""Two phases through a real gateway, against workers that check the hand-over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.e2e.installation import wait_until
from tests.e2e.phased import LONG, House, both, calls, house, posted, request, script
from tests.e2e.plain import ask


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A gateway whose workers live as long as the tests of one dialect."""
    with house(tmp_path_factory.mktemp(request.param), request.param) as found:
        yield found


@pytest.fixture
def found(running: House) -> House:
    """The same, its workers as new."""
    running.reset()
    return running


def test_a_session_keeps_both_of_its_workers(found: House) -> None:
    """Prefill and decode are bound separately and kept; record and admin API name both."""
    workers = set()
    for session in ("keeps-a", "keeps-b"):
        shown = []
        for turn in range(3):
            answer = found.call(session, LONG * (turn + 1))
            assert answer.status == 200, answer.body
            shown.append(answer.get("x-clew-worker"))
            assert answer.get("x-clew-binding") == ("held" if turn else "new")
        (kept,) = set(shown)
        workers.add(kept)
    names = {f"prefill={p.url},decode={d.url}" for p in found.prefill for d in found.decode}
    assert len(workers) == 2
    assert workers < names

    record = found.records("keeps-a")[-1]
    assert record["worker"] in workers
    assert record["binding"] == "held"
    assert str(record["epoch"]) == answer_epoch(found, "keeps-a")
    items = found.installation.gateway.admin("/api/v1/bindings")["items"]
    phases = [row["phase"] for row in items if row["session_id"] == "keeps-a"]
    assert sorted(phases) == ["decode", "prefill"]


def answer_epoch(found: House, session: str) -> str | None:
    """What a further call's answer says; both workers were told the same."""
    answer = found.call(session)
    for engines in (found.prefill, found.decode):
        told = dict(
            posted(*(one for one in engines if one.url in both(answer).values()))[-1]["headers"]
        )
        assert told["x-clew-epoch"] == answer.get("x-clew-epoch")
    return answer.get("x-clew-epoch")


@pytest.mark.parametrize("stream", [False, True])
def test_usage_is_counted_once_and_cached_is_the_prefills(found: House, stream: bool) -> None:
    """The decode worker calls all of a handed-over prompt cached; the record does not."""
    session = f"usage-{stream}"
    for text in (LONG, LONG * 2):
        answer = found.call(session, text, stream=stream, max_completion_tokens=30, min_tokens=2)
        assert (answer.status, answer.is_complete) == (200, True), answer.body
    rows = found.records(session)
    read, told = calls(*found.prefill), calls(*found.decode)
    for row, prefill, decode in zip(rows, read, told, strict=True):
        assert row["input_tokens"] == decode["planned"]["input_tokens"]
        assert row["output_tokens"] == decode["planned"]["output_tokens"] > 1
        assert row["cached_tokens"] == prefill["planned"]["cached_tokens"]
        assert decode["planned"]["cached_tokens"] == decode["planned"]["input_tokens"]
        assert (row["error"] or "", row["estimated"]) == ("", False)
    assert rows[0]["cached_tokens"] == 0
    assert rows[1]["cached_tokens"] > rows[0]["input_tokens"] * 0.9


def test_a_client_cannot_name_the_worker_that_is_fetched_from(found: House) -> None:
    """A hand-over in the client's body is replaced."""
    made_up = {"do_remote_prefill": True, "remote_host": "127.0.0.9", "remote_port": 9}
    bootstrap = {"bootstrap_host": "127.0.0.9", "bootstrap_port": 9, "bootstrap_room": 1}
    answer = found.call("made-up", kv_transfer_params=made_up, **bootstrap)
    assert answer.status == 200, answer.body


def test_a_body_that_is_no_object_is_refused(found: House) -> None:
    """What one reader refuses and another may understand goes nowhere; it has one record."""
    for body in (b"[1]", b'{"messages": NaN}', b"\xff"):
        target, fields, _ = request("no-object")
        answer = ask(found.url, "POST", target, fields, body)
        assert (answer.status, answer.get("x-clew-error")) == (400, "bad_request")
    assert not posted(*found.prefill, *found.decode)
    assert [row["error"] for row in found.records("no-object")] == ["bad_request"] * 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_prefill_that_refuses_is_the_answer(found: House, stream: bool) -> None:
    """Its own error passes unchanged, once, on record."""
    session = f"prefill-refuses-{stream}"
    for engine in found.prefill:
        script(engine, status=429)
    answer = found.call(session, upstream="loose", stream=stream)
    assert (answer.status, answer.get("x-clew-error")) == (429, None)
    assert b"simulated error 429" in answer.body
    (record,) = found.records(session)
    assert (record["status"], record["error"]) == (429, "upstream_error")
    assert "prefill_failed" in record["flags"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_decode_that_refuses_is_the_answer(found: House, stream: bool) -> None:
    """Its own error passes unchanged, once, on record."""
    session = f"decode-refuses-{stream}"
    for engine in found.decode:
        script(engine, status=500)
    answer = found.call(session, upstream="loose", stream=stream)
    assert answer.status == 500
    assert b"simulated error 500" in answer.body
    (record,) = found.records(session)
    assert (record["status"], record["error"]) == (500, "upstream_error")


def leave_when(found: House, sent: bytes, is_time: Callable[[], object]) -> None:
    """Send a request, and go away as soon as it is time."""

    async def leave() -> None:
        address = urlsplit(found.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(sent)
        await asyncio.to_thread(wait_until, is_time)
        writer.transport.abort()

    asyncio.run(leave())


def has_left(call: dict[str, object]) -> bool:
    """Whether a worker saw its client leave."""
    return bool(call["client_disconnected"])


def test_a_client_that_leaves_frees_the_decode_worker(found: House) -> None:
    """Its request ends at once, with one record."""
    for engine in found.decode:
        script(engine, delay_ms=60_000)
    leave_when(found, found.raw("leaves", LONG, stream=True), lambda: posted(*found.decode))
    wait_until(lambda: any(map(has_left, calls(*found.decode))), 5.0, "the decode ends")
    (record,) = wait_until(lambda: found.records("leaves"))
    assert record["client_disconnected"]


def test_a_client_that_leaves_early_frees_the_prefill_worker(found: House) -> None:
    """While the prompt is read: the prefill ends at once, and nothing is decoded."""
    for engine in found.prefill:
        script(engine, delay_ms=60_000)
    leave_when(found, found.raw("early", LONG, stream=True), lambda: posted(*found.prefill))
    wait_until(lambda: any(map(has_left, calls(*found.prefill))), 5.0, "the prefill ends")
    (record,) = wait_until(lambda: found.records("early"))
    assert record["client_disconnected"]
    assert not calls(*found.decode)


def test_what_does_not_generate_is_the_decode_workers_alone(found: House) -> None:
    """A list of models and a count of tokens need no hand-over."""
    assert ask(found.url, "GET", "/u/fleet/v1/models").status == 200
    _, fields, body = request("counts")
    answer = ask(found.url, "POST", "/u/fleet/v1/messages/count_tokens", fields, body)
    assert answer.status == 200, answer.body
    assert not posted(*found.prefill)


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_a_dead_worker_of_either_phase_costs_an_unbound_call_nothing(
    dialect: str, tmp_path: Path
) -> None:
    """Nothing of it was sent: the other worker of that phase serves, and the record names it."""
    with house(tmp_path, dialect) as found:
        found.prefill[0].kill()
        found.decode[0].kill()
        for _ in range(4):
            assert found.call("s", upstream="loose", stream=True).status == 200
        left = f"prefill={found.prefill[1].url},decode={found.decode[1].url}"
        assert [row["worker"] for row in found.records("s")] == [left] * 4


def test_a_lost_worker_of_either_phase_ends_an_immutable_session(tmp_path: Path) -> None:
    """It is told so, for good; a new session is served."""
    with house(tmp_path, "vllm") as found:
        workers = {name: both(found.call(name)) for name in ("s", "t")}
        for phase, session in (("prefill", "s"), ("decode", "t")):
            url = workers[session][phase]
            next(one for one in (*found.prefill, *found.decode) if one.url == url).kill()
            found.call(session)
            wait_until(lambda: found.states()[phase, url] == "down", what="known to be dead")  # noqa: B023  called here
            for _ in range(2):
                answer = found.call(session)
                assert (answer.status, answer.get("x-clew-error")) == (409, "session_worker_lost")
        assert found.call("u").status == 200


def test_a_lost_worker_of_either_phase_moves_that_phase_alone(tmp_path: Path) -> None:
    """Under rebind, once, with a higher epoch."""
    with house(tmp_path, "vllm", binding="rebind") as found:
        before = found.call("s")
        for phase in ("prefill", "decode"):
            url = both(before)[phase]
            next(one for one in (*found.prefill, *found.decode) if one.url == url).kill()
            found.call("s")
            wait_until(lambda: found.states()[phase, url] == "down", what="known to be dead")  # noqa: B023  called here
            after = found.call("s")
            assert after.status == 200, after.body
            words = {row["binding"] for row in found.records("s")}
            assert "rebound" in words
            assert int(after.get("x-clew-epoch") or 0) > int(before.get("x-clew-epoch") or 0)
            moved = {name for name, was in both(before).items() if both(after)[name] != was}
            assert moved == {phase}
            before = after


def test_a_session_returns_to_both_workers_after_a_restart(tmp_path: Path) -> None:
    """Claims in memory end with the process; the store's records bind anew, with higher epochs.

    A client that leaves early is not waited for, also where answers are drained.
    """
    with house(tmp_path, "vllm", more='[metering]\non_disconnect = "drain"\n') as found:
        before = found.call("s")
        found.installation.settle()
        found.installation.stop()
        found.installation.start()
        found.wait_up()
        after = found.call("s")
        assert after.status == 200, after.body
        assert after.get("x-clew-worker") == before.get("x-clew-worker")
        assert after.get("x-clew-binding") == "held"
        assert int(after.get("x-clew-epoch") or 0) > int(before.get("x-clew-epoch") or 0)
        found.reset()
        test_a_client_that_leaves_early_frees_the_prefill_worker(found)
