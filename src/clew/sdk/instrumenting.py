"""Decides which HTTP libraries are reached: those of a small table that are installed.

Through them come the OpenAI and Anthropic SDKs, LangChain, LiteLLM, Pydantic AI, the OpenAI Agents
SDK and whatever else speaks HTTP with one of them. Nothing is imported before `instrument`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Final, Protocol, cast

from clew.sdk.gate import GATEWAY_VARIABLE, read_gate
from clew.sdk.patching import Hook
from clew.sdk.process import PROCESS
from clew.sdk.warning import ClewWarning

TRANSPORTS: Final = {
    "httpx": "clew.sdk.over_httpx",
    "httpx2": "clew.sdk.over_httpx",
    "urllib3": "clew.sdk.over_urllib3",
    "aiohttp": "clew.sdk.over_aiohttp",
}
"""Library to the file that knows it. requests is reached through urllib3."""


class _Transport(Protocol):
    def hooks(self, library: object) -> Iterator[Hook]:
        """What is replaced in the library."""


def instrument(
    gateway: str | Iterable[str] = (), *, transports: Iterable[str] = tuple(TRANSPORTS)
) -> tuple[str, ...]:
    """Have every call to a gateway carry the session it is made in; the libraries reached.

    ``gateway`` is one URL or several, beside those of ``CLEW_GATEWAY``; both are read now. Calls
    to any other origin carry nothing, a redirect there loses what was stamped, and an id that the
    caller has set is kept. Clients that exist already are reached too. Called again, it takes the
    gateways named then. ``transports`` (names of `TRANSPORTS`) says which libraries to reach;
    those that are not installed are left out, those that are get imported.

    Raises ValueError for a gateway that is no URL or an unknown transport, RuntimeError for a
    library's release that cannot be reached. Warns when no gateway is known.

    >>> import clew
    >>> clew.instrument("http://127.0.0.1:2539", transports=["httpx"])
    ('httpx',)
    >>> clew.uninstrument()
    """
    wanted = list(transports)
    if unknown := [name for name in wanted if name not in TRANSPORTS]:
        raise ValueError(f"no such transport: {unknown[0]!r}; known: {', '.join(TRANSPORTS)}")
    gate = read_gate(gateway, os.environ)
    if not gate.origins:
        warnings.warn(
            "no gateway is known, so no call will carry its session; name one: "
            f'clew.instrument("http://127.0.0.1:2539") or {GATEWAY_VARIABLE}',
            ClewWarning,
            stacklevel=2,
        )
    found = tuple(name for name in wanted if importlib.util.find_spec(name) is not None)
    for name in found:
        for hook in _hooks(name):
            _install(name, hook)
    PROCESS.gate = gate
    return found


def uninstrument() -> None:
    """Undo `instrument`: no call carries anything any more, and the libraries are as they were.

    >>> import clew
    >>> clew.uninstrument()
    """
    PROCESS.gate = None
    for name in TRANSPORTS:
        if name in sys.modules:
            for hook in _hooks(name):
                hook.remove()


def _hooks(name: str) -> Iterator[Hook]:
    transport = cast("_Transport", importlib.import_module(TRANSPORTS[name]))
    return transport.hooks(importlib.import_module(name))


def _install(name: str, hook: Hook) -> None:
    try:
        hook.install()
    except AttributeError as missing:
        raise RuntimeError(
            f"this release of {name} has no {hook.owner.__name__}.{hook.name}; leave {name!r} out "
            "of transports and send clew.headers() by hand"
        ) from missing
