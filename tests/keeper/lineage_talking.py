"""Conversations without ids through one `LineageDesk` over a store, as a keeper leads them."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import sqlalchemy as sa
from tests.keeper.projecting import derive, url_in

from clew.config.schema import Sessions as Settings
from clew.core.claim import Claim, Principal, SessionKey
from clew.core.lineage.blocks import Block, Conversation, Digest, Reply
from clew.core.lineage.index import Limits
from clew.core.resolve import Outcome, resolve
from clew.core.resolve_content import rules_with
from clew.keeper.knowledge import PrincipalKnowledge, Recent, merge_answer
from clew.keeper.lineage import LineageDesk
from clew.keeper.lineage_scopes import Scopes
from clew.keeper.protocol import Ask, Told
from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.store.schema import lineage_log

TOOLS = frozenset({"read", "write"})
SECOND_NS = 1_000_000_000


def block(name: str, *, is_assistant: bool = False) -> Block:
    """A block by its name."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return Block(Digest(digest), is_assistant)


class Talking:
    """A desk, a clock and a store in this directory."""

    def __init__(
        self, data: Path, *, limits: Limits | None = None, scopes: Scopes | None = None
    ) -> None:
        self.engine = open_for_writing(url_in(data), data)
        migrate(self.engine)
        self.limits = limits
        self.now_ns = 1_000 * SECOND_NS
        self._numbers = itertools.count(1)
        self.recent = Recent()
        self.scopes = scopes or Scopes()
        self.connection = self.engine.connect()
        self.begin()

    def begin(self) -> None:
        """A keeper that knows what is in the store."""
        self.desk = LineageDesk(
            lambda: self.connection,
            Settings(),
            lambda: SessionKey(f"cs_{next(self._numbers):026d}"),
            self.limits,
            scopes=self.scopes,
        )

    def restart(self) -> None:
        """All that is in memory is lost."""
        self.scopes = Scopes()
        self.begin()

    def close(self) -> None:
        """Let go of the store."""
        self.connection.close()
        self.engine.dispose()

    def turn(
        self,
        principal: str,
        history: list[Block],
        tail: list[Block],
        said: list[Block],
        *,
        client: str = "tool/1.0",
        arguments: tuple[str, ...] = (),
    ) -> tuple[SessionKey, Outcome]:
        """One request and its reply; its session, and how it was found."""
        self.now_ns += SECOND_NS
        claim = Claim(client=client)
        body = block(f"body {self.now_ns}").digest
        content = Conversation(tuple(history), tuple(tail), TOOLS, body=body)
        ask = Ask(1, Principal(principal), claim, self.now_ns, "chat", content)
        knowledge = PrincipalKnowledge(self.connection, self.recent, ask.principal, derive)
        found = self.desk.content(ask, knowledge)
        resolution = resolve(claim, knowledge, rules_with(found, None))
        assert resolution.key is not None
        known = merge_answer(ask.principal, resolution, knowledge.present(resolution.key))
        assert known is not None
        self.recent.remember(known)
        node = self.desk.record(ask, resolution, found)
        reply = Reply(tuple(said), frozenset(), arguments)
        self.desk.told(Told(2, ask.principal, claim, "chat", resolution.key, node, reply))
        return resolution.key, resolution.outcome

    def write(self) -> None:
        """Keep what waits to be written."""
        self.connection.rollback()
        taken = self.desk.take_unwritten()
        with self.connection.begin():
            taken.write(self.connection)
        self.desk.written()

    def rows(self) -> int:
        """How many rows the log has."""
        found = self.connection.scalar(sa.select(sa.func.count()).select_from(lineage_log))
        self.connection.rollback()
        return int(found or 0)
