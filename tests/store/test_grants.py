"""The tables of admission: what is kept, and what is forgotten when."""

from __future__ import annotations

import sqlalchemy as sa

from clew.core.grants import Account, AccountKey, Books, BucketKey, Hold
from clew.core.limits import FULL, Bucket
from clew.store.grants import (
    GrantRow,
    State,
    grants_of,
    has_grants,
    prune_money,
    put_grants,
    read_books,
    take_undispatched,
    undispatched,
    write_books,
)
from clew.store.migrate import migrate

OLD, NOW = 1_000, 2_000
HOLD = Hold(((AccountKey("tree", "cs_r", ""), 7),), (BucketKey("team", "red", "tokens 9/60"),), 5)


def test_a_grant_is_read_as_it_was_written(engine: sa.Engine) -> None:
    """All it holds; a second writing replaces it."""
    migrate(engine)
    row = GrantRow("req_1", "a/gateway-0-1", State.GRANTED, NOW, HOLD)
    with engine.begin() as connection:
        put_grants(connection, [row])
        put_grants(connection, [row])
        assert grants_of(connection, ["req_1", "req_2"]) == {"req_1": row}
        assert undispatched(connection, "a/") == [("req_1", "a/gateway-0-1")]
        assert undispatched(connection, "b/") == []
        assert take_undispatched(connection, ["req_1"]) == [row]
        assert not has_grants(connection)


def test_what_nobody_needs_is_forgotten(engine: sa.Engine) -> None:
    """Full buckets, past days, old sessions; never what is held, paused, or counts on."""
    migrate(engine)
    kept = {
        AccountKey("tree", "held", ""): Account(1, reserved=1),
        AccountKey("tree", "paused", ""): Account(1, is_paused=True),
        AccountKey("principal", "ada", ""): Account(1),
        AccountKey("principal", "ada", "2026-11"): Account(1),
    }
    gone = {
        AccountKey("session", "cs_a", ""): Account(1),
        AccountKey("principal", "ada", "2026-10"): Account(1),
    }
    full, used = BucketKey("team", "a", "requests 1/1"), BucketKey("team", "b", "requests 1/1")
    books = Books({}, {})
    for key, account in (kept | gone).items():
        books.put_account(key, account)
    books.put_bucket(full, Bucket(NOW - 1, OLD))
    books.put_bucket(used, Bucket(NOW + 1, OLD))
    with engine.begin() as connection:
        write_books(connection, books, OLD)
        prune_money(connection, NOW, NOW, ["2026-11-22", "2026-11"])
        found = read_books(connection, [*kept, *gone], [full, used])

    assert {key: found.account(key) for key in kept} == kept
    assert all(found.account(key) == Account() for key in gone)
    assert found.bucket(full) == FULL
    assert found.bucket(used) == Bucket(NOW + 1, OLD)
