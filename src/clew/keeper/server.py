"""The keeper's socket: answers questions, tells every gateway what changed.

Nothing slow runs here. A question costs a few point look-ups on a read-only connection (some fifty
microseconds each); projection and snapshots are read on threads of their own. A question whose
answer could hang on events not projected yet waits for one pass, at most `CATCH_UP_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import sqlalchemy as sa

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.core.resolve import Outcome, Resolution, resolve
from clew.core.session import derive_key
from clew.keeper.knowledge import (
    PrincipalKnowledge,
    Recent,
    load_known,
    load_recent_keys,
    merge_answer,
)
from clew.keeper.protocol import (
    Acknowledge,
    Answer,
    Ask,
    Barrier,
    Delta,
    Frames,
    FromKeeper,
    Hello,
    Known,
    Passed,
    Snapshot,
    ToKeeper,
    decode_to_keeper,
    frame,
)
from clew.keeper.running import Running

SNAPSHOT_SESSIONS: Final = 50_000
SNAPSHOT_PART: Final = 500
CATCH_UP_S: Final = 0.5
MAX_BEHIND_BYTES: Final = 64 * 1024 * 1024
"""What is held for a peer that does not read; beyond it the peer is cut and starts over."""

_log = logging.getLogger(__name__)


class Peer:
    """One connected process."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.name = "?"
        self.is_following = False
        """A gateway that has said hello: it gets every delta from then on."""
        self.acknowledged = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, message: FromKeeper) -> None:
        """Queue a message; a peer too far behind is cut."""
        transport = self.writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_BEHIND_BYTES:
            _log.warning("%s does not read its news: cut", self.name)
            transport.abort()
            return
        self.writer.write(frame(message))


class KeeperServer:
    """Everything on the keeper's loop but the projector."""

    def __init__(self, engine: sa.Engine, secret: bytes) -> None:
        self._engine = engine
        self._secret = secret
        # Each look-up sees the latest commit; no snapshot is held between two.
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._recent = Recent()
        self._peers: set[Peer] = set()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._server: asyncio.Server | None = None
        self._running: Running | None = None
        self.sequence = 0

    async def start(self, listener: socket.socket, running: Running) -> None:
        """Accept peers on a listening unix socket."""
        self._running = running
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def close(self) -> None:
        """Cut every peer and stop."""
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.writer.close()
        self._reading.shutdown()
        self._connection.close()

    def tell(self, changed: list[Known]) -> None:
        """Sessions changed in the store: every gateway hears of it, in order."""
        for known in changed:
            self._recent.settle(known)
            self.sequence += 1
            delta = Delta(self.sequence, known)
            for peer in self._peers:
                if peer.is_following:
                    peer.send(delta)

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
            for task in peer.tasks:
                task.cancel()
            writer.close()

    def _take(self, peer: Peer, message: ToKeeper) -> None:
        if isinstance(message, Ask):
            self._take_ask(peer, message)
        elif isinstance(message, Acknowledge):
            peer.acknowledged = message.sequence
        elif isinstance(message, Barrier):
            self._spawn(peer, self._pass_barrier(peer, message))
        else:
            self._welcome(peer, message)

    def _spawn(self, peer: Peer, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        peer.tasks.add(task)
        task.add_done_callback(peer.tasks.discard)

    def _welcome(self, peer: Peer, hello: Hello) -> None:
        peer.name = f"{hello.role} {hello.name}"
        if hello.role == "gateway" and not peer.is_following:
            # Deltas from here on; each part is read later than the deltas sent before it.
            peer.is_following = True
            self._spawn(peer, self._send_snapshot(peer))

    async def _send_snapshot(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        with self._engine.connect() as connection:
            link = connection.execution_options(isolation_level="AUTOCOMMIT")
            keys = await loop.run_in_executor(
                self._reading, load_recent_keys, link, SNAPSHOT_SESSIONS
            )
            for start in range(0, max(len(keys), 1), SNAPSHOT_PART):
                part = await loop.run_in_executor(
                    self._reading, _load_part, link, keys[start : start + SNAPSHOT_PART]
                )
                is_last = start + SNAPSHOT_PART >= len(keys)
                peer.send(Snapshot(self.sequence, part, is_last))
                await peer.writer.drain()

    async def _pass_barrier(self, peer: Peer, barrier: Barrier) -> None:
        await self._catch_up()
        peer.send(Passed(barrier.number))

    async def _catch_up(self) -> None:
        if self._running is not None:
            await self._running.request_pass()

    # --- questions -----------------------------------------------------------------------------

    def _take_ask(self, peer: Peer, ask: Ask) -> None:
        knowledge = self._knowledge(ask.principal)
        resolution = resolve(ask.claim, knowledge)
        if _may_be_behind(ask.claim, resolution):
            self._spawn(peer, self._answer_later(peer, ask))
        else:
            peer.send(self._answer(ask, resolution, knowledge))

    async def _answer_later(self, peer: Peer, ask: Ask) -> None:
        """Decide on what is in the journals now; on what is known, when that takes too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._catch_up(), CATCH_UP_S)
        # No await from here on: two questions about one id must not decide side by side.
        knowledge = self._knowledge(ask.principal)
        peer.send(self._answer(ask, resolve(ask.claim, knowledge), knowledge))

    def _knowledge(self, principal: Principal) -> PrincipalKnowledge:
        return PrincipalKnowledge(self._connection, self._recent, principal, self._derive)

    def _answer(self, ask: Ask, resolution: Resolution, knowledge: PrincipalKnowledge) -> Answer:
        before = knowledge.present(resolution.key) if resolution.key is not None else None
        known = merge_answer(ask.principal, resolution, before)
        if known is not None and known != before:
            self._recent.remember(known)
        return Answer(
            ask.number, known, resolution.outcome.value, resolution.source, resolution.flags
        )

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
    return bool(claim.others or claim.previous_response_id)


def _load_part(connection: sa.Connection, keys: list[SessionKey]) -> tuple[Known, ...]:
    return tuple(load_known(connection, keys))
