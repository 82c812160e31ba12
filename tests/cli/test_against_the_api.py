"""The views against the real admin API, over a store filled by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import BASE, TOKEN, House

from clew.cli.admin import AdminError, AdminPort, AmbiguousError, Place, session_path
from clew.cli.drawing import FINE, tree_rows, turn_lines
from clew.cli.sessions import SORTS, newest_records, time_of
from clew.cli.tail import Follower
from clew.cli.usage import PROPERTIES


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A root of three calls and a child, with ids of every kind."""
    made = House(tmp_path)
    made.filling.session("cs_root", session_id="run/1", requests=3, input_tokens=300)
    made.filling.alias("cs_root", "run/1")
    made.filling.alias("cs_root", "older id?")
    made.filling.session("cs_child", session_id="run/2", parent_id="cs_root", root_id="cs_root")
    for number in range(3):
        at = NOW_NS - (300 - number * 60) * NANO
        made.filling.attempt(f"r{number}", "cs_root", received_at_ns=at)
    yield made
    made.close()


class ToHouse(httpx.BaseTransport):
    """Carries calls to the application without a socket."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The application's answer."""
        headers = {name: request.headers[name] for name in ("authorization", "host")}
        found = self._client.get(str(request.url), headers=headers)
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)


@pytest.fixture
def port(house: House) -> Iterator[AdminPort]:
    """An admin port that answers from the house."""
    with AdminPort(Place(BASE, TOKEN), ToHouse(house.client())) as found:
        yield found


@pytest.mark.parametrize("wanted", ["cs_root", "cs_r", "run/1", "older id?", "older"])
def test_ids_of_every_kind_and_prefixes_resolve(port: AdminPort, wanted: str) -> None:
    """Whatever characters they have."""
    assert port.resolve(wanted)["id"] == "cs_root"


def test_a_shared_prefix_lists_its_sessions(port: AdminPort) -> None:
    """Both are named."""
    with pytest.raises(AmbiguousError) as raised:
        port.resolve("run/")

    assert {one["id"] for one in raised.value.candidates} == {"cs_root", "cs_child"}


def test_an_unknown_id_is_an_error(port: AdminPort) -> None:
    """Also an empty one."""
    for wanted in ("nobody", "", "%", "../health"):
        with pytest.raises(AdminError):
            port.resolve(wanted)


def test_a_session_is_drawn(port: AdminPort) -> None:
    """The newest calls, oldest first, as bars with their gaps."""
    records = newest_records(port, "cs_root", 2)
    lines = turn_lines(records, 1800, FINE)

    assert [record["request_id"] for record in records] == ["r1", "r2"]
    assert "+1m" in lines[2]
    assert "40%" in lines[1]
    assert "$0.0015" in lines[1]


def test_a_tree_is_drawn(port: AdminPort) -> None:
    """Root, child, totals."""
    rows = list(tree_rows(port.get(session_path("cs_child", "/tree")), FINE))

    assert [row[0] for row in rows] == ["run/1", "└─ run/2", "total"]
    assert rows[-1][3] == "3"


def test_every_choice_of_the_commands_is_understood(port: AdminPort) -> None:
    """No option leads to an answer of 400."""
    for sort in SORTS:
        port.get("/api/v1/sessions", {"sort": sort, "since": time_of("24h"), "limit": 500})
    for by in PROPERTIES:
        found = port.get("/api/v1/usage", {"by": by, "since": time_of("1d")})
        assert set(found) >= {"items", "totals", "truncated"}
        assert port.get_text("/api/v1/usage.csv", {"by": by}).startswith("key,")


def test_pages_are_followed(port: AdminPort) -> None:
    """More than one page, and never more than asked for."""
    path = session_path("cs_root", "/requests")

    assert len(list(port.pages(path, {}, 2))) == 2
    assert len(list(port.pages(path, {}, 1000))) == 3


def test_calls_are_followed(house: House, port: AdminPort) -> None:
    """What lands is printed once."""
    follower = Follower(port)

    assert [record["request_id"] for record in follower.poll()] == ["r0", "r1", "r2"]
    assert follower.poll() == []


def test_a_keeper_that_is_away_is_noticed(house: House, port: AdminPort) -> None:
    """The answer is shown, and marked."""
    house.is_keeper_away = True
    port.get("/api/v1/sessions")

    assert port.is_stale
