"""Two keepers on one store: the other takes in what one has changed, once, or all anew."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.journal.events import LOCAL, SECRET, START_NS, alias, dispatched, key_of, settled
from tests.keeper.projecting import House, Journal, url_in
from tests.keeper.test_server import until

from clew.core.claim import Alias, Claim
from clew.core.errors import ClewError
from clew.keeper.ballast import Ballast
from clew.keeper.commands import COMMANDS
from clew.keeper.feed import Feed
from clew.keeper.knowledge import load_known
from clew.keeper.link import KeeperAway, KeeperLink
from clew.keeper.protocol import KeyDelta, KeySnapshot, Known
from clew.keeper.reach import Reach
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.store.changes import KEPT_NS, ChangeLog, newest, prune_changes, read_news
from clew.store.reads_engine import open_for_reading
from clew.store.schema import changes
from clew.store.writer import StoreWriter

DIALECTS = ("postgresql",)
"""SQLite is written by one keeper alone."""
SECOND = Alias("second", "other-id", "second")


class Host:
    """A keeper with its own journals and one gateway, on a store that others use."""

    def __init__(self, data: Path, name: str) -> None:
        self.house = House(data)
        self.house.directory = data / f"journal-{name}"
        self.house.directory.mkdir()
        self.name = name
        self._data = data
        self.news: list[Known] = []
        self.keys: list[KeySnapshot | KeyDelta] = []

    async def start(self) -> None:
        """Follow the journals; the feed is polled by hand."""
        path = str(self._data / f"{self.name}.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        log = ChangeLog(self.name)
        self.reading = open_for_reading(url_in(self._data), self._data, 0.5)
        self.server = KeeperServer(self.reading, SECRET, log=log)
        projector = self.house.projector(
            StoreWriter(self.house.engine, log), prefix=f"{self.name}/"
        )
        ballast = Ballast(self._data / "ballast", 4096)
        self.running = Running(projector, self._load, self.server.tell, ballast)
        self.reach = Reach(self.server, self.running, self.house.engine, SECRET, log=log)
        self.server.write_by(self.reach.write)
        self.feed = Feed(self.reading, self.reach)
        self.running.start()
        await self.server.start(listener, self.running)
        self.link = KeeperLink(path, "gateway0", self.news.append, on_keys=self.keys.append)
        self.link.start()
        assert await self.link.wait_caught_up(5)
        self.news.clear()

    def _load(self, keys: set[str]) -> list[Known]:
        with self.house.engine.begin() as connection:
            return list(load_known(connection, keys))

    async def do(self, name: str, **arguments: object) -> dict[str, str]:
        """A command."""
        return await COMMANDS[name](self.reach, arguments)

    async def stop(self) -> None:
        """Everything ends."""
        await self.link.close()
        await self.feed.close()
        await self.running.finish()
        await self.server.close()
        self.reading.dispose()
        self.house.engine.dispose()

    @property
    def journal(self) -> Journal:
        """The one journal of this host."""
        return self.house._journals[0] if self.house._journals else self.house.journal()


def hosts(data: Path, work: Callable[[Host, Host], Awaitable[None]]) -> None:
    """Run ``work`` beside two keepers."""

    async def run() -> None:
        pair = Host(data, "a"), Host(data, "b")
        for host in pair:
            await host.start()
        try:
            await work(*pair)
        finally:
            for host in pair:
                await host.stop()

    asyncio.run(run())


def test_a_session_opened_there_is_told_here(tmp_path: Path) -> None:
    """With its aliases, as if it had been opened here; its own host hears of it once only."""

    async def work(here: Host, there: Host) -> None:
        claim = Claim(session=alias("s1"), others=(SECOND,))
        there.journal.append(dispatched(1, claim=claim), settled(1))
        await there.link.barrier()
        assert not await here.feed.poll()
        await until(lambda: bool(here.news))
        told = len(there.news)
        await there.feed.poll()
        await there.link.barrier()

        assert here.news[0].key == key_of("s1")
        assert here.news[0].aliases == (("opencode", "s1"), ("second", "other-id"))
        assert len(there.news) == told
        answer = await here.link.ask(LOCAL, Claim(session=SECOND), START_NS)
        assert (answer.resolution, answer.known) == ("exact", here.news[0])

    hosts(tmp_path, work)


def test_what_was_taken_in_is_not_told_on(tmp_path: Path) -> None:
    """Two keepers do not send the same change to and fro."""

    async def work(here: Host, there: Host) -> None:
        there.journal.append(dispatched(1), settled(1))
        await there.link.barrier()
        for host in (here, there, here, there):
            await host.feed.poll()
            await host.link.barrier()

        assert here.house.one("SELECT count(*) FROM changes WHERE kind = 'session'") == 1

    hosts(tmp_path, work)


def test_a_close_there_is_a_close_here(tmp_path: Path) -> None:
    """A verb's change replaces what was answered here and is not projected yet."""

    async def work(here: Host, there: Host) -> None:
        there.journal.append(dispatched(1), settled(1))
        await there.link.barrier()
        await here.feed.poll()
        await here.link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        await there.do("session.close", session=key_of("s1"))
        await here.feed.poll()
        await until(lambda: any(known.is_closed for known in here.news))

        answer = await here.link.ask(LOCAL, Claim(session=alias("s1")), START_NS)
        assert answer.known is not None
        assert answer.known.is_closed

    hosts(tmp_path, work)


