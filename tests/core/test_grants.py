"""Budgets: what is admitted, held, refused; and that the books always balance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clew.core.claim import Principal
from clew.core.grants import (
    OVER_BUDGET,
    UNPRICED,
    Account,
    AccountKey,
    Books,
    Budget,
    Hold,
    Outcome,
    Rules,
    Verdict,
    Window,
    Wish,
    accounts_of,
    correct,
    decide,
    free,
    leave,
    settle,
)
from clew.core.limits import SECOND_NS, Extent, Limit, Measure, Who

NOW = 1_795_305_600 * SECOND_NS  # 2026-11-22T00:00:00Z
ADA = Who(Principal("ada"), "red", "loom", "cs_child", "cs_root")
SESSION = AccountKey("session", "cs_child", "")


def budget(nanousd: int, scope: Extent = Extent.SESSION, **changes: object) -> Budget:
    """A budget that rejects."""
    return Budget(scope, nanousd, **changes)  # type: ignore[arg-type]


def ask(books: Books, rules: Rules, cost: int | None, who: Who = ADA, at_ns: int = NOW) -> Verdict:
    """One call that may cost so much."""
    return decide(Wish(who, cost, 100, "gpt-x"), rules, books, at_ns)


def books_with(account: Account) -> Books:
    """The session's account is this one."""
    return Books({SESSION: account}, {})


CASES = [
    ("a fresh budget admits whatever the estimate", Account(), 500, Outcome.GRANTED),
    ("a spent one admits nothing", Account(spent=100), 0, Outcome.REFUSED),
    ("alone: room for as much as the last cost", Account(spent=90, last=10), 500, Outcome.GRANTED),
    ("alone: no room for the last's cost", Account(spent=91, last=10), 500, Outcome.REFUSED),
    ("alone: a small call fits all the same", Account(spent=91, last=10), 9, Outcome.GRANTED),
    ("in flight: room for the estimate", Account(reserved=40, last=10), 60, Outcome.GRANTED),
    ("in flight: none, but maybe later", Account(reserved=40, last=10), 61, Outcome.HELD),
    ("in flight: room as for the last", Account(reserved=91, last=10), 1, Outcome.HELD),
    ("in flight: not even later", Account(spent=95, reserved=1, last=10), 61, Outcome.REFUSED),
    ("extended", Account(spent=100, extended=50), 10, Outcome.GRANTED),
    ("paused", Account(is_paused=True), 1, Outcome.REFUSED),
    ("a model without price", Account(), None, Outcome.REFUSED),
]


@pytest.mark.parametrize(("name", "account", "cost", "outcome"), CASES, ids=[c[0] for c in CASES])
def test_the_rule_of_a_budget(
    name: str, account: Account, cost: int | None, outcome: Outcome
) -> None:
    """A budget of 100, by its account and the call's estimate."""
    assert name
    books = books_with(account)
    verdict = ask(books, Rules(budgets=(budget(100),)), cost)

    assert verdict.outcome is outcome
    assert bool(books.changed_accounts) == (outcome is Outcome.GRANTED)
    assert (verdict.code == "budget_exceeded") == (outcome is Outcome.REFUSED)


def test_a_budget_that_warns_refuses_nothing() -> None:
    """It flags: what is over, and what it cannot count."""
    rules = Rules(budgets=(budget(100, is_warning=True),))

    assert ask(books_with(Account(spent=99)), rules, 5).flags == ()
    assert ask(books_with(Account(spent=100)), rules, 5).flags == (OVER_BUDGET,)
    assert ask(books_with(Account()), rules, None).flags == (UNPRICED,)


@given(st.integers(1, 12), st.integers(1, 50), st.integers(0, 200), st.integers(0, 10))
def test_a_budget_for_k_calls_admits_k(k: int, cost: int, surplus: int, extra: int) -> None:
    """Sixty-four at once, each asking again while it is held, settled in any order."""
    rules = Rules(budgets=(budget(k * cost + extra % cost),))
    books = Books({}, {})
    running: list[Hold] = []
    waiting, admitted = 64, 0
    while waiting:
        verdict = ask(books, rules, cost + surplus)
        if verdict.outcome is Outcome.GRANTED:
            admitted, waiting = admitted + 1, waiting - 1
            running.append(verdict.hold)
        elif verdict.outcome is Outcome.HELD:
            settle(running.pop(admitted % len(running)), books, cost, 0, NOW)
        else:
            waiting -= 1
    for hold in running:
        settle(hold, books, cost, 0, NOW)

    assert admitted == k
    assert books.account(SESSION) == Account(spent=k * cost, last=cost)


def test_a_subagent_cannot_outspend_its_tree() -> None:
    """Each child has its own session; the tree's account is one."""
    rules = Rules(budgets=(budget(100, Extent.TREE),))
    books = Books({}, {})
    verdicts = []
    for number in range(10):
        child = Who(Principal("ada"), session=f"cs_{number}", root="cs_root")
        verdicts.append(ask(books, rules, 30, child))
        if verdicts[-1].hold:
            settle(verdicts[-1].hold, books, 30, 0, NOW)

    assert [one.outcome for one in verdicts].count(Outcome.GRANTED) == 3


def test_every_budget_that_covers_a_call_must_have_room() -> None:
    """The tightest decides, and nothing is taken of the others."""
    rules = Rules(budgets=(budget(1000), budget(10, Extent.TEAM)))
    team = AccountKey("team", "red", "")
    books = Books({team: Account(spent=10)}, {})
    verdict = ask(books, rules, 5)

    assert verdict.outcome is Outcome.REFUSED
    assert "this team is spent" in verdict.detail
    assert not books.changed_accounts


