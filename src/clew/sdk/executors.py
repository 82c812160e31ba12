"""An executor that submits every task with the session of its caller. See `carrying`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from clew.sdk.carrying import carry

P = ParamSpec("P")
R = TypeVar("R")


class CarryingExecutor(Executor):
    """Hands everything on to another executor, each function carried."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As the other executor's, in the caller's session; ``map`` comes here too."""
        return self._executor.submit(carry(fn), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the other executor down."""
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)
