"""`clew close`, `merge`, `split`, `forget` and the following of `tail`, against the real API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from tests.web.conftest import BASE, TOKEN, House
from tests.web.serving import served

from clew.cli.admin import AdminError, AdminPort, Place
from clew.cli.live import NoLiveError, follow_live
from clew.cli.main import cli
from clew.store import schema

Run = Callable[..., Result]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Two sessions with an attempt each."""
    made = House(tmp_path)
    for place, key in enumerate(("cs_a", "cs_b"), 1):
        made.filling.session(key, requests=1, input_tokens=100, cached_tokens=40, output_tokens=10)
        made.filling.alias(key, f"x-{key}")
        made.filling.attempt(f"r-{key}", key, landed=place)
    made.filling.put(schema.landing, {"id": 1, "last": 2})
    yield made
    made.close()


@pytest.fixture
def address(house: House) -> Iterator[str]:
    """Where its admin port is."""
    with served(house.app) as found:
        yield found


@pytest.fixture
def run(address: str) -> Run:
    """Run a command against it."""

    def run_command(*words: str, stdin: str = "") -> Result:
        options = ["--admin", address, "--token", TOKEN]
        return CliRunner().invoke(cli, [*words, *options], input=stdin)

    return run_command


def test_close_says_what_is_closed(run: Run) -> None:
    """By a prefix of any id."""
    done = run("close", "x-cs_a")

    assert (done.exit_code, done.stdout) == (0, "x-cs_a is closed\n")
    assert json.loads(run("show", "cs_a", "--json").stdout)["session"]["state"] == "closed"


def test_merge_and_split_undo_each_other(run: Run) -> None:
    """Both say how many calls are where."""
    assert run("merge", "cs_a", "cs_b").stdout == "x-cs_b has 2 calls now\n"
    assert run("split", "cs_b", "cs_a").exit_code == 0
    ids = {item["id"] for item in json.loads(run("sessions", "--json").stdout)}
    assert ids == {"cs_a", "cs_b"}


def test_what_cannot_be_done_says_why_in_one_line(run: Run) -> None:
    """Status 1."""
    done = run("merge", "cs_a", "cs_a")

    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "into itself" in done.stderr


def test_forget_asks_first(run: Run) -> None:
    """Anything but yes leaves it."""
    left = run("forget", "cs_a", stdin="n\n")
    assert left.exit_code == 1
    assert "forget x-cs_a (1 calls" in left.stderr
    assert run("show", "cs_a").exit_code == 0
    done = run("forget", "cs_a", stdin="y\n")
    assert done.exit_code == 0
    assert run("show", "x-cs_a").exit_code == 1


def test_forget_does_not_ask_when_told(run: Run) -> None:
    """And prints the API's own answer."""
    done = json.loads(run("forget", "cs_a", "--yes", "--json").stdout)

    assert (done["requests"], done["close_reason"]) == (1, "forgotten")


def test_what_lands_is_followed_over_a_lost_connection(house: House, address: str) -> None:
    """Each record once."""
    with AdminPort(Place(address, TOKEN)) as port:
        records = follow_live(port, wait=lambda _s: None)
        assert next(records) is None
        house.filling.attempt("r3", "cs_a", landed=3)
        house.filling.change(sa.update(schema.landing).values(last=3))
        first = next(records)
        again = follow_live(port, last="2", wait=lambda _s: None)
        assert next(again) is None
        assert first == next(again)
        records.close()
        again.close()


def test_a_port_without_live_events_is_told_apart() -> None:
    """Then `tail` looks again and again instead."""

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"error": {"code": "not_found", "message": "no"}})

    port = AdminPort(Place(BASE, TOKEN), httpx.MockTransport(answer))
    with port, pytest.raises(NoLiveError):
        next(follow_live(port))


def test_the_first_connection_must_succeed() -> None:
    """A wrong token is said at once."""
    refuse = httpx.MockTransport(lambda _request: httpx.Response(401))
    port = AdminPort(Place(BASE, "wrong"), refuse)
    with port, pytest.raises(AdminError, match="refused the token"):
        next(follow_live(port))


def test_a_lost_connection_is_tried_again_from_where_it_was() -> None:
    """With the last id; what cannot be reached in between is waited for."""
    asked: list[str] = []
    bodies = [b": follows\nid: 5\n\n", None, b'id: 5\n\nid: 6\ndata: {"n": 6}\n\n']

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id", ""))
        body = bodies.pop(0)
        if body is None:
            raise httpx.ConnectError("gone")
        return httpx.Response(200, content=body)

    waits: list[float] = []
    with AdminPort(Place(BASE, TOKEN), httpx.MockTransport(answer)) as port:
        records = follow_live(port, wait=waits.append)
        assert [next(records), next(records)] == [None, {"n": 6}]
    assert asked == ["", "5", "5"]
    assert len(waits) == 2
