"""What can be asked of the keeper beside questions: one table, name → function.

A command writes on the thread that owns the store's one writing connection (`Reach.write`), tells
the gateways, and returns when every connected one has acknowledged, or says which did not. A
`ClewError` raised by it is its result; what it returns must be plain MessagePack.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.keeper.admission_commands import BUDGET_COMMANDS
from clew.keeper.key_commands import create_key, revoke_key, rotate_key
from clew.keeper.protocol import Command, Result
from clew.keeper.reach import Reach
from clew.keeper.rerate import RERATE_COMMANDS
from clew.keeper.verb_commands import SESSION_COMMANDS

_log = logging.getLogger(__name__)

Run = Callable[[Reach, Mapping[str, Any]], Awaitable[Any]]

COMMANDS: Final[Mapping[str, Run]] = {
    "keys.create": create_key,
    "keys.rotate": rotate_key,
    "keys.revoke": revoke_key,
    **SESSION_COMMANDS,
    **BUDGET_COMMANDS,
    **RERATE_COMMANDS,
}


async def run_command(reach: Reach, command: Command) -> Result:
    """The result of one command; every fault becomes one."""
    run = COMMANDS.get(command.name)
    if run is None:
        return Result(command.number, ok=False, error="not_found", detail="no such command")
    try:
        acting = reach.on_behalf_of(command.name, command.arguments)
        value = await run(acting, command.arguments)
    except ClewError as error:
        return Result(command.number, ok=False, error=error.fault.code, detail=error.detail)
    except sa.exc.SQLAlchemyError as error:
        _log.warning(
            "command %s: the store does not answer: %s", command.name, type(error).__name__
        )
        return Result(command.number, ok=False, error="store_unavailable")
    except Exception:  # noqa: BLE001  a command's top: one that fails must not end the keeper
        _log.exception("command %s failed", command.name)
        return Result(command.number, ok=False, error="internal")
    return Result(command.number, ok=True, value=value)
