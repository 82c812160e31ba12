"""What the keeper holds of prompts: the last of each session, within bounds for each principal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.keeper.projecting import House

from clew.core.cache_break import MARK_BYTES, Cause, Turn
from clew.core.claim import Principal, SessionKey
from clew.core.errors import ClewError
from clew.keeper.cache_breaks import (
    HELD_BYTES,
    HELD_BYTES_EACH,
    CacheBreaks,
)
from clew.keeper.protocol import Prompted
from clew.store.schema import cache_breaks

MARKS = b"u" + b"1" * (MARK_BYTES - 1)


def prompted(number: int, session: str = "s", principal: str = "local", **changes: Any) -> Prompted:
    """The prompt of the call of a second."""
    values: dict[str, Any] = {
        "at_ns": number * 10**9,
        "upstream": "u",
        "vendor": "",
        "worker": "",
        "model": "m",
        "cached_tokens": 1_000,
        "written_tokens": 0,
        "written_1h_tokens": 0,
        "marks": MARKS,
    }
    turn = Turn(**values | changes)
    return Prompted(f"req_{number}", 1, Principal(principal), SessionKey(session), turn)


def test_a_call_is_compared_with_the_one_before_it_in_its_session() -> None:
    """And with no other session's."""
    desk = CacheBreaks()
    desk.take(prompted(1, "a"))
    desk.take(prompted(2, "b", marks=b""))
    found = desk.take(prompted(3, "a", cached_tokens=0, model="n"))

    assert found is not None
    assert found.cause is Cause.MODEL
    assert desk.is_unwritten


def test_a_call_that_comes_late_is_not_taken_for_the_next() -> None:
    """Parallel calls are told in the order of their ends."""
    desk = CacheBreaks()
    desk.take(prompted(5))

    assert desk.take(prompted(4, cached_tokens=0)) is None


def test_a_compacting_call_explains_the_next_change_once() -> None:
    """It is no turn of its own."""
    desk = CacheBreaks()
    desk.take(prompted(1))
    desk.take(prompted(2, is_compaction=True, marks=b"", cached_tokens=0))
    found = desk.take(prompted(3, cached_tokens=0, marks=b"u" + b"2" * 8))
    again = desk.take(prompted(4))
    later = desk.take(prompted(5, cached_tokens=0, marks=b"u" + b"3" * 8))

    assert again is None
    assert [one.cause for one in (found, later) if one] == [Cause.COMPACTION, Cause.PREFIX]


def test_a_pause_that_was_outlived_makes_a_shorter_one_no_gap() -> None:
    """Learnt for each upstream and model."""
    desk = CacheBreaks()
    desk.take(prompted(1))
    desk.take(prompted(100))
    found = desk.take(prompted(110, cached_tokens=0))

    assert found is not None
    assert found.cause is Cause.EVICTED


def test_one_principal_costs_the_others_nothing() -> None:
    """A million sessions of one key: bounded, and another principal's turns stay."""
    desk = CacheBreaks()
    desk.take(prompted(1, "mine", "quiet"))
    large = MARKS * 500
    for number in range(20_000):
        desk.take(prompted(2, f"s{number}", "loud", marks=large))
    found = desk.take(prompted(3, "mine", "quiet", cached_tokens=0, model="n"))

    assert desk.size_bytes <= HELD_BYTES_EACH + 10_000
    assert found is not None


def test_many_principals_are_bounded_together() -> None:
    """Who holds most gives way first."""
    desk = CacheBreaks()
    large = MARKS * 4_000
    desk.take(prompted(1, "mine", "quiet"))
    for principal in range(8):
        for number in range(200):
            desk.take(prompted(2, f"s{number}", f"p{principal}", marks=large))
    found = desk.take(prompted(3, "mine", "quiet", cached_tokens=0, model="n"))

    assert desk.size_bytes <= HELD_BYTES
    assert found is not None


def test_what_was_found_is_written_once(tmp_path: Path) -> None:
    """One row a call, without any content; a call told twice has one."""
    house = House(tmp_path)
    desk = CacheBreaks()

    async def write(work: Any) -> None:
        with house.engine.begin() as connection:
            work(connection)

    for _ in range(2):
        desk.take(prompted(1, f"again{_}"))
        desk.take(prompted(2, f"again{_}", cached_tokens=0, marks=b"u" + b"2" * 8))
        asyncio.run(desk.write(write))
    with house.engine.connect() as connection:
        rows = connection.execute(sa.select(cache_breaks)).mappings().all()

    assert [dict(row) for row in rows] == [
        {
            "request_id": "req_2",
            "attempt": 1,
            "at_ns": 2 * 10**9,
            "cause": "prefix",
            "kind": "edit",
            "block": 0,
            "lost_tokens": 1_000,
            "idle_s": 1,
        }
    ]


def test_a_store_that_refuses_loses_the_diagnosis_only() -> None:
    """Nothing is tried again and nothing is raised."""
    desk = CacheBreaks()

    async def refuse(_: Any) -> None:
        raise ClewError("store_unavailable")

    desk.take(prompted(1))
    desk.take(prompted(2, cached_tokens=0, model="n"))
    asyncio.run(desk.write(refuse))

    assert not desk.is_unwritten
