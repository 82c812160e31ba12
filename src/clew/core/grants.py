"""Whether a call may be dispatched: limits that have something left, budgets that have room.

A budget counts one subject in one period: what was spent, and what calls in flight hold of it. A
call holds its estimate from before its dispatch until its cost is known. The rule, for each budget
that rejects:

* nothing in flight: there must be room for the estimate, or for as much as the last call cost,
  whichever is less. An estimate is high on purpose, and must not end a budget early;
* something in flight: there must be room for the estimate, or as much as the last call cost,
  whichever is more, beside all that is held. Where there is none, but may be once the others are
  settled, the call is *held*: it is decided again then;
* else it is refused.

So a budget worth k equal calls admits k of them however many come at once. A call whose cost
cannot be estimated (a model without a price) is refused under a budget that rejects, and flagged
under one that warns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from clew.core.limits import (
    FULL,
    SECOND_NS,
    Bucket,
    Extent,
    Left,
    Limit,
    Measure,
    Who,
    left,
    spend,
    wait_ns,
)
from clew.core.money import dollars

OVER_BUDGET: Final = "budget_over"
"""Flag: a budget that warns is spent."""
UNPRICED: Final = "budget_unpriced"
"""Flag: a budget that warns cannot count this call."""


class Window(StrEnum):
    """How long a budget counts before it begins anew (UTC)."""

    SESSION = "session"
    """As long as its subject exists."""
    DAY = "day"
    MONTH = "month"


class Budget(msgspec.Struct, frozen=True):
    """What each subject of a scope may spend in each window."""

    scope: Extent
    nanousd: int
    window: Window = Window.SESSION
    is_warning: bool = False

    def period(self, at_ns: int) -> str:
        """The window that holds a time: ``2026-11-22``, ``2026-11`` or empty."""
        if self.window is Window.SESSION:
            return ""
        at = datetime.fromtimestamp(at_ns // SECOND_NS, UTC)
        return at.strftime("%Y-%m-%d" if self.window is Window.DAY else "%Y-%m")


class Rules(msgspec.Struct, frozen=True):
    """Everything that is limited."""

    limits: tuple[Limit, ...] = ()
    budgets: tuple[Budget, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is."""
        return bool(self.limits or self.budgets)


class AccountKey(NamedTuple):
    """Which account: one budget's subject in one period."""

    scope: str
    subject: str
    period: str


class BucketKey(NamedTuple):
    """Which bucket: one limit's subject."""

    scope: str
    subject: str
    rate: str


