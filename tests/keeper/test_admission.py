"""Grants over the keeper's real socket and store: held, settled, given back, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.keeper.admitting import Keeper, intent, outcome

from clew.core.grants import Account, Budget, Rules
from clew.core.limits import Extent, Limit, Measure
from clew.keeper.admission import FREE_AFTER_S, HOLD_S
from clew.keeper.link import KeeperAway
from clew.keeper.protocol import Admit

HUNDRED = Rules(budgets=(Budget(Extent.SESSION, 100),))


def run(data: Path, rules: Rules, story: Callable[[Keeper], Awaitable[None]]) -> None:
    """One keeper's life."""

    async def live() -> None:
        keeper = Keeper(data, rules)
        await keeper.start()
        try:
            await story(keeper)
        finally:
            await keeper.stop()

    asyncio.run(live())


def test_what_a_call_holds_becomes_what_it_cost(tmp_path: Path) -> None:
    """From the grant over the intent to the outcome; then the grant is gone."""

    async def story(keeper: Keeper) -> None:
        word = await keeper.ask(await keeper.gateway())
        assert (word.error, word.grant) == ("", "req_000001")
        assert keeper.account() == Account(reserved=30)

        journal = keeper.journal(intent(1))
        await keeper.project()
        assert keeper.account().reserved == 30

        journal.append(outcome(1, 12))
        await keeper.project()
        assert keeper.account() == Account(spent=12, last=12)
        assert keeper.grants() == []

    run(tmp_path, HUNDRED, story)


def test_many_at_once_are_decided_together(tmp_path: Path) -> None:
    """One message, one transaction; never more than there is room for."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        asked = [asyncio.ensure_future(keeper.ask(link)) for _ in range(64)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await keeper.project()

        assert len(keeper.grants()) == 3
        assert keeper.account().reserved == 90
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    run(tmp_path, HUNDRED, story)


def test_a_held_call_goes_on_when_another_is_settled(tmp_path: Path) -> None:
    """It waits for money, not for a time."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        await keeper.ask(link, tokens=80)
        waiting = asyncio.ensure_future(keeper.ask(link, tokens=80))
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()

        keeper.journal(intent(1), outcome(1, 10))
        word = await asyncio.wait_for(waiting, 5)
        assert (word.error, word.grant) == ("", "req_000002")

    run(tmp_path, HUNDRED, story)


def test_a_call_that_is_held_too_long_may_try_again(tmp_path: Path) -> None:
    """The budget is not spent, so the answer is not final."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        await keeper.ask(link, tokens=80)
        waiting = asyncio.ensure_future(keeper.ask(link, tokens=80))
        await asyncio.wait([waiting], timeout=0.05)
        keeper.clock_s += HOLD_S
        word = await asyncio.wait_for(waiting, 5)

        assert word.error == "rate_limited"
        assert word.retry_after_s > 0

    run(tmp_path, HUNDRED, story)


def test_a_grant_that_is_never_used_is_free_within_a_minute(tmp_path: Path) -> None:
    """Its gateway lives and says nothing: the clock decides."""
    assert FREE_AFTER_S < 60 - 5

    async def story(keeper: Keeper) -> None:
        keeper.journal()
        await keeper.ask(await keeper.gateway())
        assert await keeper.desk.sweep() == 0
        keeper.clock_s += FREE_AFTER_S - 1
        assert await keeper.desk.sweep() == 0

        keeper.clock_s += 1
        assert await keeper.desk.sweep() == 1
        assert keeper.account() == Account()

    run(tmp_path, HUNDRED, story)


def test_a_grant_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    """Nobody holds its journal's lock: no intent can come any more."""

    async def story(keeper: Keeper) -> None:
        journal = keeper.journal()
        await keeper.ask(await keeper.gateway())
        journal.end()

        assert await keeper.desk.sweep() == 1
        assert keeper.account().reserved == 0

    run(tmp_path, HUNDRED, story)


def test_an_intent_that_was_written_keeps_its_grant(tmp_path: Path) -> None:
    """The journal is read before anything is given back, however old the grant."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        journal = keeper.journal()
        await keeper.ask(link)
        await keeper.desk.sweep()
        keeper.clock_s += 10 * FREE_AFTER_S
        journal.append(intent(1))

        assert await keeper.desk.sweep() == 0
        assert keeper.account().reserved == 30

    run(tmp_path, HUNDRED, story)


def test_a_dead_process_leaves_what_its_calls_may_have_cost(tmp_path: Path) -> None:
    """A call in flight at a kill is never free."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        await keeper.ask(link)
        journal = keeper.journal(intent(1))
        await keeper.project()
        journal.end()
        await keeper.project()
        assert keeper.account() == Account(spent=30)

        await keeper.desk.sweep()
        late = keeper.house.journal("gateway0-2")
        late.append(outcome(1, 7))
        await keeper.project()
        assert keeper.account().spent == 7

    run(tmp_path, HUNDRED, story)


