"""The keeper's socket: answers questions, tells every gateway what changed.

Nothing slow runs here. A question costs a few point look-ups on a read-only connection (some fifty
microseconds each); projection and snapshots are read on threads of their own. A question whose
answer could hang on events not projected yet waits for one pass, at most `CATCH_UP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import sqlalchemy as sa

from clew.config.schema import Sessions
from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.core.errors import ClewError
from clew.core.keys import Key
from clew.core.resolve import Outcome, Resolution, resolve
from clew.core.resolve_content import RECENCY_LOOKED, Content, rules_with
from clew.core.session import derive_key, format_key
from clew.keeper.cache_breaks import CacheBreaks
from clew.keeper.knowledge import (
    PrincipalKnowledge,
    Recent,
    load_known,
    load_recent_keys,
    merge_answer,
    survivor,
)
from clew.keeper.lineage import LineageDesk
from clew.keeper.peer import Confirmation, Peer
from clew.keeper.presence import Presence
from clew.keeper.protocol import (
    Acknowledge,
    Admission,
    Admit,
    Admitted,
    Answer,
    Ask,
    Barrier,
    Command,
    Delta,
    Frames,
    Hello,
    KeyDelta,
    KeySnapshot,
    KeysUsed,
    Known,
    Lost,
    Passed,
    Prompted,
    Release,
    Result,
    Snapshot,
    ToKeeper,
    Told,
    decode_to_keeper,
)
from clew.keeper.running import Running
from clew.store.bindings import note_lost
from clew.store.changes import ChangeLog
from clew.store.keys import find_keys

SNAPSHOT_SESSIONS: Final = 10_000
"""The newest come first, and a gateway's cache (`gateway.sessions`) lets the first go first: more
than one of its two generations holds would push them out, where sessions have an id or two."""
SNAPSHOT_PART: Final = 500
CATCH_UP_S: Final = 0.5
KEY_BYTES: Final = 16
KEYS_PART: Final = 5_000
CONFIRM_S: Final = 1.0
"""How long a command waits for gateways to acknowledge before it says which did not."""


class Desk(Protocol):
    """Who admits calls (`keeper.admission`)."""

    def take(self, peer: Peer, message: Admit) -> None:
        """Calls that want to be dispatched."""
        ...

    def release(self, message: Release) -> None:
        """Grants whose calls are not."""
        ...


class _NoDesk:
    """Nothing is limited here, so whoever asks is ahead of this keeper's configuration."""

    def take(self, peer: Peer, message: Admit) -> None:
        """Refuse for now."""
        refused = (Admission(one.number, error="store_unavailable") for one in message.requests)
        peer.send(Admitted(tuple(refused)))

    def release(self, message: Release) -> None:
        """There is none."""


Do = Callable[[Command], Awaitable[Result]]
Used = Callable[[KeysUsed], Coroutine[Any, Any, None]]
Write = Callable[[Callable[[sa.Connection], None]], Awaitable[None]]
DEFAULTS: Final = Sessions()

_log = logging.getLogger(__name__)


async def _no_command(command: Command) -> Result:
    return Result(command.number, ok=False, error="store_unavailable")


async def _not_kept(_used: KeysUsed) -> None:
    return