def test_a_forgotten_name_is_taken_from_gateways_here(tmp_path: Path) -> None:
    """They hear which ids name nothing any more."""

    async def work(here: Host, there: Host) -> None:
        there.journal.append(dispatched(1), settled(1))
        await there.link.barrier()
        await there.do("session.forget", session=key_of("s1"))
        await here.feed.poll()
        await until(lambda: any(known.gone for known in here.news))

        gone = next(known for known in here.news if known.gone)
        assert (gone.key, gone.gone) == (key_of("s1"), (("opencode", "s1"),))

    hosts(tmp_path, work)


def test_keys_made_and_revoked_there_are_told_here(tmp_path: Path) -> None:
    """In their order."""

    async def work(here: Host, there: Host) -> None:
        made = await there.do("keys.create", principal="ann")
        await here.feed.poll()
        await there.do("keys.revoke", id=made["id"])
        await here.feed.poll()
        await until(lambda: len([one for one in here.keys if isinstance(one, KeyDelta)]) == 2)

        told = [one.keys[0] for one in here.keys if isinstance(one, KeyDelta)]
        assert [key.id for key in told] == [made["id"], made["id"]]
        assert [key.revoked_at_ns is None for key in told] == [True, False]

    hosts(tmp_path, work)


def test_both_keepers_project_the_same_session(tmp_path: Path) -> None:
    """Each its own journals, whose names may be equal; every attempt counts once."""

    async def work(here: Host, there: Host) -> None:
        for first, host in ((1, here), (100, there)):
            for number in range(first, first + 20):
                host.journal.append(dispatched(number), settled(number))
        await asyncio.gather(here.link.barrier(), there.link.barrier())

        assert here.house.rows("SELECT id, requests FROM sessions") == [(key_of("s1"), 40)]
        assert here.house.one("SELECT count(*) FROM attempts") == 40
        journals = here.house.rows("SELECT journal FROM journal_positions ORDER BY 1")
        assert journals == [("a/gateway0-1",), ("b/gateway0-1",)]
        places = [row[0] for row in here.house.rows("SELECT landed FROM attempts ORDER BY 1")]
        assert places == list(range(1, 41))

    hosts(tmp_path, work)


def test_who_missed_rows_starts_over(tmp_path: Path) -> None:
    """Rows that were removed unread: every gateway gets its snapshot anew."""

    async def work(here: Host, there: Host) -> None:
        for number in range(3):
            there.journal.append(dispatched(number, f"s{number}"))
            await there.link.barrier()
        with there.house.engine.begin() as connection:
            prune_changes(connection, 2**62)
        assert await here.feed.poll()
        await until(lambda: len({known.session_id for known in here.news}) == 3)

        assert not await here.feed.poll()

    hosts(tmp_path, work)


def test_old_rows_are_removed_and_the_last_of_them_stays(tmp_path: Path) -> None:
    """By it a reader sees whether it has missed any."""

    async def work(here: Host, there: Host) -> None:
        there.journal.append(dispatched(1), dispatched(2, "s2"))
        await there.link.barrier()
        with there.house.engine.begin() as connection:
            connection.execute(sa.update(changes).values(at_ns=0))
            last = newest(connection)
        await here.reach.write(lambda link: prune_changes(link, KEPT_NS))

        assert there.house.rows("SELECT id FROM changes") == [(last,)]
        with there.house.engine.begin() as connection:
            assert read_news(connection, last, "a").is_gapless
            assert not read_news(connection, last - 1, "a").is_gapless

    hosts(tmp_path, work)


def test_what_is_rolled_back_is_not_told(tmp_path: Path) -> None:
    """A command that fails in its transaction leaves no row."""

    async def work(here: Host, _there: Host) -> None:
        def fail(connection: sa.Connection) -> None:
            here.reach.log.note_keys(connection, ["gk_1"])
            raise ClewError("bad_request")

        with pytest.raises(ClewError):
            await here.reach.write(fail)
        assert here.house.rows("SELECT kind FROM changes") == [("begin",)]

    hosts(tmp_path, work)


def test_one_installation_alone_writes_no_rows(tmp_path: Path) -> None:
    """Nobody would read them."""
    house = House(tmp_path)
    house.journal().append(dispatched(1), settled(1))
    house.projector().run_pass()

    assert house.rows("SELECT kind FROM changes") == [("begin",)]


def test_a_store_that_fails_refuses_questions_at_once_and_comes_back(tmp_path: Path) -> None:
    """The gateway does without the keeper meanwhile; nothing is restarted."""

    async def work(here: Host, _there: Host) -> None:
        with here.house.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE aliases RENAME TO hidden")
            connection.exec_driver_sql("ALTER TABLE landing RENAME TO landed_hidden")
        claim = Claim(session=alias("s1"))
        loop = asyncio.get_running_loop()
        for _ in range(3):
            began_s = loop.time()
            with pytest.raises(KeeperAway):
                await here.link.ask(LOCAL, claim, START_NS)
            assert loop.time() - began_s < 0.9
        with here.house.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hidden RENAME TO aliases")
            connection.exec_driver_sql("ALTER TABLE landed_hidden RENAME TO landing")

        async with asyncio.timeout(5):
            while True:
                try:
                    answer = await here.link.ask(LOCAL, claim, START_NS)
                except KeeperAway:
                    await asyncio.sleep(0.01)
                    continue
                break
        assert answer.resolution == "new"

    hosts(tmp_path, work)
