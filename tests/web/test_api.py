"""The admin API: shapes, errors, freshness, readiness."""

from __future__ import annotations

import csv
import io
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import BEARER, House

from clew.store.reads_shapes import Record, Session, UsageRow
from clew.web.parameters import read_time


def test_a_session_has_every_field_of_the_contract(house: House, caller: TestClient) -> None:
    """Names as documented, none left out when it is null."""
    house.filling.session("cs_a")

    (found,) = caller.get("/api/v1/sessions").json()["items"]

    assert list(found) == list(Session.__struct_fields__)
    assert found == caller.get("/api/v1/sessions/cs_a").json()


def test_a_record_has_every_field_of_the_contract(house: House, caller: TestClient) -> None:
    """Names as documented, none left out when it is null."""
    house.filling.session("cs_a")
    house.filling.attempt("r1", "cs_a", ttft_us=None)

    page = caller.get("/api/v1/sessions/cs_a/requests").json()

    assert list(page["items"][0]) == list(Record.__struct_fields__)
    assert page["items"][0]["ttft_ms"] is None
    assert page["next"] is None


def test_the_list_pages_by_its_cursor(house: House, caller: TestClient) -> None:
    """`next` leads on until it is null."""
    for number in range(5):
        house.filling.session(f"cs_{number}")
    seen, cursor = [], ""
    while cursor is not None:
        suffix = f"&cursor={quote(cursor)}" if cursor else ""
        page = caller.get(f"/api/v1/sessions?limit=2{suffix}").json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]

    assert sorted(seen) == [f"cs_{number}" for number in range(5)]


def test_the_tree_begins_at_the_root(house: House, caller: TestClient) -> None:
    """Asked for a child, it is the whole tree that is told."""
    house.filling.session("cs_root", requests=1)
    house.filling.session("cs_child", root_id="cs_root", parent_id="cs_root", requests=2)

    found = caller.get("/api/v1/sessions/cs_child/tree").json()

    assert found["session"]["id"] == "cs_root"
    assert found["children"][0]["session"]["id"] == "cs_child"
    assert found["totals"]["requests"] == 3


@pytest.mark.parametrize(
    "name", ["a/b", "a/tree", "tree", "%", "a b", "é", "a?b#c", "..", "a/../b"]
)
def test_external_ids_may_hold_anything(house: House, caller: TestClient, name: str) -> None:
    """Escaped, every id names its session, also one that looks like a path."""
    house.filling.session("cs_a", session_id=name)
    path = f"/api/v1/sessions/{quote(name, safe='')}".replace("/..", "/%2E%2E")

    assert caller.get(path).json()["id"] == "cs_a"
    assert caller.get(f"{path}/events").json() == {"items": [], "next": None}


def test_an_unescaped_slash_belongs_to_the_id(house: House, caller: TestClient) -> None:
    """A caller that forgets to escape is still understood."""
    house.filling.session("cs_a", session_id="team/thread")

    assert caller.get("/api/v1/sessions/team/thread").json()["id"] == "cs_a"
    assert caller.get("/api/v1/sessions/team/thread/tree").json()["count"] == 1


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("state=gone", "state"),
        ("state=", "state"),
        ("sort=name", "sort"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=1e2", "limit"),
        ("limit=%EF%BC%91", "limit"),
        ("since=yesterday", "since"),
        ("since=2026-02-30", "since"),
        ("cursor=zzz", "cursor"),
        ("cursor=last_seen.01.x", "cursor"),
        ("limit=1&limit=2", "limit"),
        ("sate=open", "state"),
        ("q=" + "x" * 1025, "q"),
    ],
)
def test_a_bad_parameter_is_named(caller: TestClient, query: str, named: str) -> None:
    """A filter that is silently ignored would give a wrong answer."""
    response = caller.get(f"/api/v1/sessions?{query}")

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_parameter"
    assert named in response.json()["error"]["message"]


def test_the_principal_filter_is_exact(house: House, caller: TestClient) -> None:
    """A prefix of a principal is another principal."""
    house.filling.session("cs_a", principal="ann")

    assert caller.get("/api/v1/sessions?principal=an").json()["items"] == []