class KeeperServer:
    """Everything on the keeper's loop but the projector."""

    def __init__(
        self,
        engine: sa.Engine,
        secret: bytes,
        settings: Sessions = DEFAULTS,
        log: ChangeLog | None = None,
    ) -> None:
        self._engine = engine
        self._secret = secret
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._presence = Presence(engine, self._reading)
        self._recent = Recent()
        self._lineage = LineageDesk(
            lambda: self.connection,
            settings,
            lambda: format_key(os.urandom(KEY_BYTES)),
            log=log or ChangeLog(),
        )
        self._is_writing_lineage = False
        self._unconfirmed: list[tuple[Peer, int]] = []
        """Who waits for what is learnt to be written; each gateway waits `TELL_S` at most."""
        self._cache_breaks = CacheBreaks()
        self._write: Write | None = None
        self._peers: set[Peer] = set()
        self._server: asyncio.Server | None = None
        self._running: Running | None = None
        self._do: Do = _no_command
        self._used: Used = _not_kept
        self._desk: Desk = _NoDesk()
        self._commands: set[asyncio.Task[None]] = set()
        self._confirmations: set[Confirmation] = set()
        self._keys: dict[str, Key] = {}
        self.sequence = 0
        self._steps = self._table()

    def serve_commands(self, do: Do, used: Used = _not_kept) -> None:
        """Carry out commands by ``do``; ``used`` takes gateways' word of keys in use."""
        self._do = do
        self._used = used

    def admit_by(self, desk: Desk) -> None:
        """Who admits calls that a limit or budget covers."""
        self._desk = desk

    def write_by(self, write: Write) -> None:
        """How the server has something written: in one transaction, on the writing thread."""
        self._write = write

    def configure(self, settings: Sessions) -> None:
        """A reloaded configuration: how sessions are resumed from now on."""
        self._lineage.configure(settings)

    def load_keys(self, keys: list[Key]) -> None:
        """The gateway keys there are at start, before any peer is served."""
        self._keys = {key.id: key for key in keys}

    async def start(self, listener: socket.socket, running: Running) -> None:
        """Accept peers on a listening unix socket."""
        self._running = running
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Cut every peer and stop."""
        if self._server is not None:
            self._server.close()
        for task in self._commands:
            task.cancel()
        for peer in list(self._peers):
            peer.writer.close()
        self._presence.close()
        self._reading.shutdown()

    def tell(self, changed: list[Known]) -> None:
        """Sessions changed in the store: every gateway hears of it, in order."""
        for known in changed:
            self._recent.settle(known)
            if known.is_closed:
                self._lineage.close_session(known.key)
            self.sequence += 1
            self._send_all(Delta(self.sequence, known))

    def retract(
        self,
        changed: Collection[SessionKey],
        gone: Iterable[tuple[SessionKey, Principal, tuple[tuple[str, str], ...]]],
    ) -> None:
        """A verb was written: what was answered of these sessions is forgotten, here and there.

        ``gone`` are sessions that are no more, with the ids that name nothing now.
        """
        self._recent.drop({*changed, *(key for key, _, _ in gone)})
        for key, principal, names in gone:
            if self._is_not_merged(key):
                self._lineage.close_session(key)  # nothing continues it
            if names:
                self.sequence += 1
                known = Known(key, principal, "", None, "", key, False, (), gone=names)
                self._send_all(Delta(self.sequence, known))

    def _is_not_merged(self, key: SessionKey) -> bool:
        try:
            return survivor(self.connection, key) == key
        except (sa.exc.SQLAlchemyError, ClewError):
            return True  # its content is found no more, which costs a link and mistakes nothing

    @property
    def connection(self) -> sa.Connection:
        """For point look-ups; it sees the latest commit and cannot write.

        Raises ClewError ``store_unavailable`` while the store does not answer.
        """
        return self._presence.connection

    def look_up(self, principal: Principal, claim: Claim) -> SessionKey | None:
        """The session that a claim names already; nothing is opened or remembered."""
        found = resolve(claim, self._knowledge(principal))
        is_known = found.outcome in (Outcome.EXACT, Outcome.MIGRATED, Outcome.RESUMED)
        return found.key if is_known else None

    def tell_keys(self, changed: tuple[Key, ...]) -> None:
        """Gateway keys changed in the store: every gateway hears of them, together."""
        for key in changed:
            if key.revoked_at_ns is None:
                self._keys[key.id] = key
            else:
                self._keys.pop(key.id, None)
        self.sequence += 1
        self._send_all(KeyDelta(self.sequence, changed))

    def reread_keys(self, ids: Sequence[str]) -> None:
        """Another keeper has changed these gateway keys. Raises SQLAlchemyError."""
        # Read and told without an await between: no older state follows a newer one.
        self.tell_keys(tuple(find_keys(self.connection, ids)))

    def start_over(self, keys: list[Key]) -> None:
        """What other keepers have changed is not known: every gateway is told everything anew."""
        self.load_keys(keys)
        self._recent = Recent()
        for peer in list(self._peers):
            if peer.is_following:
                peer.writer.close()

    @property
    def key_count(self) -> int:
        """Keys that are not revoked."""
        return len(self._keys)

    async def confirm(self, timeout_s: float = CONFIRM_S) -> list[str]:
        """Wait until every gateway connected now has acknowledged all news told so far.

        Returns the names of those that did not within ``timeout_s``: they may act on older news.
        """
        waiting = Confirmation(self.sequence, {peer for peer in self._peers if peer.is_following})
        self._confirmations.add(waiting)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting.done.wait(), timeout_s)
        finally:
            self._confirmations.discard(waiting)
        return sorted([*waiting.gone, *(peer.name for peer in waiting.pending)])

    def _send_all(self, news: Delta | KeyDelta) -> None:
        for peer in self._peers:
            if peer.is_following:
                peer.send(news)
                if isinstance(news, Delta) and not peer.has_snapshot:
                    peer.told.add(news.known.key)

    # --- peers ---------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(writer)
        self._peers.add(peer)
        frames = Frames()
        try:
            while data := await reader.read(256 * 1024):
                for body in frames.feed(data):
                    self._take(peer, decode_to_keeper(body))
        except (OSError, ValueError) as error:
            _log.warning("%s was cut: %s", peer.name, error)
        finally:
            self._peers.discard(peer)
            for confirmation in list(self._confirmations):
                confirmation.lose(peer)
            for task in peer.tasks:
                task.cancel()
            writer.close()

    def _take(self, peer: Peer, message: ToKeeper) -> None:
        self._steps[type(message)](peer, message)

    def _table(self) -> dict[type, Callable[[Peer, Any], None]]:
        """What is done with each kind of message."""
        return {
            Hello: self._welcome,
            Ask: self._take_ask,
            Acknowledge: self._take_acknowledgement,
            Admit: self._take_admission,
            Release: lambda _, message: self._desk.release(message),
            Prompted: lambda _, message: self._take_prompt(message),
            Lost: lambda _, message: self._begin(self._note_lost(message)),
            Command: self._take_command,
            KeysUsed: lambda _, message: self._begin(self._used(message)),
            Told: self._take_told,
            Barrier: lambda peer, message: self._spawn(peer, self._pass_barrier(peer, message)),
        }

    def _take_admission(self, peer: Peer, message: Admit) -> None:
        self._desk.take(peer, message)

    def _take_told(self, peer: Peer, message: Told) -> None:
        with self._refusing(peer, message.number):
            self._lineage.told(message)
            self._unconfirmed.append((peer, message.number))
            self._keep_lineage()

    def _take_prompt(self, message: Prompted) -> None:
        self._cache_breaks.take(message)
        if self._cache_breaks.is_unwritten and self._write is not None:
            self._begin(self._cache_breaks.write(self._write))

    async def _note_lost(self, message: Lost) -> None:
        """An event for whoever looks at the session; a store that is away loses only that."""
        if self._write is None:
            return
        with contextlib.suppress(ClewError):
            await self._write(
                lambda connection: note_lost(
                    connection, message.session, message.upstream, message.reason, message.at_ns
                )
            )

    def _take_acknowledgement(self, peer: Peer, message: Acknowledge) -> None:
        peer.acknowledged = message.sequence
        for confirmation in self._confirmations:
            confirmation.judge()

    def _take_command(self, peer: Peer, command: Command) -> None:
        # Not the peer's task: a command that was begun is ended, whether or not its asker stays.
        self._begin(self._run_command(peer, command))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _run_command(self, peer: Peer, command: Command) -> None:
        peer.send(await self._do(command))

    def _spawn(self, peer: Peer, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    def _welcome(self, peer: Peer, hello: Hello) -> None:
        peer.name = f"{hello.role} {hello.name}"
        if hello.role == "gateway" and not peer.is_following:
            # Deltas from here on; each part is read later than the deltas sent before it.
            peer.is_following = True
            peer.acknowledged = self.sequence  # what was told before is in the snapshots
            self._send_keys(peer)
            self._spawn(peer, self._send_snapshot(peer))

    def _send_keys(self, peer: Peer) -> None:
        """Every key, in parts that no delta comes between."""
        found = tuple(self._keys.values())
        for start in range(0, max(len(found), 1), KEYS_PART):
            part = found[start : start + KEYS_PART]
            is_last = start + KEYS_PART >= len(found)
            peer.send(KeySnapshot(self.sequence, part, start == 0, is_last))

    async def _send_snapshot(self, peer: Peer) -> None:
        while True:
            try:
                await self._read_snapshot(peer)
            except sa.exc.SQLAlchemyError as error:
                self._presence.lose(error)
                await self._presence.wait()
            else:
                break

    async def _read_snapshot(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(self._reading, _load_keys, self._engine)
        for start in range(0, max(len(keys), 1), SNAPSHOT_PART):
            peer.told.clear()
            chosen = keys[start : start + SNAPSHOT_PART]
            part = await loop.run_in_executor(self._reading, _load_part, self._engine, chosen)
            # A delta that was sent meanwhile may be newer than what was read.
            news = tuple(known for known in part if known.key not in peer.told)
            is_last = start + SNAPSHOT_PART >= len(keys)
            peer.send(Snapshot(self.sequence, news, is_last))
            await peer.writer.drain()
        peer.has_snapshot = True

    async def _pass_barrier(self, peer: Peer, barrier: Barrier) -> None:
        await self._catch_up()
        peer.send(Passed(barrier.number))

    async def _catch_up(self) -> None:
        if self._running is not None:
            await self._running.request_pass()

    # --- questions -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _refusing(self, peer: Peer, number: int) -> Iterator[None]:
        """A question that the store does not answer is refused: its asker does without."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, ClewError) as error:
            if isinstance(error, sa.exc.SQLAlchemyError):
                self._presence.lose(error)
            peer.send(Result(number, ok=False, error="store_unavailable"))

    def _take_ask(self, peer: Peer, ask: Ask) -> None:
        with self._refusing(peer, ask.number):
            knowledge = self._knowledge(ask.principal)
            content = self._lineage.content(ask, knowledge)
            resolution = self._resolve(ask, knowledge, content)
            if _may_be_behind(ask.claim, resolution):
                self._spawn(peer, self._answer_later(peer, ask))
            else:
                peer.send(self._answer(ask, resolution, knowledge, content))

    async def _answer_later(self, peer: Peer, ask: Ask) -> None:
        """Decide on what is in the journals now; on what is known, when that takes too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._catch_up(), CATCH_UP_S)
        # No await from here on: two questions about one id must not decide side by side.
        with self._refusing(peer, ask.number):
            knowledge = self._knowledge(ask.principal)
            content = self._lineage.content(ask, knowledge)
            resolution = self._resolve(ask, knowledge, content)
            peer.send(self._answer(ask, resolution, knowledge, content))

    def _resolve(
        self, ask: Ask, knowledge: PrincipalKnowledge, content: Content | None
    ) -> Resolution:
        predecessors = self._lineage.predecessors(ask, knowledge)
        return resolve(ask.claim, knowledge, rules_with(content, predecessors))

    def _knowledge(self, principal: Principal) -> PrincipalKnowledge:
        return PrincipalKnowledge(self.connection, self._recent, principal, self._derive)

    def _answer(
        self,
        ask: Ask,
        resolution: Resolution,
        knowledge: PrincipalKnowledge,
        content: Content | None,
    ) -> Answer:
        before = knowledge.present(resolution.key) if resolution.key is not None else None
        known = merge_answer(ask.principal, resolution, before)
        if known is not None and known != before:
            self._recent.remember(known)
        odd = self._lineage.oddities(ask, resolution, content)
        node = self._lineage.record(ask, resolution, content)
        if self._lineage.is_unwritten:
            self._keep_lineage()
        return Answer(
            ask.number,
            known,
            resolution.outcome.value,
            resolution.source,
            (*resolution.flags, *odd),
            node=node,
            is_side=resolution.is_side,
            is_unnamed=resolution.is_unnamed,
            is_child=resolution.is_child,
            forked_from=resolution.forked_from,
            reason=resolution.reason,
            evidence=resolution.evidence,
        )

    def _keep_lineage(self) -> None:
        """Have what was learnt written, by the one task that does it.

        One for all that wait: with a store that is slow they are as many as there are calls.
        """
        if not self._is_writing_lineage:
            self._is_writing_lineage = True
            self._begin(self._write_lineage())

    async def _write_lineage(self) -> None:
        """Write until nothing is left, or the store refuses, and tell who waits for it."""
        is_kept = True
        try:
            while is_kept and (self._unconfirmed or self._lineage.is_unwritten):
                waiting, self._unconfirmed = self._unconfirmed, []
                is_kept = await self._write_learnt()
                for peer, number in waiting:
                    peer.send(Passed(number))
        finally:
            self._is_writing_lineage = False

    async def _write_learnt(self) -> bool:
        """One transaction with everything learnt before the call; False where the store refused."""
        if self._write is None or not self._lineage.is_unwritten:
            return True
        taken = self._lineage.take_unwritten()
        try:
            await self._write(taken.write)
        except ClewError:
            self._lineage.put_back(taken)
            return False
        self._lineage.written()
        return True

    def _derive(self, principal: Principal, alias: Alias) -> SessionKey:
        return derive_key(self._secret, principal, alias.family, alias.value)


def _may_be_behind(claim: Claim, resolution: Resolution) -> bool:
    """Whether events not projected yet could change the answer.

    A new id alone cannot: its key is derived whoever answers.
    """
    if claim.attach_to and "attach_unknown" in resolution.flags:
        return True
    if resolution.outcome is Outcome.EXACT:
        return False
    if any(tried.reason in RECENCY_LOOKED for tried in resolution.tried):
        return True
    return bool(claim.others or claim.previous_response_id)


def _load_keys(engine: sa.Engine) -> list[SessionKey]:
    with engine.connect() as connection:
        return load_recent_keys(connection, SNAPSHOT_SESSIONS)


def _load_part(engine: sa.Engine, keys: list[SessionKey]) -> tuple[Known, ...]:
    with engine.connect() as connection:
        return tuple(load_known(connection, keys))
