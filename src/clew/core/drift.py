"""Whether clients still say who they are: what the table of clients expects, held against traffic.

The unit is one version of one client, both from the user agent. A client that is not in the table
is held against its own former version. Pure: sums come in, findings go out.

A request carries an id when one of it named the session; content and the chain of responses name
one without. Requests that content attached elsewhere though they had an id (a title under a foreign
id) count as without, therefore a share of `ALMOST_ALL` is taken for all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final

import msgspec

from clew.core.clients import LINEAGE, product_of

WITHOUT_ID: Final = ("", LINEAGE.source, "response-chain")
"""Sources that are no id of the client's."""
ALMOST_ALL: Final = 0.9
HARDLY_ANY: Final = 0.1
JUMP: Final = 0.5
"""From one version to the next; of clients that the table does not know."""
ENOUGH: Final = 5
"""Requests of a version below which nothing is said of it."""


class Expected(msgspec.Struct, frozen=True):
    """What the requests of one client carry."""

    product: str
    """How its user agent begins, lower-cased."""
    name: str
    sources: tuple[str, ...]
    """Sources its sessions are named by; empty: it sends no id."""


EXPECTED: Final = (
    Expected("claude-cli", "Claude Code", ("claude-code",)),
    Expected("codex", "Codex", ("codex",)),
    Expected("opencode", "OpenCode", ("opencode",)),
    Expected("kilo", "Kilo", ("kilo",)),
    Expected("kimi", "Kimi", ("metadata-user",)),
    Expected("geminicli", "Gemini CLI", ()),
    Expected("qwencode", "Qwen Code", ()),
    Expected("factory-cli", "Droid", ()),
)
"""One row a client whose user agent is its own (`conformance/captures/`); those that show their
SDK's cannot be told from others."""

STRONGER: Final = ("canonical", "cagent", "lore", "litellm", "helicone", "bifrost", "task")
"""Ids that a user or a harness adds to any client: they are never drift."""


class Verdict(StrEnum):
    """What is said of one version."""

    AS_EXPECTED = "as_expected"
    LOST = "lost"
    """The table expects an id, and some requests carry none."""
    MOVED = "moved"
    """It carries an id, but not the one the table expects."""
    GAINED = "gained"
    """The table expects none, and requests carry one: its row can be better."""
    CHANGED = "changed"
    """Not in the table; its former version was otherwise."""
    NOT_KNOWN = "not_known"
    """Not in the table, nothing to compare with."""
    TOO_FEW = "too_few"


FAULTS: Final = frozenset({Verdict.LOST, Verdict.MOVED, Verdict.CHANGED})
"""Verdicts somebody should look at."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The inference requests of one client version. Times are Unix nanoseconds."""

    client: str
    """Product and version as `core.clients.client_of` reads them; may be empty."""
    requests: int
    sources: Mapping[str, int]
    """Requests by the source that named their session; empty text: none did."""
    first_seen_ns: int

    @property
    def with_id(self) -> int:
        """Requests that carried an id."""
        return sum(count for source, count in self.sources.items() if source not in WITHOUT_ID)

    @property
    def share(self) -> float:
        """Of them, from 0 to 1."""
        return self.with_id / self.requests if self.requests else 0.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one client version."""

    client: str
    product: str
    version: str
    requests: int
    with_id: int
    share: float
    """From 0 to 1, four digits."""
    sources: dict[str, int]
    expected: list[str] | None
    """Sources the table expects; empty: no id; null: the table does not know the client."""
    verdict: Verdict
    text: str
    """One sentence."""


def findings(traffic: Iterable[Traffic]) -> list[Finding]:
    """One finding for each version, in the order given."""
    rows = list(traffic)
    former = _former(rows)
    return [_finding(row, former.get(row.client)) for row in rows]


def expected_of(client: str) -> Expected | None:
    """The row of a client, by its user agent's product."""
    lowered = client.lower()
    return next((row for row in EXPECTED if lowered.startswith(row.product)), None)


def version_of(client: str) -> str:
    """The version of ``product/version``, empty where none is told."""
    product = product_of(client)
    return client[len(product) + 1 :] if product != client else ""


def _finding(row: Traffic, former: Traffic | None) -> Finding:
    expected = expected_of(row.client)
    verdict = _verdict(row, expected, former)
    product, version = product_of(row.client), version_of(row.client)
    name = expected.name if expected is not None else product
    who = f"{name} {version}".strip() or "no user agent"
    return Finding(
        client=row.client,
        product=product,
        version=version,
        requests=row.requests,
        with_id=row.with_id,
        share=round(row.share, 4),
        sources=dict(row.sources),
        expected=list(expected.sources) if expected is not None else None,
        verdict=verdict,
        text=f"{who}: {_percent(row.share)} carry a session id"
        + _reason(verdict, row, expected, former),
    )


def _verdict(row: Traffic, expected: Expected | None, former: Traffic | None) -> Verdict:
    if row.requests < ENOUGH:
        return Verdict.TOO_FEW
    if expected is None:
        if former is None or former.requests < ENOUGH:
            return Verdict.NOT_KNOWN
        is_jump = abs(row.share - former.share) >= JUMP
        return Verdict.CHANGED if is_jump else Verdict.NOT_KNOWN
    if not expected.sources:
        own = row.with_id - _count(row, STRONGER)
        return Verdict.GAINED if own > HARDLY_ANY * row.requests else Verdict.AS_EXPECTED
    if row.share < ALMOST_ALL:
        return Verdict.LOST
    if _count(row, (*expected.sources, *STRONGER)) < ALMOST_ALL * row.with_id:
        return Verdict.MOVED
    return Verdict.AS_EXPECTED


def _reason(
    verdict: Verdict, row: Traffic, expected: Expected | None, former: Traffic | None
) -> str:
    if verdict is Verdict.LOST and expected is not None:
        return f"; all did by {' or '.join(expected.sources)}"
    if verdict is Verdict.MOVED and expected is not None:
        seen = sorted(source for source in row.sources if source not in WITHOUT_ID)
        return f", by {', '.join(seen)} and no longer by {' or '.join(expected.sources)}"
    if verdict is Verdict.GAINED:
        return "; none did"
    if verdict is Verdict.CHANGED and former is not None:
        return f"; {_percent(former.share)} of {version_of(former.client) or 'its former version'}"
    return ""


def _count(row: Traffic, sources: Sequence[str]) -> int:
    return sum(row.sources.get(source, 0) for source in sources)


def _percent(share: float) -> str:
    """Rounded, but never to a whole that is not one."""
    percent = share * 100
    if 0 < percent < 1:
        return "<1 %"
    return f"{min(round(percent), 99) if percent < 100 else 100} %"


def _former(rows: Sequence[Traffic]) -> dict[str, Traffic]:
    """The version before each one: of the same product, the next lower number."""
    by_product: dict[str, list[Traffic]] = {}
    for row in rows:
        by_product.setdefault(product_of(row.client), []).append(row)
    found: dict[str, Traffic] = {}
    for versions in by_product.values():
        versions.sort(key=lambda row: (_numbers(row.client), row.first_seen_ns))
        for before, after in pairwise(versions):
            found[after.client] = before
    return found


def _numbers(client: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version_of(client))[:8])
