"""Why a cache broke: two prompts of a session, told to the keeper as digests when one has.

The last body of each session that uses a cache is kept as it came, within bounds, and not looked
at. When a call finds less in the cache than the call before it left there, both bodies are cut into
digests by one thread and told; the keeper compares them (`core.cache_break`). No request waits for
any of it, and a conversation whose cache works costs next to nothing. Where the bounds are reached
the session seen longest ago is forgotten: its next call has nothing to be compared with.
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

import msgspec

from clew.core.apis.content import MAX_BODY_BYTES
from clew.core.cache_break import Turn, has_fallen, prompt_marks
from clew.core.claim import Kind, Principal, SessionKey
from clew.core.lineage.blocks import Digester
from clew.keeper.protocol import Prompted

if TYPE_CHECKING:
    from clew.core.events import Dispatched, Settled, Usage
    from clew.gateway.attempt import Attempt

HELD_BYTES: Final = 64 * 1024 * 1024
"""All bodies held at once: those of running calls, and the last one of each session."""
HELD_BYTES_EACH: Final = 10 * 1024 * 1024
"""Those of one principal: a part, so that nobody keeps the others from being looked at."""
OVERHEAD_BYTES: Final = 2048
"""What a call holds beside its body, rounded up: names, figures, its places, lost room."""
WAITING_BYTES: Final = 32 * 1024 * 1024
"""Bodies that wait for the thread; what comes beyond is left out."""
MAX_PLACES: Final = 1_000
"""Pairs of upstream and model whose longest pause is remembered."""
KINDS: Final = frozenset({Kind.TURN, Kind.SUBAGENT, Kind.COMPACTION})
"""Calls that belong to the one growing prompt of a session."""

_log = logging.getLogger(__name__)


class Held:
    """One call and its body, whose pieces the request hands on as they pass.

    Many wait long for their session's next call, so that nothing of the exchange is kept with it.
    """

    __slots__ = (
        "api",
        "attempt",
        "pieces",
        "principal",
        "request_id",
        "reserved_bytes",
        "session",
        "turn",
    )

    turn: Turn
    """What the call was; known when it has ended. The marks are not made."""

    def __init__(
        self, intent: Dispatched, session: SessionKey, api: str, reserved_bytes: int
    ) -> None:
        self.request_id = intent.request_id
        self.attempt = intent.attempt
        self.principal = intent.principal
        self.session = session
        self.api = api
        self.reserved_bytes = reserved_bytes
        self.pieces: list[bytes] = []

    def take(self, piece: bytes) -> None:
        """One piece of the body."""
        self.pieces.append(piece)

    def end(self, intent: Dispatched, outcome: Settled, usage: Usage) -> Turn:
        """The call has ended; its model is the one that answered, else the one asked for."""
        self.turn = Turn(
            at_ns=intent.received_at_ns,
            upstream=intent.upstream,
            vendor=intent.vendor,
            worker=intent.worker,
            model=outcome.model or intent.model,
            cached_tokens=usage.cached_tokens,
            written_tokens=usage.cache_write_tokens,
            written_1h_tokens=usage.cache_write_1h_tokens,
            marks=b"",
            is_compaction=intent.claim.kind is Kind.COMPACTION,
        )
        return self.turn

    def prompted(self, marks: bytes, survived_s: float) -> Prompted:
        """What the keeper is told of it."""
        turn = msgspec.structs.replace(self.turn, marks=marks)
        return Prompted(
            self.request_id, self.attempt, self.principal, self.session, turn, survived_s
        )


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


Job = tuple[Held, bytes, float]


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
        self._last: dict[Principal, dict[SessionKey, Held]] = {}
        """The last call of each session, the one shown longest ago first."""
        self._survived_s: dict[tuple[str, str], float] = {}
        """The longest pause that the cache of an upstream and model is known to have outlived."""
        self._waiting_bytes = 0
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
        if attempt.api is None or session.known is None or session.is_side:
            return
        size = len(body) if body is not None else request.head.framing.length or 0
        if attempt.claim.kind not in KINDS or not 0 < size <= MAX_BODY_BYTES:
            return
        size += OVERHEAD_BYTES
        principal = attempt.intent.principal
        if not self._make_room(principal, size):
            return
        self._held_bytes += size
        self._held[principal] += size
        held = attempt.held = Held(attempt.intent, session.known.key, attempt.api.name, size)
        if body is not None:
            held.take(body)
        else:
            request.onlooker = held

    def show(self, attempt: Attempt, outcome: Settled) -> None:
        """After the release: compare what the cache gave with what the last call left there."""
        call, usage = attempt.held, outcome.usage
        if call is None or usage is None or outcome.error:
            return
        turn = call.end(attempt.intent, outcome, usage)
        calls = self._last.get(call.principal)
        last = calls.get(call.session) if calls is not None else None
        if last is None and not turn.held_tokens:
            return
        if turn.is_compaction:
            if last is not None:
                self._submit(last)
                self._submit(call)
            return
        attempt.held = None  # it is the session's last body now
        if last is not None and has_fallen(last.turn.held_tokens, turn.cached_tokens):
            self._submit(last)
            self._submit(call)
        elif last is not None:
            self._note_pause(last.turn, turn)
        self._keep(call, last)

    def drop(self, held: Held) -> None:
        """The body is not held any more."""
        self._held_bytes -= held.reserved_bytes
        self._held[held.principal] -= held.reserved_bytes
        if self._held[held.principal] <= 0:
            del self._held[held.principal]

    def _make_room(self, principal: Principal, size: int) -> bool:
        """Forget the sessions shown longest ago, the principal's own first."""
        while self._held[principal] + size > HELD_BYTES_EACH:
            if not self._forget_oldest(principal):
                return False
        while self._held_bytes + size > HELD_BYTES:
            if not self._last or not self._forget_oldest(
                max(self._last, key=self._held.__getitem__)
            ):
                return False
        return True

    def _forget_oldest(self, principal: Principal) -> bool:
        calls = self._last.get(principal)
        if not calls:
            return False
        call = calls.pop(next(iter(calls)))
        if not calls:
            del self._last[principal]
        self.drop(call)
        return True

    def _keep(self, call: Held, last: Held | None) -> None:
        calls = self._last.setdefault(call.principal, {})
        if last is not None:
            self.drop(last)
            del calls[call.session]  # the newest come last
        calls[call.session] = call

    def _note_pause(self, last: Turn, turn: Turn) -> None:
        """The cache outlived the pause between two calls."""
        if not last.held_tokens or last.worker != turn.worker:
            return
        place = (turn.upstream, turn.model)
        idle_s = (turn.at_ns - last.at_ns) / 1e9
        if idle_s > self._survived_s.get(place, 0.0):
            if len(self._survived_s) >= MAX_PLACES:
                self._survived_s.clear()
            self._survived_s[place] = idle_s

    def _submit(self, call: Held) -> None:
        body = b"".join(call.pieces)
        if self._waiting_bytes + len(body) > WAITING_BYTES:
            return
        self._waiting_bytes += len(body)
        survived_s = self._survived_s.get((call.turn.upstream, call.turn.model), 0.0)
        self._jobs.put((call, body, survived_s))

    def _told(self, message: Prompted | None, size: int) -> None:
        self._waiting_bytes -= size
        if message is not None:
            self._tell(message)

    def _run(self) -> None:
        """The thread."""
        while (job := self._jobs.get()) is not None:
            call, body, survived_s = job
            message = None
            try:
                marks = prompt_marks(call.api, body, self._digester)
                message = call.prompted(marks, survived_s) if marks else None
            except Exception:  # noqa: BLE001  the thread's top: one odd body must not end it
                _log.exception("a prompt was not read")
            with contextlib.suppress(RuntimeError):  # the loop is gone at the end
                self._loop.call_soon_threadsafe(self._told, message, len(body))