class Account(msgspec.Struct, frozen=True):
    """One subject's money in one period, in nano-dollars."""

    spent: int = 0
    reserved: int = 0
    """Held by calls in flight."""
    extended: int = 0
    """Added to the configured amount by an operator."""
    last: int = 0
    """What the last call cost that cost anything."""
    is_paused: bool = False


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What one admitted call holds: of each account an amount, of each tokens' bucket a count."""

    accounts: tuple[tuple[AccountKey, int], ...] = ()
    buckets: tuple[BucketKey, ...] = ()
    tokens: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything to settle."""
        return bool(self.accounts or self.buckets)


class Wish(msgspec.Struct, frozen=True):
    """A call that wants to be dispatched."""

    who: Who
    cost_nanousd: int | None
    """Its estimate; None: its model has no price."""
    tokens: int
    """Its prompt's estimate: the answer's tokens are known afterwards."""
    model: str = ""


class Outcome(StrEnum):
    """What becomes of a wish."""

    GRANTED = "granted"
    HELD = "held"
    REFUSED = "refused"


class Verdict(msgspec.Struct, frozen=True):
    """The decision. ``code`` is of `core.errors`, empty unless refused."""

    outcome: Outcome
    hold: Hold = Hold()
    code: str = ""
    detail: str = ""
    retry_after_s: int = 0
    flags: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    """The tightest limit of each measure, where one applies."""


class Books:
    """The accounts and buckets of a transaction: read before, changed here, written after."""

    def __init__(
        self,
        accounts: Mapping[AccountKey, Account],
        buckets: Mapping[BucketKey, Bucket],
    ) -> None:
        self._accounts = dict(accounts)
        self._buckets = dict(buckets)
        self.changed_accounts: set[AccountKey] = set()
        self.changed_buckets: set[BucketKey] = set()

    def account(self, key: AccountKey) -> Account:
        """An account; an unknown one is empty."""
        return self._accounts.get(key, EMPTY)

    def bucket(self, key: BucketKey) -> Bucket:
        """A bucket; an unknown one is full."""
        return self._buckets.get(key, FULL)

    def put_account(self, key: AccountKey, account: Account) -> None:
        """Change an account."""
        self._accounts[key] = account
        self.changed_accounts.add(key)

    def put_bucket(self, key: BucketKey, bucket: Bucket) -> None:
        """Change a bucket."""
        self._buckets[key] = bucket
        self.changed_buckets.add(key)


EMPTY: Final = Account()


def accounts_of(rules: Rules, who: Who, at_ns: int) -> list[tuple[Budget, AccountKey]]:
    """The budgets that cover a call received at a time, each with its account."""
    found = []
    for budget in rules.budgets:
        subject = who.subject(budget.scope)
        if subject:
            found.append((budget, AccountKey(budget.scope.value, subject, budget.period(at_ns))))
    return found


def buckets_of(rules: Rules, who: Who) -> list[tuple[Limit, BucketKey]]:
    """The limits that cover a call, each with its bucket."""
    found = []
    for limit in rules.limits:
        subject = who.subject(limit.scope)
        if subject:
            found.append((limit, BucketKey(limit.scope.value, subject, limit.rate)))
    return found


def decide(wish: Wish, rules: Rules, books: Books, now_ns: int) -> Verdict:
    """Admit a call and take what it holds, or say why not and take nothing."""
    budgets = accounts_of(rules, wish.who, now_ns)
    limits = buckets_of(rules, wish.who)
    judged = [_judge(budget, books.account(key), wish) for budget, key in budgets]
    refused = next((one for one in judged if one.outcome is Outcome.REFUSED), None)
    if refused is not None:
        return refused
    tightest = _tightest(limits, books, now_ns)
    if (waiting := _rate_limited(limits, books, now_ns)) is not None:
        return msgspec.structs.replace(waiting, left=tightest)
    held = next((one for one in judged if one.outcome is Outcome.HELD), None)
    if held is not None:
        return held
    hold = _take(wish, budgets, limits, books, now_ns)
    flags = tuple(dict.fromkeys(flag for one in judged for flag in one.flags))
    return Verdict(Outcome.GRANTED, hold, flags=flags, left=_tightest(limits, books, now_ns))


def settle(hold: Hold, books: Books, cost_nanousd: int | None, tokens: int, now_ns: int) -> None:
    """A call is over: what it held is given back, what it cost is spent.

    ``cost_nanousd`` None: nobody knows, so what it held is taken for its cost.
    """
    for key, amount in hold.accounts:
        account = books.account(key)
        cost = amount if cost_nanousd is None else cost_nanousd
        books.put_account(
            key,
            msgspec.structs.replace(
                account,
                spent=account.spent + cost,
                reserved=max(0, account.reserved - amount),
                last=cost or account.last,
            ),
        )
    _pay(hold.buckets, books, tokens - hold.tokens, now_ns)


def leave(hold: Hold, books: Books, cost_nanousd: int | None) -> Hold:
    """A call's process died: what it may have cost is spent until its outcome is known.

    That is its estimated cost, or what the last call cost where that is more, but no more than it
    held. Returns what is to be corrected by `correct`.
    """
    spent: list[tuple[AccountKey, int]] = []
    for key, amount in hold.accounts:
        account = books.account(key)
        likely = max(cost_nanousd or 0, account.last or amount)
        cost = max(cost_nanousd or 0, min(likely, amount))
        spent.append((key, cost))
        books.put_account(
            key,
            msgspec.structs.replace(
                account,
                spent=account.spent + cost,
                reserved=max(0, account.reserved - amount),
            ),
        )
    return msgspec.structs.replace(hold, accounts=tuple(spent))


def correct(hold: Hold, books: Books, cost_nanousd: int | None, tokens: int, now_ns: int) -> None:
    """The late outcome of a call that was left."""
    for key, amount in hold.accounts:
        account = books.account(key)
        cost = amount if cost_nanousd is None else cost_nanousd
        spent = max(0, account.spent - amount + cost)
        books.put_account(key, msgspec.structs.replace(account, spent=spent))
    _pay(hold.buckets, books, tokens - hold.tokens, now_ns)


def free(hold: Hold, books: Books, now_ns: int) -> None:
    """A call that was admitted was not dispatched: everything it held is given back."""
    for key, amount in hold.accounts:
        account = books.account(key)
        reserved = max(0, account.reserved - amount)
        books.put_account(key, msgspec.structs.replace(account, reserved=reserved))
    _pay(hold.buckets, books, -hold.tokens, now_ns)


def limit_of(key: BucketKey) -> Limit:
    """The limit that a bucket's key names."""
    measure, _, rate = key.rate.partition(" ")
    count, _, window_s = rate.partition("/")
    return Limit(Extent(key.scope), Measure(measure), int(count), int(window_s))


