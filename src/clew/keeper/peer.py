"""One process connected to the keeper, and the wait until several have taken in some news."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from clew.core.claim import SessionKey
from clew.keeper.protocol import FromKeeper, frame

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
        self.has_snapshot = False
        self.told: set[SessionKey] = set()
        """Sessions it was told of while a part of its snapshot was being read."""
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


class Confirmation:
    """Which gateways that follow have not acknowledged a delta yet."""

    def __init__(self, sequence: int, peers: set[Peer]) -> None:
        self.sequence = sequence
        self.pending = peers
        self.gone: list[str] = []
        """Names of gateways whose connection ended before they acknowledged."""
        self.done = asyncio.Event()
        self.judge()

    def judge(self) -> None:
        """Look again at what each has acknowledged."""
        self.pending = {peer for peer in self.pending if peer.acknowledged < self.sequence}
        if not self.pending:
            self.done.set()

    def lose(self, peer: Peer) -> None:
        """A connection ended."""
        if peer in self.pending:
            self.pending.discard(peer)
            self.gone.append(peer.name)
            self.judge()