@pytest.mark.parametrize("tail", ["", "/tree", "/requests", "/events"])
def test_an_unknown_session_is_not_found(caller: TestClient, tail: str) -> None:
    """404 with the form of every error."""
    response = caller.get(f"/api/v1/sessions/nobody{tail}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_shared_id_says_what_to_use(house: House, caller: TestClient) -> None:
    """404 names Clew's own ids, the only ones that tell the two apart."""
    house.filling.session("cs_a", principal="ann", session_id="same")
    house.filling.session("cs_b", principal="bob", session_id="same")

    response = caller.get("/api/v1/sessions/same")

    assert response.status_code == 404
    assert "cs_a, cs_b" in response.json()["error"]["message"]


def test_another_method_is_refused(caller: TestClient) -> None:
    """405, and which methods there are."""
    response = caller.delete("/api/v1/sessions")

    assert response.status_code == 405
    assert "GET" in response.headers["allow"]
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_read_asks_the_keeper_first(house: House, caller: TestClient) -> None:
    """What a client was answered is visible: each read waits for a barrier."""
    response = caller.get("/api/v1/sessions")

    assert house.barriers == 1
    assert "x-clew-stale" not in response.headers


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/usage.csv", "/"])
def test_without_the_keeper_reads_go_on_and_say_so(
    house: House, caller: TestClient, path: str
) -> None:
    """The store is read as it is, and the answer is marked."""
    house.is_keeper_away = True

    response = caller.get(path)

    assert (response.status_code, response.headers["x-clew-stale"]) == (200, "1")


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/usage", "/", "/sessions/cs_a"])
def test_a_store_that_cannot_be_read_is_503(house: House, caller: TestClient, path: str) -> None:
    """Try again: nothing of the store's own words is told."""
    (house.launch.data / "clew.db").unlink()

    response = caller.get(path)

    assert response.status_code == 503
    assert "clew.db" not in response.text


def test_usage_rows_have_every_field(house: House, caller: TestClient) -> None:
    """Rows, their sum, and whether some are left out."""
    house.filling.attempt("r1", "cs_a")

    found = caller.get("/api/v1/usage?by=model").json()

    assert list(found["items"][0]) == list(UsageRow.__struct_fields__)
    assert (found["by"], found["totals"]["cost_usd"]) == ("model", "0.001500000")
    assert found["truncated"] is False


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "|x", "%x", "\n=1"])
def test_csv_cells_do_not_run(house: House, caller: TestClient, name: str) -> None:
    """A model's name comes from a client; a spreadsheet must show it, not compute it."""
    house.filling.attempt("r1", "cs_a", model=name)

    response = caller.get("/api/v1/usage.csv?by=model")

    rows = list(csv.reader(io.StringIO(response.text, newline="")))
    assert rows[0] == list(UsageRow.__struct_fields__)
    assert rows[1][0] == f"'{name}"
    assert "attachment" in response.headers["content-disposition"]


def test_csv_quotes_what_would_break_a_row(house: House, caller: TestClient) -> None:
    """Commas, quotes and line ends stay inside their cell."""
    house.filling.attempt("r1", "cs_a", model='a,"b"\r\nc')

    text = caller.get("/api/v1/usage.csv?by=model").text

    assert list(csv.reader(io.StringIO(text, newline="")))[1][0] == 'a,"b"\r\nc'


def test_clients_are_those_recognised_and_those_seen(house: House, caller: TestClient) -> None:
    """The table of rules, and beside it what came."""
    house.filling.session("cs_a", client="pi/0.74.2")

    found = caller.get("/api/v1/clients").json()

    assert found["items"][0]["name"] == "canonical"
    assert found["seen"][0]["client"] == "pi/0.74.2"


def test_ready_when_every_part_is(house: House) -> None:
    """Each part by name; claims in memory say what they cannot do."""
    response = house.client().get("/ready")

    assert response.status_code == 200
    parts = {"keeper", "store", "gateways", "journal", "claims", "workers"}
    assert set(response.json()["parts"]) == parts
    assert "one process" in response.json()["parts"]["claims"]["reason"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("keeper", "does not answer"),
        ("store", "cannot be read"),
        ("gateways", "gateway 0: journal full"),
        ("journal", "missing"),
    ],
)
def test_readiness_names_the_reason(house: House, part: str, reason: str) -> None:
    """503 with the part that cannot serve, and only that."""
    breaks = {
        "keeper": lambda: setattr(house, "is_keeper_away", True),
        "store": (house.launch.data / "clew.db").unlink,
        "gateways": lambda: house.gateway(ready=False, reason="journal full"),
        "journal": house.launch.journal_directory.rmdir,
    }
    breaks[part]()

    response = house.client().get("/ready")

    assert response.status_code == 503
    parts = response.json()["parts"]
    assert [name for name, one in parts.items() if not one["ready"]] == [part]
    assert reason in parts[part]["reason"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00Z", 0),
        ("2027-01-15T08:00:00.5Z", 0.5),
        ("2027-01-15 09:00:00+01:00", 0),
        ("2027-01-15", -28_800),
        ("90m", -5_400),
        ("2d", -172_800),
        ("2027-01-15T07:59:60Z", -0.000000001),
    ],
)
def test_times_are_read_as_written(text: str, seconds: float) -> None:
    """RFC 3339, a date, or an age."""
    assert read_time(text, NOW_NS) - NOW_NS == round(seconds * NANO)


@given(
    st.text(max_size=40)
    | st.from_regex(r"[0-9]{6}d", fullmatch=True)
    | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d.*", fullmatch=True)
)
def test_reading_a_time_never_fails_otherwise(text: str) -> None:
    """Whatever is written: a number that the store can hold, or ValueError."""
    try:
        found = read_time(text, NOW_NS)
    except ValueError:
        return
    assert -(2**63) < found < 2**63


PATHS = st.sampled_from(
    ["/api/v1/sessions", "/api/v1/usage", "/api/v1/usage.csv", "/api/v1/clients", "/", "/sessions/"]
)
NAMES = st.sampled_from(
    ["q", "since", "until", "limit", "cursor", "root", "by", "sort", "state", "source", "x"]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(PATHS, st.lists(st.tuples(NAMES, st.text(max_size=30)), max_size=3), st.text(max_size=20))
def test_no_input_makes_it_fail(
    house: House, path: str, query: list[tuple[str, str]], name: str
) -> None:
    """Whatever is asked, it is never our fault."""
    client = house.client(**BEARER)
    address = path + quote(name, safe="") if path == "/sessions/" else path

    assert client.get(address, params=query).status_code < 500
    assert client.get(f"/api/v1/sessions/{quote(name, safe='')}", params=query).status_code < 500
