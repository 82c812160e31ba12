"""Decides how a session covers a function: for its whole run, whatever kind of function it is.

A coroutine function is covered while it runs, not while it is called. A generator shares its
caller's context, so it is covered step by step: between two steps its caller is outside again.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

P = ParamSpec("P")
R = TypeVar("R")

Opener = Callable[[], "AbstractContextManager[Any]"]
"""Gives the context manager of one call."""


def wrapped(function: Callable[P, R], opener: Opener) -> Callable[P, R]:
    """The function, each call of it inside what ``opener`` gives for that call.

    >>> from contextlib import nullcontext
    >>> wrapped(lambda a: a + 1, nullcontext)(2)
    3
    """
    make = next(make for is_one, make in _makers() if is_one(function))
    return cast("Callable[P, R]", functools.wraps(function)(make(function, opener)))


def is_run_later(function: Callable[..., Any]) -> bool:
    """Whether calling the function does not run it: coroutine functions and generators.

    >>> is_run_later(len)
    False
    """
    return next(make for is_one, make in _makers() if is_one(function)) is not _plain


def _makers() -> tuple[tuple[Callable[[Any], bool], Callable[[Any, Opener], Any]], ...]:
    """What a function is, tried in order, and how it is covered; the last is of all others."""
    import inspect  # noqa: PLC0415  # slow to import, and only needed by who decorates

    return (
        (inspect.iscoroutinefunction, _coroutine),
        (inspect.isasyncgenfunction, _async_generator),
        (inspect.isgeneratorfunction, _generator),
        (callable, _plain),
    )


def _plain(function: Callable[..., Any], opener: Opener) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with opener():
            return function(*args, **kwargs)

    return call


def _coroutine(function: Callable[..., Any], opener: Opener) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with opener():
            return await function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Any], opener: Opener) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        cover = opener()
        running: Generator[Any, Any, Any] = function(*args, **kwargs)
        step: Callable[[], Any] = functools.partial(next, running)
        while True:
            try:
                with cover:
                    value = step()
            except StopIteration as end:
                return end.value
            try:
                sent = yield value
                step = functools.partial(running.send, sent)
            except GeneratorExit:
                with cover:
                    running.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  # handed on to the generator, as `yield from` does
                step = functools.partial(running.throw, thrown)

    return call


def _async_generator(function: Callable[..., Any], opener: Opener) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        cover = opener()
        running: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        step: Callable[[], Any] = running.__anext__
        while True:
            try:
                with cover:
                    value = await step()
            except StopAsyncIteration:
                return
            try:
                sent = yield value
                step = functools.partial(running.asend, sent)
            except GeneratorExit:
                with cover:
                    await running.aclose()
                raise
            except BaseException as thrown:  # noqa: BLE001  # handed on to the generator
                step = functools.partial(running.athrow, thrown)

    return call
