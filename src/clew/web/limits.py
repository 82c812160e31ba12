"""The admin API's view of limits and budgets, and the verb that changes a session's budget."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.core.grants import Account, Budget, Rules, Window
from clew.core.limits import Extent, Limit, left
from clew.core.money import NANO, dollars
from clew.keeper.admission_rules import rules_of
from clew.store.reads_limits import AccountRow, BucketRow
from clew.store.reads_shapes import time_text
from clew.web import parameters
from clew.web.answers import Refusal, answer
from clew.web.desk import Desk, desk_of

LIMIT_ROWS: Final = 100
OF_A_SESSION: Final = (Extent.SESSION, Extent.TREE)
NO_BUDGET: Final = "no [[budget]] of scope session or tree is configured; add one"

Usd = Annotated[float, msgspec.Meta(ge=1e-9, le=1e9)]
UsdText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]


class BudgetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a change of a session's budgets: its own, and its tree's."""

    extend_usd: Usd | UsdText | None = None
    """Added to what each may spend."""
    pause: bool | None = None
    """True: nothing is admitted; false: it goes on."""


class BudgetState(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="budget"):
    """One budget of one subject, now. Money is decimal text."""

    scope: str
    subject: str
    session_id: str | None
    """The external id, where the subject is a session."""
    window: str
    period: str | None
    """``2026-11-22``, ``2026-11``; null: it never begins anew."""
    action: str
    usd: str
    extended_usd: str
    spent_usd: str
    reserved_usd: str
    """Held by calls in flight."""
    left_usd: str
    """Never below zero."""
    paused: bool
    updated_at: str


class LimitState(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="limit"):
    """One limit of one subject, now."""

    scope: str
    subject: str
    session_id: str | None
    measure: str
    count: int
    window_s: int
    remaining: int
    full_at: str
    """When nothing of it will be used any more."""


class LimitList(msgspec.Struct, frozen=True):
    """What `/api/v1/limits` answers: budgets first, each the latest used first."""

    items: list[BudgetState | LimitState]


async def limits(request: Request) -> Response:
    """Every budget and limit that somebody has used, as it stands."""
    desk = desk_of(request)
    now_ns = desk.now_ns()
    asked = parameters.read_parameters(request.query_params, parameters.LIMITS, now_ns)
    subject, most = asked.get("subject", ""), asked.get("limit", LIMIT_ROWS)
    rules = rules_of(desk.launch.config)
    (accounts, buckets), is_fresh = await desk.read(lambda: desk.reads.limits(subject, most))
    items: list[BudgetState | LimitState] = []
    for row in accounts:
        items += (_budget_state(budget, row) for budget in _budgets_of(rules, row, now_ns))
    for found in buckets:
        items += (_limit_state(one, found, now_ns) for one in _limits_of(rules, found))
    return answer(LimitList(items), is_fresh=is_fresh)


def budget_arguments(desk: Desk, body: BudgetRequest) -> dict[str, Any]:
    """What the keeper's command is told. Raises `Refusal` where no budget could be meant."""
    budgets = {
        (budget.scope.value, budget.window.value)
        for budget in rules_of(desk.launch.config).budgets
        if budget.scope in OF_A_SESSION
    }
    if not budgets:
        raise Refusal(409, "conflict", NO_BUDGET)
    extend = None
    if body.extend_usd is not None:
        extend = round(Decimal(str(body.extend_usd)) * NANO)
    return {"budgets": sorted(budgets), "extend_nanousd": extend, "pause": body.pause}


def _budgets_of(rules: Rules, row: AccountRow, now_ns: int) -> list[Budget]:
    """The configured budgets that count in this account now."""
    return [
        budget
        for budget in rules.budgets
        if budget.scope.value == row.key.scope and budget.period(now_ns) == row.key.period
    ]


def _limits_of(rules: Rules, row: BucketRow) -> list[Limit]:
    return [
        limit
        for limit in rules.limits
        if limit.scope.value == row.key.scope and limit.rate == row.key.rate
    ]


def _budget_state(budget: Budget, row: AccountRow) -> BudgetState:
    account: Account = row.account
    room = budget.nanousd + account.extended - account.spent - account.reserved
    return BudgetState(
        scope=budget.scope.value,
        subject=row.key.subject,
        session_id=row.session_id,
        window=Window(budget.window).value,
        period=row.key.period or None,
        action="warn" if budget.is_warning else "reject",
        usd=dollars(budget.nanousd),
        extended_usd=dollars(account.extended),
        spent_usd=dollars(account.spent),
        reserved_usd=dollars(account.reserved),
        left_usd=dollars(max(0, room)),
        paused=account.is_paused,
        updated_at=time_text(row.updated_at_ns),
    )


def _limit_state(limit: Limit, row: BucketRow, now_ns: int) -> LimitState:
    found = left(row.bucket, limit, now_ns)
    return LimitState(
        scope=limit.scope.value,
        subject=row.key.subject,
        session_id=row.session_id,
        measure=limit.measure.value,
        count=limit.count,
        window_s=limit.window_s,
        remaining=found.remaining,
        full_at=time_text(now_ns + found.reset_ms * 1_000_000),
    )


LIMIT_ROUTES: Final = (Route("/api/v1/limits", limits),)
