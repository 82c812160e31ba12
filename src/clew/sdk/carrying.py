"""Carries the session into threads, where contexts do not follow by themselves.

Only the session travels, so a carried function also goes into other processes, as far as the
function itself does (`pickle`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from clew.sdk.session import Session, current
from clew.sdk.wrapping import is_run_later

if TYPE_CHECKING:
    from concurrent.futures import Executor

P = ParamSpec("P")
R = TypeVar("R")


class _Carried(Generic[P, R]):
    __slots__ = ("_function", "_session")

    def __init__(self, function: Callable[P, R], session: Session) -> None:
        self._function = function
        self._session = session

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._session:
            return self._function(*args, **kwargs)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be run elsewhere in the session that is current now.

    For ``Thread(target=…)``, ``executor.submit``, ``loop.run_in_executor`` and process pools.
    Outside of any session it is the function itself.

    >>> import clew, threading
    >>> with clew.session("run-42"):
    ...     thread = threading.Thread(target=clew.carry(lambda: print(clew.current().id)))
    >>> thread.start(); thread.join()
    run-42
    """
    found = current()
    if found is None:
        return function
    return found(function) if is_run_later(function) else _Carried(function, found)


def carrying(executor: Executor) -> Executor:
    """The executor, each task of it in the session that is current when it is submitted.

    Shutting down one shuts down the other.

    >>> import clew
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with clew.carrying(ThreadPoolExecutor()) as pool, clew.session("run-42"):
    ...     pool.submit(clew.headers).result()
    {'x-dynamo-session-id': 'run-42'}
    """
    from clew.sdk.executors import CarryingExecutor  # noqa: PLC0415  # its base class is slow to import

    return CarryingExecutor(executor)