def _pay(keys: Iterable[BucketKey], books: Books, tokens: int, now_ns: int) -> None:
    for key in keys:
        books.put_bucket(key, spend(books.bucket(key), limit_of(key), tokens, now_ns))


def _judge(budget: Budget, account: Account, wish: Wish) -> Verdict:
    """One budget's word, as if it were alone."""
    cap = budget.nanousd + account.extended
    if account.is_paused:
        return _refusal(f"the budget of this {budget.scope.value} is paused; resume it")
    if budget.is_warning:
        return _warning(cap, account, wish)
    if account.spent >= cap:
        return _refusal(_spent(budget, account, cap))
    if wish.cost_nanousd is None:
        return _refusal(_unpriced(wish.model))
    least = min(wish.cost_nanousd, account.last)
    room = cap - account.spent
    if room < least:
        return _refusal(_spent(budget, account, cap))
    if account.reserved and room - account.reserved < max(wish.cost_nanousd, account.last):
        return Verdict(Outcome.HELD)
    return Verdict(Outcome.GRANTED)


def _warning(cap: int, account: Account, wish: Wish) -> Verdict:
    if wish.cost_nanousd is None:
        return Verdict(Outcome.GRANTED, flags=(UNPRICED,))
    is_over = account.spent + account.reserved >= cap
    return Verdict(Outcome.GRANTED, flags=(OVER_BUDGET,) if is_over else ())


def _refusal(detail: str) -> Verdict:
    return Verdict(Outcome.REFUSED, code="budget_exceeded", detail=detail)


def _spent(budget: Budget, account: Account, cap: int) -> str:
    until = {
        Window.SESSION: "raise it, or start a new session",
        Window.DAY: "raise it, or wait for the next day (UTC)",
        Window.MONTH: "raise it, or wait for the next month (UTC)",
    }[budget.window]
    if budget.window is Window.SESSION and budget.scope not in (Extent.SESSION, Extent.TREE):
        until = "raise it"
    return (
        f"the budget of this {budget.scope.value} is spent: "
        f"{_usd(account.spent)} of {_usd(cap)} USD; {until}"
    )


def _unpriced(model: str) -> str:
    if not model:
        return "the request names no model, so its budget cannot count it; name one"
    return (
        f'the model "{model:.128}" has no price, so its budget cannot count it; '
        "add it to prices.file, or call another"
    )


def _usd(nanousd: int) -> str:
    """Dollars with two digits at least and no more than are needed."""
    whole, _, digits = dollars(nanousd).partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"


def _rate_limited(
    limits: list[tuple[Limit, BucketKey]], books: Books, now_ns: int
) -> Verdict | None:
    longest_ns, by = 0, None
    for limit, key in limits:
        needed_ns = wait_ns(books.bucket(key), limit, now_ns)
        if needed_ns > longest_ns:
            longest_ns, by = needed_ns, limit
    if by is None:
        return None
    seconds = max(1, -(-longest_ns // SECOND_NS))
    detail = (
        f"this {by.scope.value} has used its {by.count} {by.measure.value} in {by.window_s} s; "
        f"wait {seconds} s"
    )
    return Verdict(Outcome.REFUSED, code="rate_limited", detail=detail, retry_after_s=seconds)


def _tightest(limits: list[tuple[Limit, BucketKey]], books: Books, now_ns: int) -> tuple[Left, ...]:
    """Of each measure the limit that has the smallest share left."""
    found: dict[Measure, Left] = {}
    for limit, key in limits:
        one = left(books.bucket(key), limit, now_ns)
        other = found.get(limit.measure)
        if other is None or one.remaining * other.count < other.remaining * one.count:
            found[limit.measure] = one
    return tuple(found.values())


def _take(
    wish: Wish,
    budgets: list[tuple[Budget, AccountKey]],
    limits: list[tuple[Limit, BucketKey]],
    books: Books,
    now_ns: int,
) -> Hold:
    amounts: dict[AccountKey, int] = {}
    for _, key in budgets:
        account = books.account(key)
        amounts[key] = max(wish.cost_nanousd or 0, account.last)
    for key, amount in amounts.items():
        account = books.account(key)
        reserved = account.reserved + amount
        books.put_account(key, msgspec.structs.replace(account, reserved=reserved))
    filled: list[BucketKey] = []
    for bucket_key, limit in {key: limit for limit, key in limits}.items():
        is_tokens = limit.measure is Measure.TOKENS
        units = wish.tokens if is_tokens else 1
        books.put_bucket(bucket_key, spend(books.bucket(bucket_key), limit, units, now_ns))
        if is_tokens:
            filled.append(bucket_key)
    return Hold(tuple(amounts.items()), tuple(filled), wish.tokens if filled else 0)
