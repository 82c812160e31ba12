"""What a prompt was like, told to the keeper after the answer: digests, made off the loop.

From it the keeper says why a cache broke (`core.cache_break`). A body is held while its call runs,
within bounds, and read by one thread when the answer has left and its usage speaks of a cache; no
request waits for it. Where the bounds are reached, or the thread has fallen behind, a call is left
out: its successor is then compared with the one before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from clew.core.apis.content import MAX_BODY_BYTES
from clew.core.cache_break import Turn, prompt_marks
from clew.core.claim import Kind, Principal, SessionKey
from clew.core.lineage.blocks import Digester
from clew.keeper.protocol import Prompted

if TYPE_CHECKING:
    from clew.core.events import Settled
    from clew.gateway.attempt import Attempt

HELD_BYTES: Final = 64 * 1024 * 1024
"""All bodies held at once, those that wait for the thread included."""
HELD_BYTES_EACH: Final = 16 * 1024 * 1024
"""Those of one principal: a quarter, so that nobody keeps the others from being looked at."""
MAX_CACHING: Final = 20_000
"""Sessions remembered as having used a cache; a forgotten one is looked at again when it does."""
KINDS: Final = frozenset({Kind.TURN, Kind.SUBAGENT, Kind.COMPACTION})
"""Calls that belong to the one growing prompt of a session."""

_log = logging.getLogger(__name__)


class Held:
    """The body of one call. The request hands its pieces on as they pass."""

    __slots__ = ("pieces", "principal", "reserved_bytes")

    def __init__(self, principal: Principal, reserved_bytes: int) -> None:
        self.principal = principal
        self.reserved_bytes = reserved_bytes
        self.pieces: list[bytes] = []

    def take(self, piece: bytes) -> None:
        """One piece of the body."""
        self.pieces.append(piece)


class Onlooker(Protocol):
    """Who looks at prompts: `Prompts`, or nobody."""

    def watch(self, attempt: Attempt, body: bytes | None) -> None:
        """Before the dispatch."""
        ...

    def show(self, attempt: Attempt, outcome: Settled) -> None:
        """After the release."""
        ...

    def drop(self, held: Held) -> None:
        """The call is over without having been shown."""
        ...


class _Nobody:
    """Looks at nothing."""

    def watch(self, attempt: Attempt, body: bytes | None) -> None:
        """Nothing is held."""

    def show(self, attempt: Attempt, outcome: Settled) -> None:
        """Nothing is shown."""

    def drop(self, held: Held) -> None:
        """Nothing was."""


NO_PROMPTS: Final = _Nobody()

Job = tuple[str, bytes, Callable[[bytes], Prompted], Held]


class Prompts:
    """One gateway's thread and what it may hold. Every method is called on the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        digester: Digester,
        tell: Callable[[Prompted], object],
    ) -> None:
        self._loop = loop
        self._digester = digester
        self._tell = tell
        self._held: Counter[Principal] = Counter()
        self._held_bytes = 0
        self._caching: dict[SessionKey, None] = {}
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="prompts", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read nothing more; what waits is dropped."""
        self._jobs.put(None)

    def watch(self, attempt: Attempt, body: bytes | None) -> None:
        """Before the dispatch: have the body held, where it may matter and there is room."""
        session, request = attempt.session, attempt.request
        size = len(body) if body is not None else request.head.framing.length or 0
        if attempt.api is None or session.known is None or session.is_side:
            return
        if attempt.claim.kind not in KINDS or not 0 < size <= MAX_BODY_BYTES:
            return
        principal = attempt.intent.principal
        if self._held_bytes + size > HELD_BYTES or self._held[principal] + size > HELD_BYTES_EACH:
            return
        self._held_bytes += size
        self._held[principal] += size
        held = attempt.held = Held(principal, size)
        if body is not None:
            held.take(body)
        else:
            request.onlooker = held

    def show(self, attempt: Attempt, outcome: Settled) -> None:
        """After the release: hand the body to the thread, where a cache was at work."""
        held, usage = attempt.held, outcome.usage
        known, api = attempt.session.known, attempt.api
        if held is None or usage is None or known is None or api is None or outcome.error:
            return
        if usage.cached_tokens or usage.cache_write_tokens:
            self._caching[known.key] = None
            if len(self._caching) > MAX_CACHING:
                del self._caching[next(iter(self._caching))]
        elif known.key not in self._caching:
            return
        attempt.held = None  # the thread's now
        intent = attempt.intent

        def prompted(marks: bytes) -> Prompted:
            return Prompted(
                intent.request_id,
                intent.attempt,
                intent.principal,
                known.key,
                Turn(
                    at_ns=intent.received_at_ns,
                    upstream=intent.upstream,
                    vendor=intent.vendor,
                    worker=intent.worker,
                    model=outcome.model or intent.model,
                    cached_tokens=usage.cached_tokens,
                    written_tokens=usage.cache_write_tokens,
                    written_1h_tokens=usage.cache_write_1h_tokens,
                    marks=marks,
                    is_compaction=intent.claim.kind is Kind.COMPACTION,
                ),
            )

        self._jobs.put((api.name, b"".join(held.pieces), prompted, held))

    def drop(self, held: Held) -> None:
        """The call is over, or its body was read."""
        self._held_bytes -= held.reserved_bytes
        self._held[held.principal] -= held.reserved_bytes
        if self._held[held.principal] <= 0:
            del self._held[held.principal]

    def _told(self, message: Prompted, held: Held) -> None:
        self.drop(held)
        if message.turn.marks:
            self._tell(message)

    def _run(self) -> None:
        """The thread."""
        while (job := self._jobs.get()) is not None:
            api, body, prompted, held = job
            try:
                message = prompted(prompt_marks(api, body, self._digester))
            except Exception:  # noqa: BLE001  the thread's top: one odd body must not end it
                _log.exception("a prompt was not read")
                message = prompted(b"")
            with contextlib.suppress(RuntimeError):  # the loop is gone at the end
                self._loop.call_soon_threadsafe(self._told, message, held)
