"""Admission by the keeper, where a limit or budget is configured: before a call's intent.

What a call may cost is told by its request: its size, its model, its bound on the answer. So where
there is a budget the body is read; a configuration without limits and budgets has none of this.

A grant is good for `VALID_S` from the question on, and looked at again after the intent is written:
the keeper gives a grant back only after a longer time and after it has read the journals, so a
process that was stopped in between dispatches nothing that somebody else was admitted for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from clew.config.schema import Config
from clew.core.apis.table import error_api
from clew.core.claim import Claim
from clew.core.errors import ClewError
from clew.core.keys import Caller
from clew.core.limits import Extent, Left, Who
from clew.core.routing import is_count_tokens
from clew.gateway.decision import Decision, Routed
from clew.gateway.sessions import Resolved
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Request
from clew.wire.heads import ResponseHead
from clew.wire.listener import ServerRequest

VALID_S: Final = 35.0
"""More than a call may be held (`keeper.admission.HOLD_S`), less than a grant lives there."""

_CANCEL: Final = re.compile(rb"/(?:responses|batches)/[^/]+/cancel\Z")
"""Ends a call that was counted when it began."""

FINAL_STATUS: Final = (("codex", 400),)
"""Beginning of a product, what it takes for final where it tries 402 again: Codex five times."""

Fields = tuple[tuple[bytes, bytes], ...]


class Grant(msgspec.Struct, frozen=True):
    """What the keeper said of one call."""

    id: str = ""
    """Empty: nothing has to be settled."""
    flags: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    path: bytes = b""
    valid_until_s: float = float("inf")

    def check(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Called once the intent is written. Raises ClewError when the grant is too old."""
        if clock_s() > self.valid_until_s:
            raise ClewError("store_unavailable", "this call was admitted too long ago; try again")

    def lines(self, response: ResponseHead) -> bytes:
        """The response's lines about limits; none where the upstream speaks of its own."""
        fields = limit_fields(self.path, self.left)
        if any(response.get(name) is not None for name, _ in fields):
            return b""
        return b"".join(b"%b: %b\r\n" % field for field in fields)


NO_GRANT: Final = Grant()


class Asked(NamedTuple):
    """A call to be admitted, as far as the pipeline knows it."""

    request: ServerRequest
    request_id: str
    caller: Caller
    claim: Claim
    session: Resolved
    decision: Decision
    routed: Routed


class Admissions:
    """Asks the keeper for one gateway process and one configuration."""

    def __init__(
        self,
        link: KeeperLink,
        journal: str,
        config: Config,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._journal = journal
        self._clock_s = clock_s
        self._budget_scopes = frozenset(Extent(budget.scope) for budget in config.budget)
        self._scopes = self._budget_scopes | {Extent(limit.scope) for limit in config.limit}
        self._max_body_bytes = config.server.max_body_bytes

    def covers(self, caller: Caller) -> bool:
        """Whether any rule covers this caller's calls."""
        return _is_covered(self._scopes, _who(caller, None))

    async def admit(
        self, asked: Asked, body: bytes | None, model: str
    ) -> tuple[Grant, bytes | None, str]:
        """The grant of a call, its body where it had to be read, and its model.

        Raises ClewError: ``budget_exceeded``, ``rate_limited``, ``store_unavailable``,
        ``overloaded``; and what reading a body raises.
        """
        decision, who = asked.decision, _who(asked.caller, asked.session)
        api = decision.api
        if api is None or _is_free(decision.path) or not _is_covered(self._scopes, who):
            return NO_GRANT, body, model
        limit: int | None = None
        if _is_covered(self._budget_scopes, who):
            if body is None:
                body = await asked.request.read_body(self._max_body_bytes)
            facts = api.request_facts(decision.path, body or b"")
            model, limit = facts.model or model, facts.max_output_tokens
        question = Request(
            number=0,
            id=asked.request_id,
            who=who,
            vendor=asked.routed.route.vendor,
            model=model,
            prompt_bytes=_size(asked.request, body),
            max_output_tokens=limit,
        )
        valid_until_s = self._clock_s() + VALID_S
        word = await self._link.admit(self._journal, question)
        if word.error:
            fields = limit_fields(decision.path, word.left)
            status = _final_status(word.error, asked.claim)
            raise ClewError(word.error, word.detail, word.retry_after_s, fields, status=status)
        grant = Grant(word.grant, word.flags, word.left, decision.path, valid_until_s)
        return grant, body, model

    def release(self, grant: Grant) -> None:
        """The call is not dispatched."""
        if grant.id:
            self._link.release((grant.id,))


def limit_fields(path: bytes, left: Sequence[Left], now_s: float | None = None) -> Fields:
    """What is left, in the form of the request's API: Anthropic's fields, else OpenAI's."""
    write = _anthropic if error_api(path).name == "messages" else _openai
    at_s = time.time() if now_s is None else now_s
    return tuple(field for one in left for field in write(one, at_s))


def _openai(one: Left, _now_s: float) -> Fields:
    """``x-ratelimit-limit-requests: 60``; times as ``1m30s``, ``12ms``."""
    name = one.measure.value.encode()
    return (
        (b"x-ratelimit-limit-" + name, b"%d" % one.count),
        (b"x-ratelimit-remaining-" + name, b"%d" % one.remaining),
        (b"x-ratelimit-reset-" + name, _duration(one.reset_ms)),
    )


def _anthropic(one: Left, now_s: float) -> Fields:
    """``anthropic-ratelimit-requests-limit: 60``; times in RFC 3339."""
    name = b"anthropic-ratelimit-" + one.measure.value.encode()
    at = datetime.fromtimestamp(int(now_s + one.reset_ms / 1000 + 0.999), UTC)
    return (
        (name + b"-limit", b"%d" % one.count),
        (name + b"-remaining", b"%d" % one.remaining),
        (name + b"-reset", at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
    )


def _duration(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, seconds = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, b"h"), (minutes, b"m"), (seconds, b"s"))
    text = b"".join(b"%d%b" % part for part in parts if part[0])
    return text or b"0s"


def _who(caller: Caller, session: Resolved | None) -> Who:
    known = session.known if session is not None else None
    if known is None:
        return Who(caller.principal, caller.team, caller.project)
    return Who(caller.principal, caller.team, caller.project, known.key, known.root)


def _is_covered(scopes: frozenset[Extent], who: Who) -> bool:
    return any(who.subject(scope) for scope in scopes)


def _final_status(code: str, claim: Claim) -> int:
    """Instead of the table's status, where this client would try again all the same; else 0."""
    if code != "budget_exceeded":
        return 0
    product = claim.client.partition("/")[0]
    return next((status for name, status in FINAL_STATUS if product.startswith(name)), 0)


def _is_free(path: bytes) -> bool:
    """By the path alone: what a client says of its call's kind decides nothing here."""
    return is_count_tokens(path) or _CANCEL.search(path) is not None


def _size(request: ServerRequest, body: bytes | None) -> int:
    """Bytes of the body, as far as they are known; a chunked one is settled by its outcome."""
    if body is not None:
        return len(body)
    return request.head.framing.length or request.request_bytes
