"""Decides requests in one transaction: read the accounts they touch, decide in order, write.

The roots are the store's where it knows them: a gateway may not have heard yet that a tree grew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import sqlalchemy as sa

from clew.core.apis.estimate import estimated_usage
from clew.core.grants import Outcome, Rules, Verdict, Wish, accounts_of, buckets_of, decide, free
from clew.core.limits import Extent, Who
from clew.core.money import Rates, highest_cost
from clew.keeper.protocol import Request
from clew.store.grants import (
    GrantRow,
    State,
    put_grants,
    read_books,
    roots_of,
    take_undispatched,
    write_books,
)

FindRates = Callable[[str, str], Rates | None]
"""(vendor, model) to rates; None: no price is known."""


def decide_all(
    connection: sa.Connection,
    asked: Sequence[tuple[str, Request]],
    rules: Rules,
    find: FindRates,
    now_ns: int,
) -> list[Verdict]:
    """A verdict for each (journal, request), in their order; grants are written with them."""
    wishes = [_wish(request, find) for _, request in asked]
    scopes = {rule.scope for rule in rules.limits} | {rule.scope for rule in rules.budgets}
    if Extent.TREE in scopes:
        wishes = _with_roots(connection, wishes)
    books = read_books(
        connection,
        {key for wish in wishes for _, key in accounts_of(rules, wish.who, now_ns)},
        {key for wish in wishes for _, key in buckets_of(rules, wish.who)},
    )
    verdicts = [decide(wish, rules, books, now_ns) for wish in wishes]
    write_books(connection, books, now_ns)
    put_grants(
        connection,
        (
            GrantRow(request.id, journal, State.GRANTED, now_ns, verdict.hold)
            for (journal, request), verdict in zip(asked, verdicts, strict=True)
            if verdict.outcome is Outcome.GRANTED and verdict.hold
        ),
    )
    return verdicts


def free_grants(connection: sa.Connection, ids: Iterable[str], now_ns: int) -> int:
    """Give back what these hold, where their intent has not been read; how many."""
    rows = take_undispatched(connection, set(ids))
    books = read_books(
        connection,
        {key for row in rows for key, _ in row.hold.accounts},
        {key for row in rows for key in row.hold.buckets},
    )
    for row in rows:
        free(row.hold, books, now_ns)
    write_books(connection, books, now_ns)
    return len(rows)


def _wish(request: Request, find: FindRates) -> Wish:
    rates = find(request.vendor, request.model) if request.model else None
    cost = (
        None
        if rates is None
        else highest_cost(request.prompt_bytes, request.max_output_tokens, rates)
    )
    tokens = estimated_usage(request.prompt_bytes, 0).input_tokens
    return Wish(request.who, cost, tokens, request.model)


def _with_roots(connection: sa.Connection, wishes: list[Wish]) -> list[Wish]:
    known = roots_of(
        connection, {key for w in wishes for key in (w.who.session, w.who.root) if key}
    )
    return [
        msgspec.structs.replace(wish, who=_rooted(wish.who, known)) if wish.who.session else wish
        for wish in wishes
    ]


def _rooted(who: Who, known: dict[str, str]) -> Who:
    root = known.get(who.session) or known.get(who.root) or who.root or who.session
    return msgspec.structs.replace(who, root=root)
