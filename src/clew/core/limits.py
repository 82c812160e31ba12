"""Rate limits: a bucket that refills evenly, and debt where it was overdrawn (GCRA).

A limit of N a window holds N at most and refills N in each window. Its state is one time: when it
will be full again. What is paid in advance (a request) is taken only while something is left; what
is known afterwards only (tokens) may overdraw, and the debt is waited off before the next call.

Clocks of several hosts differ a little and one clock may jump: a time up to `SKEW_NS` behind the
last one seen counts as that one, so that nobody gains by it; one further behind is a jump, and the
bucket moves with it, so that a jump locks nobody out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from clew.core.claim import Principal

SECOND_NS: Final = 1_000_000_000
SKEW_NS: Final = 10 * SECOND_NS


class Extent(StrEnum):
    """Whom a limit or budget counts together: the ``scope`` of the configuration."""

    SESSION = "session"
    TREE = "tree"
    PRINCIPAL = "principal"
    TEAM = "team"
    PROJECT = "project"


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class Who(msgspec.Struct, frozen=True, array_like=True):
    """Whose call it is. ``session`` and ``root`` are empty for an unattributed one."""

    principal: Principal
    team: str = ""
    project: str = ""
    session: str = ""
    root: str = ""

    def subject(self, scope: Extent) -> str:
        """Who is counted together with this call; empty: nobody, the rule does not cover it.

        Calls without a session share one subject a principal: leaving ids out escapes nothing.
        """
        nameless = f"-{self.principal}"
        match scope:
            case Extent.SESSION:
                return self.session or nameless
            case Extent.TREE:
                return self.root or self.session or nameless
            case Extent.PRINCIPAL:
                return self.principal
            case Extent.TEAM:
                return self.team
            case Extent.PROJECT:
                return self.project


class Limit(msgspec.Struct, frozen=True):
    """``count`` of a measure in each ``window_s`` seconds, for each subject of a scope."""

    scope: Extent
    measure: Measure
    count: int
    window_s: int

    @property
    def rate(self) -> str:
        """The limit's name beside its subject, e.g. ``tokens 1000000/3600``."""
        return f"{self.measure.value} {self.count}/{self.window_s}"

    @property
    def window_ns(self) -> int:
        """How long an empty bucket takes to be full."""
        return self.window_s * SECOND_NS

    def time_of(self, units: int) -> int:
        """How long the bucket takes to refill these units, in ns; as negative as they are.

        Rounded towards zero: N units never cost more than the window holds.
        """
        whole_ns = abs(units) * self.window_ns // self.count
        return whole_ns if units >= 0 else -whole_ns


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """How far a limit is used up: full again at ``full_at_ns``, as seen at ``seen_at_ns``."""

    full_at_ns: int = 0
    seen_at_ns: int = 0


FULL: Final = Bucket()


class Left(msgspec.Struct, frozen=True, array_like=True):
    """What a limit has left, for the response's fields."""

    measure: Measure
    count: int
    remaining: int
    """Never below zero."""
    reset_ms: int
    """Until the bucket is full."""


def wait_ns(bucket: Bucket, limit: Limit, now_ns: int) -> int:
    """How long until one unit is there; 0: one is."""
    bucket, now_ns = _at(bucket, now_ns)
    return max(0, bucket.full_at_ns + limit.time_of(1) - now_ns - limit.window_ns)


def spend(bucket: Bucket, limit: Limit, units: int, now_ns: int) -> Bucket:
    """The bucket with ``units`` taken, overdrawn where it must be; negative: given back."""
    bucket, now_ns = _at(bucket, now_ns)
    return Bucket(max(bucket.full_at_ns, now_ns) + limit.time_of(units), now_ns)


def left(bucket: Bucket, limit: Limit, now_ns: int) -> Left:
    """What is left at a time."""
    bucket, now_ns = _at(bucket, now_ns)
    used_ns = max(0, bucket.full_at_ns - now_ns)
    free_ns = max(0, limit.window_ns - used_ns)
    remaining = free_ns * limit.count // limit.window_ns
    return Left(limit.measure, limit.count, remaining, -(-used_ns // 1_000_000))


def _at(bucket: Bucket, now_ns: int) -> tuple[Bucket, int]:
    """The bucket and the time to judge it by, with clocks that run apart or jump."""
    behind_ns = bucket.seen_at_ns - now_ns
    if behind_ns <= 0:
        return bucket, now_ns
    if behind_ns <= SKEW_NS:
        return bucket, bucket.seen_at_ns
    return Bucket(bucket.full_at_ns - behind_ns, now_ns), now_ns
