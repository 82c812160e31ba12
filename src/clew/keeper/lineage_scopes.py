"""Which lineage scopes are in memory: what one principal holds, it takes from nobody else.

A scope weighs what its index says. A principal whose scopes weigh more than `PRINCIPAL_BYTES` lets
go of its own, the one used least recently first; all together over `TOTAL_BYTES`, the principal
that holds most lets go of one. So whoever opens a million conversations, or names a thousand
products in its user agent, makes no other principal's evidence wait for the store: a scope let go
is loaded from its log when it is asked for again. The scope in use stays, whatever it weighs: its
own bounds (`core.lineage.index.Limits`) keep it below a principal's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from clew.core.lineage.index import ScopeIndex

PRINCIPAL_BYTES: Final = 40 * 1024 * 1024
"""With what a load and a write hold for a moment this stays below 64 MiB a principal."""
TOTAL_BYTES: Final = 512 * 1024 * 1024
SEPARATOR: Final = "\x1f"
"""Between the parts of a scope's name; the first is the principal."""


class Held(msgspec.Struct):
    """A scope in memory."""

    index: ScopeIndex
    last: int = 0
    """The last row of its log that it knows."""
    logged: int = 0
    """Changes written of it since it was loaded or its log was written anew."""
    weight_bytes: int = 0
    """What it weighed when it was counted last."""


class Scopes:
    """All scopes in memory, by principal, used least recently first."""

    def __init__(
        self, principal_bytes: int = PRINCIPAL_BYTES, total_bytes: int = TOTAL_BYTES
    ) -> None:
        self._principal_bytes = principal_bytes
        self._total_bytes = total_bytes
        self._held: dict[str, OrderedDict[str, Held]] = {}
        self._weights: dict[str, int] = {}
        self._total = 0

    @property
    def weight_bytes(self) -> int:
        """About what all scopes hold."""
        return self._total

    def get(self, scope: str) -> Held | None:
        """The scope, if it is in memory; it is the newest of its principal now."""
        own = self._held.get(_principal_of(scope))
        held = own.get(scope) if own is not None else None
        if own is not None and held is not None:
            own.move_to_end(scope)
        return held

    def hold(self, scope: str, held: Held) -> None:
        """Take in a scope that was loaded."""
        self._held.setdefault(_principal_of(scope), OrderedDict())[scope] = held
        self.count(scope, held)

    def drop(self, scope: str) -> None:
        """Let go of a scope."""
        principal = _principal_of(scope)
        own = self._held[principal]
        self._add(principal, -own.pop(scope).weight_bytes)
        if not own:
            del self._held[principal], self._weights[principal]

    def count(self, scope: str, held: Held) -> None:
        """A scope has changed: weigh it, and make room."""
        principal = _principal_of(scope)
        own = self._held.get(principal)
        if own is None or own.get(scope) is not held:
            return  # let go meanwhile
        weight = held.index.weight_bytes
        self._add(principal, weight - held.weight_bytes)
        held.weight_bytes = weight
        while self._weights[principal] > self._principal_bytes and len(own) > 1:
            self.drop(next(iter(own)))
        while self._total > self._total_bytes and self._drop_of_heaviest(scope):
            pass

    def items(self) -> Iterator[tuple[str, Held]]:
        """Every scope with its name, as it is now."""
        for own in list(self._held.values()):
            yield from list(own.items())

    def _add(self, principal: str, weight: int) -> None:
        self._weights[principal] = self._weights.get(principal, 0) + weight
        self._total += weight

    def _drop_of_heaviest(self, used: str) -> bool:
        """Let go of a scope of whoever holds most, but the one in use; whether one went."""
        for principal in sorted(self._weights, key=self._weights.__getitem__, reverse=True):
            for scope in self._held[principal]:
                if scope != used:
                    self.drop(scope)
                    return True
        return False


def _principal_of(scope: str) -> str:
    return scope.partition(SEPARATOR)[0]