def test_a_gateway_gives_back_what_it_does_not_use(tmp_path: Path) -> None:
    """The client left, or the journal refused the intent."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        word = await keeper.ask(link)
        link.release((word.grant,))
        after = await keeper.ask(link, tokens=100)

        assert after.error == ""
        assert keeper.grants() == ["req_000002"]

    run(tmp_path, HUNDRED, story)


def test_a_grant_that_nobody_waits_for_any_more_comes_back(tmp_path: Path) -> None:
    """Its request was cancelled while the keeper decided."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        asked = asyncio.ensure_future(keeper.ask(link))
        await asyncio.sleep(0)  # it is on its way
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        # Held until the room of the first is there again: all of it.
        assert (await keeper.ask(link, tokens=100)).error == ""
        assert len(keeper.grants()) == 1

    run(tmp_path, HUNDRED, story)


def test_a_restart_keeps_accounts_and_grants(tmp_path: Path) -> None:
    """What was spent stays spent; what runs is settled afterwards."""

    async def story(keeper: Keeper) -> None:
        await keeper.ask(await keeper.gateway(), tokens=60)
        journal = keeper.journal(intent(1))
        await keeper.project()
        await keeper.stop()
        await keeper.start()
        link = await keeper.gateway()
        assert keeper.account().reserved == 60

        journal.append(outcome(1, 100))
        await keeper.project()
        word = await keeper.ask(link)
        assert word.error == "budget_exceeded"

    run(tmp_path, HUNDRED, story)


def test_a_call_without_grant_is_charged_by_its_row(tmp_path: Path) -> None:
    """It began before the budget was configured, or its grant was given back."""

    async def story(keeper: Keeper) -> None:
        keeper.journal(intent(7), outcome(7, 100))
        await keeper.project()

        assert keeper.account().spent == 100
        assert (await keeper.ask(await keeper.gateway())).error == "budget_exceeded"

    run(tmp_path, HUNDRED, story)


def test_a_call_without_price_is_refused(tmp_path: Path) -> None:
    """A budget that cannot count it does not let it through."""

    async def story(keeper: Keeper) -> None:
        keeper.desk.find = lambda _vendor, _model: None
        word = await keeper.ask(await keeper.gateway())

        assert word.error == "budget_exceeded"
        assert "has no price" in word.detail

    run(tmp_path, HUNDRED, story)


def test_limits_survive_a_restart(tmp_path: Path) -> None:
    """A bucket is a row: starting again refills nothing."""
    rules = Rules((Limit(Extent.SESSION, Measure.REQUESTS, 2, 3600),))

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        assert [(await keeper.ask(link)).error for _ in range(2)] == ["", ""]
        await keeper.stop()
        await keeper.start()
        word = await keeper.ask(await keeper.gateway())

        assert word.error == "rate_limited"
        assert 1700 < word.retry_after_s <= 1800
        assert word.grant == ""

    run(tmp_path, rules, story)


def test_the_store_s_root_counts(tmp_path: Path) -> None:
    """A gateway that has not heard yet of a tree's growth admits nothing beside it."""
    rules = Rules(budgets=(Budget(Extent.TREE, 100),))

    async def story(keeper: Keeper) -> None:
        keeper.journal(intent(7))
        await keeper.project()
        await keeper.ask(await keeper.gateway())

        assert keeper.account("tree", "s1").reserved == 30
        assert keeper.account("tree", "root").reserved == 0

    run(tmp_path, rules, story)


def test_without_the_keeper_nothing_is_admitted(tmp_path: Path) -> None:
    """It says so at once."""

    async def story(keeper: Keeper) -> None:
        link = await keeper.gateway()
        await keeper.server.close()
        with pytest.raises(KeeperAway):
            await keeper.ask(link)

    run(tmp_path, HUNDRED, story)


def test_one_turn_of_the_loop_is_one_message(tmp_path: Path) -> None:
    """However many calls come at once."""

    async def story(keeper: Keeper) -> None:
        taken: list[Admit] = []
        take = keeper.desk.take
        keeper.server.admit_by(keeper.desk)
        keeper.desk.take = lambda peer, message: (taken.append(message), take(peer, message))[1]  # type: ignore[method-assign]  # only looks on
        link = await keeper.gateway()
        await asyncio.gather(*(keeper.ask(link, tokens=1) for _ in range(20)))

        assert [len(message.requests) for message in taken] == [20]

    run(tmp_path, HUNDRED, story)
