"""The tables of admission: accounts, buckets and grants, read and written inside a transaction.

Transactions that write follow one another (`store.postgresql`), so what is read here is still true
when it is written; rows are locked besides, so that it holds for whoever writes otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.core.grants import Account, AccountKey, Books, BucketKey, Hold
from clew.core.limits import Bucket
from clew.store.schema import budget_accounts, grants, limit_buckets, open_attempts, sessions

CHUNK: Final = 500

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Hold).decode


class State(StrEnum):
    """How far the call of a grant has come."""

    GRANTED = "granted"
    """Admitted; it runs, or has not been dispatched yet."""
    UNSETTLED = "unsettled"
    """Its process died: what it may have cost is spent, a late outcome corrects it."""


_IS_WAITING: Final = sa.and_(
    grants.c.state == State.GRANTED.value,
    sa.not_(
        sa.exists(
            sa.select(open_attempts.c.request_id).where(open_attempts.c.request_id == grants.c.id)
        )
    ),
)


class GrantRow(NamedTuple):
    """One call that was admitted and not settled."""

    id: str
    journal: str
    state: State
    at_ns: int
    hold: Hold


def read_books(
    connection: sa.Connection,
    accounts: Iterable[AccountKey],
    buckets: Iterable[BucketKey],
) -> Books:
    """The accounts and buckets of these keys, locked until the end of the transaction."""
    return Books(_read_accounts(connection, accounts), _read_buckets(connection, buckets))


def write_books(connection: sa.Connection, books: Books, now_ns: int) -> None:
    """Write what was changed in them."""
    accounts = [_account_row(key, books.account(key), now_ns) for key in books.changed_accounts]
    _put(connection, budget_accounts, accounts)
    buckets = [_bucket_row(key, books.bucket(key)) for key in books.changed_buckets]
    _put(connection, limit_buckets, buckets)


def put_grants(connection: sa.Connection, rows: Iterable[GrantRow]) -> None:
    """Insert or replace grants."""
    values = [
        {
            "id": row.id,
            "journal": row.journal,
            "state": row.state.value,
            "at_ns": row.at_ns,
            "holds": _encode(row.hold),
        }
        for row in rows
    ]
    _put(connection, grants, values)


def grants_of(connection: sa.Connection, ids: Collection[str]) -> dict[str, GrantRow]:
    """The grants of these requests."""
    found: dict[str, GrantRow] = {}
    for chunk in _chunks(sorted(set(ids))):
        query = sa.select(*grants.c).where(grants.c.id.in_(chunk)).with_for_update()
        found |= {row.id: row for row in _grant_rows(connection, query)}
    return found


def undispatched(connection: sa.Connection, prefix: str) -> list[tuple[str, str]]:
    """Grants without intent (id, journal) of the journals whose name begins so.

    A call whose intent was read waits in ``open_attempts``; once it is settled its grant is gone.
    """
    query = sa.select(grants.c.id, grants.c.journal).where(
        grants.c.journal.startswith(prefix, autoescape=True), _IS_WAITING
    )
    return [(row.id, row.journal) for row in connection.execute(query)]


def take_undispatched(connection: sa.Connection, ids: Collection[str]) -> list[GrantRow]:
    """Those of these grants that still have no intent, deleted."""
    found: list[GrantRow] = []
    for chunk in _chunks(sorted(set(ids))):
        query = sa.select(*grants.c).where(grants.c.id.in_(chunk), _IS_WAITING)
        found += _grant_rows(connection, query.with_for_update())
    delete_grants(connection, [row.id for row in found])
    return found


def has_grants(connection: sa.Connection) -> bool:
    """Whether any call is admitted and not settled."""
    return connection.scalar(sa.select(grants.c.id).limit(1)) is not None


def delete_grants(connection: sa.Connection, ids: Collection[str]) -> None:
    """These are settled, or free."""
    for chunk in _chunks(sorted(set(ids))):
        connection.execute(sa.delete(grants).where(grants.c.id.in_(chunk)))


def roots_of(connection: sa.Connection, keys: Collection[str]) -> dict[str, str]:
    """The root of each of these sessions that there is."""
    found: dict[str, str] = {}
    for chunk in _chunks(sorted(set(keys))):
        query = sa.select(sessions.c.id, sessions.c.root_id).where(sessions.c.id.in_(chunk))
        found |= {row.id: row.root_id for row in connection.execute(query)}
    return found


def prune_money(
    connection: sa.Connection, now_ns: int, before_ns: int, periods: Collection[str]
) -> None:
    """Forget buckets that are full, and accounts that nobody needs any more.

    Those are the accounts of days and months other than ``periods`` (the present ones), of
    sessions and trees, where nothing has happened since ``before_ns``.
    """
    connection.execute(sa.delete(limit_buckets).where(limit_buckets.c.full_at_ns < now_ns))
    connection.execute(
        sa.delete(grants).where(grants.c.state == State.UNSETTLED.value, grants.c.at_ns < before_ns)
    )
    at = budget_accounts.c
    is_past = sa.and_(at.period != "", at.period.not_in(list(periods)))
    is_of_session = sa.and_(at.period == "", at.scope.in_(("session", "tree")))
    connection.execute(
        sa.delete(budget_accounts).where(
            at.updated_at_ns < before_ns,
            at.reserved_nanousd == 0,
            at.is_paused.is_(False),
            sa.or_(is_past, is_of_session),
        )
    )


def _read_accounts(
    connection: sa.Connection, keys: Iterable[AccountKey]
) -> dict[AccountKey, Account]:
    by_id = {_account_id(key): key for key in keys}
    found: dict[AccountKey, Account] = {}
    for chunk in _chunks(sorted(by_id)):
        at = budget_accounts.c
        # In order: whoever locks several rows never waits for another in a circle.
        query = (
            sa.select(
                at.id,
                at.spent_nanousd,
                at.reserved_nanousd,
                at.extended_nanousd,
                at.last_nanousd,
                at.is_paused,
            )
            .where(at.id.in_(chunk))
            .order_by(at.id)
            .with_for_update()
        )
        for row_id, spent, reserved, extended, last, is_paused in connection.execute(query):
            account = Account(spent, reserved, extended, last, bool(is_paused))
            found[by_id[row_id]] = account
    return found


def _read_buckets(connection: sa.Connection, keys: Iterable[BucketKey]) -> dict[BucketKey, Bucket]:
    by_id = {_bucket_id(key): key for key in keys}
    found: dict[BucketKey, Bucket] = {}
    for chunk in _chunks(sorted(by_id)):
        at = limit_buckets.c
        query = sa.select(at.id, at.full_at_ns, at.seen_at_ns).where(at.id.in_(chunk))
        for row_id, full_at_ns, seen_at_ns in connection.execute(
            query.order_by(at.id).with_for_update()
        ):
            found[by_id[row_id]] = Bucket(full_at_ns, seen_at_ns)
    return found


def _account_id(key: AccountKey) -> str:
    return f"{key.scope} {key.period} {key.subject}"


def _bucket_id(key: BucketKey) -> str:
    return f"{key.scope} {key.rate} {key.subject}"


def _account_row(key: AccountKey, account: Account, now_ns: int) -> dict[str, Any]:
    return {
        "id": _account_id(key),
        "scope": key.scope,
        "subject": key.subject,
        "period": key.period,
        "spent_nanousd": account.spent,
        "reserved_nanousd": account.reserved,
        "extended_nanousd": account.extended,
        "last_nanousd": account.last,
        "is_paused": account.is_paused,
        "updated_at_ns": now_ns,
    }


def _bucket_row(key: BucketKey, bucket: Bucket) -> dict[str, Any]:
    return {
        "id": _bucket_id(key),
        "scope": key.scope,
        "subject": key.subject,
        "rate": key.rate,
        "full_at_ns": bucket.full_at_ns,
        "seen_at_ns": bucket.seen_at_ns,
    }


def _put(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows or replace those of the same id."""
    if not rows:
        return
    is_postgresql = connection.dialect.name == "postgresql"
    clause = (postgresql_insert if is_postgresql else sqlite_insert)(table)
    changed = {name: clause.excluded[name] for name in rows[0] if name != "id"}
    statement = clause.on_conflict_do_update(index_elements=["id"], set_=changed)
    connection.execute(statement, rows)


def _grant_rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterable[GrantRow]:
    for row in connection.execute(query):
        yield GrantRow(row.id, row.journal, State(row.state), row.at_ns, _decode(row.holds))


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))
