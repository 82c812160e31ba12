"""The view of limits and budgets, and the verb that changes a session's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient
from tests.store.reads_rows import NOW_NS
from tests.web.conftest import BEARER, House

from clew.config.schema import Budget, Config, Limit
from clew.core.grants import Account, AccountKey, Books, BucketKey
from clew.core.limits import Bucket
from clew.store.grants import write_books

MINUTE_NS = 60 * 10**9
CONFIG = Config(
    budget=(
        Budget(scope="session", usd=5.0),
        Budget(scope="session", usd=4.0, action="warn"),
        Budget(scope="principal", usd=9.0, window="month"),
    ),
    limit=(Limit(scope="session", requests="60/m"),),
)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[House]:
    """A session that has spent a dollar and half of its requests; rows of rules that are gone."""
    house = House(tmp_path)
    house.filling.session("cs_a")
    config = msgspec.structs.replace(CONFIG, data=house.launch.config.data)
    house.desk.apply(msgspec.structs.replace(house.launch, config=config))
    books = Books({}, {})
    books.put_account(AccountKey("session", "cs_a", ""), Account(10**9, 5 * 10**8, 0, 10**6))
    books.put_account(AccountKey("tree", "cs_a", ""), Account(1))
    books.put_account(AccountKey("principal", "local", "1999-01"), Account(2))
    key = BucketKey("session", "cs_a", "requests 60/60")
    books.put_bucket(key, Bucket(NOW_NS + MINUTE_NS // 2, NOW_NS))
    with house.filling.engine.begin() as connection:
        write_books(connection, books, NOW_NS)
    yield house
    house.close()


def items(caller: TestClient, query: str = "") -> list[dict[str, Any]]:
    """What the route shows."""
    answer = caller.get(f"/api/v1/limits{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_only_what_a_rule_counts_now_is_shown(filled: House) -> None:
    """Both rules of one account; no past month, no scope without a rule."""
    shown = items(filled.client(**BEARER))

    assert [(one["kind"], one.get("action")) for one in shown] == [
        ("budget", "reject"),
        ("budget", "warn"),
        ("limit", None),
    ]
    assert shown[0]["spent_usd"] == "1.000000000"
    assert shown[0]["reserved_usd"] == "0.500000000"
    assert [one["left_usd"] for one in shown[:2]] == ["3.500000000", "2.500000000"]
    assert shown[2]["remaining"] == 30
    assert shown[2]["measure"] == "requests"


def test_a_subject_filters(filled: House) -> None:
    """One session's own."""
    caller = filled.client(**BEARER)

    assert len(items(caller, "?subject=cs_a")) == 3
    assert items(caller, "?subject=cs_b") == []
    assert items(caller, "?subject=%00") == []


def change(house: House, **body: Any) -> Any:
    """The verb."""
    return house.client(**BEARER).post("/api/v1/sessions/cs_a/budget", json=body)


def test_the_verb_extends_pauses_and_resumes(filled: House) -> None:
    """A number or decimal text; nothing given changes nothing."""
    assert change(filled, extend_usd="0.5", pause=True).status_code == 200
    assert change(filled, extend_usd=1).status_code == 200
    assert change(filled).status_code == 200
    shown = items(filled.client(**BEARER))[0]
    assert (shown["extended_usd"], shown["paused"]) == ("1.500000000", True)

    change(filled, pause=False)
    assert items(filled.client(**BEARER))[0]["paused"] is False


@pytest.mark.parametrize("extend", [0, -1, 2e9, "x", "1e3", "-1", True])
def test_an_amount_that_cannot_be_meant_is_refused(filled: House, extend: Any) -> None:
    """And nothing is changed."""
    assert change(filled, extend_usd=extend).status_code == 400


def test_without_a_budget_of_sessions_there_is_nothing_to_change(filled: House) -> None:
    """The present state forbids it; the message says what to do."""
    config = msgspec.structs.replace(CONFIG, budget=CONFIG.budget[2:])
    filled.desk.apply(msgspec.structs.replace(filled.launch, config=config))
    answer = change(filled, extend_usd=1)

    assert answer.status_code == 409
    assert "[[budget]]" in answer.json()["error"]["message"]
