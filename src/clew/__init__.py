"""Clew gives every LLM call a durable session identity.

The SDK (`clew.sdk`) is all here and needs nothing but the standard library::

    import clew

    clew.instrument("http://127.0.0.1:2539")
    with clew.session("run-42") as run:
        ...

Importing the package opens nothing and changes nothing outside of it. The gateway and the ``clew``
command come with the extra: ``pip install 'clew[gateway]'``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from clew.sdk import (
    ClewWarning,
    Session,
    carry,
    carrying,
    current,
    instrument,
    kind,
    session,
    uninstrument,
)
from clew.sdk.session import headers as _headers_of_current

__version__ = "0.1.0"

__all__ = [
    "ClewWarning",
    "Session",
    "__version__",
    "carry",
    "carrying",
    "current",
    "headers",
    "instrument",
    "kind",
    "session",
    "uninstrument",
]


class _Headers(Protocol):
    """``clew.headers`` as type checkers see it: called, and the names of `clew/headers.py`."""

    def __call__(self) -> dict[str, str]:
        """What a call of the current session carries; see `clew.sdk.headers`."""

    def __getattr__(self, name: str) -> str: ...


class _CallableModule(ModuleType):
    """`clew.headers` is the table of header names, and, called, the current session's headers.

    Both names are given: the module's by everything that imports it, the function's by the SDK.
    A function in the module's place would hide the names from ``from clew import headers``.
    """

    def __call__(self) -> dict[str, str]:
        return _headers_of_current()


sys.modules["clew.headers"].__class__ = _CallableModule

if TYPE_CHECKING:
    headers: _Headers
