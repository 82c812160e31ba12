"""The keeper's command about budgets: give one session, or its tree, more; pause it; resume it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.claim import Principal, SessionKey
from clew.core.errors import ClewError
from clew.core.grants import AccountKey, Budget, Window
from clew.core.limits import Extent, Who
from clew.keeper.knowledge import survivor
from clew.keeper.reach import Reach
from clew.store.grants import read_books, write_books
from clew.store.verbs import VerbWriter

CATCH_UP_S: Final = 1.0


async def change_budget(reach: Reach, arguments: Mapping[str, Any]) -> Any:
    """``session``, ``budgets`` (scope, window), ``extend_nanousd``, ``pause``.

    Changes each of these budgets of the session. Answers ``{session, unconfirmed}``.
    """
    budgets = [Budget(Extent(scope), 0, Window(window)) for scope, window in arguments["budgets"]]
    extend, pause = arguments.get("extend_nanousd"), arguments.get("pause")
    name, now_ns = str(arguments["session"]), reach.now_ns()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reach.running.request_pass(), CATCH_UP_S)

    def work(connection: sa.Connection) -> str:
        write = VerbWriter(connection)
        row = write.session(survivor(connection, SessionKey(name)))
        if row is None:
            raise ClewError("not_found")
        who = Who(Principal(row["principal"]), session=row["id"], root=row["root_id"])
        keys = {_account_of(budget, who, now_ns) for budget in budgets}
        books = read_books(connection, keys, ())
        for key in keys:
            account = books.account(key)
            extended = account.extended + (extend or 0)
            is_paused = account.is_paused if pause is None else bool(pause)
            changed = msgspec.structs.replace(account, extended=extended, is_paused=is_paused)
            books.put_account(key, changed)
        write_books(connection, books, now_ns)
        said = {"extend_nanousd": extend, "pause": pause}
        after = {name: value for name, value in said.items() if value is not None}
        if after:
            write.note(row["id"], now_ns, "budget", "admin", after=after)
        return str(row["id"])

    key = await reach.write(work, session=name, by="admin")
    # Nobody but the keeper knows of accounts: there is nothing to acknowledge.
    return {"session": key, "unconfirmed": []}


def _account_of(budget: Budget, who: Who, now_ns: int) -> AccountKey:
    return AccountKey(budget.scope.value, who.subject(budget.scope), budget.period(now_ns))


BUDGET_COMMANDS: Final[Mapping[str, Callable[[Reach, Mapping[str, Any]], Awaitable[Any]]]] = {
    "session.budget": change_budget,
}