def test_one_account_is_held_once_however_many_budgets_count_in_it() -> None:
    """Warn at 80, reject at 100: the same money."""
    rules = Rules(budgets=(budget(100), budget(80, is_warning=True)))
    books = Books({}, {})
    hold = ask(books, rules, 30).hold

    assert hold.accounts == ((SESSION, 30),)
    assert books.account(SESSION).reserved == 30


def test_days_and_months_begin_anew_in_utc() -> None:
    """The last second of the old one belongs to it."""
    rules = Rules(budgets=(budget(1, window=Window.DAY), budget(1, window=Window.MONTH), budget(1)))

    def periods(at_ns: int) -> list[str]:
        return [key.period for _, key in accounts_of(rules, ADA, at_ns)]

    assert periods(NOW - 1) == ["2026-11-21", "2026-11", ""]
    assert periods(NOW) == ["2026-11-22", "2026-11", ""]
    assert periods(NOW + 9 * 86_400 * SECOND_NS) == ["2026-12-01", "2026-12", ""]


def test_an_unknown_cost_is_what_was_held() -> None:
    """Never silently free."""
    rules = Rules(budgets=(budget(100),))
    books = Books({}, {})
    settle(ask(books, rules, 30).hold, books, None, 0, NOW)

    assert books.account(SESSION).spent == 30


def test_an_error_costs_nothing_and_teaches_nothing() -> None:
    """What the last call cost stays what it was."""
    rules = Rules(budgets=(budget(100),))
    books = books_with(Account(spent=10, last=10))
    settle(ask(books, rules, 30).hold, books, 0, 0, NOW)

    assert books.account(SESSION) == Account(spent=10, last=10)


@pytest.mark.parametrize(("last", "left"), [(0, 30), (10, 10), (90, 90)])
def test_a_call_that_was_left_is_spent_until_its_outcome_comes(last: int, left: int) -> None:
    """As much as the last one cost, or all it held where none did; then what it really cost."""
    rules = Rules(budgets=(budget(1000),))
    books = books_with(Account(last=last))
    hold = leave(ask(books, rules, 30).hold, books, 5)
    assert books.account(SESSION) == Account(spent=left, last=last)

    correct(hold, books, 12, 0, NOW)
    assert books.account(SESSION).spent == 12


def test_limits_come_before_waiting_and_after_refusal() -> None:
    """A spent budget is final, a limit is not; a limited call takes nothing."""
    limit = Limit(Extent.SESSION, Measure.REQUESTS, 1, 60)
    rules = Rules((limit,), (budget(100),))
    books = Books({}, {})
    first, second = ask(books, rules, 30), ask(books, rules, 30)

    assert first.outcome is Outcome.GRANTED
    assert (second.code, second.retry_after_s) == ("rate_limited", 60)
    assert books.account(SESSION).reserved == 30
    assert second.left[0].remaining == 0


def test_tokens_are_taken_by_estimate_and_settled_by_usage() -> None:
    """The prompt's estimate before, the difference after."""
    limit = Limit(Extent.PRINCIPAL, Measure.TOKENS, 1_000, 60)
    rules = Rules((limit,))
    books = Books({}, {})
    verdict = ask(books, rules, None)
    assert verdict.left[0].remaining == 900

    settle(verdict.hold, books, None, 400, NOW)
    assert ask(books, rules, None).left[0].remaining == 500


class Bookkeeping(RuleBasedStateMachine):
    """Calls come, end, fail, are freed or left; every account is the sum of what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = Rules(
            budgets=(
                budget(500),
                budget(900, Extent.TREE),
                budget(1200, Extent.PRINCIPAL, window=Window.DAY),
            )
        )
        self.books = Books({}, {})
        self.running: list[tuple[Who, Hold]] = []
        self.spent: dict[AccountKey, int] = {}

    def _keys(self, who: Who) -> list[AccountKey]:
        return [key for _, key in accounts_of(self.rules, who, NOW)]

    @rule(child=st.integers(0, 3), cost=st.integers(0, 200))
    def come(self, child: int, cost: int) -> None:
        """A call of one of four sessions in two trees."""
        who = Who(Principal("ada"), session=f"cs_{child}", root=f"cs_root{child % 2}")
        verdict = ask(self.books, self.rules, cost, who)
        if verdict.outcome is Outcome.GRANTED:
            self.running.append((who, verdict.hold))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100), share=st.integers(0, 100))
    def end(self, which: int, share: int) -> None:
        """It costs a part of what it held."""
        who, hold = self.running.pop(which % len(self.running))
        cost = min(amount for _, amount in hold.accounts) * share // 100
        settle(hold, self.books, cost, 0, NOW)
        for key in self._keys(who):
            self.spent[key] = self.spent.get(key, 0) + cost

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100))
    def leak(self, which: int) -> None:
        """It was never dispatched."""
        free(self.running.pop(which % len(self.running))[1], self.books, NOW)

    @invariant()
    def balanced(self) -> None:
        """Spent is what calls cost, reserved is what running ones hold."""
        for key in {key for who, _ in self.running for key in self._keys(who)} | set(self.spent):
            account = self.books.account(key)
            held = [dict(hold.accounts).get(key, 0) for _, hold in self.running]
            assert account.reserved == sum(held)
            assert account.spent == self.spent.get(key, 0)


TestBookkeeping = Bookkeeping.TestCase
