"""The present state of limits and budgets: accounts and buckets that somebody has used."""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from clew.core.grants import Account, AccountKey, BucketKey
from clew.core.limits import Bucket
from clew.store.schema import budget_accounts, limit_buckets, sessions

_ACCOUNTS: Final = budget_accounts.c
_BUCKETS: Final = limit_buckets.c


class AccountRow(NamedTuple):
    """One account; ``session_id`` is the external id where its subject is a session."""

    key: AccountKey
    account: Account
    session_id: str | None
    updated_at_ns: int


class BucketRow(NamedTuple):
    """One bucket."""

    key: BucketKey
    bucket: Bucket
    session_id: str | None


def read_accounts(link: sa.Connection, subjects: list[str], limit: int) -> list[AccountRow]:
    """Accounts, the latest used first; of these subjects where any is given."""
    query = (
        sa.select(budget_accounts, sessions.c.session_id)
        .select_from(budget_accounts.outerjoin(sessions, sessions.c.id == _ACCOUNTS.subject))
        .order_by(_ACCOUNTS.updated_at_ns.desc(), _ACCOUNTS.id)
        .limit(limit)
    )
    if subjects:
        query = query.where(_ACCOUNTS.subject.in_(subjects))
    return [
        AccountRow(
            AccountKey(row.scope, row.subject, row.period),
            Account(
                row.spent_nanousd,
                row.reserved_nanousd,
                row.extended_nanousd,
                row.last_nanousd,
                bool(row.is_paused),
            ),
            row.session_id,
            row.updated_at_ns,
        )
        for row in link.execute(query)
    ]


def read_buckets(link: sa.Connection, subjects: list[str], limit: int) -> list[BucketRow]:
    """Buckets that are not full, the emptiest last seen first; of these subjects if any."""
    query = (
        sa.select(limit_buckets, sessions.c.session_id)
        .select_from(limit_buckets.outerjoin(sessions, sessions.c.id == _BUCKETS.subject))
        .order_by(_BUCKETS.seen_at_ns.desc(), _BUCKETS.id)
        .limit(limit)
    )
    if subjects:
        query = query.where(_BUCKETS.subject.in_(subjects))
    return [
        BucketRow(
            BucketKey(row.scope, row.subject, row.rate),
            Bucket(row.full_at_ns, row.seen_at_ns),
            row.session_id,
        )
        for row in link.execute(query)
    ]
